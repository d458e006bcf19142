"""What an independent source computed once, kept as data: does our eager model still agree?

An anchor belongs to weights by their hash: token ids of the built-in text, some logits, and the
perplexity of those ids. It is kept with farm for models that everybody can have, and in the folder
of downloaded models for others (`farm models anchor NAME`). No torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import numpy.typing as npt

from farm.core.errors import ExportError
from models.checkpoint import SourceFile

KEPT = Path(__file__).parents[1] / "data" / "anchors"
#: Rows of an anchor, and numbers kept of each.
_ROWS, _COLUMNS = 16, 24
_Matrix = npt.NDArray[numpy.float32]
Anchor = dict[str, Any]


def own_folder(cache: Path) -> Path:
    """Where anchors that were made on this host are."""
    return cache / "anchors"


def find_anchor(files: Iterable[SourceFile], cache: Path, name: str = "") -> Anchor | None:
    """Return the anchor of these weights; None when none is kept.

    Args:
        files: Files of the checkpoint.
        cache: Folder of downloaded model files.
        name: Registry name of the model, empty for a model of the user's own: an anchor that is
            kept under it has to be of these weights.

    Raises:
        ExportError: An anchor is kept under the name and belongs to other weights, or a file of
            this host's own can't be read.
    """
    hashes = {file.sha256 for file in files}
    for path in (*sorted(own_folder(cache).glob("*.json")), *sorted(KEPT.glob("*.json"))):
        try:
            anchor: Anchor = json.loads(path.read_text(encoding="utf-8"))
            known = anchor["weights_sha256"] in hashes
        except (ValueError, KeyError, TypeError) as error:
            raise ExportError(f"{path}: no anchor: {error}; remove it or make it anew") from error
        if known:
            return anchor
    if name and (KEPT / f"{name}.json").exists():
        raise ExportError(f"the anchor kept for {name} belongs to other weights than these")
    return None


def anchor_digest(cache: Path) -> str:
    """What all anchors say, as part of the key of a reference."""
    import hashlib

    digest = hashlib.sha256()
    for path in (*sorted(own_folder(cache).glob("*.json")), *sorted(KEPT.glob("*.json"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def make_anchor(
    model: str, weights_sha256: str, source: str, tokens: Sequence[int], logits: _Matrix
) -> Anchor:
    """Choose what is kept of a source's logits [tokens, vocabulary].

    Of every row the most likely ids and the last ones of the vocabulary, which nothing else asks
    for, and in between some at equal distances.
    """
    positions = sorted({round(i * (len(tokens) - 1) / (_ROWS - 1)) for i in range(_ROWS)})
    vocabulary = logits.shape[1]
    spread = [round(i * (vocabulary - 1) / (_COLUMNS // 2 - 1)) for i in range(_COLUMNS // 2)]
    rows = []
    for position in positions:
        best = numpy.argsort(-logits[position])[: _COLUMNS // 2].tolist()
        ids = sorted({*map(int, best), *spread})
        values = [round(float(logits[position][i]), 5) for i in ids]
        rows.append({"position": position, "tokens": ids, "logits": values})
    return {
        "model": model,
        "weights_sha256": weights_sha256,
        "source": source,
        "tokens": list(tokens),
        "perplexity": round(perplexity(logits, tokens), 6),
        "rows": rows,
    }


def anchor_error(anchor: Anchor, logits: _Matrix) -> float:
    """Greatest difference of our logits [its first tokens, vocabulary] to the anchor's."""
    errors = [
        float(numpy.abs(logits[row["position"]][row["tokens"]] - numpy.array(row["logits"])).max())
        for row in anchor["rows"]
        if row["position"] < len(logits)
    ]
    return float(numpy.max(errors))  # Python's may lose a NaN


def anchor_largest(anchor: Anchor) -> float:
    """Largest logit that an anchor keeps, absolute."""
    return float(max(abs(value) for row in anchor["rows"] for value in row["logits"]))


def perplexity(logits: _Matrix, tokens: Sequence[int]) -> float:
    """Perplexity of token ids by logits [tokens, vocabulary]."""
    total = 0.0
    for row, target in zip(logits[:-1], tokens[1:], strict=True):
        wide = row.astype(numpy.float64)
        peak = wide.max()
        total += peak + math.log(float(numpy.exp(wide - peak).sum())) - float(wide[target])
    return math.exp(min(total / (len(tokens) - 1), 700.0))


def differing(ours: Sequence[int], theirs: Sequence[int]) -> str:
    """Where two lists of token ids part; empty where they are equal."""
    if list(ours) == list(theirs):
        return ""
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if at is None:
        return f"{len(ours)} token ids, the source has {len(theirs)}"
    return f"token {at} is {ours[at]}, the source has {theirs[at]}"


def check_fits(anchor: Mapping[str, Any], vocabulary: int) -> str:
    """Say why an anchor can't belong to a model of this vocabulary; empty where it can."""
    largest = max(max(row["tokens"]) for row in anchor["rows"])
    return "" if largest < vocabulary else f"the anchor has token id {largest}, beyond {vocabulary}"
