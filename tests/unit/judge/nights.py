"""Cells of one night, alone or beside their baseline, and what comparing them gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from farm.core.result import CellResult
from farm.core.runtime import Arm
from farm.judge.night import Against, compare_run
from tests.unit.judge.builders import Case, check_launch, facts, launch
from tests.unit.reports.builders import judged_cell


def night(
    seed: int = 0,
    *,
    speed: float = 1.0,
    load_s: float = 0.25,
    noise: float = 0.01,
    **changes: object,
) -> CellResult:
    """A cell of one night; `speed` divides every timed window."""
    random = np.random.default_rng(seed)
    launches = tuple(
        launch(
            n + 10 * seed,
            prefill_s=0.2 / speed * float(np.exp(noise * random.standard_normal())),
            decode_s=0.4 / speed * float(np.exp(noise * random.standard_normal())),
            load_s=load_s * float(np.exp(noise * random.standard_normal())),
        )
        for n in (1, 2, 3)
    )
    case = Case(launches=(check_launch(), *launches), device_facts=facts(os_build="b1"))
    for name, value in changes.items():
        setattr(case, name, value)
    return judged_cell(case, "local")


def verdicts(result: CellResult) -> dict[str, str]:
    assert result.baseline is not None
    return {m.metric: m.verdict for m in result.baseline.metrics}


def compared(
    new: CellResult,
    old: CellResult | None,
    regress: float = 0.3,
    *,
    unpaired: str = "",
    past: dict[str, list[float]] | None = None,
    second: CellResult | None = None,
) -> CellResult:
    cells = {} if old is None else {new.cell_id: old}
    reasons, history = {new.cell_id: unpaired}, {new.cell_id: past or {}}
    against = Against("old", cells, regress, reasons, history)
    (result,) = compare_run([new], against, None if second is None else {new.cell_id: second})
    return result


def side_by_side(
    ratio: float, *, pairs: int = 6, noise: float = 0.005, drift: float = 0.0, seed: int = 1
) -> CellResult:
    """A cell whose baseline ran beside it, A B B A, on a device that drifts."""
    random = np.random.default_rng(seed)
    launches = []
    for n in range(2 * pairs):
        arm: Arm = "candidate" if n % 4 in (0, 3) else "baseline"
        slow = float(np.exp(drift * n + noise * random.standard_normal()))
        own = slow / (ratio if arm == "candidate" else 1.0)
        made = launch(n + 1, prefill_s=0.2 * own, decode_s=0.4 * own, load_s=0.25 * slow)
        samples = tuple(replace(sample, arm=arm) for sample in made.samples)
        launches.append(replace(made, samples=samples, arm=arm))
    case = Case(launches=(check_launch(), *launches), device_facts=facts(os_build="b1"))
    return judged_cell(case, "local")
