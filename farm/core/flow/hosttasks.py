"""Host tasks of a run: those that run, and those that wait for a measured host."""

from __future__ import annotations

from farm.core.flow.stimuli import StartTask
from farm.core.plan import ArtifactId
from farm.core.tasks import HostTask

#: What a task is for: an artifact, one cell (by id), or the canary of all devices.
Owner = ArtifactId | str


class HostTasks:
    """Tasks that were asked for and have not ended, by id."""

    def __init__(self) -> None:
        self.waiting: dict[str, HostTask] = {}
        self.running: dict[str, HostTask] = {}
        self._owners: dict[str, Owner] = {}

    def add(self, task: HostTask, owner: Owner) -> None:
        """Ask for a task; it begins with the next `start`."""
        self._owners[task.task_id] = owner
        self.waiting[task.task_id] = task

    def start(self) -> list[StartTask]:
        """Begin all that wait, in the order in which they were asked for."""
        started = [StartTask(task) for task in self.waiting.values()]
        self.running |= self.waiting
        self.waiting.clear()
        return started

    def drop_waiting(self) -> None:
        """Forget those that have not begun."""
        for task_id in self.waiting:
            del self._owners[task_id]
        self.waiting.clear()

    def ended(self, task_id: str) -> tuple[HostTask, Owner] | None:
        """Take out a task that ran; None when none of that id does."""
        task = self.running.pop(task_id, None)
        return None if task is None else (task, self._owners.pop(task_id))

    def owner(self, task_id: str) -> Owner:
        """Return what a task is for."""
        return self._owners[task_id]
