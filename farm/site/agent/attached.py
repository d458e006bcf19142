"""The runs that an agent works for: each with an outbox, an epoch and a heartbeat of its own."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from pathlib import Path

from farm.clock import Deadline
from farm.core.events import SiteEvent
from farm.site.agent.outbox import Outbox

log = logging.getLogger(__name__)

#: Outboxes that nobody came back for are removed after this long, seconds.
ABANDONED_S = 30 * 86400.0
#: Events about devices from before the first run, at most.
_NEWS_KEPT = 1000


class AttachedRun:
    """One run, as the agent knows it."""

    def __init__(self, outbox: Outbox, grace_s: float) -> None:
        self.outbox = outbox
        #: The newest that was heard of.
        self.epoch = 0
        #: Passes when the controller counts as gone.
        self.heartbeat = Deadline(grace_s)


class AttachedRuns:
    """Runs by id. Any thread may ask; opening one waits for the disk.

    Args:
        folder: Where outboxes are kept; None for an agent that ends with its one controller.
        grace_s: Without a poll for so long a controller counts as gone.
    """

    def __init__(self, folder: Path | None, grace_s: float) -> None:
        self._folder, self._grace_s = folder, grace_s
        self.boot_id = secrets.token_hex(8)
        # Lets one run be opened at a time, which waits for the disk; taken before the other lock.
        self._opening = threading.Lock()
        # Protects everything below.
        self._lock = threading.Lock()
        self._runs: dict[str, AttachedRun] = {}
        #: What happened to devices while there was no run to tell.
        self._news: list[SiteEvent] = []
        self._sweep()

    def get(self, run_id: str) -> AttachedRun | None:
        """Return a run that is open."""
        with self._lock:
            return self._runs.get(run_id)

    def open(self, run_id: str) -> AttachedRun:
        """Return a run, with what an earlier agent of this site kept for it.

        Raises:
            StoreError: Its outbox can't be used.
        """
        with self._opening:
            if (known := self.get(run_id)) is not None:
                return known
            path = None if self._folder is None else self._folder / _file_name(run_id)
            run = AttachedRun(Outbox(path, run_id), self._grace_s)
            with self._lock:
                self._runs[run_id] = run
                news, self._news = self._news, []
            for event in news:
                run.outbox.append(event)
            return run

    def tell_all(self, event: SiteEvent) -> None:
        """Give an event about a device to every run that still listens."""
        with self._lock:
            listening = [run for run in self._runs.values() if not run.heartbeat.passed]
            if not listening:
                self._news = [*self._news, event][-_NEWS_KEPT:]
        for run in listening:
            run.outbox.append(event)

    def gone(self) -> list[str]:
        """Return the runs whose controllers don't poll any longer."""
        with self._lock:
            return [run_id for run_id, run in self._runs.items() if run.heartbeat.passed]

    def forget(self, run_id: str) -> None:
        """Remove a run, and what was kept for it."""
        with self._lock:
            run = self._runs.pop(run_id, None)
        if run is not None:
            run.outbox.close(forget=True)

    def close(self) -> None:
        """Leave the files to the next agent of this site; who polls still gets what is here."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.outbox.close()

    def _sweep(self) -> None:
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._folder.glob("*.db*"):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                log.warning("removed %s: nobody came for it", path)
                path.unlink(missing_ok=True)


def _file_name(run_id: str) -> str:
    return hashlib.sha256(run_id.encode()).hexdigest()[:32] + ".db"
