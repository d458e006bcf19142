"""The reference task of a worker: token ids of the text, and eager logits to judge by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from farm.core.artifact import LogitsRef, Recipe
from farm.core.reference import ReferenceResult, SourceCheck, Tokenized
from models.checkpoint import Checkpoint
from models.orders import ReferenceAnswer, ReferenceOrder
from models.reference.ids import prebuilt_tokenizer, tokenised
from models.sources import open_for
from models.sources.gguf_file import WholeGguf
from models.staging import Report, Staging, limit_threads


def run_reference(order: ReferenceOrder, report: Report) -> ReferenceAnswer:
    """Tokenise, and compute eager logits where there is a model to compute with.

    Raises:
        FarmError: The model or the text can't be read, or the text is too short.
    """
    request = order.request
    staging = Staging(order.staging)
    if request.model.kind == "pte":
        return ReferenceAnswer(
            _result(tokenised(request, prebuilt_tokenizer(request))), staging.files
        )
    report.stage("open", 0, 0, request.model.name)
    checkpoint = open_for(request.recipe, request.model, Path(order.cache), report.progress)
    limit_threads(order.threads)
    given = tokenised(request, checkpoint.tokenizer)
    if isinstance(checkpoint, WholeGguf):
        source = SourceCheck(reason=checkpoint.notes[-1])
        return ReferenceAnswer(replace(_result(given), source=source), staging.files)
    tokens = given.tokens
    logits = [
        _logits(checkpoint, recipe, tokens, staging, name, report)
        for name, recipe in (("eager_fp32", None), ("eager_quantised", request.recipe))
    ]
    from models.reference.bounds import find_bound
    from models.reference.source import check_source, judged_by

    report.stage("source", 0, 0, "compare with an independent source")
    result = _result(given, *logits)
    cache = Path(order.cache)
    source = check_source(request, checkpoint, tokens, staging, cache)
    bound = find_bound(judged_by(checkpoint), request.recipe, tokens, cache)
    return ReferenceAnswer(replace(result, source=source, bound=bound), staging.files)


def _logits(
    checkpoint: Checkpoint,
    recipe: Recipe | None,
    tokens: tuple[int, ...],
    staging: Staging,
    name: str,
    report: Report,
) -> LogitsRef | None:
    """Compute one variant; None where the recipe's arithmetic isn't ours to imitate."""
    if recipe is not None and not _known_arithmetic(recipe):
        return None
    from models.reference.logits import eager_logits

    file = f"{name}.f32"
    rows, columns = eager_logits(
        checkpoint,
        recipe,
        tokens,
        staging.folder / file,
        lambda layer, layers: report.stage(name, layer, layers, f"layer {layer} of {layers}"),
    )
    return LogitsRef(object=staging.add(file), rows=rows, cols=columns)


def _known_arithmetic(recipe: Recipe) -> bool:
    """Whether stock, if it exports, quantises as the farm engine does: seen for XNNPACK only."""
    return recipe.engine == "farm" or (recipe.backend == "xnnpack" and not recipe.options)


def _result(
    given: Tokenized, fp32: LogitsRef | None = None, quantised: LogitsRef | None = None
) -> ReferenceResult:
    return ReferenceResult(
        tokens=given.tokens,
        prompt=given.prompt,
        stop_ids=given.stop_ids,
        eager_fp32=fp32,
        eager_quantised=quantised,
        prompt_text=given.prompt_text,
        texts=given.texts,
    )
