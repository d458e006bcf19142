"""What `farm diagnose` says of a fault: the same look, at the stages of a workbench."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.mutation.workbench import Ran, Stages, Workbench
from farm.core.diagnosis import ARTIFACT, DEVICE, HOST
from farm.core.runtime import LaunchRequest, LaunchResult
from farm.judge.logits import Matrix
from farm.tasks.observe import PASS, TOKENS, Looked, Side, Subject, look

_W2 = (1, "feed_forward.w2")
_ATTENTION = (0, "attention")
#: Where each class of faults is: stage, layer and operator. The first layer is named where all
#: layers have it. Classes of the loader have no place: nothing of theirs is in the artifact alone.
PLACES: dict[str, tuple[str, int | None, str]] = {
    "zeroed weight": (ARTIFACT, *_W2),
    "group size": (ARTIFACT, 1, "attention.wq"),
    "embedding": (ARTIFACT, None, "tok_embeddings"),
    "one scale": (ARTIFACT, *_W2),
    "weight scale, lowering": (ARTIFACT, *_W2),
    "rotary base, lowering": (ARTIFACT, None, "rope"),
    "swapped weights, lowering": (ARTIFACT, 1, "feed_forward.w1"),
    "attention scale": (HOST, *_ATTENTION),
    "attention sign": (HOST, *_ATTENTION),
    "cache position": (HOST, *_ATTENTION),
    "GQA mapping, kernel": (HOST, *_ATTENTION),
    "vector tail": (HOST, *_ATTENTION),
    "context": (HOST, *_ATTENTION),
    "flipped byte": (DEVICE, *_W2),
    "stale artifact": (DEVICE, None, "tok_embeddings"),
    "weight scale, another CPU": (DEVICE, *_W2),
    "attention scale, another CPU": (DEVICE, *_ATTENTION),
    "rotary base, another CPU": (DEVICE, 0, "rope of the query"),
}


def looked(bench: Workbench, stages: Stages, order: int = 0) -> Looked:
    """Look into a cell of the workbench, as `farm diagnose` does into one of a run.

    Args:
        bench: The workbench.
        stages: What host and device ran.
        order: In which attention sums on the device; 0 is the usual one.
    """
    tokens = bench.healthy.reference.tokens[:TOKENS]
    subject = Subject(bench.checkpoint, bench.recipe, tokens, stages.export)
    sides = [
        _side(bench, HOST, stages.host_ran, stages.host, 0),
        _side(bench, DEVICE, stages.device_ran, stages.device, order),
    ]
    return look(subject, sides, bench.folder)


def _side(bench: Workbench, stage: str, ran: Ran | None, launch: LaunchResult, order: int) -> Side:
    ran = ran or Ran(bench.pte, bench.build)

    def run(program: Path, request: LaunchRequest) -> Matrix:
        given = bench.launch(program, replace(request, sdpa_order=order), ran.build)
        return bench.open_ref(dict(given.logits)[PASS])

    return Side(stage, ran.pte, None, run, bench.open_ref(dict(launch.logits)[PASS]))
