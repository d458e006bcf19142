"""Judging of faults and of healthy cells, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.mutation.faults import Fault
from benchmarks.mutation.workbench import Stages, Workbench
from farm.core.errors import RunnerError
from farm.core.judgement import Judgement
from farm.core.result import GateResult

Row = dict[str, Any]


def tried(bench: Workbench, fault: Fault) -> Row:
    """Put one fault in and judge it.

    `caught`: the gate that should says so, with the stage's name. `elsewhere`: only others do.
    """
    row: Row = {
        "name": fault.name,
        "class": fault.kind,
        "where": fault.where,
        "size": fault.size,
        "expected": f"{fault.gate}: {fault.stage}",
        "must": fault.must,
    }
    try:
        stages = fault.inject(bench, fault.size)
    except RunnerError as error:
        # A fault that ends the runner is an error of the cell, with the runner's own words.
        crash = f"the runner ended: {str(error).splitlines()[0]}"
        return row | {"verdict": "caught", "outcome": "errored", "failed": [crash], "figures": {}}
    except Exception as error:  # fences one row: the table goes on, and the row counts as missed
        text = f"{type(error).__name__}: {error}"
        return row | {"verdict": "BROKEN", "outcome": text, "failed": [], "figures": {}}
    judgement = bench.judge(stages)
    failed = failed_gates(judgement)
    right = any(gate.metric == fault.gate and fault.stage in gate.text for gate in failed)
    verdict = "caught" if right else "elsewhere" if failed else "MISSED"
    return row | {
        "verdict": verdict,
        "outcome": judgement.outcome,
        "failed": [f"{gate.metric} ({gate.text})" for gate in failed],
        "figures": figures(judgement),
    }


def failed_gates(judgement: Judgement) -> list[GateResult]:
    """The gates that say no."""
    gates = () if judgement.correctness is None else judgement.correctness.gates
    return [gate for gate in gates if gate.passed is False]


def figures(judgement: Judgement) -> dict[str, float | None]:
    """What the gates had before them."""
    assert judgement.correctness is not None
    return {f"{gate.metric} {gate.text}"[:90]: gate.value for gate in judgement.correctness.gates}


def clean(bench: Workbench) -> list[Row]:
    """Healthy cells: as it is, and as another CPU with each other order of sums would give it."""
    found = []
    for name, stages in _healthy(bench):
        judgement = bench.judge(stages)
        reason = judgement.reason
        found.append(
            {
                "cell": name,
                "outcome": judgement.outcome,
                "reason": reason,
                "figures": figures(judgement),
            }
        )
    return found


def _healthy(bench: Workbench) -> Iterator[tuple[str, Stages]]:
    yield "the host's own CPU", bench.healthy
    for order in (1, 2):
        device = bench.check(bench.pte, order=order)
        yield (
            f"another order of sums ({order})",
            replace(bench.healthy, device=device, other_cpu=True),
        )
    for isa in ("portable",):
        yield (
            f"another CPU: {isa}",
            replace(
                bench.healthy,
                device=bench.check(bench.pte, isa=isa),
                canary=bench.run_canary(isa=isa),
                other_cpu=True,
            ),
        )


def smallest(rows: Sequence[Row]) -> Iterator[str]:
    """For each class the size nearest to none that is caught, and the nearest that isn't."""
    kinds = dict.fromkeys(row["class"] for row in rows)
    for kind in kinds:
        ours = [row for row in rows if row["class"] == kind]
        caught = [row["name"] for row in ours if row["verdict"] == "caught"]
        missed = [row["name"] for row in ours if row["verdict"] != "caught"]
        yield f"{kind:<30} caught: {caught[-1] if caught else '-':<50} missed: {missed or '-'}"
