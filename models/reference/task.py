"""The reference task of a worker: token ids of the text, and eager logits to judge by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from farm.core.artifact import LogitsRef, Recipe, ReferenceRequest, ReferenceResult
from farm.core.errors import ExportError
from models.checkpoint import Checkpoint, TokenizerData
from models.orders import ReferenceAnswer, ReferenceOrder
from models.sources import open_source
from models.staging import Report, Staging, limit_threads
from models.texts import forced_tokens, prefix_text, read_text
from models.tokenizer import Tokenizer


def run_reference(order: ReferenceOrder, report: Report) -> ReferenceAnswer:
    """Tokenise, and compute eager logits where there is a model to compute with.

    Raises:
        FarmError: The model or the text can't be read, or the text is too short.
    """
    request = order.request
    staging = Staging(order.staging)
    if request.model.kind == "pte":
        data = _prebuilt_tokenizer(order)
        return ReferenceAnswer(_result(order, data, None, None), staging.files)
    report.stage("open", 0, 0, request.model.name)
    checkpoint = open_source(request.model, Path(order.cache), report.progress)
    limit_threads(order.threads)
    tokens = _tokens(request, Tokenizer(checkpoint.tokenizer))
    logits = [
        _logits(checkpoint, recipe, tokens, staging, name, report)
        for name, recipe in (("eager_fp32", None), ("eager_quantised", request.recipe))
    ]
    from models.reference.source import check_source

    report.stage("source", 0, 0, "compare with an independent source")
    result = _result(order, checkpoint.tokenizer, *logits)
    source = check_source(request, checkpoint, tokens, staging)
    return ReferenceAnswer(replace(result, source=source), staging.files)


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
    order: ReferenceOrder,
    data: TokenizerData,
    fp32: LogitsRef | None,
    quantised: LogitsRef | None,
) -> ReferenceResult:
    request = order.request
    tokenizer = Tokenizer(data)
    tokens = _tokens(request, tokenizer)
    return ReferenceResult(
        tokens=tokens,
        prompt=tuple(tokenizer.chat(request.prompt)),
        stop_ids=data.stop_ids,
        eager_fp32=fp32,
        eager_quantised=quantised,
        prompt_text=tokenizer.chat_text(request.prompt),
        texts=tuple((n, prefix_text(tokenizer, tokens, n)) for n in request.text_lengths),
    )


def _tokens(request: ReferenceRequest, tokenizer: Tokenizer) -> tuple[int, ...]:
    if request.forced:
        return request.forced
    return forced_tokens(tokenizer, read_text(request.text), request.tokens)


def _prebuilt_tokenizer(order: ReferenceOrder) -> TokenizerData:
    """Tokenizer given beside a prebuilt artifact."""
    from models.sources.tokenizer_files import read_tokenizer_file

    request = order.request
    if request.model.tokenizer is None:
        raise ExportError(
            f"model {request.model.name}: a prebuilt artifact needs `tokenizer: FILE` to be judged",
            model=request.model.name,
        )
    found = read_tokenizer_file(Path(request.model.tokenizer))
    stops = request.bundle.metadata.stop_ids or found.stop_ids
    bos = request.bundle.metadata.bos_id
    return TokenizerData(
        json=found.json,
        bos_id=found.bos_id if bos is None else bos,
        add_bos=found.add_bos,
        stop_ids=stops,
        chat_template=found.chat_template,
        bos_token=found.bos_token,
        eos_token=found.eos_token,
    )
