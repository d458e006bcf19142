"""What quantising costs a healthy export, by model and recipe: data, reviewed in a diff. No torch.

A bound belongs to weights by their hash and to what of a recipe decides numbers, not to names.
`farm models bound NAME --recipe RECIPE` measures one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from farm import codec
from farm.core.artifact import Recipe
from farm.core.errors import ExportError
from farm.core.reference import LearnedBound
from models.checkpoint import SourceFile
from models.reference.anchors import anchor_digest

KEPT = Path(__file__).parents[1] / "data" / "bounds"


def own_folder(cache: Path) -> Path:
    """Where bounds that were measured on this host are."""
    return cache / "bounds"


def arithmetic(recipe: Recipe) -> str:
    """Name what of a recipe decides numbers: `8da4w-g32-e8`."""
    words: list[str] = [recipe.linear]
    words += [f"g{recipe.group_size}"] if recipe.group_size else []
    if recipe.embedding_bits is not None:
        words.append(f"e{recipe.embedding_bits}")
        words += [f"eg{recipe.embedding_group}"] if recipe.embedding_group else []
    words += ["kv8"] if recipe.quantised_kv_cache else []
    return "-".join(words)


def text_digest(tokens: Sequence[int]) -> str:
    """Hash of token ids: of one text by one tokenizer."""
    return codec.digest("text", list(tokens))


def find_bound(
    files: Iterable[SourceFile], recipe: Recipe, tokens: Sequence[int], cache: Path
) -> LearnedBound | None:
    """Return the bound of these weights in this recipe; None when nobody measured it.

    Raises:
        ExportError: A file of bounds can't be read.
    """
    hashes, wanted, text = {file.sha256 for file in files}, arithmetic(recipe), text_digest(tokens)
    found: LearnedBound | None = None
    for path, entry in _entries(cache):
        try:
            if entry["weights_sha256"] not in hashes or entry["arithmetic"] != wanted:
                continue
            same = entry["text"] == text
            if found is None or same:
                found = LearnedBound(float(entry["kl_mean"]), float(entry["log_perplexity"]), same)
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"{path}: no bound: {error}; measure it anew") from error
    return found


def known_digest(cache: Path) -> str:
    """What all anchors and bounds say, as part of the key of a reference."""
    entries = [entry for _, entry in _entries(cache)]
    return codec.digest("known", anchor_digest(cache), entries)


def _entries(cache: Path) -> Iterable[tuple[Path, dict[str, Any]]]:
    for path in (*sorted(KEPT.glob("*.json")), *sorted(own_folder(cache).glob("*.json"))):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ExportError(f"{path}: no bounds: {error}; measure them anew") from error
        yield from ((path, entry) for entry in data)
