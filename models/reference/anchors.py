"""Logits that a model's source computed once, kept as data: does our eager model still agree?

An anchor belongs to weights by their hash, not to a name. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy

from models.checkpoint import SourceFile

_FOLDER = Path(__file__).parents[1] / "data" / "anchors"


def find_anchor(files: Iterable[SourceFile]) -> dict[str, Any] | None:
    """Return the anchor of these weights; None when none is kept."""
    hashes = {file.sha256 for file in files}
    for path in sorted(_FOLDER.glob("*.json")):
        anchor: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if anchor["weights_sha256"] in hashes:
            return anchor
    return None


def anchor_error(
    anchor: dict[str, Any], tokens: Sequence[int], logits: Path, columns: int
) -> float | None:
    """Return the greatest difference of our logits to the anchor's.

    Args:
        anchor: From `find_anchor`.
        tokens: Text that the logits belong to.
        logits: Raw float32 [len(tokens), columns].
        columns: Vocabulary.

    Returns:
        None when the text doesn't begin with the anchor's, or ends before its first row.
    """
    shared = min(len(tokens), len(anchor["tokens"]))
    if list(tokens[:shared]) != anchor["tokens"][:shared]:
        return None
    ours = numpy.memmap(logits, "<f4", "r", shape=(len(tokens), columns))
    errors = [
        float(numpy.abs(ours[row["position"]][row["tokens"]] - numpy.array(row["logits"])).max())
        for row in anchor["rows"]
        if row["position"] < shared
    ]
    return max(errors, default=None)
