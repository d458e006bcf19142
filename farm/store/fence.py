"""Who uses a content store now, and what was used when: what a collector may not touch.

Each use is a locked file under `users/`, whose modification time is the beginning. Whatever is
touched later than the beginning of the oldest living use is fenced: a collector leaves it alone.
The last use of a file is its access time, set explicitly; reading it may only make it later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoreUser:
    """A living use of a store."""

    pid: int
    #: What for, for people.
    purpose: str
    #: Unix time of its beginning, seconds.
    since_s: float


class Fence:
    """The fence of one store; safe for several processes and threads at once.

    Args:
        root: Folder of the store; files appear in it with the first use.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def held(self, *, alone: bool = False) -> Iterator[None]:
        """Hold the store's gate: shared for the moment of a use, alone for a collection.

        Raises:
            OSError: The store can't be written.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._root / "gate", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def in_use(self, purpose: str) -> Iterator[None]:
        """Fence everything that is touched while the block runs; a dead process fences nothing.

        Raises:
            OSError: The store can't be written.
        """
        with self.held():
            folder = self._root / "users"
            folder.mkdir(exist_ok=True)
            handle, name = tempfile.mkstemp(dir=folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                os.write(handle, json.dumps({"pid": os.getpid(), "purpose": purpose}).encode())
            except OSError:
                _remove(name, handle)
                raise
        try:
            yield
        finally:
            _remove(name, handle)

    def touch(self, path: Path) -> bool:
        """Note that a file is used now; False when there is none (any more).

        Raises:
            OSError: The store can't be used.
        """
        if not path.exists():
            return False
        try:
            with self.held():
                os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except FileNotFoundError:
            return False
        except OSError as error:
            # Another user's store, or a read-only one: we can't collect there either.
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            return path.exists()
        return True

    def users(self) -> list[StoreUser]:
        """Return the living uses, oldest first; what dead ones left is removed.

        Only meaningful while the gate is held: a use that begins isn't locked at once.
        """
        found = []
        for path in (self._root / "users").glob("*"):
            with contextlib.suppress(FileNotFoundError), path.open("r+") as file:
                if lock_is_free(file.fileno()):
                    path.unlink(missing_ok=True)
                    continue
                content = json.loads(file.read())
                since = path.stat().st_mtime
                found.append(StoreUser(content["pid"], content["purpose"], since))
        return sorted(found, key=lambda user: user.since_s)


def _remove(name: str, handle: int) -> None:
    Path(name).unlink(missing_ok=True)
    os.close(handle)


def lock_is_free(handle: int) -> bool:
    """Take the lock of an open file if it is free, until the file is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def last_used_s(path: Path) -> float:
    """Unix time of the last use of a file, seconds.

    Raises:
        FileNotFoundError: It is gone.
    """
    return path.stat().st_atime


def open_aside(path: Path) -> BufferedReader:
    """Open a file for reading in a way that is no use of it.

    Raises:
        OSError: It can't be opened.
    """
    # Only owners may ask for O_NOATIME; systems without it lose a little precision.
    unnoticed = getattr(os, "O_NOATIME", 0)
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | unnoticed), "rb")
    except PermissionError:
        return path.open("rb")
