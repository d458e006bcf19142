"""Which queued job goes to which idle device. Pure, deterministic, and cheap at any size.

Jobs that may run on the same set of devices form one class with one queue. A device that
becomes idle looks at the classes that name it and takes the oldest job; the devices that a
retried job must avoid are left out of its class, so a job that can't run here never blocks
the head of a queue that others wait in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Queue:
    devices: frozenset[str]
    jobs: deque[tuple[int, str]] = field(default_factory=deque)


class Matcher:
    """Queues of jobs and the idle devices they wait for."""

    def __init__(self) -> None:
        self._queues: dict[frozenset[str], _Queue] = {}
        self._by_device: dict[str, list[_Queue]] = {}
        #: Ordered set: the device that has been idle longest comes first.
        self._idle: dict[str, None] = {}
        self._cancelled: set[str] = set()
        self._sequence = 0

    def add(self, job_id: str, devices: frozenset[str]) -> None:
        """Queue a job for any one of `devices`."""
        queue = self._queues.get(devices)
        if queue is None:
            queue = self._queues[devices] = _Queue(devices)
            for device in devices:
                self._by_device.setdefault(device, []).append(queue)
        self._cancelled.discard(job_id)
        queue.jobs.append((self._sequence, job_id))
        self._sequence += 1

    def remove(self, job_id: str) -> None:
        """Take a queued job out; one that isn't queued is ignored."""
        self._cancelled.add(job_id)

    def idle(self, device: str) -> None:
        """Say that a device can take a job."""
        self._idle[device] = None

    def busy(self, device: str) -> None:
        """Say that a device can't take a job."""
        self._idle.pop(device, None)

    def assign(self, allowed: frozenset[str] | None = None) -> list[tuple[str, str]]:
        """Pair idle devices with jobs, at most one each.

        Args:
            allowed: Devices that may start work now; None is all.

        Returns:
            (job id, device name) pairs; those devices are no longer idle.
        """
        pairs = []
        for device in list(self._idle):
            if allowed is not None and device not in allowed:
                continue
            job_id = self._take(device)
            if job_id is not None:
                self.busy(device)
                pairs.append((job_id, device))
        return pairs

    def unschedulable(self, alive: frozenset[str]) -> list[str]:
        """Return queued jobs none of whose devices is alive, and forget them."""
        lost = []
        for queue in self._queues.values():
            if queue.devices.isdisjoint(alive):
                lost += [job for _, job in queue.jobs if job not in self._cancelled]
                queue.jobs.clear()
        return lost

    def _oldest(self, device: str) -> _Queue | None:
        best: _Queue | None = None
        for queue in self._by_device.get(device, ()):
            while queue.jobs and queue.jobs[0][1] in self._cancelled:
                queue.jobs.popleft()
            if queue.jobs and (best is None or queue.jobs[0][0] < best.jobs[0][0]):
                best = queue
        return best

    def _take(self, device: str) -> str | None:
        queue = self._oldest(device)
        return None if queue is None else queue.jobs.popleft()[1]
