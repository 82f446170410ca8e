"""Weights and training state, to and from files.

It stands apart so that one set of promises holds for each of these files, whoever asks for it:

- A file appears whole or not at all (`files.write_whole`).
- A file is read whole or refused: lengths, checksums and the format's version are checked before a number is used.
- Nothing that is read can run code: weights are safetensors, state is read with ``weights_only=True``.

Weights and state are two files because they live differently: weights are kept, copied and shown to people, state
lives as long as a training. torch is imported inside the calls that need it: `read_metadata` and `verify` do not.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vszhdrv import files
from vszhdrv.errors import Refused

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Version of both files' layout; a file of another version is refused, not guessed at."""

_FORMAT_ENTRY = "vszhdrv_format"
_DIGEST_ENTRY = "data_blake2b"
_LENGTH_BYTES = 8  # a safetensors file: header length (little endian), header (JSON), then the tensors' bytes
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save's zip archive, and a bare pickle

_NO_STATE = (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError)
"""What zipfile and torch.load say of bytes that are no training state."""


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a network's tensors as a safetensors file whose header says `metadata`, atomically.

    The header also gets the format's version and a checksum of the tensors' bytes. Tensors may lie on any device and
    in any memory layout; they are stored contiguous.

    Raises OSError, in one sentence that names the folder, when the system refuses (full disk, read-only folder); the
    destination is then as it was.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = _data(save(plain))  # the header's content does not move a byte of the data: saved once to be digested
    ours = {_FORMAT_ENTRY: str(FORMAT), _DIGEST_ENTRY: _digest(data)}
    files.write_whole(path, save(plain, metadata={**metadata, **ours}))


def read_metadata(path: Path) -> dict[str, str]:
    """What the header of a weights file says, of any version of the format, without loading torch.

    Checks that the file is as long as its header promises; `verify` checks the tensors' bytes as well.

    Raises Refused for a file that is cut short, damaged, or not written by `write_weights`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(len(_PICKLE_STARTS[0]))
        if start.startswith(_PICKLE_STARTS):
            raise Refused(
                f"{path} is a pickle (.pt, .pth), which could run code when read: "
                "only safetensors weights written by vszhdrv are accepted"
            ) from error
        raise Refused(f"{path} is not a whole safetensors file: {error}") from error
    if _FORMAT_ENTRY not in metadata:
        raise Refused(f"{path} holds somebody else's tensors: only weights written by vszhdrv are accepted")
    return metadata


def verify(path: Path) -> dict[str, str]:
    """`read_metadata` of a file that `read_weights` would accept: this version's, and not a bit changed.

    Costs a pass over the file (14 MB: about 20 ms) and no torch. Raises Refused otherwise.
    """
    metadata = read_metadata(path)
    _check(path, metadata, path.read_bytes())
    return metadata


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the header's metadata of a weights file.

    Raises Refused for a file that is cut short, damaged, of another version, or not written by `write_weights`.
    Whether the tensors fit a network is the network's question.
    """
    metadata = read_metadata(path)
    content = path.read_bytes()
    _check(path, metadata, content)
    return tensors(content), metadata


def tensors(content: bytes) -> dict[str, Tensor]:
    """The tensors, on the CPU, of a weights file's content that `verify` accepts."""
    from safetensors.torch import load

    return load(content)


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state (nested dicts, lists, tensors, plain values), atomically.

    Raises OSError as `write_weights` does.
    """
    import torch

    buffer = io.BytesIO()  # torch's own file writer turns a full disk into a RuntimeError
    torch.save({"format": FORMAT, "state": dict(state)}, buffer)
    files.write_whole(path, buffer.getbuffer())


def read_state(path: Path) -> dict[str, Any]:
    """The state that `write_state` wrote, its tensors on the CPU.

    Raises Refused for a file that is damaged, of another version, or not such a state.
    """
    import torch

    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            damaged = archive.testzip()  # torch.load does not look at the archive's checksums
        if damaged is not None:
            raise Refused(f"checksum of {damaged}")
        content.seek(0)
        stored = torch.load(content, map_location="cpu", weights_only=True)
        version: int = stored["format"]
        state: dict[str, Any] = stored["state"]
    except _NO_STATE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]  # torch adds paragraphs of advice
        raise Refused(f"{path} is not a whole training state: {reason}") from error
    if version != FORMAT:
        raise Refused(f"{path} is a training state of format {version}, this version of vszhdrv reads {FORMAT}")
    return state


def _data(content: bytes) -> memoryview:
    """The part of a safetensors file after its header."""
    header = int.from_bytes(content[:_LENGTH_BYTES], "little")
    return memoryview(content)[_LENGTH_BYTES + header :]


def _digest(data: memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _check(path: Path, metadata: Mapping[str, str], content: bytes) -> None:
    version = metadata[_FORMAT_ENTRY]
    if version != str(FORMAT):
        raise Refused(f"{path} holds weights of format {version}, this version of vszhdrv reads format {FORMAT}")
    if metadata.get(_DIGEST_ENTRY) != _digest(_data(content)):
        raise Refused(f"{path} is damaged: its weights do not match their checksum")
