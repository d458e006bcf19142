"""The export task of a worker: open, check, export with an engine, describe the result."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from farm import codec
from farm.core.artifact import (
    Bundle,
    Delegation,
    ExportRequest,
    ExportResult,
    LayerReplay,
    ModelMetadata,
    TensorCheck,
)
from farm.core.errors import ExportError
from models.checkpoint import Checkpoint
from models.exporting.identify import own_versions
from models.exporting.memory import check_memory
from models.exporting.prebuilt import describe_prebuilt
from models.lowering.checks import check_recipe
from models.orders import ExportAnswer, ExportOrder
from models.sources import open_for
from models.sources.gguf_file import GgufFile, WholeGguf
from models.staging import Report, Staging, limit_threads, used

if TYPE_CHECKING:
    from models.eager.layer_replay import Recording


def run_export(order: ExportOrder, report: Report) -> ExportAnswer:
    """Export, and describe the artifact.

    Raises:
        FarmError: The model can't be opened, the recipe doesn't fit, or the export failed.
    """
    started = time.monotonic()
    staging = Staging(order.staging)
    if order.request.model.kind == "pte":
        result = describe_prebuilt(order, staging)
        return ExportAnswer(result=result, files=staging.files)
    report.stage("open", 0, 0, order.request.model.name)
    recipe = order.request.recipe
    checkpoint = open_for(recipe, order.request.model, Path(order.cache), report.progress)
    warnings: tuple[str, ...] = ()
    if recipe.engine == "none" or isinstance(checkpoint, WholeGguf):
        outcome = _as_is(checkpoint, order.request, staging.folder)
    else:
        check_recipe(checkpoint.config, recipe)
        warnings = check_memory(checkpoint.config, recipe)
        limit_threads(order.threads)
        outcome = _ENGINES[recipe.engine](checkpoint, order.request, staging.folder, report)
    cpu_s, peak = used()
    result = ExportResult(
        bundle=_bundle(order, checkpoint, staging),
        versions=own_versions(),
        seconds=round(time.monotonic() - started, 3),
        cpu_s=round(cpu_s, 3),
        peak_rss_bytes=peak,
        delegation=outcome.delegation,
        unquantised=outcome.unquantised,
        warnings=checkpoint.notes + warnings + outcome.warnings,
        replay=_replay(order.key, outcome.recording, staging),
        no_replay=outcome.no_replay,
        weights=outcome.weights,
        no_weights=outcome.no_weights,
    )
    return ExportAnswer(result=result, files=staging.files)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine says of the files that it wrote."""

    delegation: Delegation | None = None
    #: Linears left in fp32.
    unquantised: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    #: Of the layer in `replay.pte`.
    recording: Recording | None = None
    #: Why there is none.
    no_replay: str = ""
    #: Weights of the files, read back.
    weights: tuple[TensorCheck, ...] = ()
    #: Why none were.
    no_weights: str = ""


def _farm(checkpoint: Checkpoint, request: ExportRequest, folder: Path, report: Report) -> Outcome:
    from models.eager.layer_replay import record, replayed_layer
    from models.lowering.engine import STAGES, export_program

    def on_layer(number: int, layers: int) -> None:
        report.stage("record", 0, 0, f"inputs of a layer: {number} of {layers}")

    def on_stage(name: str, detail: str) -> None:
        report.stage(name, STAGES.index(name) + 1, len(STAGES), detail)

    layer = replayed_layer(checkpoint.config.layers)
    recording = None if layer is None else record(checkpoint, request.recipe, layer, on_layer)
    exported = export_program(checkpoint, request.recipe, folder / "model.pte", on_stage, recording)
    return Outcome(
        exported.delegation,
        exported.unquantised,
        exported.warnings,
        recording,
        ""
        if recording is not None
        else "a layer is replayed together with the next one's start, and this model has one layer",
        weights=exported.weights,
        no_weights="" if exported.weights else "only programs of delegates are read back",
    )


def _stock(checkpoint: Checkpoint, request: ExportRequest, folder: Path, report: Report) -> Outcome:
    from models.lowering.stock import export_stock

    found = export_stock(checkpoint, request.recipe, folder / "model.pte", report.stage)
    return Outcome(
        *found,
        no_replay="the stock engine exports no layer on its own",
        no_weights="where the stock engine puts a weight isn't known",
    )


def _as_is(checkpoint: Checkpoint | WholeGguf, request: ExportRequest, folder: Path) -> Outcome:
    """Take the model's own GGUF: nothing is exported."""
    if not isinstance(checkpoint, GgufFile):
        raise ExportError(
            f"model {request.model.name}: recipe {request.recipe.name} takes a GGUF as it is, "
            "this model isn't one",
            model=request.model.name,
            recipe=request.recipe.name,
        )
    shutil.copyfile(checkpoint.path, folder / f"model.{request.recipe.program}")
    return Outcome(
        no_replay="a GGUF is taken as it is: no layer of it is exported",
        no_weights="a GGUF is taken as it is",
    )


_ENGINES = {"farm": _farm, "stock": _stock}


def _bundle(order: ExportOrder, checkpoint: Checkpoint | WholeGguf, staging: Staging) -> Bundle:
    request, tokenizer = order.request, checkpoint.tokenizer
    if isinstance(checkpoint, WholeGguf):
        shape = checkpoint.vocab, checkpoint.layers, checkpoint.parameters
    else:
        config = checkpoint.config
        shape = config.vocab, config.layers, config.parameters
    return Bundle(
        key=order.key,
        model=request.model.name,
        recipe=request.recipe.name,
        toolchain=request.toolchain.name,
        pte=staging.add(f"model.{request.recipe.program}"),
        data=staging.add("model.ptd") if request.recipe.external_weights else None,
        tokenizer=staging.text("tokenizer.json", tokenizer.json),
        chat_template=tokenizer.chat_template,
        metadata=ModelMetadata(
            vocab_size=shape[0],
            layers=shape[1],
            parameters=shape[2],
            max_context=request.recipe.max_context,
            max_seq=request.recipe.max_seq,
            bos_id=tokenizer.bos_id,
            stop_ids=tokenizer.stop_ids,
        ),
        backend=request.recipe.backend,
    )


def _replay(key: str, recording: Recording | None, staging: Staging) -> LayerReplay | None:
    if recording is None:
        return None
    return LayerReplay(
        key=codec.digest("replay 1", key, recording.layer, recording.inputs.shape[0]),
        layer=recording.layer,
        pte=staging.add("replay.pte"),
        inputs=staging.matrix("replay_inputs.f32", recording.inputs),
        added=staging.matrix("replay_added.f32", recording.added),
    )
