"""What has come of an object that is on its way into a store; whoever comes next goes on with it.

The file is locked by the one process that fetches, so there is one transfer an object and host.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

from farm.core.artifact import ObjectRef
from farm.core.errors import StoreError
from farm.store.disk import refuse
from farm.store.fence import lock_is_free
from farm.store.objects import CHUNK_BYTES, ContentStore

#: What nobody went on with for so long is removed, seconds.
ABANDONED_S = 7 * 86400.0


class Partial:
    """The beginning of one object, held by this process.

    Args:
        store: Where the object will be.
        ref: The object.

    Raises:
        BlockingIOError: Another fetch of this host has it.
        StoreError: The disk can't be used.
    """

    def __init__(self, store: ContentStore, ref: ObjectRef) -> None:
        self._store, self._ref = store, ref
        folder = store.root / "partial"
        # A fetch that is cancelled leaves a thread at work: it must not write to a closed file.
        self._lock = threading.RLock()
        self._open = True
        self.path = folder / store.location(ref.sha256).name
        #: Bytes at the beginning that are there.
        self.done = 0
        self._hash = hashlib.sha256()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            refuse(error, self.path, ref.size_bytes)
        # Whoever had it may have made an object of it, or removed it, since it was opened.
        if not lock_is_free(self._handle) or not _is_still(self.path, self._handle):
            os.close(self._handle)
            raise BlockingIOError("another fetch has it")

    def resume(self, chunk_bytes: int) -> None:
        """Take over what an earlier fetch left, in whole chunks.

        Raises:
            StoreError: It can't be read, or the disk is too full for the rest.
        """
        with self._lock:
            self._resume(chunk_bytes)

    def _resume(self, chunk_bytes: int) -> None:
        self._check()
        try:
            found = min(os.fstat(self._handle).st_size, self._ref.size_bytes)
            found -= found % chunk_bytes
            os.truncate(self._handle, found)
            while self.done < found:
                data = os.pread(self._handle, min(CHUNK_BYTES, found - self.done), self.done)
                self._hash.update(data)
                self.done += len(data)
        except OSError as error:
            refuse(error, self.path, self._ref.size_bytes)
        self._store.require_space(self._ref.size_bytes - self.done)

    def write(self, data: bytes | memoryview) -> None:
        """Add what comes next.

        Raises:
            StoreError: The disk is full; what came is removed, so that it isn't full of rubbish.
        """
        left = memoryview(data).cast("B")
        with self._lock:
            self._check()
            self._hash.update(left)
            self._write(left)

    def _write(self, left: memoryview) -> None:
        try:
            while left:
                count = os.pwrite(self._handle, left, self.done)
                self.done += count
                left = left[count:]
        except OSError as error:
            self.discard()
            refuse(error, self.path, self._ref.size_bytes)

    def finish(self) -> bool:
        """Make an object of it; False, and nothing is left, when its content is another one."""
        with self._lock:
            self._check()
            if self._hash.hexdigest() != self._ref.sha256:
                self.discard()
                return False
            try:
                os.fsync(self._handle)
            except OSError as error:
                refuse(error, self.path, self._ref.size_bytes)
            self._store.publish(self.path, self._ref.sha256)
            return True

    def discard(self) -> None:
        """Begin anew."""
        os.truncate(self._handle, 0)
        self.done, self._hash = 0, hashlib.sha256()

    def read(self, offset: int, length: int) -> bytes | None:
        """Return bytes that are there already; None after `close`."""
        with self._lock:
            return os.pread(self._handle, length, offset) if self._open else None

    def close(self) -> None:
        """Leave it to the next fetch; what is empty is removed."""
        with self._lock:
            self._open = False
            if self.done == 0 and _is_still(self.path, self._handle):
                self.path.unlink(missing_ok=True)
            os.close(self._handle)

    def _check(self) -> None:
        if not self._open:
            raise StoreError(f"{self._ref.name}: its fetch was ended")


def came_bytes(store: ContentStore, ref: ObjectRef) -> int:
    """Return how much of an object another process has fetched so far."""
    try:
        return (store.root / "partial" / ref.sha256).stat().st_size
    except FileNotFoundError:
        return 0


def read_object(store: ContentStore, ref: ObjectRef, offset: int, length: int) -> bytes:
    """Return a piece of an object that is whole; it is verified at its first piece.

    Raises:
        StoreError: It isn't here, or was damaged.
    """
    path = store.path(ref)
    try:
        with path.open("rb") as file:
            data = os.pread(file.fileno(), length, offset)
    except OSError as error:
        refuse(error, path, None)
    if len(data) != length:
        raise StoreError(f"{ref.name}: ends before {offset + length} bytes", sha256=ref.sha256)
    return data


def _is_still(path: Path, handle: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return there.st_ino == os.fstat(handle).st_ino


def _sweep(folder: Path) -> None:
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()
        except FileNotFoundError:
            continue
