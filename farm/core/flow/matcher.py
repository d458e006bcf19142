"""Which queued job goes to which idle device. Pure, deterministic, and cheap at any size.

Jobs that may run on the same set of devices form one class with one queue. A device that becomes
idle looks at the classes that name it and takes the longest job; of those that are about as long,
one whose artifact it has, then one whose artifact its site has, then the oldest. The devices that a
retried job must avoid are left out of its class, so a job that can't run here never blocks the head
of a queue that others wait in. Jobs of one group never share a device.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: Jobs whose lengths differ by less than this factor count as equally long.
_ALIKE = 1.25
#: Classes that are kept without looking which of them still have a job.
_SPARE_CLASSES = 64


@dataclass(slots=True, eq=False)
class _Alike:
    """Jobs of one class that are about as long, oldest first, and the same by artifact.

    The first entry of an OrderedDict is found in constant time, which a dict that lost its first
    entries does not do.
    """

    jobs: OrderedDict[str, int] = field(default_factory=OrderedDict)
    by_artifact: dict[str, OrderedDict[str, int]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Queue:
    devices: frozenset[str]
    #: By length, in steps; the longest of `steps` is first.
    alike: dict[int, _Alike] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)

    def add(self, job_id: str, step: int, artifact: str, sequence: int) -> None:
        if step not in self.alike:
            self.alike[step] = _Alike()
            self.steps = sorted(self.alike, reverse=True)
        alike = self.alike[step]
        alike.jobs[job_id] = sequence
        if artifact:
            same = alike.by_artifact.get(artifact)
            if same is None:
                same = alike.by_artifact[artifact] = OrderedDict()
            same[job_id] = sequence

    def remove(self, job_id: str, step: int, artifact: str) -> None:
        alike = self.alike[step]
        del alike.jobs[job_id]
        if artifact:
            same = alike.by_artifact[artifact]
            del same[job_id]
            if not same:
                del alike.by_artifact[artifact]
        if not alike.jobs:
            del self.alike[step]
            self.steps.remove(step)

    @property
    def all(self) -> Iterator[str]:
        for alike in self.alike.values():
            yield from alike.jobs


class _Queued(NamedTuple):
    queue: _Queue
    group: str
    step: int
    artifact: str


#: A job that a device could take: its length, negative so that the longest is the least; 0 where
#: the device has its artifact, 1 where its site has it, 2 where neither has; its sequence number;
#: its id. The least is the best.
_Choice = tuple[int, int, int, str]


class Matcher:
    """Queues of jobs and the idle devices they wait for.

    Between two calls of `assign` it looks only at devices that became idle and at queues that
    got a job: no idle device could take any other job before.

    Args:
        sites: Site by device.
    """

    def __init__(self, sites: Mapping[str, str] | None = None) -> None:
        self._sites = sites or {}
        self._queues: dict[frozenset[str], _Queue] = {}
        self._by_device: dict[str, dict[_Queue, None]] = {}
        self._jobs: dict[str, _Queued] = {}
        #: Queued jobs by group, and within it by queue.
        self._groups: dict[str, dict[_Queue, dict[str, None]]] = {}
        #: Who has which device, by group.
        self._taken: dict[str, dict[str, str]] = {}
        #: Artifacts by device, and by site.
        self._on_device: dict[str, set[str]] = {}
        self._on_site: dict[str, set[str]] = {}
        #: Idle since, as a sequence number: the device that has been idle longest comes first.
        self._idle: dict[str, int] = {}
        self._new_idle: dict[str, None] = {}
        self._new_jobs: dict[_Queue, None] = {}
        self._sequence = 0
        #: Number of classes at which those without a job are dropped.
        self._prune_at = _SPARE_CLASSES
        #: Jobs and devices looked at: what the cost of an event is made of.
        self.visited = 0

    @property
    def queued(self) -> frozenset[str]:
        """Jobs that wait for a device."""
        return frozenset(self._jobs)

    @property
    def idle_devices(self) -> frozenset[str]:
        """Devices that wait for a job."""
        return frozenset(self._idle)

    @property
    def classes(self) -> int:
        """Sets of devices that jobs wait for, or waited for lately."""
        return len(self._queues)

    def add(
        self,
        job_id: str,
        devices: frozenset[str],
        group: str = "",
        *,
        seconds: float = 0.0,
        artifact: str = "",
    ) -> None:
        """Queue a job for any one of `devices` that no other job of its group has.

        Args:
            job_id: The job; one that is queued already is queued anew.
            devices: Where it may run.
            group: Jobs that each want a device of their own.
            seconds: How long it takes.
            artifact: What has to be on the device; empty where nothing is.
        """
        self.remove(job_id)
        queue = self._queues.get(devices) or self._new_class(devices)
        step = round(math.log(max(1.0, seconds)) / math.log(_ALIKE))
        queue.add(job_id, step, artifact, self._next())
        self._jobs[job_id] = _Queued(queue, group, step, artifact)
        if group:
            self._groups.setdefault(group, {}).setdefault(queue, {})[job_id] = None
        self._new_jobs[queue] = None

    def remove(self, job_id: str) -> None:
        """Take a queued job out; one that isn't queued is ignored."""
        found = self._jobs.pop(job_id, None)
        if found is None:
            return
        queue, group, step, artifact = found
        queue.remove(job_id, step, artifact)
        if group:
            siblings = self._groups[group]
            del siblings[queue][job_id]
            if not siblings[queue]:
                del siblings[queue]
            if not siblings:
                del self._groups[group]

    def idle(self, device: str) -> None:
        """Say that a device can take a job."""
        if device not in self._idle:
            self._idle[device] = self._next()
        self._new_idle[device] = None

    def busy(self, device: str) -> None:
        """Say that a device can't take a job."""
        self._idle.pop(device, None)

    def has(self, device: str, artifact: str) -> None:
        """Say that a device has an artifact, and so does its site."""
        self._on_device.setdefault(device, set()).add(artifact)
        self._on_site.setdefault(self._sites.get(device, ""), set()).add(artifact)

    def take(self, group: str, device: str, job_id: str) -> None:
        """Give a device to a job of a group: no other job of it comes there."""
        self._taken.setdefault(group, {})[device] = job_id

    def release(self, group: str, device: str) -> None:
        """Take that back; the device has to be said to be idle anew."""
        self._taken.get(group, {}).pop(device, None)

    def taken(self, group: str) -> Mapping[str, str]:
        """Job of a group by the device that it has or had."""
        return self._taken.get(group, {}) if group else {}

    def assign(self) -> list[tuple[str, str]]:
        """Pair idle devices with jobs, at most one each.

        Returns:
            (job id, device name) pairs; those devices are no longer idle.
        """
        pairs: list[tuple[str, str]] = []
        for device in self._new_idle:
            self._give(device, pairs)
        self._new_idle.clear()
        for queue in self._new_jobs:
            for device in self._idle_of(queue.devices):
                if not queue.steps:
                    break
                self._give(device, pairs)
        self._new_jobs.clear()
        return pairs

    def stranded(self, device: str, alive: Callable[[str], bool]) -> list[str]:
        """Take out and return the jobs for a device and others that no device is left for."""
        lost: list[str] = []
        for queue in self._by_device.get(device, ()):
            if not any(map(alive, queue.devices)):
                lost += queue.all
            else:
                for group, siblings in self._groups.items():
                    if queue in siblings and not self._left(queue, group, alive):
                        lost += siblings[queue]
        return self._take_out(lost)

    def crowded_out(self, group: str, alive: Callable[[str], bool]) -> list[str]:
        """Take out and return the jobs of a group whose siblings have every device left."""
        siblings = self._groups.get(group, {})
        return self._take_out(
            [job for q, jobs in siblings.items() if not self._left(q, group, alive) for job in jobs]
        )

    def _left(self, queue: _Queue, group: str, alive: Callable[[str], bool]) -> bool:
        taken = self.taken(group)
        return any(alive(name) for name in queue.devices if name not in taken)

    def _take_out(self, jobs: list[str]) -> list[str]:
        for job_id in jobs:
            self.remove(job_id)
        return jobs

    def _new_class(self, devices: frozenset[str]) -> _Queue:
        if len(self._queues) >= self._prune_at:
            self._prune()
        queue = self._queues[devices] = _Queue(devices)
        for device in devices:
            self._by_device.setdefault(device, {})[queue] = None
        return queue

    def _prune(self) -> None:
        """Drop the classes without a job: retries leave many that nobody comes back to."""
        for queue in [queue for queue in self._queues.values() if not queue.steps]:
            del self._queues[queue.devices]
            self._new_jobs.pop(queue, None)
            for device in queue.devices:
                del self._by_device[device][queue]
        self._prune_at = 2 * len(self._queues) + _SPARE_CLASSES

    def _idle_of(self, devices: frozenset[str]) -> list[str]:
        """Return the idle ones of some devices: whose artifact is nearest, then longest idle."""
        if len(devices) < len(self._idle):
            self.visited += len(devices)
            found = sorted((d for d in devices if d in self._idle), key=self._idle.__getitem__)
        else:
            self.visited += len(self._idle)
            found = [device for device in self._idle if device in devices]
        if len(found) < 2:
            return found
        best = {device: self._best(device) for device in found}
        return sorted(found, key=lambda device: 3 if (b := best[device]) is None else b[1])

    def _give(self, device: str, pairs: list[tuple[str, str]]) -> None:
        best = self._best(device) if device in self._idle else None
        if best is None:
            return
        job_id = best[3]
        if group := self._jobs[job_id][1]:
            self.take(group, device, job_id)
        self.remove(job_id)
        del self._idle[device]
        pairs.append((job_id, device))

    def _best(self, device: str) -> _Choice | None:
        """Return what a device would take: called for each assignment, so few calls are made."""
        near = self._on_site.get(self._sites.get(device, "")) if self._on_site else None
        best: _Choice | None = None
        for queue in self._by_device.get(device, ()):
            for step in queue.steps:
                if best is not None and -step > best[0]:
                    break
                alike = queue.alike[step]
                found = self._nearest(alike, step, device, near) if near else None
                found = found or self._first(alike.jobs, -step, 2, device)
                if found is not None:
                    if best is None or found < best:
                        best = found
                    break
        return best

    def _nearest(self, alike: _Alike, step: int, device: str, near: set[str]) -> _Choice | None:
        """The best job whose artifact the device has, else one whose artifact its site has."""
        for far, known in enumerate((self._on_device.get(device, set()), near)):
            choices = [
                found
                for artifact in _both(known, alike.by_artifact)
                if (found := self._first(alike.by_artifact[artifact], -step, far, device))
            ]
            if choices:
                return min(choices)
        return None

    def _first(
        self, jobs: OrderedDict[str, int], length: int, far: int, device: str
    ) -> _Choice | None:
        for job_id, sequence in jobs.items():
            self.visited += 1
            group = self._jobs[job_id][1]
            if not group or device not in self._taken.get(group, ()):
                return (length, far, sequence, job_id)
        return None

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


def _both(known: set[str], waiting: Mapping[str, object]) -> list[str]:
    """Artifacts that are there and wanted, looking at the fewer."""
    if len(known) < len(waiting):
        return [artifact for artifact in known if artifact in waiting]
    return [artifact for artifact in waiting if artifact in known]
