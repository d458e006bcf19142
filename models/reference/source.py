"""Does a source that shares no code with farm agree with our reading of the checkpoint?

Loader and export share their parts, so a fault that both have shows in no later stage. Beside the
anchors, transformers is asked where it is installed and can load the same files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy

from farm.core.errors import ExportError
from farm.core.reference import ReferenceRequest, SourceCheck
from models.checkpoint import Checkpoint, SourceFile
from models.reference.anchors import (
    Anchor,
    anchor_error,
    anchor_largest,
    check_fits,
    differing,
    find_anchor,
    perplexity,
)
from models.reference.logits import eager_logits
from models.reference.peer import ask, cannot_ask
from models.sources.hf import HfCheckpoint
from models.staging import Staging
from models.texts import read_text
from models.tokenizer import Tokenizer


def check_source(
    request: ReferenceRequest,
    checkpoint: Checkpoint,
    tokens: Sequence[int],
    staging: Staging,
    cache: Path,
) -> SourceCheck:
    """Compare token ids and eager fp32 logits with an independent source.

    Args:
        request: The text that `tokens` are the beginning of.
        checkpoint: The model.
        tokens: Token ids of the reference.
        staging: Folder that holds `eager_fp32.f32`, raw float32 [len(tokens), vocabulary].
        cache: Folder of downloaded model files, with the anchors made on this host.
    """
    if request.forced:
        return SourceCheck(reason="the ids are an answer, which no source has")
    name = request.model.name if request.model.kind == "registry" else ""
    try:
        anchor = find_anchor(judged_by(checkpoint), cache, name)
    except ExportError as error:
        # It names a source and compares nothing: judged as one that disagrees.
        return SourceCheck(by="anchor", reason=str(error))
    if anchor is not None:
        return _by_anchor(anchor, checkpoint, tokens, staging)
    reason = cannot_ask(checkpoint)
    if reason:
        return SourceCheck(reason=reason)
    return _by_transformers(request, checkpoint, tokens, staging)


def judged_by(checkpoint: Checkpoint) -> tuple[SourceFile, ...]:
    """Files that anchors and bounds are found by; none of a base whose weights are changed."""
    adapted = isinstance(checkpoint, HfCheckpoint) and checkpoint.adapter is not None
    return () if adapted else checkpoint.files


def _by_anchor(
    anchor: Anchor, checkpoint: Checkpoint, tokens: Sequence[int], staging: Staging
) -> SourceCheck:
    """Compare on the anchor's own ids, whatever text the run is about."""
    known, columns = anchor["tokens"], checkpoint.config.vocab
    reason = check_fits(anchor, columns)
    if reason:
        return SourceCheck(by="anchor", tokens=len(known), reason=reason)
    ours = Tokenizer(checkpoint.tokenizer).encode(read_text("builtin"))[: len(known)]
    logits, rows = staging.folder / "eager_fp32.f32", len(tokens)
    shared = min(rows, len(known))
    if list(tokens[:shared]) != known[:shared]:
        logits, shared = staging.folder / "anchor.f32", len(known)
        rows, _columns = eager_logits(checkpoint, None, known, logits)
    values = numpy.memmap(logits, "<f4", "r", shape=(rows, columns))[:shared]
    whole = shared == len(known)
    error = anchor_error(anchor, values)
    return SourceCheck(
        by="anchor",
        tokens=shared,
        ids_equal=ours == known,
        max_abs_error=_finite(error),
        perplexity=anchor["perplexity"] if whole else None,
        own_perplexity=_finite(perplexity(values, known)) if whole else None,
        reason=differing(ours, known) or _no_number(error),
        largest=_finite(anchor_largest(anchor)),
    )


def _by_transformers(
    request: ReferenceRequest, checkpoint: Checkpoint, tokens: Sequence[int], staging: Staging
) -> SourceCheck:
    try:
        theirs = ask(checkpoint, read_text(request.text), tokens)
    except Exception as error:  # whatever it raises, it is no source; the row says so
        text = str(error).strip().partition("\n")[0]
        return SourceCheck(reason=f"transformers can't load it: {type(error).__name__}: {text}")
    columns = checkpoint.config.vocab
    shape = (len(tokens), columns)
    if theirs.logits.shape[0] != len(tokens) or theirs.logits.shape[1] < columns:
        raise ExportError(
            f"transformers gives logits of shape {theirs.logits.shape}, ours are {shape}"
        )
    values = theirs.logits[:, :columns]
    ours = numpy.memmap(staging.folder / "eager_fp32.f32", "<f4", "r", shape=shape)
    ids = theirs.ids
    off = float(numpy.abs(values - ours).max())
    return SourceCheck(
        by="transformers",
        tokens=len(tokens),
        ids_equal=None if ids is None else list(ids) == list(tokens),
        max_abs_error=_finite(off),
        perplexity=_finite(perplexity(values, tokens)),
        own_perplexity=_finite(perplexity(ours, tokens)),
        reason=("" if ids is None else differing(tokens, ids)) or _no_number(off),
        largest=_finite(float(numpy.abs(values).max())),
    )


def _finite(value: float) -> float | None:
    """None fails the gate as NaN would, and can be written down."""
    return value if math.isfinite(value) else None


def _no_number(error: float) -> str:
    return "" if math.isfinite(error) else "the logits hold NaN or infinity"
