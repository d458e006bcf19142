"""Both ends of a copy in farm's words: files of this host, and a device's refusals."""

from __future__ import annotations

import os
import stat as stat_bits
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from farm.core.command import Completed, FileStat
from farm.core.errors import ConfigError, StorageFull, StoreError, TransferError


@contextmanager
def reading(local: Path, offset: int) -> Iterator[BinaryIO]:
    """Open a file of this host at an offset.

    Raises:
        StoreError: It can't be opened or read, or is shorter than the offset.
    """
    try:
        with local.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if offset > size:
                raise StoreError(f"{local} has {size} bytes, less than the offset {offset}")
            file.seek(offset)
            yield file
    except OSError as error:
        raise StoreError(f"can't read {local}: {error.strerror or error}") from error


class LocalSink:
    """A file of this host that a pull writes to; holds the bound on its size.

    Args:
        local: The file; overwritten.
        remote: Where the bytes come from; used in messages.
        max_bytes: More than this is refused.
        device: Name of the device, for errors.
    """

    def __init__(self, local: Path, remote: str, *, max_bytes: int, device: str) -> None:
        self._local = local
        self._remote = remote
        self._max_bytes = max_bytes
        self._device = device
        self._size = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> LocalSink:
        try:
            self._file = self._local.open("wb")
        except OSError as error:
            raise self._host_error(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                raise self._host_error(error) from error

    def check_size(self, size: int) -> None:
        """Refuse a file that is known to be too large before its bytes are read.

        Raises:
            TransferError: It is larger than the bound.
        """
        if size > self._max_bytes:
            raise TransferError(
                f"{self._remote} on {self._device} is larger than {self._max_bytes} bytes",
                device=self._device,
            )

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            TransferError: The file is larger than the bound.
            StoreError: This host can't write it.
        """
        self._size += len(piece)
        self.check_size(self._size)
        if self._file is None:
            raise StoreError(f"{self._local} isn't open")
        try:
            self._file.write(piece)
        except OSError as error:
            raise self._host_error(error) from error

    def _host_error(self, error: OSError) -> StoreError:
        return StoreError(f"can't write {self._local}: {error.strerror or error}")


def require_regular(found: tuple[FileStat, int] | None, remote: str, device: str) -> FileStat:
    """Refuse to pull what isn't a regular file: a pipe or a device would have no end.

    Args:
        found: Values and full mode of `remote`; None when there is nothing.
        remote: The path, for messages.
        device: Name of the device, for errors.

    Raises:
        TransferError: There is no such file, or it is something else.
    """
    if found is None:
        raise TransferError(f"{device}: {remote}: No such file or directory", device=device)
    if not stat_bits.S_ISREG(found[1]):
        raise TransferError(f"{device}: {remote} isn't a regular file", device=device)
    return found[0]


def check_offset(found: FileStat | None, offset: int, remote: str, device: str) -> None:
    """Refuse to go on with a push elsewhere than at the end of what is there.

    Raises:
        TransferError: The file is missing or has another size.
    """
    if found is None or found.size_bytes != offset:
        size = "is missing" if found is None else f"has {found.size_bytes} bytes"
        raise TransferError(
            f"{device}: {remote} {size}, so a push can't go on at {offset}", device=device
        )


def require_written(done: Completed, remote: str, device: str) -> None:
    """Refuse what the device's shell couldn't write.

    Raises:
        StorageFull: No space left on the device.
        TransferError: Any other reason, in its words.
    """
    if not done.ok:
        reason = done.error_text or f"exit {done.exit_code}"
        raise storage_error(f"{remote}: {reason}", device)


def storage_error(text: str, device: str) -> TransferError | StorageFull:
    """Tell a full disk, which only the device's wording shows, from any other refusal."""
    full = any(mark in text for mark in ("No space left", "Disk quota exceeded", "ENOSPC"))
    return (StorageFull if full else TransferError)(f"{device}: {text}", device=device)


def home_path(path: str) -> Path | None:
    """A path below the user's home folder; None where that one is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return None


def named_path(path: str, device: str, key: str) -> Path:
    """A path that a person wrote, `~` written out.

    Raises:
        ConfigError: It begins with `~` and the home folder is unknown.
    """
    found = home_path(path)
    if found is None:
        raise ConfigError(
            f"{device}: `{key}` is {path}, and this account has no home folder: set HOME, or write"
            " the whole path",
            key=key,
        )
    return found
