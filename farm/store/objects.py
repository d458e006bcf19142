"""Content store of a host: files named by their sha256, written whole or not at all.

A process may be killed at any point: what is under `objects/` is complete, what is under
`tmp/` is rubbish unless its writer still holds its lock. It doesn't know what the files mean.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from farm.core.artifact import ObjectRef
from farm.core.errors import StoreError
from farm.store.disk import MARGIN_BYTES, free_bytes, no_space, refuse
from farm.store.fence import Fence, lock_is_free, open_aside

log = logging.getLogger(__name__)

#: Large enough that hashing and the page cache set the pace, small enough to stay in a cache.
CHUNK_BYTES = 1 << 20
#: A temporary file without a lock is younger than this only while it is being created.
ABANDONED_AFTER_S = 60.0


class ContentStore:
    """Objects under one folder; safe for several processes and threads at once.

    Args:
        root: Folder of the store; created on the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fence = Fence(root)
        # Objects hashed in full by this process: sha256 -> (size, mtime, inode) at that time.
        # Written from several threads; a lost entry only costs a second hash.
        self._verified: dict[str, tuple[int, int, int]] = {}

    def location(self, sha256: str) -> Path:
        """Return where an object lies or would lie."""
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise StoreError(f"not a sha256 in lower-case hex: {sha256[:80]!r}", sha256=sha256)
        return self.root / "objects" / sha256[:2] / sha256

    def has(self, sha256: str, size_bytes: int | None = None) -> bool:
        """Tell whether an object is there; one of a wrong size is removed and is not.

        To ask is a use: a collection leaves it to whoever is `in_use`.

        Raises:
            StoreError: The store can't be used.
        """
        path = self.location(sha256)
        try:
            if not self.fence.touch(path):
                return False
            size = path.stat().st_size
        except OSError as error:
            refuse(error, path, None)
        if size_bytes is not None and size != size_bytes:
            self._discard(path, f"has {size} bytes instead of {size_bytes}")
            return False
        return True

    def path(self, ref: ObjectRef | str) -> Path:
        """Return the path of an object that is there and intact.

        The size is checked each time, the content once per process and object.

        Raises:
            StoreError: It is missing, or was damaged (and is now removed).
        """
        sha256 = ref if isinstance(ref, str) else ref.sha256
        name = sha256[:12] if isinstance(ref, str) else f"{ref.name} ({sha256[:12]})"
        path = self.location(sha256)
        if not self.has(sha256, None if isinstance(ref, str) else ref.size_bytes):
            raise StoreError(
                f"{name} is not in the content store {self.root}, or was damaged and is now"
                " removed; run the same command again to make it anew",
                sha256=sha256,
            )
        if not self.verify(sha256):
            raise StoreError(
                f"{name} in the content store {self.root} was damaged (its content doesn't match"
                " its name) and is now removed; run the same command again to make it anew",
                sha256=sha256,
            )
        return path

    def verify(self, sha256: str, *, force: bool = False) -> bool:
        """Hash an object unless this process did already; remove it when it is damaged.

        Returns:
            False when it is missing or was damaged.
        """
        path = self.location(sha256)
        try:
            with path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                if not force and self._verified.get(sha256) == stamp:
                    return True
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return False
        except OSError as error:
            refuse(error, path, None)
        if found != sha256:
            self._discard(path, "content doesn't match its name")
            return False
        self._verified[sha256] = stamp
        return True

    def intact(self, sha256: str) -> bool | None:
        """Hash an object without counting that as a use, and leave it; None when there is none.

        Raises:
            StoreError: It can't be read.
        """
        path = self.location(sha256)
        try:
            with open_aside(path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return None
        except OSError as error:
            refuse(error, path, None)

    @contextlib.contextmanager
    def in_use(self, purpose: str) -> Iterator[None]:
        """Keep a collection from everything that is used while the block runs.

        Args:
            purpose: What for, for people who look at the store.

        Raises:
            StoreError: The disk is full or can't be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.fence.in_use(purpose))
            except OSError as error:
                refuse(error, self.root, None)
            yield

    def put_bytes(self, data: bytes, name: str) -> ObjectRef:
        """Store bytes.

        Raises:
            StoreError: The disk is full or can't be written.
        """
        return self._write(io.BytesIO(data), name, len(data), None, None)

    def put_file(
        self,
        source: Path,
        name: str | None = None,
        *,
        sha256: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> ObjectRef:
        """Copy a file into the store; one that is there already is only looked at.

        Args:
            source: File to copy.
            name: Name for people; default the file's own.
            sha256: What it must be; None accepts any content.
            progress: Called with the bytes done so far.

        Raises:
            StoreError: The source can't be read or differs from `sha256`, the disk is full or
                can't be written.
        """
        try:
            size = source.stat().st_size
            if sha256 is not None and self.has(sha256, size) and self.verify(sha256):
                return ObjectRef(sha256, size, name or source.name)
            file = source.open("rb")
        except OSError as error:
            raise StoreError(f"can't read {source}: {error.strerror}") from error
        with file:
            return self._write(file, name or source.name, size, sha256, progress)

    def adopt(self, source: Path, name: str | None = None) -> ObjectRef:
        """Move a file into the store, without a copy where it lies on the same file system.

        Meant for files written in `scratch`. Nobody may write to the file any more.

        Raises:
            StoreError: As in `put_file`.
        """
        try:
            with source.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
                if source.stat().st_dev != self._folder("objects").stat().st_dev:
                    return self.put_file(source, name, sha256=sha256)
                os.fsync(file.fileno())
        except OSError as error:
            refuse(error, source, None)
        self.publish(source, sha256)
        return ObjectRef(sha256, size, name or source.name)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Provide an empty folder on the store's file system, removed at the end."""
        self._sweep()
        try:
            with self.fence.held():
                folder = Path(tempfile.mkdtemp(dir=self._folder("tmp")))
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            refuse(error, self.root, None)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def listing(self) -> Iterator[ObjectRef]:
        """Yield every object, named by the start of its hash, without hashing it."""
        for path in sorted((self.root / "objects").glob("??/*")):
            with contextlib.suppress(FileNotFoundError):
                yield ObjectRef(path.name, path.stat().st_size, path.name[:12])

    def remove(self, sha256: str) -> None:
        """Remove an object; nothing happens when there is none."""
        self._verified.pop(sha256, None)
        self.location(sha256).unlink(missing_ok=True)

    def write_atomic(self, path: Path, data: bytes) -> None:
        """Write a small file of the store (an action) whole or not at all.

        Raises:
            StoreError: The disk is full or can't be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._temporary() as (temporary, file):
                file.write(data)
                _flush(file)
                temporary.rename(path)
            _sync_folder(path.parent)
        except OSError as error:
            refuse(error, path, len(data))

    def _write(
        self,
        source: BinaryIO,
        name: str,
        size: int,
        expected: str | None,
        progress: Callable[[int], None] | None,
    ) -> ObjectRef:
        self.require_space(size)
        done = 0
        hasher = hashlib.sha256()
        try:
            with self._temporary() as (temporary, file):
                while chunk := source.read(CHUNK_BYTES):
                    hasher.update(chunk)
                    file.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done)
                found = hasher.hexdigest()
                if expected is not None and found != expected:
                    raise StoreError(
                        f"{name} is damaged: sha256 {found[:12]}..., expected {expected[:12]}...",
                        sha256=expected,
                    )
                if not (self.has(found, done) and self.verify(found)):
                    _flush(file)
                    self.publish(temporary, found)
        except OSError as error:
            refuse(error, self.root, size)
        return ObjectRef(found, done, name)

    def publish(self, temporary: Path, sha256: str) -> None:
        """Make an object of a file on the store's file system that was hashed while written."""
        target = self.location(sha256)
        try:
            temporary.chmod(0o444)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(target)
            _sync_folder(target.parent)
            self._verified[sha256] = _stamp(target.stat())
        except OSError as error:
            refuse(error, target, None)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        self._sweep()
        with self.fence.held():
            handle, text = tempfile.mkstemp(dir=self._folder("tmp"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        path = Path(text)
        with os.fdopen(handle, "wb") as file:
            try:
                yield path, file
            finally:
                path.unlink(missing_ok=True)

    def _folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def abandoned(self) -> list[Path]:
        """Return what killed processes left in `tmp`; the fence has to be held alone."""
        return [path for path in self._temporaries() if _unlocked(path)]

    def remove_abandoned(self) -> None:
        """Remove what `abandoned` returns, under the same condition."""
        for path in self._temporaries():
            with contextlib.suppress(FileNotFoundError):
                _remove_unlocked(path)

    def _temporaries(self) -> list[Path]:
        return sorted((self.root / "tmp").glob("*"))

    def _sweep(self) -> None:
        """Remove what killed processes left in `tmp` a while ago."""
        for path in self._temporaries():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.lstat().st_mtime > ABANDONED_AFTER_S:
                    _remove_unlocked(path)

    def _discard(self, path: Path, why: str) -> None:
        log.warning("removed a damaged object of the content store: %s %s", path, why)
        self.remove(path.name)

    def require_space(self, size: int) -> None:
        """Refuse work that would fill the disk, before it begins.

        Raises:
            StoreError: Fewer than `size` bytes and a margin are free; says how many there are.
        """
        free = free_bytes(self.root)
        if free < size + MARGIN_BYTES:
            raise no_space(self.root, size)


def _unlocked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return lock_is_free(handle)
    finally:
        os.close(handle)


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        if not lock_is_free(handle):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
