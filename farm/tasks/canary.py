"""The canary: a tiny model with random weights, exported in fp32 the way of every other model.

Its kernels are those of the artifacts that it speaks for. PyTorch computes what it must give, so
a build of ours that is wrong on every machine is found too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from farm.core.artifact import CanaryProgram, ExportRequest, ModelSource, StageEvent, Toolchain
from farm.core.reference import ReferenceRequest
from farm.core.tasks import CanaryTask, ExportTask, ReferenceTask
from farm.tasks import worker_process
from models.recipes import RECIPES

_MODEL, _RECIPE = "tiny-llama", "xnnpack-fp32"
#: Enough for attention to give all threads work for a while; no multiple of any vector's width.
_TOKENS = 397
_PROMPT = "canary"


def make_canary(
    task: CanaryTask, home: Path, emit: Callable[[StageEvent], None], stop: threading.Event
) -> CanaryProgram:
    """Export the canary and compute its logits with PyTorch; once for each store.

    Raises:
        FarmError: As farm.tasks.worker_process.export.
    """
    model, recipe, toolchain = ModelSource(_MODEL), RECIPES[_RECIPE], Toolchain("default")
    export = ExportTask(task.task_id, ExportRequest(model, recipe, toolchain), task.resources)
    exported = worker_process.export(export, home, emit, stop)
    request = ReferenceRequest(
        model, recipe, toolchain, exported.bundle, text="builtin", tokens=_TOKENS, prompt=_PROMPT
    )
    reference = worker_process.reference(
        ReferenceTask(task.task_id, request, task.resources), home, emit, stop
    )
    assert reference.eager_fp32 is not None, "a seeded model has an eager reference"
    return CanaryProgram(
        exported.bundle.pte, reference.tokens, reference.eager_fp32, exported.cache_hit
    )
