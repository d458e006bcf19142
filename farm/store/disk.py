"""Free space of a store's disk, and what the system's errors about files mean to people."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

from farm.core.errors import StoreError
from farm.paths import unwritable

#: Left free on the file system beyond what is written.
MARGIN_BYTES = 4 << 20

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Return what is free on the file system that holds, or would hold, a path."""
    stat = os.statvfs(_existing(path))
    return stat.f_bavail * stat.f_frsize


def no_space(folder: Path, needed: int | None) -> StoreError:
    """Say that a store's disk is too full for `needed` bytes; None: for whatever was written."""
    free = free_bytes(folder)
    need = "" if needed is None else f", {needed + MARGIN_BYTES} needed"
    return StoreError(
        f"no space for the content store in {folder}: {free} bytes free{need}; free some space"
        " or set FARM_HOME to a larger disk",
        folder=str(folder),
        free_bytes=free,
        needed_bytes=needed,
    )


def refuse(error: OSError, path: Path, needed: int | None) -> NoReturn:
    """Turn a system error about a store's file into ours.

    Raises:
        StoreError: Always; one about a full disk says what is free and needed.
    """
    if error.errno in _FULL:
        raise no_space(path, needed) from error
    place = error.filename or path
    why = unwritable(Path(place))
    raise StoreError(f"can't use {place}: {error.strerror}{why and f'; {why}'}") from error
