"""What a worker's task has at hand: where its files go, where progress goes, what it has used.

It knows nothing of models; torch is imported only where threads are limited.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from farm.core.artifact import LogitsRef, ObjectRef
from farm.core.errors import ConfigError
from models.sources.files import sha256_of

if TYPE_CHECKING:
    import torch


class Report(Protocol):
    """Where progress goes: models.worker.Reporter."""

    def stage(self, name: str, index: int, count: int, detail: str = "") -> None:
        """A stage begins."""

    def progress(self, done: int, total: int) -> None:
        """Bytes of a download."""


class Staging:
    """Files made for the caller's store."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.files: dict[str, str] = {}
        if not self.folder.is_dir():
            raise ConfigError(f"worker: no staging folder {folder}")

    def text(self, name: str, content: str) -> ObjectRef:
        """Write and register a text file."""
        (self.folder / name).write_text(content, encoding="utf-8")
        return self.add(name)

    def add(self, name: str) -> ObjectRef:
        """Register a file that stands in the folder."""
        path = self.folder / name
        sha256 = sha256_of(path)
        self.files[sha256] = name
        return ObjectRef(sha256=sha256, size_bytes=path.stat().st_size, name=name)

    def matrix(self, name: str, values: torch.Tensor) -> LogitsRef:
        """Write and register numbers [rows, columns] the way logits are kept."""
        (self.folder / name).write_bytes(values.numpy().astype("<f4").tobytes())
        return LogitsRef(self.add(name), *values.shape)


def limit_threads(threads: int) -> None:
    """Set how many threads torch uses; 0 leaves its default."""
    if threads > 0:
        import torch

        torch.set_num_threads(threads)


def used() -> tuple[float, int]:
    """CPU seconds and peak RSS in bytes of this process and its children so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return cpu_s, max(own.ru_maxrss, children.ru_maxrss) * 1024
