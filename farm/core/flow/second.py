"""The second sitting of a cell: the cell once more, on the same device, later in the run. Pure.

It is a cell of its own in all but that the plan doesn't have it: it waits for its artifact, is
queued, retried, judged and recorded like any other, under a name of its own. What two sittings say
together is farm.judge.night's to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from farm.core.plan import Cell
from farm.core.result import CellResult
from farm.core.rules.family import SECOND_BUDGET
from farm.core.runtime import DeviceJob

#: End of the id of a second sitting, after that of its cell.
SUFFIX = "+second"


def sitting_of(cell: Cell, device: str) -> Cell:
    """Return the second sitting of a cell: on the device that it was measured on, and no other."""
    return replace(cell, cell_id=cell.cell_id + SUFFIX, devices=(device,), place=device, group="")


def first_of(cell_id: str) -> str:
    """Return the id of the planned cell that a cell is, or is the second sitting of."""
    return cell_id.removesuffix(SUFFIX)


def is_second(cell_id: str) -> bool:
    """Whether an id is that of a second sitting."""
    return cell_id.endswith(SUFFIX)


def sittings(results: Mapping[str, CellResult]) -> dict[str, CellResult]:
    """Return the results of second sittings among those of a run, by the id of their cell."""
    return {first_of(cell_id): one for cell_id, one in results.items() if is_second(cell_id)}


def for_longer(job: DeviceJob) -> DeviceJob:
    """Return the job of a second sitting: a longer one, which ends early where no loss is left.

    Most are of cells that lost nothing, and show it soon: so more cells can have one. What confirms
    a loss shall be as sharp as its time allows.
    """
    # Neither has a baseline beside it: nothing to confirm.
    job = replace(job, sustained=None, asked=())
    policy = job.policy
    if policy is None:
        return job
    budget_s, most = policy.budget_s * SECOND_BUDGET, policy.most * SECOND_BUDGET
    longer = replace(policy, budget_s=budget_s, most=most, confirms=True)
    return replace(job, policy=longer, timeout_s=job.timeout_s + budget_s - policy.budget_s)
