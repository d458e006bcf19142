"""The export task of a worker: open, check, export with an engine, describe the result."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Protocol

from farm.core.artifact import (
    Bundle,
    Delegation,
    ExportRequest,
    ExportResult,
    ModelMetadata,
    ObjectRef,
)
from farm.core.errors import ConfigError
from models.checkpoint import Checkpoint
from models.lowering.checks import check_recipe
from models.memory import check_memory
from models.prepare import own_versions
from models.protocol import ExportAnswer, ExportOrder
from models.sources import open_source
from models.sources.files import sha256_of


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
    if order.request.recipe.engine == "farm":
        check_recipe(checkpoint.config, order.request.recipe)
    warnings = check_memory(checkpoint.config, order.request.recipe)
    limit_threads(order.threads)
    export = _stock if order.request.recipe.engine == "stock" else _farm
    delegation, unquantised, found = export(checkpoint, order.request, staging.folder, report)
    cpu_s, peak = used()
    result = ExportResult(
        bundle=_bundle(order, checkpoint, staging),
        versions=own_versions(),
        seconds=round(time.monotonic() - started, 3),
        cpu_s=round(cpu_s, 3),
        peak_rss_bytes=peak,
        delegation=delegation,
        unquantised=unquantised,
        warnings=warnings + found,
    )
    return ExportAnswer(result=result, files=staging.files)


#: Delegation, Linears left in fp32, warnings.
Outcome = tuple[Delegation | None, tuple[str, ...], tuple[str, ...]]


def _farm(checkpoint: Checkpoint, request: ExportRequest, folder: Path, report: Report) -> Outcome:
    from models.lowering.engine import STAGES, export_program

    def on_stage(name: str, detail: str) -> None:
        report.stage(name, STAGES.index(name) + 1, len(STAGES), detail)

    exported = export_program(checkpoint, request.recipe, folder / "model.pte", on_stage)
    return exported.delegation, exported.unquantised, exported.warnings


def _stock(checkpoint: Checkpoint, request: ExportRequest, folder: Path, report: Report) -> Outcome:
    from models.lowering.stock import export_stock

    return export_stock(checkpoint, request.recipe, folder / "model.pte", report.stage)


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
        pte=staging.add("model.pte"),
        data=None,
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


def used() -> tuple[float, int]:
    """CPU seconds and peak RSS in bytes of this process and its children so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return cpu_s, max(own.ru_maxrss, children.ru_maxrss) * 1024
