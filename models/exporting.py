"""The export task of a worker: open, check, export with an engine, describe the result."""

from __future__ import annotations

import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from farm import codec
from farm.core.artifact import (
    Bundle,
    Delegation,
    ExportRequest,
    ExportResult,
    LayerReplay,
    LogitsRef,
    ModelMetadata,
    ObjectRef,
)
from farm.core.errors import ConfigError, ExportError
from models.checkpoint import Checkpoint
from models.lowering.checks import check_recipe
from models.memory import check_memory
from models.prepare import own_versions
from models.protocol import ExportAnswer, ExportOrder
from models.sources import open_source
from models.sources.files import sha256_of

if TYPE_CHECKING:
    import torch

    from models.replay import Recording


class Report(Protocol):
    """Where progress goes: models.worker.Reporter."""

    def stage(self, name: str, index: int, count: int, detail: str = "") -> None:
        """A stage begins."""

    def progress(self, done: int, total: int) -> None:
        """Bytes of a download."""


class Staging:
    """Files made for the caller's store."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.files: dict[str, str] = {}
        if not self.folder.is_dir():
            raise ConfigError(f"worker: no staging folder {folder}")

    def text(self, name: str, content: str) -> ObjectRef:
        """Write and register a text file."""
        (self.folder / name).write_text(content, encoding="utf-8")
        return self.add(name)

    def add(self, name: str) -> ObjectRef:
        """Register a file that stands in the folder."""
        path = self.folder / name
        sha256 = sha256_of(path)
        self.files[sha256] = name
        return ObjectRef(sha256=sha256, size_bytes=path.stat().st_size, name=name)

    def matrix(self, name: str, values: torch.Tensor) -> LogitsRef:
        """Write and register numbers [rows, columns] the way logits are kept."""
        (self.folder / name).write_bytes(values.numpy().astype("<f4").tobytes())
        return LogitsRef(self.add(name), *values.shape)


def run_export(order: ExportOrder, report: Report) -> ExportAnswer:
    """Export, and describe the artifact.

    Raises:
        FarmError: The model can't be opened, the recipe doesn't fit, or the export failed.
    """
    started = time.monotonic()
    staging = Staging(order.staging)
    if order.request.model.kind == "pte":
        from models.prebuilt import describe_prebuilt

        result = describe_prebuilt(order, staging)
        return ExportAnswer(result=result, files=staging.files)
    report.stage("open", 0, 0, order.request.model.name)
    checkpoint = open_source(order.request.model, Path(order.cache), report.progress)
    recipe = order.request.recipe
    check_recipe(checkpoint.config, recipe)
    warnings = () if recipe.engine == "none" else check_memory(checkpoint.config, recipe)
    limit_threads(order.threads)
    export = _ENGINES[recipe.engine]
    outcome = export(checkpoint, order.request, staging.folder, report)
    cpu_s, peak = used()
    result = ExportResult(
        bundle=_bundle(order, checkpoint, staging),
        versions=own_versions(),
        seconds=round(time.monotonic() - started, 3),
        cpu_s=round(cpu_s, 3),
        peak_rss_bytes=peak,
        delegation=outcome.delegation,
        unquantised=outcome.unquantised,
        warnings=warnings + outcome.warnings,
        replay=_replay(order.key, outcome.recording, staging),
        no_replay=outcome.no_replay,
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


def _farm(checkpoint: Checkpoint, request: ExportRequest, folder: Path, report: Report) -> Outcome:
    from models.lowering.engine import STAGES, export_program
    from models.replay import record, replayed_layer

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
    )


def _stock(checkpoint: Checkpoint, request: ExportRequest, folder: Path, report: Report) -> Outcome:
    from models.lowering.stock import export_stock

    found = export_stock(checkpoint, request.recipe, folder / "model.pte", report.stage)
    return Outcome(*found, no_replay="the stock engine exports no layer on its own")


def _as_is(checkpoint: Checkpoint, request: ExportRequest, folder: Path, report: Report) -> Outcome:
    """Take the model's own GGUF: nothing is exported."""
    from models.sources.gguf import GgufCheckpoint

    del report
    if not isinstance(checkpoint, GgufCheckpoint):
        raise ExportError(
            f"model {request.model.name}: recipe {request.recipe.name} takes a GGUF as it is, "
            "this model isn't one",
            model=request.model.name,
            recipe=request.recipe.name,
        )
    shutil.copyfile(checkpoint.path, folder / f"model.{request.recipe.program}")
    return Outcome(no_replay="a GGUF is taken as it is: no layer of it is exported")


_ENGINES = {"farm": _farm, "stock": _stock, "none": _as_is}


def limit_threads(threads: int) -> None:
    """Set how many threads torch uses; 0 leaves its default."""
    if threads > 0:
        import torch

        torch.set_num_threads(threads)


def _bundle(order: ExportOrder, checkpoint: Checkpoint, staging: Staging) -> Bundle:
    request, config, tokenizer = order.request, checkpoint.config, checkpoint.tokenizer
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
            vocab_size=config.vocab,
            layers=config.layers,
            parameters=config.parameters,
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


def used() -> tuple[float, int]:
    """CPU seconds and peak RSS in bytes of this process and its children so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return cpu_s, max(own.ru_maxrss, children.ru_maxrss) * 1024
