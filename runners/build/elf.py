"""What the header of an ELF file holds: its machine, and how its segments are aligned. Pure."""

from __future__ import annotations

import struct
from pathlib import Path

from farm.core.abi import abi_of_elf
from farm.core.errors import RunnerError

#: Android 15 and later load nothing whose segments are aligned to less, bytes.
LARGE_PAGE_BYTES = 16384

_HEADER = 64
_PT_LOAD = 1


def elf_machine(path: Path) -> str:
    """Machine of a 64-bit ELF file, as `uname -m` names it, or `unknown`."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER)
    if len(head) < _HEADER or head[:5] != b"\x7fELF\x02":
        return "unknown"
    found = abi_of_elf(int.from_bytes(head[18:20], "little"))
    return found.machine if found is not None else "unknown"


def load_alignments(path: Path) -> tuple[int, ...]:
    """Alignment of each LOAD segment of a 64-bit little-endian ELF file, bytes.

    Raises:
        RunnerError: It is no such file, or cut.
    """
    content = path.read_bytes()
    try:
        if content[:6] != b"\x7fELF\x02\x01":
            raise RunnerError(f"{path.name} is no 64-bit ELF file")
        (start,) = struct.unpack_from("<Q", content, 32)
        size, count = struct.unpack_from("<HH", content, 54)
        found = []
        for index in range(count):
            at = start + index * size
            (kind,) = struct.unpack_from("<I", content, at)
            if kind == _PT_LOAD:
                found.append(struct.unpack_from("<Q", content, at + 48)[0])
    except struct.error as error:
        raise RunnerError(f"{path.name} is cut: {error}; build or copy it again") from error
    return tuple(found)


def check_alignment(path: Path) -> None:
    """Refuse a file that a device with pages of 16 KiB can't load.

    Raises:
        RunnerError: A segment is aligned to less; names the flag that helps.
    """
    least = min(load_alignments(path), default=LARGE_PAGE_BYTES)
    if least < LARGE_PAGE_BYTES:
        raise RunnerError(
            f"{path.name} has a segment aligned to {least} bytes; devices with pages of 16 KiB"
            " can't load it. Link it with -Wl,-z,max-page-size=16384."
        )
