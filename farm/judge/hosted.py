"""What of a cell hangs on the host's run of its artifact, and which stages gave no logits."""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.hostrun import HostRunResult
from farm.core.result import GateResult
from farm.core.rules.launches import logits_passes
from farm.core.runner import OWN_KINDS
from farm.core.runtime import LaunchResult
from farm.core.tasks import CompareTask
from farm.judge.correctness import StageLogits


def same_code(host: HostRunResult | None, launches: Sequence[LaunchResult], sha256: str) -> bool:
    """True when host and device ran one binary with one instruction set: bits must agree.

    Backends choose their code by more of the CPU than the set that the runner itself uses.
    """
    if host is None or not launches or host.runner.sha256 != sha256:
        return False
    ours, theirs = host.hello, launches[0].hello
    return (ours.isa, ours.features) == (theirs.isa, theirs.features)


def host_gates(task: CompareTask) -> list[GateResult]:
    """Without the host's run nobody can tell equal bits, nor how far equal code may differ."""
    if not task.host_error:
        return []
    reason = f"the host's run failed: {task.host_error}"
    return [GateResult("host_run", "==", None, None, None, "host_pte", reason)]


def absent(task: CompareTask, logits: StageLogits) -> list[GateResult]:
    """Passes that a stage was asked for and gave no logits of: undecided, never left out."""
    wanted = _asked(task)
    if task.runner.kind not in OWN_KINDS:
        wanted = wanted[:1]  # the other programs give the decode path only
    stages = ["host_pte"] * (task.host is not None) + ["device_pte"] * task.runner.gives_logits
    found = []
    for stage in stages:
        missing = [name for name in wanted if name not in logits.get(stage, {})]
        if missing:
            reason = f"it gave none of {', '.join(missing)}"
            text = f"{stage}: logits"
            found.append(GateResult("logits", "==", None, None, None, text, reason))
    return found


def passes_not_judged(task: CompareTask) -> list[str]:
    """Flags of passes that a runner of logits, of whatever kind, gave none of."""
    given = {name for launch in task.run.launches for name, _ in launch.logits}
    return [f"{name}_not_judged" for name in _asked(task) if name not in given] if given else []


def _asked(task: CompareTask) -> list[str]:
    return [one.name for one in logits_passes(task.spec.correctness, task.spec.workload)]


def control_condition(task: CompareTask) -> dict[str, str]:
    """What other code does on the host's own CPU, where the device runs other code."""
    host = task.host
    if host is None or same_code(host, task.run.launches, task.run.runner.sha256):
        return {}
    if not host.controls:
        return {"isa_control": f"none: {host.no_controls}"}
    known = [(one.isa, dict(one.kl_mean).get("decode")) for one in host.controls]
    found = [f"{isa} {'not known' if kl is None else f'{kl:.3g}'}" for isa, kl in known]
    return {"isa_control": f"mean KL of XNNPACK's other code on the host: {', '.join(found)}"}
