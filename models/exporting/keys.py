"""The key of an export: equal keys mean equal artifacts. A pure function of values.

It covers whatever can change the artifact, and nothing else: not the model's or recipe's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from farm import codec
from farm.core.artifact import Recipe, ToolchainVersions
from models.checkpoint import SourceFile
from models.config import ModelConfig

#: Folders and modules of this package whose code decides what eager logits are.
_EAGER_SOURCES = ("eager", "sources", "tokenizer.py", "chat.py")
#: And what an artifact holds.
_LOWERING_SOURCES = (*_EAGER_SOURCES, "lowering", "texts.py")


def export_key(
    files: Iterable[SourceFile],
    config: ModelConfig | None,
    recipe: Recipe,
    versions: ToolchainVersions,
    lowering: str,
) -> str:
    """Hash everything an artifact depends on.

    Args:
        files: Weight and tokenizer files; their names don't count.
        config: Shape of the model; None for a prebuilt artifact.
        recipe: Resolved recipe.
        versions: Versions that export.
        lowering: `lowering_hash()` of the code that exports.
    """
    hashes = sorted(file.sha256 for file in files)
    unnamed = replace(recipe, name="")
    exporters = [versions.torch, versions.executorch, versions.torchao]
    return codec.digest("export 1", hashes, config, unnamed, exporters, lowering)


def hash_sources(sources: Mapping[str, bytes]) -> str:
    """Hash of source files by relative path."""
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name} {len(sources[name])}\n".encode())
        digest.update(sources[name])
    return digest.hexdigest()


@cache
def lowering_hash() -> str:
    """Hash of the code in this package that decides what an artifact holds."""
    return _hash_of(_LOWERING_SOURCES)


@cache
def reference_hash() -> str:
    """Hash of the code in this package that decides eager logits and token ids."""
    return _hash_of((*_EAGER_SOURCES, "reference", "texts.py"))


def _hash_of(names: Iterable[str]) -> str:
    root = Path(__file__).parents[1]
    found: dict[str, bytes] = {}
    for name in names:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found[str(file.relative_to(root))] = file.read_bytes()
    return hash_sources(found)
