"""Host tasks of a run: those that run, those that wait, and the hosts that they leave alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from farm.core.flow.stimuli import StartTask
from farm.core.plan import ArtifactId
from farm.core.tasks import HostTask, PoolHosts

#: What a task is for: an artifact, one cell (by id), or the canary of all devices.
Owner = ArtifactId | str


class HostTasks:
    """Tasks that were asked for and have not ended, by id.

    A task is told which hosts to leave alone, and not where to run: until it ends it may be on any
    other.

    Args:
        hosts: Where tasks may run.
        measured: Hosts of the pool that devices of this run measure, at one time or another.
    """

    def __init__(self, hosts: PoolHosts, measured: Iterable[str]) -> None:
        self._names, self._measured = hosts.names, hosts.names & frozenset(measured)
        #: Hosts that no task disturbs in this run, since others can do its work.
        self.spared = self._measured if self._names - self._measured else frozenset[str]()
        self.waiting: dict[str, HostTask] = {}
        self.running: dict[str, HostTask] = {}
        self._owners: dict[str, Owner] = {}
        #: Measured hosts that each task may be on, and how many tasks may be on each.
        self._places: dict[str, frozenset[str]] = {}
        self._counts: Counter[str] = Counter()
        #: Measured hosts that a task may be on: no device that is one of them begins.
        self.loud: frozenset[str] = frozenset()

    def add(self, task: HostTask, owner: Owner) -> None:
        """Ask for a task; it begins with the next `start`."""
        self._owners[task.task_id] = owner
        self.waiting[task.task_id] = task

    def may_start(self, measured: frozenset[str]) -> bool:
        """Whether a host is left for tasks while these are measured."""
        return not self._names <= measured | self.spared

    def start(self, measured: frozenset[str]) -> list[StartTask]:
        """Begin all that wait, in the order in which they were asked for.

        Args:
            measured: Hosts on which a device works that is the host itself.

        Returns:
            Nothing while every host is measured.
        """
        if not self.waiting or not self.may_start(measured):
            return []
        but = (measured & self._names) | self.spared
        places = self._measured - but
        started = [StartTask(task, but) for task in self.waiting.values()]
        for task_id in self.waiting:
            self._count(task_id, places)
        self.running |= self.waiting
        self.waiting.clear()
        return started

    def drop_waiting(self) -> None:
        """Forget those that have not begun."""
        for task_id in self.waiting:
            del self._owners[task_id]
        self.waiting.clear()

    def drop(self, task_id: str) -> None:
        """Forget a task that has not begun; one that runs goes on."""
        if self.waiting.pop(task_id, None) is not None:
            del self._owners[task_id]

    def ended(self, task_id: str) -> tuple[HostTask, Owner] | None:
        """Take out a task that ran; None when none of that id does."""
        task = self.running.pop(task_id, None)
        if task is None:
            return None
        if places := self._places.pop(task_id, None):
            self._counts -= Counter(places)  # keeps those above 0
            self.loud = frozenset(self._counts)
        return task, self._owners.pop(task_id)

    def owner(self, task_id: str) -> Owner:
        """Return what a task is for."""
        return self._owners[task_id]

    def _count(self, task_id: str, places: frozenset[str]) -> None:
        if places:
            self._places[task_id] = places
            self._counts.update(places)
            self.loud = frozenset(self._counts)
