"""Weights and training state, to and from files.

It stands apart so that one set of promises holds for each of these files, whoever asks for it:

- A file appears whole or not at all (`files.write_whole`).
- A file is read whole or refused: lengths, checksums and the format's version are checked before a number is used.
- Nothing that is read can run code: weights are safetensors, state is read with ``weights_only=True``.

Weights and state are two files because they live differently: weights are kept, copied and shown to people, state
lives as long as a training. torch is imported inside the calls that need it: `read` and `read_metadata` do not.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vszhdrv import files
from vszhdrv.files import Damaged

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

FORMAT = 2
"""Version of the weights' layout. In format 1, which is read as well, the checksum is of the tensors' bytes alone."""
STATE_FORMAT = 1
"""Version of the state's layout. A file of a version that is not read is refused, not guessed at."""

MOST_BYTES = 2**28
"""No file of ours is larger: the largest network's weights have 14 MB, its training state has 60 MB."""
MOST_HEADER_BYTES = 2**24

_FORMAT_ENTRY = "vszhdrv_format"
_DATA_DIGEST = "data_blake2b"
_FILE_DIGEST = "file_blake2b"
_NO_DIGEST = "0" * 32
"""Stands in the file's place for its digest while that is taken."""
_LENGTH_BYTES = 8  # a safetensors file: header length (little endian), header (JSON), then the tensors' bytes
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save's zip archive, and a bare pickle


@dataclass(frozen=True)
class WeightFile:
    """A weights file that was read whole. What becomes of it on the disk afterwards does not matter."""

    path: Path
    metadata: Mapping[str, str]
    content: bytes = field(repr=False)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, on the CPU. Whether they fit a network is the network's question."""
        from safetensors.torch import load

        return load(self.content)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The same as NumPy's arrays, without torch."""
        from safetensors.numpy import load

        return load(self.content)


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> WeightFile:
    """Write a network's tensors as a safetensors file whose header says `metadata`, atomically.

    The header also gets the format's version and a checksum of the file. Tensors may lie on any device and in any
    memory layout; they are stored contiguous. Returns what `read` would.

    Raises OSError, in one sentence that names the folder, when the system refuses (full disk, read-only folder); the
    destination is then as it was.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {name: text for name, text in metadata.items() if name != _DATA_DIGEST}  # of the file it comes from
    undigested = {**described, _FORMAT_ENTRY: str(FORMAT), _FILE_DIGEST: _NO_DIGEST}
    blank = save(plain, metadata=undigested)
    digest = _digest(blank)
    content = blank.replace(_entry(_NO_DIGEST), _entry(digest), 1)
    files.write_whole(path, content)
    return WeightFile(path, {**undigested, _FILE_DIGEST: digest}, content)


def read_metadata(path: Path) -> dict[str, str]:
    """What the header of a weights file says, of any version of the format.

    Checks that the file is as long as its header promises; `read` checks every bit.

    Raises Damaged for a file that is cut short, damaged, or not written by `write_weights`, OSError where the system
    refuses it.
    """
    with files.opened(path) as file:
        start = file.read(_LENGTH_BYTES)
        start += file.read(min(_header_length(start), MOST_HEADER_BYTES))
        return _metadata(path, start, file.seek(0, io.SEEK_END))


def read(path: Path) -> WeightFile:
    """The content of a weights file: of a version that is read, and not a bit changed.

    Costs a pass over the file (14 MB: about 20 ms) and no torch. Raises as `read_metadata` does.
    """
    from safetensors import deserialize

    content = files.read_whole(path, MOST_BYTES)
    metadata = _metadata(path, content, len(content))
    version = metadata[_FORMAT_ENTRY]
    if version == "1":
        stored, found = metadata.get(_DATA_DIGEST), _digest(content[_LENGTH_BYTES + _header_length(content) :])
    elif version == str(FORMAT):
        stored = metadata.get(_FILE_DIGEST, "")
        found = _digest(content.replace(_entry(stored), _entry(_NO_DIGEST), 1))
    else:
        raise Damaged(f"{path} holds weights of format {version}, this version of vszhdrv reads formats 1 to {FORMAT}")
    if stored != found:
        raise Damaged(f"{path} is damaged: it does not match its checksum")
    with files.parsing(f"{path} is not a whole safetensors file"):
        deserialize(content)  # type: ignore[no-untyped-call]
    return WeightFile(path, metadata, content)


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state (nested dicts, lists, tensors, plain values), atomically.

    Raises OSError as `write_weights` does.
    """
    import torch

    buffer = io.BytesIO()  # torch's own file writer turns a full disk into a RuntimeError
    torch.save({"format": STATE_FORMAT, "state": dict(state)}, buffer)
    files.write_whole(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """The state that `write_state` wrote, its tensors on the CPU.

    Raises Damaged for a file that is damaged, of another version, or not such a state, OSError where the system
    refuses it.
    """
    import torch

    content = io.BytesIO(files.read_whole(path, MOST_BYTES))
    with files.parsing(f"{path} is not a whole training state"):
        with zipfile.ZipFile(content) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is packed, and may be of any size unpacked")
            if damaged := archive.testzip():  # torch.load does not look at the archive's checksums
                raise ValueError(f"checksum of {damaged}")
        content.seek(0)
        stored = torch.load(content, map_location="cpu", weights_only=True)
        version: int = stored["format"]
        state: dict[str, Any] = dict(stored["state"])
    if version != STATE_FORMAT:
        raise Damaged(f"{path} is a training state of format {version}, this version of vszhdrv reads {STATE_FORMAT}")
    return state


def _header_length(content: bytes) -> int:
    return int.from_bytes(content[:_LENGTH_BYTES], "little")


def _metadata(path: Path, start: bytes, size: int) -> dict[str, str]:
    """The metadata of a safetensors file of `size` bytes that begins with `start`, which has all of the header."""
    length = _header_length(start)
    with _pickles_told(path, start), files.parsing(f"{path} is not a whole safetensors file"):
        if length > MOST_HEADER_BYTES:
            raise ValueError(f"its header has {length} bytes")
        entries = json.loads(start[_LENGTH_BYTES : _LENGTH_BYTES + length])
        metadata: dict[str, str] = entries.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if size != _LENGTH_BYTES + length + end:
            raise ValueError(f"it has {size} bytes, and its header promises {_LENGTH_BYTES + length + end}")
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("its metadata are not text")
    if _FORMAT_ENTRY not in metadata:
        raise Damaged(f"{path} holds somebody else's tensors: only weights written by vszhdrv are accepted")
    return metadata


@contextmanager
def _pickles_told(path: Path, start: bytes) -> Iterator[None]:
    """Say of a file that can't be parsed that it is a pickle, where it begins like one."""
    try:
        yield
    except Damaged as error:
        if not start.startswith(_PICKLE_STARTS):
            raise
        raise Damaged(
            f"{path} is a pickle (.pt, .pth), which could run code when read: "
            "only safetensors weights written by vszhdrv are accepted"
        ) from error


def _entry(digest: str) -> bytes:
    """How the header says the file's digest."""
    return f'"{_FILE_DIGEST}":"{digest}"'.encode()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
