"""What must hold of a flow between two stimuli. Looks at everything: for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Protocol

from farm.core.flow.cells import Cells
from farm.core.flow.cellstate import CellProgress, State
from farm.core.flow.hosttasks import HostTasks
from farm.core.flow.placement import Placement
from farm.core.flow.roster import Roster
from farm.core.result import CellResult
from farm.core.tasks import CompareTask, ExportTask, HostRunTask, ReferenceTask, TokensTask


class Parts(Protocol):
    """The parts of a flow: all that is looked at."""

    cells: Cells
    tasks: HostTasks
    placement: Placement
    roster: Roster
    interrupted: bool

    @property
    def results(self) -> Mapping[str, CellResult]:
        """Results so far, by cell id."""


#: States in which a cell of a group has its device for itself.
_HAS_DEVICE = (State.SUBMITTED, State.WAITING_HOST, State.COMPARING)


def violations(flow: Parts) -> list[str]:
    """Return what does not hold, in words; empty when all does."""
    return [*_results(flow), *_queues(flow), *_jobs(flow), *_tasks(flow), *_groups(flow)]


def _in(flow: Parts, *states: State) -> set[str]:
    return {one.cell.cell_id for one in flow.cells if one.state in states}


def _results(flow: Parts) -> Iterator[str]:
    """Every done cell has a result, no other has one, and the counts agree."""
    done, known = _in(flow, State.DONE), {one.cell.cell_id for one in flow.cells}
    if done != known & set(flow.results):
        yield f"cells with a result are not those that are done: {done ^ set(flow.results)}"
    listed = [one.cell.cell_id for one in flow.cells.open]
    if Counter(listed) != Counter(known - done) or flow.cells.open_count != len(listed):
        yield f"open cells are counted {flow.cells.open_count} and listed {listed}"
    if flow.interrupted and listed:
        yield f"cells are open after an interruption: {listed}"
    for one in flow.cells:
        if one.story and one.story[-1].target is not one.state:
            yield f"{one.cell.cell_id} is {one.state}, its story ends with {one.story[-1]}"


def _queues(flow: Parts) -> Iterator[str]:
    """What waits for a device can get one, and no device waits that could take it."""
    matcher, roster = flow.placement.matcher, flow.roster
    if matcher.queued != _in(flow, State.QUEUED):
        yield f"jobs in queues are not the queued cells: {matcher.queued ^ _in(flow, State.QUEUED)}"
    for name in {*flow.placement.used, *matcher.idle_devices} if flow.cells.stimulus else ():
        if (name in matcher.idle_devices) is not flow.placement.may_begin(name):
            yield f"{name} is offered to jobs although it is taken, or free and not offered"
    for one in _cells(flow, State.QUEUED):
        taken = matcher.taken(one.cell.group)
        left = [name for name in one.cell.devices if name not in taken and roster.is_alive(name)]
        if not left:
            yield f"{one.cell.cell_id} is queued and no device is left for it"
        if idle := (set(left) - one.avoid or set(left)) & matcher.idle_devices:
            yield f"{one.cell.cell_id} is queued while {idle} wait for a job"


def _jobs(flow: Parts) -> Iterator[str]:
    """A submitted cell has one device, which has one job; nothing else has a device."""
    at_work = flow.roster.at_work
    jobs = Counter(attempt.job_id for attempt in at_work.values())
    if twice := [job for job, count in jobs.items() if count > 1]:
        yield f"cells with more than one job: {twice}"
    submitted = _in(flow, State.SUBMITTED)
    # The job of a cell that ended early is told to end, and its device busy until it has.
    if submitted - set(jobs) or set(jobs) - submitted - _in(flow, State.DONE):
        yield f"cells with a job are not the submitted ones: {submitted ^ set(jobs)}"
    for name, attempt in at_work.items():
        one = flow.cells[attempt.job_id]
        if (one.device, one.submissions) != (name, attempt.attempt):
            yield f"{name} has {attempt}, the cell has attempt {one.submissions} on {one.device}"
    measured = {flow.roster.hosts[name] for name in at_work if name in flow.roster.hosts}
    if measured != flow.roster.measured:
        yield f"hosts at work are {measured}, noted are {flow.roster.measured}"
    if measured & flow.tasks.loud:
        yield f"host tasks may be on {measured & flow.tasks.loud}, which is measured"
    if at_work and flow.placement.awaits_canary:
        yield f"{list(at_work)} work before the canary is there"


def _tasks(flow: Parts) -> Iterator[str]:
    """What waits for a task has one that will end; only a measured host keeps it waiting."""
    tasks = {**flow.tasks.waiting, **flow.tasks.running}
    if len(tasks) != len(flow.tasks.waiting) + len(flow.tasks.running):
        yield "a task waits and runs"
    if flow.tasks.waiting and flow.tasks.may_start(flow.roster.measured):
        yield f"tasks wait for nothing: {list(flow.tasks.waiting)}"
    if flow.placement.awaits_canary and not flow.interrupted and "canary:kernels" not in tasks:
        yield "devices wait for a canary that nobody makes"
    compares = {
        flow.tasks.owner(key) for key, task in tasks.items() if isinstance(task, CompareTask)
    }
    comparing = _in(flow, State.COMPARING)
    if comparing - compares or compares - comparing - _in(flow, State.DONE):
        yield f"cells with a comparison are not those that are compared: {compares ^ comparing}"
    for kinds, state in (
        ((ExportTask, TokensTask), State.WAITING_ARTIFACT),
        ((ReferenceTask, HostRunTask), State.WAITING_HOST),
    ):
        owners = {flow.tasks.owner(key) for key, task in tasks.items() if isinstance(task, kinds)}
        for one in _cells(flow, state):
            if one.cell.artifact not in owners and flow.cells.stimulus:
                yield f"{one.cell.cell_id} is {state.value}, which nothing will end"
    for one in _cells(flow, State.WAITING_ARTIFACT) if flow.cells.stimulus else ():
        if not any(map(flow.roster.is_alive, one.cell.devices)):
            yield f"{one.cell.cell_id} waits for its artifact and no device is left for it"


def _groups(flow: Parts) -> Iterator[str]:
    """No two cells of a group have or had the same device."""
    for one in _cells(flow, *_HAS_DEVICE):
        taken = flow.placement.matcher.taken(one.cell.group)
        if one.cell.group and taken.get(one.device or "") != one.cell.cell_id:
            yield f"{one.cell.cell_id} runs on {one.device}, kept for {taken}"
    for group in {one.cell.group for one in flow.cells}:
        for name, cell_id in flow.placement.matcher.taken(group).items():
            one = flow.cells[cell_id]
            if one.state not in (*_HAS_DEVICE, State.DONE) or (one.device or name) != name:
                yield f"{name} is kept for {cell_id}, which is {one.state.value} on {one.device}"


def _cells(flow: Parts, *states: State) -> list[CellProgress]:
    return [one for one in flow.cells if one.state in states]
