"""Before an export: what it would be called in the cache. No torch, seconds at most.

The caller looks the key up in its store first; only a miss starts a worker.
"""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass, replace
from functools import cache as cached
from pathlib import Path

from farm import codec
from farm.core.artifact import Bundle, ExportRequest, Recipe, ToolchainVersions
from farm.core.errors import ConfigError
from farm.core.reference import ReferenceRequest
from models.checkpoint import SourceFile
from models.config import ModelConfig
from models.exporting.keys import export_key, lowering_hash, reference_hash
from models.exporting.memory import artifact_bytes
from models.lowering.checks import check_recipe
from models.sources import OnBytes, open_for
from models.sources.files import source_file
from models.sources.gguf_file import WholeGguf
from models.sources.tokenizer_files import rule_files
from models.texts import read_text


@dataclass(frozen=True, slots=True)
class Prepared:
    """An export that could start now: its sources are here and the recipe fits."""

    key: str
    files: tuple[SourceFile, ...]
    #: None for a prebuilt artifact.
    config: ModelConfig | None
    versions: ToolchainVersions
    #: About what the export writes to the disk at its most.
    disk_bytes: int


def prepare_export(
    request: ExportRequest,
    cache: Path,
    versions: ToolchainVersions,
    on_bytes: OnBytes = lambda _done, _total: None,
) -> Prepared:
    """Fetch and verify sources, refuse what can't work, and compute the key.

    Args:
        request: The export.
        cache: Folder of downloaded model files.
        versions: Versions of the toolchain that would export; `own_versions` for farm's own.
        on_bytes: Progress of a download.

    Raises:
        UnknownName: No such registry name.
        ConfigError: The source lacks what its kind needs.
        ExportError: A file is missing or damaged, or the recipe doesn't fit the model.
    """
    if request.model.kind == "pte":
        files, config = _prebuilt_files(request, cache), None
    else:
        opened = open_for(request.recipe, request.model, cache, on_bytes)
        files = opened.files
        config = None if isinstance(opened, WholeGguf) else opened.config
        if config is not None:
            check_recipe(config, request.recipe)
    key = export_key(files, config, request.recipe, versions, lowering_hash())
    return Prepared(key, files, config, versions, _disk_bytes(files, config, request.recipe))


def _disk_bytes(files: tuple[SourceFile, ...], config: ModelConfig | None, recipe: Recipe) -> int:
    if config is None or recipe.engine == "none":
        return sum(file.size_bytes for file in files)
    # Stock reads a checkpoint of its own format, in fp32.
    converted = 4 * config.parameters if recipe.engine == "stock" else 0
    return artifact_bytes(config, recipe) + converted


def _prebuilt_files(request: ExportRequest, cache: Path) -> tuple[SourceFile, ...]:
    model = request.model
    if model.path is None:
        raise ConfigError(f"model {model.name}: a prebuilt artifact needs `pte: FILE`")
    paths = [Path(name) for name in (model.path, model.data, model.tokenizer) if name]
    if model.tokenizer:
        # The bundle keeps the chat format and ids that these say.
        paths += rule_files(Path(model.tokenizer))
    return tuple(source_file(path, cache) for path in paths)


def reference_key(request: ReferenceRequest, known: str) -> str:
    """Key of eager logits: everything they, the token ids and what judges them depend on.

    Args:
        request: The reference.
        known: Hash of the anchors and bounds that judge it, `models.reference.bounds.known_digest`.

    Raises:
        ConfigError: The text can't be read.
    """
    bundle = _without_files(request.bundle)
    text = read_text(request.text)
    recipe = replace(request.recipe, name="")
    asked = (request.tokens, request.prompt, request.text_lengths, request.forced)
    source = tuple(_version(name) or "none" for name in ("transformers", "peft"))
    judged_by = (source, known, request.model.name)
    return codec.digest("reference 4", bundle, recipe, text, asked, judged_by, reference_hash())


def _without_files(bundle: Bundle) -> dict[str, object]:
    """What of a bundle a reference depends on: not the program, only what it was made from."""
    tokenizer = None if bundle.tokenizer is None else bundle.tokenizer.sha256
    return {"key": bundle.key, "tokenizer": tokenizer, "chat": bundle.chat_template}


@cached
def own_versions() -> ToolchainVersions:
    """Versions of the environment that this process runs in, without importing them.

    Raises:
        ConfigError: A package is missing.
    """
    found = {}
    for package in ("torch", "executorch", "torchao"):
        version = _version(package)
        if version is None:
            raise ConfigError(f"{package} isn't installed here; run `make run` again")
        found[package] = version
    return ToolchainVersions(python=platform.python_version(), **found)


def _version(package: str) -> str | None:
    """Installed version of a package, without importing it; None when it isn't there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
