"""Which queued job goes to which idle device. Pure, deterministic, and cheap at any size.

Jobs that may run on the same set of devices form one class with one queue. A device that
becomes idle looks at the classes that name it and takes the oldest job; the devices that a
retried job must avoid are left out of its class, so a job that can't run here never blocks
the head of a queue that others wait in. Jobs of one group never share a device.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(slots=True, eq=False)
class _Queue:
    devices: frozenset[str]
    #: Sequence numbers by job, oldest first. Its first entry is found in constant time, which a
    #: dict that lost its first entries does not do.
    jobs: OrderedDict[str, int] = field(default_factory=OrderedDict)


class _Queued(NamedTuple):
    queue: _Queue
    group: str


class Matcher:
    """Queues of jobs and the idle devices they wait for.

    Between two calls of `assign` it looks only at devices that became idle and at queues that
    got a job: no idle device could take any other job before.
    """

    def __init__(self) -> None:
        self._queues: dict[frozenset[str], _Queue] = {}
        self._by_device: dict[str, list[_Queue]] = {}
        self._jobs: dict[str, _Queued] = {}
        #: Queued jobs by group, and within it by queue.
        self._groups: dict[str, dict[_Queue, dict[str, None]]] = {}
        #: Who has which device, by group.
        self._taken: dict[str, dict[str, str]] = {}
        #: Idle since, as a sequence number: the device that has been idle longest comes first.
        self._idle: dict[str, int] = {}
        self._new_idle: dict[str, None] = {}
        self._new_jobs: dict[_Queue, None] = {}
        self._sequence = 0
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

    def add(self, job_id: str, devices: frozenset[str], group: str = "") -> None:
        """Queue a job for any one of `devices` that no other job of its group has."""
        queue = self._queues.get(devices)
        if queue is None:
            queue = self._queues[devices] = _Queue(devices)
            for device in devices:
                self._by_device.setdefault(device, []).append(queue)
        self.remove(job_id)
        queue.jobs[job_id] = self._next()
        self._jobs[job_id] = _Queued(queue, group)
        if group:
            self._groups.setdefault(group, {}).setdefault(queue, {})[job_id] = None
        self._new_jobs[queue] = None

    def remove(self, job_id: str) -> None:
        """Take a queued job out; one that isn't queued is ignored."""
        queue, group = self._jobs.pop(job_id, (None, ""))
        if queue is None:
            return
        del queue.jobs[job_id]
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
                if not queue.jobs:
                    break
                self._give(device, pairs)
        self._new_jobs.clear()
        return pairs

    def stranded(self, device: str, alive: Callable[[str], bool]) -> list[str]:
        """Take out and return the jobs for a device and others that no device is left for."""
        lost: list[str] = []
        for queue in self._by_device.get(device, ()):
            if not any(map(alive, queue.devices)):
                lost += queue.jobs
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

    def _idle_of(self, devices: frozenset[str]) -> list[str]:
        """Return the idle ones of some devices, longest idle first, looking at few."""
        if len(devices) < len(self._idle):
            self.visited += len(devices)
            return sorted((d for d in devices if d in self._idle), key=self._idle.__getitem__)
        self.visited += len(self._idle)
        return [device for device in self._idle if device in devices]

    def _give(self, device: str, pairs: list[tuple[str, str]]) -> None:
        job_id = self._oldest(device) if device in self._idle else None
        if job_id is None:
            return
        group = self._jobs[job_id].group
        if group:
            self.take(group, device, job_id)
        self.remove(job_id)
        self.busy(device)
        pairs.append((job_id, device))

    def _oldest(self, device: str) -> str | None:
        best, oldest = None, self._sequence
        for queue in self._by_device.get(device, ()):
            for job_id, sequence in queue.jobs.items():
                self.visited += 1
                if sequence > oldest:
                    break
                if device not in self.taken(self._jobs[job_id].group):
                    best, oldest = job_id, sequence
                    break
        return best

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence
