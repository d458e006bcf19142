"""Files that other processes read too: written whole or not at all, changed by one at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def write_whole(path: Path, data: bytes | str, *, mode: int | None = None) -> None:
    """Replace a file so that readers, and a host that loses power, see the old or the new one.

    Args:
        path: The file; its folder exists.
        data: The content; text is written as UTF-8.
        mode: Permissions; those of the umask where it is None.

    Raises:
        OSError: The disk is full or can't be written; the old file is as it was.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until this process alone holds the lock file `path`, whose folder exists.

    Raises:
        OSError: The file can't be opened.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
