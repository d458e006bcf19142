"""Action cache: remembered results by key, and one worker per key at a time.

A result is a core value in JSON. It counts only while every object it names is in the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from farm import codec
from farm.core.artifact import ObjectRef
from farm.core.errors import StoreError
from farm.store.fence import open_aside
from farm.store.objects import ContentStore

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a waiting process looks whether the key is free, seconds.
LOCK_POLL_S = 0.05
#: Most bytes of progress that the holder of a key writes: one write, so that readers see all.
NOTE_BYTES = 160


class ActionCache:
    """Results beside a content store, shared by all processes of a host."""

    def __init__(self, store: ContentStore) -> None:
        self.store = store

    def lookup(self, key: str, kind: type[T]) -> T | None:
        """Return the remembered value, or None when there is none that is still complete.

        Raises:
            StoreError: The store can't be read.
        """
        path = self.path(key)
        try:
            if not self.store.fence.touch(path):
                return None
        except OSError as error:
            raise StoreError(f"can't use {path}: {error.strerror}") from error
        value = self.read(key, kind)
        for ref in object_refs(value):
            if not (self.store.has(ref.sha256, ref.size_bytes) and self.store.verify(ref.sha256)):
                return None
        return value

    def path(self, key: str) -> Path:
        """Return where the value of a key lies or would lie."""
        return self.store.root / "actions" / f"{_checked(key)}.json"

    def known(self) -> list[str]:
        """Return the keys of every remembered value, readable or not."""
        return sorted(path.stem for path in (self.store.root / "actions").glob("*.json"))

    def read(self, key: str, kind: type[T]) -> T | None:
        """Return the remembered value, complete or not, without counting that as a use.

        None when there is none that this version can read.

        Raises:
            StoreError: The store can't be read.
        """
        path = self.path(key)
        try:
            with open_aside(path) as file:
                return codec.from_json(kind, file.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"can't read {path}: {error.strerror}") from error
        except pydantic.ValidationError as error:
            log.info("ignored %s: of another version or damaged (%s)", path, error.title)
            return None

    def forget(self, key: str) -> None:
        """Remove a remembered value; its objects stay."""
        self.path(key).unlink(missing_ok=True)

    def drop_locks(self) -> None:
        """Remove every lock file; only while the fence is held alone and no use is alive."""
        for path in (self.store.root / "locks").glob("*"):
            path.unlink(missing_ok=True)

    def record(self, key: str, value: Any) -> None:
        """Remember a value.

        Raises:
            StoreError: An object it names isn't in the store, or the disk is full.
        """
        for ref in object_refs(value):
            if not self.store.has(ref.sha256, ref.size_bytes):
                raise StoreError(
                    f"{ref.name} ({ref.sha256[:12]}) has to be in the content store before a"
                    " result can name it",
                    sha256=ref.sha256,
                )
        self.store.write_atomic(self.path(key), codec.to_json(value).encode())

    def cached(
        self,
        key: str,
        kind: type[T],
        work: Callable[[], T],
        on_wait: Callable[[float], None] | None = None,
    ) -> tuple[T, bool]:
        """Return the remembered value, or do the work once and remember it.

        Of two processes that want one key, one works and the other waits for it.

        Args:
            key: Hash of everything the result depends on.
            kind: Type of the value.
            work: Makes the value; its objects are in the store when it returns.
            on_wait: Called about every second of waiting for another process with the
                seconds waited; an exception from it ends the wait.

        Returns:
            The value, and whether it came from the cache.

        Raises:
            StoreError: The store can't be read or written.
        """
        value = self.lookup(key, kind)
        if value is not None:
            return value, True
        with self.lock(key, on_wait):
            value = self.lookup(key, kind)
            if value is not None:
                return value, True
            made = work()
            self.record(key, made)
            return made, False

    @contextlib.contextmanager
    def lock(self, key: str, on_wait: Callable[[float], None] | None = None) -> Iterator[None]:
        """Hold a key; the kernel releases it when the process dies.

        Raises:
            StoreError: The lock file can't be made.
        """
        path = self._lock_path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"can't use {path}: {error.strerror}") from error
        try:
            _acquire(handle, on_wait)
            yield
        finally:
            os.close(handle)

    def write_progress(self, key: str, text: str) -> None:
        """Show processes that wait for a key of ours how far its work is."""
        line = text.encode("utf-8", "replace")[:NOTE_BYTES].ljust(NOTE_BYTES)
        # Only for people to read: a full disk is for the work itself to find.
        with contextlib.suppress(OSError), self._lock_path(key).open("r+b", buffering=0) as file:
            file.write(line)

    def read_progress(self, key: str) -> str:
        """Return what the holder of a key wrote last; empty when it wrote nothing."""
        with contextlib.suppress(OSError):
            return self._lock_path(key).read_bytes().decode("utf-8", "ignore").strip()
        return ""

    def _lock_path(self, key: str) -> Path:
        return self.store.root / "locks" / _checked(key)


def runner_key(sha256: str) -> str:
    """Key of a runner's build: how a baseline's runner is found again by the hash in a report."""
    return f"runner-{sha256}"


def _acquire(handle: int, on_wait: Callable[[float], None] | None) -> None:
    started = time.monotonic()
    reported_s = -1.0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - started
            if on_wait is not None and waited - reported_s >= 1.0:
                reported_s = waited
                on_wait(waited)
            time.sleep(LOCK_POLL_S)
        else:
            return


def _checked(key: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}", key):
        raise StoreError(f"not usable as a key of the action cache: {key[:80]!r}")
    return key


def object_refs(value: Any) -> Iterator[ObjectRef]:
    """Yield every object that a core value names, wherever it is nested."""
    if isinstance(value, ObjectRef):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            yield from object_refs(getattr(value, item.name))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from object_refs(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from object_refs(item)
