"""A device of another host: each step of its deployment is done there, by that host's own farm."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import runners
from farm import paths, transports
from farm.core.artifact import CanaryProgram
from farm.core.device import DeviceEntry
from farm.core.errors import FarmError
from farm.core.rules.rollout import Do, Step
from farm.deploy.door import Door, Prepared
from farm.deploy.release import Release
from farm.planning.reach import Reach
from farm.site.context import SiteContext
from farm.store.objects import ContentStore

log = logging.getLogger(__name__)

#: Most time of one step at another host, copying included, seconds.
_STEP_S = 4 * 3600.0


def perform(
    home: Path,
    entry: DeviceEntry,
    release: Release,
    canary: CanaryProgram,
    lease: tuple[str, int],
    keep: int,
    served: bool,
    step: Do,
) -> Prepared | str:
    """Do one step on a device of this host; travels to it.

    Args:
        home: FARM_HOME of this host, whose store has what the step needs.
        entry: The device.
        release: What it gets.
        canary: What checks the kernels.
        lease: Its run id and epoch.
        keep: Versions that stay on the device.
        served: Whether a unit of the device keeps the runner loaded.
        step: What to do.

    Returns:
        As the step of `Door`; empty where that returns nothing.

    Raises:
        FarmError: As the step of `Door`.
    """
    run_id, epoch = lease
    store = ContentStore(paths.store_root(home))
    context = SiteContext(home, store, transports.open, runners.find)
    with store.in_use(f"farm deploy {run_id}"):
        door = Door(entry, release, canary, context, run_id, epoch, keep, log.info, served=served)
        match step.step:
            case "prepare":
                return door.prepare()
            case "switch":
                return door.switch(step.previous)
            case "check":
                return door.check(step.boot_id)
            case "restore":
                door.restore(step.previous, step.was_served)
                return ""


class SiteDoor:
    """One device of a site; see `farm.deploy.door.Door`.

    Args:
        entry: The device.
        release: What it gets.
        canary: What checks the kernels.
        reach: The way to its host.
        run_id: Name of the lease.
        epoch: Of the lease.
        keep: Versions that stay on the device.
        served: Whether a unit of the device keeps the runner loaded.
    """

    def __init__(
        self,
        entry: DeviceEntry,
        release: Release,
        canary: CanaryProgram,
        reach: Reach,
        run_id: str,
        epoch: int,
        keep: int,
        *,
        served: bool = False,
    ) -> None:
        self.entry = entry
        self._release, self._canary, self._reach = release, canary, reach
        self._lease, self._keep, self._served = (run_id, epoch), keep, served
        self._ended = threading.Event()

    def prepare(self) -> Prepared:
        """As `Door.prepare`; what its host lacks is brought there first."""
        self._bring()
        made = self._at("prepare")
        assert isinstance(made, Prepared)
        return made

    def switch(self, previous: str) -> str:
        """As `Door.switch`."""
        return str(self._at("switch", previous))

    def check(self, boot_id: str) -> str:
        """As `Door.check`; its host may have lost objects during the wait."""
        self._bring()
        return str(self._at("check", boot_id=boot_id))

    def restore(self, previous: str, was_served: bool | None) -> None:
        """As `Door.restore`."""
        self._at("restore", previous, was_served=was_served)

    def cancel(self, error: FarmError) -> None:
        """End the step that runs, with its process at the host; the device ends what is left."""
        del error
        self._ended.set()

    def _bring(self) -> None:
        files = [file.object for file in self._release.manifest.files]
        refs = dict.fromkeys((*files, self._canary.pte, self._canary.expected.object))
        self._reach.bring(list(refs), self.entry.site)

    def _at(
        self,
        step: Step,
        previous: str = "",
        boot_id: str = "",
        was_served: bool | None = None,
    ) -> Prepared | str:
        version = self._release.manifest.version
        return self._reach.at(
            self.entry.site,
            perform,
            self.entry,
            self._release,
            self._canary,
            self._lease,
            self._keep,
            self._served,
            Do(step, self.entry.name, version, previous, boot_id, was_served),
            limit_s=_STEP_S,
            ended=self._ended,
        )
