"""How large the files will be that a job writes, and whether their folder has room for them.

Apart from cli.py because these are estimates with measured figures behind them. They are checked before training, so
that nobody waits an hour for a full disk.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vszhdrv.errors import Failed

if TYPE_CHECKING:
    from vszhdrv.exr import Header

EXR_SHARES = {"zip": 0.6, "zips": 0.65, "piz": 0.6, "dwaa": 0.2, "dwab": 0.2, "htj2k32": 0.5}
"""The part of an EXR file's pixels that is left of half floats: of two expanded clips 0.50 to 0.62 with zip."""
FLOAT_GROWTH = 1.5
"""Of 32-bit floats so many times as large a part is left, all of it at most."""
BITS_A_PIXEL = 0.25
"""libx265 writes about so much at `--crf 12`: of two expanded clips 0.19 and 0.27. Six steps of crf are half of it."""
PLAIN_CRF = 12


def size(count: int) -> str:
    """Bytes in words: 900 B, 1.2 MB, in powers of 1000."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def of_exr(width: int, height: int, header: Header) -> int:
    """About how many bytes an EXR file of that size has."""
    share = EXR_SHARES.get(header.compression, 1.0)
    if header.half:
        return round(6 * width * height * share)
    return round(12 * width * height * min(share * FLOAT_GROWTH, 1.0))


def of_video(width: int, height: int, frames: int, crf: float) -> int:
    """About how many bytes the pictures of a file that plays have."""
    return round(width * height * frames * BITS_A_PIXEL / 8 * 2 ** ((PLAIN_CRF - crf) / 6))


def check(folder: Path, needed: int, what: str) -> None:
    """Raises Failed where `folder`, which need not be there yet, has less than the `needed` bytes free for `what`."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    with suppress(OSError):  # some network file systems do not say
        free = shutil.disk_usage(there).free
        if needed > free:
            raise Failed(
                f"the folder {folder} has {size(free)} free, and {what} need about {size(needed)}: "
                "make room, or choose another folder"
            )


def taken(folder: Path, pattern: str) -> tuple[int, int]:
    """How many files of a folder match `pattern`, and their bytes together."""
    sizes = []
    for path in folder.glob(pattern):
        with suppress(OSError):  # gone meanwhile
            sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)


def counted(folder: Path, pattern: str, what: str) -> str:
    """The files of a folder that match `pattern` in words: 60 EXR files, 12.3 MB."""
    count, total = taken(folder, pattern)
    return f"{count} {what}{'' if count == 1 else 's'}, {size(total)}"
