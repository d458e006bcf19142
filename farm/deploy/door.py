"""One device of a deployment: what each step does there. Blocking; one thread each.

Every step can be done twice, and is safe against a power cut between any two of its calls: what is
in use changes by the one rename of `switch`, after everything was hashed in full.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from farm import codec
from farm.clock import Deadline
from farm.core.artifact import CanaryProgram
from farm.core.deployment import MANIFEST, Installed, Manifest, current_of, superfluous
from farm.core.device import DeviceEntry
from farm.core.errors import (
    ConfigError,
    DeviceUnfit,
    FarmError,
    RunnerError,
    TransferError,
    TransportError,
)
from farm.core.events import JobProgress
from farm.core.lease import LeaseOwner
from farm.core.runner import DeployFile, RunnerSpec
from farm.core.runtime import DeviceJob, DeviceRunResult
from farm.deploy import service
from farm.deploy.fleet import check_hashed, check_whole, read_manifest
from farm.deploy.release import Release, version_of
from farm.deploy.session import Session
from farm.deploy.smoke import PinnedRunner, Smoke, judged, smoke_job, with_manifest
from farm.protocols import Runner
from farm.site.context import SiteContext
from farm.site.device import deploy, deployments
from farm.site.device.helper import DeviceHelper
from farm.site.device.lease import user_and_host
from farm.site.device.sending import send
from farm.site.job.job import JobRun

log = logging.getLogger(__name__)

T = TypeVar("T")

_SAY_EVERY_S = 10.0
#: Before a check is tried again on a device whose connection failed, seconds.
_RETRY_S = 3.0
#: Most time of one step's copying, seconds.
_STEP_S = 3 * 3600.0

#: What a step is doing, for people.
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A device that could switch now."""

    #: Version in use; empty: none.
    previous: str
    pushed_bytes: int
    detail: str = ""
    #: Whether its name has a service; None: not looked.
    was_served: bool | None = None


class Door:
    """One device.

    Args:
        entry: The device.
        release: What it gets.
        canary: What checks the kernels.
        context: Folders and factories of this host.
        run_id: Name of the lease: one for each deployment.
        epoch: Of the lease; grows with each process that works on the deployment.
        keep: Versions that stay on the device, the one in use included.
        tell: Takes what goes on.
        served: Whether a unit of the device keeps the runner loaded.
    """

    def __init__(
        self,
        entry: DeviceEntry,
        release: Release,
        canary: CanaryProgram,
        context: SiteContext,
        run_id: str,
        epoch: int,
        keep: int,
        tell: Tell,
        *,
        served: bool = False,
    ) -> None:
        self.entry = entry
        self._release, self._canary, self._keep, self._tell = release, canary, keep, tell
        self._manifest, self._served = release.manifest, served
        self._context = replace(context, find_runner=self._find_runner)
        self._base = context
        self._owner = LeaseOwner(user_and_host(), run_id, epoch, context.limits.lease_s)
        self._said_at = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._cancelled: FarmError | None = None
        self._running: JobRun | Session | None = None

    def prepare(self) -> Prepared:
        """Copy and verify everything, check that it computes right, and make the version's folder.

        What is in use stays so.

        Raises:
            FarmError: Why the device can't get this version.
        """
        manifest = self._manifest
        with self._session() as session:
            before = session.call(deployments.list_installed)
            self._refuse_little_memory(session)
            was_served = self._has_service(session)
            if self._served:
                session.call(service.require_manager)
        smoke = self._smoke(timed=False)
        pushed = smoke.pushed_bytes
        with self._leased() as session:
            if not self._is_there(session, before):
                pushed += self._install(session)
        return Prepared(current_of(before, manifest.name), pushed, _found(smoke), was_served)

    def switch(self, previous: str) -> str:
        """Hash every file, then put the version in use; return the device's boot id.

        Raises:
            TransferError: A file isn't what was deployed.
            DeviceError: Another version than `previous` is in use by now.
        """
        name, version = _key(self._manifest)
        with self._leased() as session:
            self._verify(session)
            session.call(
                lambda helper: deployments.switch(helper, name, version, previous, self._owner)
            )
            if self._is_served(session):
                service.start(session.helper, self._manifest)
            self._prune(session, previous)
            return session.facts.boot_id or ""

    def check(self, boot_id: str) -> str:
        """Check the version in use again, its rate too; return what was found.

        Raises:
            RunnerError: It doesn't compute as validated, is too slow, or another is in use; or its
            service isn't up, or was restarted.
            DeviceError: The device was restarted since the switch.
        """
        name, version = _key(self._manifest)
        with self._session() as session:
            current = current_of(session.call(deployments.list_installed), name)
            now = session.facts.boot_id or ""
            if self._has_service(session):
                session.call(lambda helper: service.require_steady(helper, name))
        if current != version:
            raise RunnerError(f"{self.entry.name}: {current or 'nothing'} is in use, not {version}")
        if boot_id and now != boot_id:
            raise RunnerError(f"{self.entry.name}: was restarted since the switch")
        return _found(self._smoke(timed=True), self._manifest.no_rate)

    def restore(self, previous: str, was_served: bool | None) -> None:
        """Put back what was in use before, and its service; nothing happens where it is.

        Args:
            previous: That version; empty: none.
            was_served: Whether it had a service; None: not known.

        Raises:
            DeviceError: It is damaged, a third version is in use by now, or the device can't be
                reached.
        """
        name, version = _key(self._manifest)
        with self._leased() as session:
            listed = session.call(deployments.list_installed)
            if previous and current_of(listed, name) != previous:
                session.call(
                    lambda helper: check_hashed(helper, listed, name, previous, self._owner)
                )
            session.call(
                lambda helper: deployments.switch(helper, name, previous, version, self._owner)
            )
            if not self._has_service(session):
                return
            if self._served and (was_served is False or not previous):
                session.call(lambda helper: service.stop(helper, name))
            elif previous:
                # Its program and its words, which may be others than ours.
                service.start(session.helper, read_manifest(session.helper, name, previous))

    def cancel(self, error: FarmError) -> None:
        """End the step that runs, from any thread; no other begins."""
        with self._lock:
            self._cancelled = error
            running = self._running
        self._ended.set()
        if running is not None:
            running.cancel(error)

    # -- parts of the steps

    def _is_served(self, session: Session) -> bool:
        """A service of an earlier deployment would go on with the version before."""
        return self._served or self._has_service(session)

    def _has_service(self, session: Session) -> bool:
        return session.call(lambda helper: service.is_installed(helper, self._manifest.name))

    def _smoke(self, *, timed: bool) -> Smoke:
        job = smoke_job(
            self._manifest,
            self._release.runner,
            self._canary,
            self.entry.name,
            self._owner.run_id,
            self._owner.epoch,
            timed=timed,
        )
        try:
            result = self._run(job)
        except TransportError as error:
            # As in a run: a device that was gone for a moment gets another attempt.
            log.info("%s: once more after: %s", self.entry.name, error)
            self._ended.wait(_RETRY_S)
            result = self._run(replace(job, attempt=2))
        smoke = judged(self._manifest, result, self._canary, self._base.store, timed=timed)
        if smoke.failure:
            raise RunnerError(f"{self.entry.name}: {smoke.failure}", device=self.entry.name)
        return smoke

    def _run(self, job: DeviceJob) -> DeviceRunResult:
        run = JobRun(job, self.entry, self._context, self._report)
        with self._cancellable(run):
            result = run.run()
        connection = run.take_connection()
        if connection is not None:
            connection.close()
        return result

    def _report(self, progress: JobProgress) -> None:
        of = f" {progress.done}/{progress.total} {progress.unit}" if progress.total else ""
        self._say(f"{progress.stage}{of}{' ' + progress.detail if progress.detail else ''}")

    def _say(self, text: str) -> None:
        """Tell what takes long; the steps of a quick device are told by their results alone."""
        if time.monotonic() - self._said_at >= _SAY_EVERY_S:
            self._said_at = time.monotonic()
            self._tell(text)

    def _refuse_little_memory(self, session: Session) -> None:
        available = session.facts.ram_available_bytes
        need = self._manifest.ram_need_bytes
        if available is not None and available < need:
            raise DeviceUnfit(
                f"{self.entry.name} needs {deploy.gib(need)} of free memory, has"
                f" {deploy.gib(available)}",
                device=self.entry.name,
            )

    def _install(self, session: Session) -> int:
        manifest = self._manifest
        text = codec.to_json(manifest).encode()
        ref = self._base.store.put_bytes(text, MANIFEST)
        files = with_manifest(manifest, DeployFile(ref, MANIFEST))
        sent = send(
            session,
            files,
            self._base.store,
            self._owner,
            free_bytes=session.facts.storage_free_bytes,
            tell=lambda done, total: self._say(f"copy {done}/{total} bytes"),
            deadline=Deadline(_STEP_S),
        )
        name, version = _key(manifest)
        session.call(lambda helper: deployments.install(helper, name, version, files, self._owner))
        return sent.pushed_bytes

    def _is_there(self, session: Session, listed: Sequence[Installed]) -> bool:
        """Whether the version is on the device already, and says of itself what ours does."""
        key = _key(self._manifest)
        one = next((one for one in listed if (one.name, one.version) == key), None)
        if one is None or not one.holds(self._manifest.files):
            return False
        try:
            return self._is_ours(session.call(lambda helper: read_manifest(helper, *key)))
        except ConfigError:
            return False

    def _is_ours(self, found: Manifest) -> bool:
        """Whether a manifest is of what we deploy, whoever wrote it when."""
        ours = self._manifest
        named = (found.program, found.data, found.tokenizer, found.provenance.outcome)
        return version_of(found) == version_of(ours) and named == (
            ours.program,
            ours.data,
            ours.tokenizer,
            ours.provenance.outcome,
        )

    def _verify(self, session: Session) -> None:
        """Hash what the version's folder holds, whatever stamps say.

        Raises:
            DeviceError: Something is missing, or isn't what was deployed.
        """
        name, version = _key(self._manifest)
        listed = session.call(deployments.list_installed)
        found = session.call(lambda helper: check_whole(helper, listed, name, version, self._owner))
        if not self._is_ours(found):
            raise TransferError(
                f"{self.entry.name}: {MANIFEST} of {name} {version} is not what was deployed",
                device=self.entry.name,
            )

    def _prune(self, session: Session, previous: str) -> None:
        """Remove versions beyond those that are kept; one that stays costs space, nothing else."""
        name = self._manifest.name
        try:
            listed = session.call(deployments.list_installed)
            for version in superfluous(listed, name, self._keep, previous):
                log.info("%s: removing %s %s", self.entry.name, name, version)
                session.call(partial(self._remove, version))
        except TransportError:
            raise
        except FarmError as error:
            log.warning("%s: old versions stay: %s", self.entry.name, error)

    def _remove(self, version: str, helper: DeviceHelper) -> None:
        deployments.remove(helper, self._manifest.name, version, self._owner)

    # -- connections

    def _find_runner(self, spec: RunnerSpec) -> Runner:
        runner = self._base.find_runner(spec)
        return PinnedRunner(runner, self._manifest.runner, self._base.store)

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        session = Session(self.entry, self._base, self._owner)
        with self._cancellable(session):
            try:
                yield session
            finally:
                session.close()

    @contextlib.contextmanager
    def _leased(self) -> Iterator[Session]:
        """A connection, with the device ours; given back at the end."""
        with self._session() as session:
            session.call(session.keeper.take)
            try:
                yield session
            finally:
                session.release()

    @contextlib.contextmanager
    def _cancellable(self, running: JobRun | Session) -> Iterator[None]:
        with self._lock:
            if self._cancelled is not None:
                raise self._cancelled
            self._running = running
        try:
            yield
        finally:
            with self._lock:
                self._running = None


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest.name, manifest.version


def _found(smoke: Smoke, no_rate: str = "") -> str:
    held = ", ".join(gate.metric for gate in smoke.gates if gate.passed)
    open_ = [f"{gate.metric}: {gate.reason}" for gate in smoke.gates if gate.passed is None]
    rate = f", {smoke.rate_tok_s:.1f} tok/s" if smoke.rate_tok_s is not None else ""
    if no_rate:
        open_.append(f"rate: {no_rate}")
    return f"{held or 'nothing'} right{rate}" + (
        f"; not judged: {'; '.join(open_)}" if open_ else ""
    )
