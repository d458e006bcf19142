"""Files of models: their names and hashes, which are remembered between runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from farm.core.artifact import ModelSource
from farm.core.errors import ExportError
from farm.files import write_whole
from models.checkpoint import SourceFile

if TYPE_CHECKING:
    import torch

_BLOCK = 8 * 1024 * 1024


def is_hub_name(source: ModelSource) -> bool:
    """Whether a hub-format source names a repository and not a file or folder of this machine."""
    name = source.path or ""
    local = name.startswith((".", "/", "~")) or Path(name).exists() or Path(name).is_symlink()
    return not local and name.count("/") == 1


def sha256_of(path: Path) -> str:
    """Hash a file.

    Raises:
        ExportError: It can't be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ExportError(f"can't read {path}: {error.strerror}") from error
    return digest.hexdigest()


def source_file(path: Path, cache: Path) -> SourceFile:
    """Describe a file; its hash is taken from `cache` while size, mtime and inode are the same.

    Raises:
        ExportError: The file isn't there or can't be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ExportError(f"can't read {path}: {error.strerror}") from error
    stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    memory = cache / "hashes" / f"{name}.json"
    try:
        remembered = json.loads(memory.read_text())
    except (OSError, ValueError):
        remembered = {}
    if remembered.get("stamp") == stamp:
        return SourceFile(path.name, str(remembered["sha256"]), status.st_size)
    sha256 = sha256_of(path)
    write_atomic(memory, json.dumps({"stamp": stamp, "sha256": sha256}).encode())
    return SourceFile(path.name, sha256, status.st_size)


def refuse_lfs_pointer(start: str | bytes, path: Path) -> None:
    """Refuse a file that begins as the pointers do that Git LFS puts in a large file's place.

    Raises:
        ExportError: It is such a pointer; says how to get the file.
    """
    text = start[:64].encode() if isinstance(start, str) else start[:64]
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        raise ExportError(f"{path}: a pointer of Git LFS, not the file itself; run `git lfs pull`")


def check_finite(tensor: torch.Tensor, name: str, path: Path) -> torch.Tensor:
    """Return a tensor as it is when all its numbers are finite.

    Raises:
        ExportError: One isn't; names file, tensor and index.
    """
    import torch

    if tensor.numel():
        # One pass without a copy; both ends are NaN where any number is.
        least, most = torch.aminmax(tensor)
        if not (torch.isfinite(least) and torch.isfinite(most)):
            bad = ~torch.isfinite(tensor)
            where = bad.nonzero()[0].tolist()
            value = float(tensor[tuple(where)])
            raise ExportError(
                f"{path}: tensor {name} has {int(bad.sum())} numbers that aren't finite, the first"
                f" ({value}) at {where}; the weights are damaged or their training diverged"
            )
    return tensor


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all.

    Raises:
        ExportError: The disk is full or the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise ExportError(f"can't write {path}: {error.strerror}") from error
