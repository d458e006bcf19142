"""`farm sim`: how long a night will take, what holds it up, and what would bring it in time.

The real planner, flow and matcher; only time is virtual. Durations come from earlier runs.
"""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from farm.cluster.start import CPUS_PER_EXPORT
from farm.core.device import Device
from farm.core.errors import PlanError
from farm.core.flow.flow import RunFlow
from farm.core.flow.lengths import CLOSING, OPENING
from farm.core.flow.simulate import Hosts, SimulatedRun, simulate
from farm.core.plan import Plan, make_plan
from farm.core.runtime import DeviceJob
from farm.core.tasks import KIND_NAMES, HostTask
from farm.paths import history_db
from farm.planning.planning import Prepared, RunOptions
from farm.planning.planning import plan as probe_and_plan
from farm.state.history import History

#: Seconds of a host task that no earlier run tells, by kind.
_ASSUMED_S = {
    "export": 120.0,
    "tokens": 1.0,
    "reference": 60.0,
    "host_run": 30.0,
    "compare": 1.0,
    "canary": 30.0,
}
#: Of what a run does before its first task and after its last result.
_ASSUMED_AROUND_S = {OPENING: 10.0, CLOSING: 2.0}
#: A change of the wall time that names a bottleneck.
_MATTERS = 0.05
#: Most devices or hosts that a deadline is tried with.
_MOST = 4096


@dataclass(frozen=True, slots=True)
class SimRequest:
    """What to simulate."""

    options: RunOptions
    #: Devices in all, copies of those that answer; None: those that answer.
    devices: int | None = None
    hosts: int = 1
    #: CPUs of each host; None: those of this host.
    cpus: int | None = None
    #: Simulated nights, each with a seed of its own from `seed` on.
    nights: int = 5
    seed: int = 1
    #: Scatter of every duration, relative standard deviation.
    scatter: float = 0.05
    #: Share of jobs during which their device is lost.
    lost: float = 0.0
    deadline_s: float | None = None


@dataclass(slots=True)
class Durations:
    """Seconds of tasks and jobs, from earlier runs where they tell.

    Args:
        past: Seconds by task id and by `job:CELL@DEVICE`.
        like: By device, the one that it is a copy of.
        budget_s: What a job may measure at most: assumed where no earlier run tells.
    """

    past: Mapping[str, float]
    like: Mapping[str, str]
    budget_s: float
    #: Where each figure that was asked for came from, by name: `measured`; `similar`, of the same
    #: model or artifact; `assumed`.
    source: dict[str, str] = field(default_factory=dict)
    #: Seconds by name: the history is looked through once for each.
    _known: dict[str, float] = field(default_factory=dict)

    def seconds(self, work: HostTask | DeviceJob) -> float:
        """How long this takes."""
        if isinstance(work, DeviceJob):
            return self._job_s(work)
        kind, name = KIND_NAMES[type(work)], work.task_id
        if kind == "compare":  # named by its cell, and so by a device that may be a copy
            name = self._original(name)
        if name not in self._known:
            same_model = (name.partition("/")[0] + "/",)
            assumed = self._like(f"{kind}:") or _ASSUMED_S[kind]
            self._known[name] = self._first(name, same_model, assumed)
        return self._known[name]

    def around_s(self) -> float:
        """How long a run takes before its first task and after its last result together."""
        return sum(self._first(name, (), s) for name, s in _ASSUMED_AROUND_S.items())

    def _job_s(self, job: DeviceJob) -> float:
        cell = self._original(job.cell_id)
        name = f"job:{cell}@{self.like.get(job.device, job.device)}"
        if name not in self._known:
            artifact = job.cell_id.partition(":")[0]
            similar = (f"job:{cell}@", f"job:{artifact}:")
            self._known[name] = self._first(name, similar, self.budget_s)
        return self._known[name]

    def _original(self, cell: str) -> str:
        base, _, place = cell.rpartition(":")
        return f"{base}:{self.like.get(place, place)}"

    def _like(self, prefix: str) -> float | None:
        found = [seconds for name, seconds in self.past.items() if name.startswith(prefix)]
        return statistics.fmean(found) if found else None

    def _first(self, name: str, similar: Sequence[str], assumed: float) -> float:
        """Seconds of a name itself, else of what begins like it, else what is assumed."""
        found = self.past.get(name)
        self.source[name] = "measured"
        for prefix in similar:
            if found is None:
                found, self.source[name] = self._like(prefix), "similar"
        if found is None:
            found, self.source[name] = assumed, "assumed"
        return found


@dataclass(frozen=True, slots=True)
class Case:
    """Simulated nights of one number of devices and hosts."""

    devices: int
    hosts: int
    cells: int
    #: Wall time of each night, seconds.
    walls_s: tuple[float, ...]
    #: The night whose wall time is the median.
    night: SimulatedRun

    @property
    def wall_s(self) -> float:
        """Median, seconds."""
        return self.night.wall_s


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the simulation says."""

    case: Case
    cpus: int
    #: Share of the night that devices have no job, and that hosts' CPUs have no task.
    device_idle: float
    host_idle: float
    #: Wall time with twice the devices (None: the cells would grow too), and twice the hosts.
    twice_devices_s: float | None
    twice_hosts_s: float
    #: `devices`, `hosts`, or the longest chain of work where neither helps.
    bottleneck: str
    #: By `measured`, `similar`, `assumed`: how many figures came from there.
    sources: dict[str, int]
    #: The names behind `assumed`.
    assumed: tuple[str, ...]
    #: Least devices, and least hosts, that meet the deadline alone; None where none does.
    deadline_devices: int | None = None
    deadline_hosts: int | None = None


def forecast(request: SimRequest, home: Path) -> Forecast:
    """Simulate a run of a config.

    Raises:
        ConfigError, PlanError: As `farm plan`; or no device is there to copy.
        StoreError: The history can't be read.
    """
    prepared = probe_and_plan(request.options, home)
    history = History(history_db(home))
    try:
        past = history.durations_s()
    finally:
        history.close()
    cpus = request.cpus or os.cpu_count() or 1
    simulation = _Nights(request, prepared, past, cpus)
    count = request.devices or len(simulation.usable)
    case = simulation.case(count, request.hosts)
    durations = dict(simulation.source)
    grows = case.cells != simulation.cells(2 * count)
    twice_devices = None if grows else simulation.case(2 * count, request.hosts).wall_s
    twice_hosts = simulation.case(count, 2 * request.hosts).wall_s
    sources = {
        name: sum(source == name for source in durations.values())
        for name in ("measured", "similar", "assumed")
    }
    made = Forecast(
        case=case,
        cpus=cpus,
        device_idle=_idle(case.night.busy_s("job"), count, case.wall_s),
        host_idle=_idle(
            sum(map(case.night.busy_s, KIND_NAMES.values())), cpus * request.hosts, case.wall_s
        ),
        twice_devices_s=twice_devices,
        twice_hosts_s=twice_hosts,
        bottleneck=_bottleneck(case, twice_devices, twice_hosts),
        sources=sources,
        assumed=tuple(sorted(name for name, source in durations.items() if source == "assumed")),
    )
    if request.deadline_s is None:
        return made
    within = request.deadline_s
    return replace(
        made,
        deadline_devices=None
        if grows
        else _least(count, lambda n: simulation.case(n, request.hosts).wall_s <= within),
        deadline_hosts=_least(request.hosts, lambda n: simulation.case(count, n).wall_s <= within),
    )


class _Nights:
    """Nights of one config, by number of devices and hosts."""

    def __init__(
        self, request: SimRequest, prepared: Prepared, past: Mapping[str, float], cpus: int
    ) -> None:
        self._request, self._prepared, self._past, self._cpus = request, prepared, past, cpus
        self.usable = [device for device in prepared.plan.devices if device.usable]
        if not self.usable:
            raise PlanError("no device answers, so there is none to simulate; see `farm devices`")
        self.source: dict[str, str] = {}

    def cells(self, devices: int) -> int:
        """Cells that a run on so many devices has."""
        return self._plan(devices)[0].planned

    def case(self, devices: int, hosts: int) -> Case:
        """Simulate the nights of one case."""
        request, spec = self._request, self._prepared.spec
        plan, like = self._plan(devices)
        limits = Hosts(hosts, self._cpus, min(CPUS_PER_EXPORT, self._cpus))
        durations = Durations(self._past, like, spec.workload.budget_s, self.source)
        nights = []
        for seed in range(request.seed, request.seed + request.nights):
            chance = random.Random(seed)
            catalog, run_id = self._prepared.catalog, f"simulated-{seed}"
            flow = RunFlow(spec, plan, catalog, run_id=run_id, past=self._past)

            def seconds(work: HostTask | DeviceJob, chance: random.Random = chance) -> float:
                factor = 1 + request.scatter * chance.gauss(0, 1)
                return durations.seconds(work) * max(0.1, factor)

            def lost(_job: DeviceJob, chance: random.Random = chance) -> bool:
                return chance.random() < request.lost

            night = simulate(flow, seconds, limits, lost)
            nights.append(replace(night, wall_s=night.wall_s + durations.around_s()))
        nights.sort(key=lambda night: night.wall_s)
        walls = tuple(night.wall_s for night in nights)
        return Case(devices, hosts, plan.planned, walls, nights[len(nights) // 2])

    def _plan(self, count: int) -> tuple[Plan, dict[str, str]]:
        """Plan with so many devices; return by copy what it is a copy of, too."""
        copies = list(_copies(self.usable, count))
        plan = make_plan(self._prepared.spec, [copy for copy, _ in copies], self._prepared.catalog)
        # A copy of this machine is another machine: no host task has to wait for it.
        elsewhere = tuple(
            copy
            if copy.name == original
            else replace(copy, entry=replace(copy.entry, transport="sim"))
            for copy, original in copies
        )
        like = {copy.name: original for copy, original in copies}
        return replace(plan, devices=elsewhere), like


def _copies(devices: list[Device], count: int) -> Iterable[tuple[Device, str]]:
    """Yield `count` devices, each with the name of the one that it is, or is a copy of."""
    for number in range(count):
        device = devices[number % len(devices)]
        lap = number // len(devices)
        if lap:
            entry = replace(device.entry, name=f"{device.name}~{lap + 1}")
            yield replace(device, entry=entry), device.name
        else:
            yield device, device.name


def _idle(busy_s: float, count: int, wall_s: float) -> float:
    return 1 - busy_s / (count * wall_s) if wall_s else 0.0


def _bottleneck(case: Case, twice_devices_s: float | None, twice_hosts_s: float) -> str:
    gains = {"hosts": twice_hosts_s}
    if twice_devices_s is not None:
        gains["devices"] = twice_devices_s
    best = min(gains, key=gains.__getitem__)
    if gains[best] < (1 - _MATTERS) * case.wall_s:
        return best
    longest = max(case.night.spans, key=lambda span: span.seconds)
    return f"{longest.kind} {longest.what}"


def _least(count: int, enough: Callable[[int], bool]) -> int | None:
    """The least number that is enough, by halving; more is taken to be never worse."""
    low, high = 0, count
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
