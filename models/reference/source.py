"""Does a source that shares no code with farm agree with our reading of the checkpoint?

Loader and export share their parts, so a fault that both have shows in no later stage. Beside the
anchors kept with farm, transformers is asked where it is installed and can load the same files.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy

from farm.core.artifact import ReferenceRequest, SourceCheck
from farm.core.errors import ExportError
from models.checkpoint import Checkpoint
from models.exporting.memory import available_bytes
from models.reference.anchors import anchor_error, find_anchor
from models.reference.logits import eager_logits
from models.sources.hf import HfCheckpoint
from models.staging import Staging
from models.texts import read_text
from models.tokenizer import Tokenizer

#: Bytes a parameter of a model that transformers holds in float32, buffers included.
_BYTES_A_PARAMETER = 4.4


def check_source(
    request: ReferenceRequest, checkpoint: Checkpoint, tokens: Sequence[int], staging: Staging
) -> SourceCheck:
    """Compare token ids and eager fp32 logits with an independent source.

    Args:
        request: The text that `tokens` are the beginning of.
        checkpoint: The model.
        tokens: Token ids of the reference.
        staging: Folder that holds `eager_fp32.f32`, raw float32 [len(tokens), vocabulary].
    """
    anchor = find_anchor(checkpoint.files)
    if anchor is not None:
        return _by_anchor(anchor, request, checkpoint, tokens, staging)
    if not isinstance(checkpoint, HfCheckpoint):
        return SourceCheck(
            reason="no logits of an independent source are kept for these weights, and"
            " transformers is asked only for folders of the hub's format"
        )
    if request.forced:
        return SourceCheck(reason="the ids are an answer, which no source has")
    return _by_transformers(request, checkpoint, tokens, staging)


def _by_anchor(
    anchor: dict[str, list[int]],
    request: ReferenceRequest,
    checkpoint: Checkpoint,
    tokens: Sequence[int],
    staging: Staging,
) -> SourceCheck:
    """Compare on the anchor's own ids, whatever text the run is about."""
    known = anchor["tokens"]
    ours = Tokenizer(checkpoint.tokenizer).encode(read_text("builtin"))[: len(known)]
    logits, rows = staging.folder / "eager_fp32.f32", len(tokens)
    if list(tokens[: len(known)]) != known:
        logits = staging.folder / "anchor.f32"
        rows, _columns = eager_logits(checkpoint, None, known, logits)
    error = anchor_error(anchor, known[:rows], logits, checkpoint.config.vocab)
    return SourceCheck(
        by="anchor",
        tokens=len(known),
        ids_equal=ours == known,
        max_abs_error=error,
        reason=_ids_reason(ours, known),
    )


def _by_transformers(
    request: ReferenceRequest, checkpoint: HfCheckpoint, tokens: Sequence[int], staging: Staging
) -> SourceCheck:
    if importlib.util.find_spec("transformers") is None:
        return SourceCheck(
            reason="transformers is not installed beside this exporter, so nothing independent"
            " checks how the checkpoint is read: pip install transformers"
        )
    need, have = _BYTES_A_PARAMETER * checkpoint.config.parameters, available_bytes()
    if need > have:
        return SourceCheck(
            reason=f"transformers needs about {need / 2**30:.1f} GiB for this model in float32,"
            f" {have / 2**30:.1f} GiB are free"
        )
    try:
        theirs, ids = _ask_transformers(checkpoint.folder, read_text(request.text), tokens)
    except Exception as error:  # whatever it raises, it is no source; the row says so
        text = str(error).strip().partition("\n")[0]
        return SourceCheck(reason=f"transformers can't load it: {type(error).__name__}: {text}")
    columns = checkpoint.config.vocab
    shape = (len(tokens), columns)
    if theirs.shape[0] != len(tokens) or theirs.shape[1] < columns:
        raise ExportError(f"transformers gives logits of shape {theirs.shape}, ours are {shape}")
    ours = numpy.memmap(staging.folder / "eager_fp32.f32", "<f4", "r", shape=shape)
    return SourceCheck(
        by="transformers",
        tokens=len(tokens),
        ids_equal=ids == list(tokens),
        max_abs_error=float(numpy.abs(theirs[:, :columns] - ours).max()),
        reason=_ids_reason(list(tokens), ids),
    )


def _ask_transformers(
    folder: Path, text: str, tokens: Sequence[int]
) -> tuple[numpy.ndarray[tuple[int, int], numpy.dtype[numpy.float32]], list[int]]:
    """Return its logits [len(tokens), vocabulary] of our ids, and its own ids of the text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)(text)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        logits = model(torch.tensor([list(tokens)])).logits[0]
    return logits.float().numpy(), list(ids[: len(tokens)])


def _ids_reason(ours: Sequence[int], theirs: Sequence[int]) -> str:
    """Where two lists of token ids part; empty where they are equal."""
    if list(ours) == list(theirs):
        return ""
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if at is None:
        return f"{len(ours)} token ids, the source has {len(theirs)}"
    return f"token {at} is {ours[at]}, the source has {theirs[at]}"
