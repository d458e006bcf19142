"""A launch that decoded without a pause to its curve, its two rates and what was seen meanwhile.

A cap of clock, quota or heat is what such a launch is made to find: it is told beside the curve and
does not spoil the rates. What spoils every number (garbage, another backend, somebody else's load)
spoils these too.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from farm.core.device import DeviceFacts
from farm.core.result import PerformanceReport, SampleReport
from farm.core.rules.classes import device_class
from farm.core.rules.sustained import Course, Part, course
from farm.core.runtime import DeviceRunResult, LaunchResult, SustainedRun
from farm.core.sustained import Sustained
from farm.core.tasks import CompareTask
from farm.core.telemetry import LaunchTelemetry
from farm.judge.environment import environment_guards
from farm.judge.gates import performance_gates
from farm.judge.guards import Guard, trust_of

#: Guards whose firing is a finding of this launch; `spread` and `window` are of single numbers.
CAPS = ("clock_cap", "hidden_cap", "hot_start", "under_voltage", "power_mode")

_WHAT = {
    "first_minute": "tokens one at a time without a pause, per second of the first {:.0f} s",
    "steady": "tokens one at a time without a pause, per second of the last third of {:.0f} s",
}


def judge_sustained(
    task: CompareTask, guards: Sequence[Guard]
) -> tuple[Sustained | None, list[PerformanceReport]]:
    """Judge the launch, and return its rates as metrics, with the gates on them.

    Args:
        task: A finished device run.
        guards: What of the cell's guards is about this launch too.

    Returns:
        None and nothing where the workload doesn't ask for it.
    """
    wanted = task.spec.workload.sustained_s
    if wanted is None:
        return None, []
    run = task.run.sustained or SustainedRun(None, None, "this runner or context can't do it")
    parts = [] if run.launch is None else _parts(run.launch)
    if not parts or run.launch is None:
        why = run.reason or "no window took time"
        nothing = Sustained(
            "", wanted, None, 0.0, None, False, None, (), None, "nothing was timed", reason=why
        )
        return nothing, []
    found = course(parts)
    joules, source = _energy(run.telemetry)
    seen = _seen(task, run)
    metric = next(sample.metric for sample in run.launch.samples)
    report = Sustained(
        metric=metric,
        seconds=found.seconds,
        first_tok_s=found.first_tok_s,
        first_s=found.first_s,
        steady_tok_s=found.steady_tok_s,
        settled=found.settled,
        throttled_after_s=found.throttled_after_s,
        curve=found.curve,
        j_per_token=joules,
        energy_source=source,
        guards={guard.name: _words(guard) for guard in seen},
    )
    own = [*guards, *(guard for guard in seen if guard.name not in CAPS)]
    return report, _rates(task, run.launch, found, own)


def _parts(launch: LaunchResult) -> list[Part]:
    timed = [s for s in launch.samples if not s.warmup and s.duration_s > 0 and s.tokens]
    begin = min((s.t_s for s in timed), default=0.0)
    return [Part(s.t_s - begin, s.tokens, s.duration_s) for s in timed]


def _energy(telemetry: LaunchTelemetry | None) -> tuple[float | None, str]:
    if telemetry is None:
        return None, "no telemetry"
    tokens = sum(part.tokens for part in telemetry.energy)
    if not tokens:
        return None, telemetry.energy_source or "unsupported"
    return sum(part.joules for part in telemetry.energy) / tokens, telemetry.energy_source


def _seen(task: CompareTask, run: SustainedRun) -> list[Guard]:
    """The device's guards, held against this launch alone."""
    facts: DeviceFacts | None = task.device.facts
    if facts is None or run.telemetry is None or run.launch is None:
        return []
    entry = task.device.entry
    alone: DeviceRunResult = replace(
        task.run, launches=(run.launch,), telemetry=(run.telemetry,), starts=()
    )
    found = environment_guards(facts, entry, device_class(facts, entry.labels), alone)
    return [guard for guard in found if guard.name != "hot_start"]


def _words(guard: Guard) -> str:
    return f"{guard.state}: {guard.detail}" if guard.detail else guard.state


def _rates(
    task: CompareTask, launch: LaunchResult, found: Course, guards: Sequence[Guard]
) -> list[PerformanceReport]:
    rows = []
    for name, value, values, seconds in (
        ("first_minute", found.first_tok_s, found.first, found.first_s),
        ("steady", found.steady_tok_s, found.steady, found.seconds),
    ):
        row = PerformanceReport(
            metric=name,
            unit="tok/s",
            regime="warm",
            threads=launch.threads,
            affinity=launch.affinity,
            definition=_WHAT[name].format(seconds),
            median=value,
            ci95=None,
            min_detectable_change=None,
            samples=(SampleReport(statistics.median(values), 0.0, 0, 0),),
            gates=(),
            trust=trust_of(list(guards)),
            guards={guard.name: guard.state for guard in guards},
        )
        rows.append(replace(row, gates=tuple(performance_gates(task.spec.gates, row))))
    return rows
