"""The lock of a run folder: one controller at a time, named with process and host."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from farm.core.errors import StoreError

LOCK = "lock"


class RunLock:
    """Holds a run folder until `release`, or until this process ends.

    Raises:
        StoreError: Another process holds it; names process and host.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"can't lock the run folder {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise StoreError(
                f"run {folder.name} is in the hands of {owner(folder)}: wait for it, or end it"
                " with Ctrl-C there"
            ) from None
        except OSError as error:  # a file system of a network or a virtual machine
            os.close(self._handle)
            raise StoreError(
                f"can't lock the run folder {folder}: {error.strerror}: its file system has no"
                " locks; give a local folder with --out"
            ) from error
        os.ftruncate(self._handle, 0)
        content = {"pid": os.getpid(), "host": socket.gethostname()}
        os.pwrite(self._handle, json.dumps(content).encode(), 0)

    def release(self) -> None:
        """Let others have the folder; may be repeated."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def is_locked(folder: Path) -> bool:
    """Whether a living process works on a run."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def owner(folder: Path) -> str:
    """Name the process that holds a run, or held it last."""
    try:
        content = json.loads((folder / LOCK).read_text("utf-8"))
        return f"process {content['pid']} on {content['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
