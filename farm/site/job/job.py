"""One attempt of one job on one device, from the first probe to the released lease.

Runs in its session's thread and blocks; `cancel` comes from any other thread. It emits no
terminal event: it returns a result or raises.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from farm.clock import Deadline
from farm.core.artifact import ObjectRef
from farm.core.device import DeviceEntry
from farm.core.errors import DeviceUnfit, FarmError, RunnerError, TransportError
from farm.core.events import JobProgress
from farm.core.lease import LeaseOwner
from farm.core.rules.classes import DeviceClass, device_class
from farm.core.rules.launches import without_baseline
from farm.core.runner import BuildVariant, DeployFile, RunnerBuild
from farm.core.runtime import Arm, Deployed, DeviceJob, DeviceRunResult, LaunchResult
from farm.host.priority import niceness
from farm.protocols import Runner
from farm.site.context import Limits, SiteContext
from farm.site.device import deploy
from farm.site.device.connection import Connection, Snapshot
from farm.site.device.helper import DeviceHelper
from farm.site.device.lease import LeaseKeeper, user_and_host
from farm.site.device.sending import provide_runner, send
from farm.site.device.supervised import past_host_faults, persevere
from farm.site.device.turns import Turns
from farm.site.job import fit
from farm.site.job.arms import ArmFiles, is_same
from farm.site.job.asking import ask
from farm.site.job.conditions import conditions
from farm.site.job.launcher import Launcher
from farm.site.job.preflight import start_once, starting_build
from farm.site.job.progress import Progress
from farm.site.job.results import common_clock
from farm.site.job.rounds import Rounds, Ways
from farm.site.job.sustained import sustain
from farm.site.look.speeds import usual_speeds
from farm.site.parsers.start import Trouble

log = logging.getLogger(__name__)


class JobRun:
    """One attempt.

    Args:
        job: What to do.
        entry: The device.
        context: Folders and factories of this host.
        report: Takes progress events.
        kept: Connection that the device's last job left open; it is checked before use.
        turns: As for `LeaseKeeper`.
    """

    def __init__(
        self,
        job: DeviceJob,
        entry: DeviceEntry,
        context: SiteContext,
        report: Callable[[JobProgress], None],
        kept: Connection | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.job = job
        self._entry = entry
        self._context = context
        # Protects _connection and _cancelled: cancel() comes from another thread and must
        # close whatever connection is the present one, or prevent the next.
        self._lock = threading.Lock()
        self._connection = kept
        self._cancelled: FarmError | None = None
        self.owner = LeaseOwner(user_and_host(), job.run_id, job.epoch, context.limits.lease_s)
        self._lease = LeaseKeeper(self.owner, turns)
        self._deadline = Deadline(job.timeout_s)
        self._work_name = deploy.work_name(job)
        #: Work folders on the device: the candidate's, and the baseline's after it.
        self._works: list[str] = []
        self._work = ""
        self._deployed: list[ObjectRef] = []
        self._greeted: list[Deployed] = []
        self._progress = Progress(job, report)
        self._say = self._progress.say
        #: Standard output and error of launches so far.
        self.logs: list[ObjectRef] = []

    def run(self) -> DeviceRunResult:
        """Do the job. Its connection stays open for the next one: see `take_connection`.

        Raises FarmError: why there is no result; the device is clean again where it answers.
        """
        try:
            with self._context.store.in_use(self.job.job_id):
                result = self._attempt()
        except BaseException as error:
            found = self._after_failure(error)
            self._close()
            if found is error:
                raise
            raise found from error
        return result

    def take_connection(self) -> Connection | None:
        """Hand on the connection of a job that gave a result; whoever takes it closes it."""
        with self._lock:
            connection, self._connection = self._connection, None
        return connection

    def cancel(self, error: FarmError) -> None:
        """End the attempt with this error, from any thread, at once. May be repeated."""
        with self._lock:
            if self._cancelled is not None:
                return
            self._cancelled = error
            connection = self._connection
        if connection is not None:
            # Closing takes a while on a frozen device, so many devices are closed in parallel.
            threading.Thread(target=connection.close, name="farm-cancel", daemon=True).start()

    @property
    def limits(self) -> Limits:
        """Times that decide about lost devices."""
        return self._context.limits

    @property
    def helper(self) -> DeviceHelper:
        """The helper through the present connection."""
        return self._present().helper

    def reconnect(self, error: TransportError, waited_s: float) -> None:
        """Replace a broken connection; see `farm.site.device.supervised.Link`."""
        log.info("%s: reconnecting after: %s", self._entry.name, error)
        detail = f"connection lost, looking for the device ({waited_s:.0f} s)"
        self._say(self._progress.stage, detail=detail, force=True)
        old = self._present()
        old.close()
        self._use(old.reopen())

    def beat(self) -> None:
        """Renew the lease when it is time."""
        persevere(self, self._lease.renew_if_due)

    def beat_aside(self) -> None:
        """Renew the lease when it is time, while a transfer has the connection."""
        self._lease.renew_aside(lambda: self._present().reopen().helper)

    def _attempt(self) -> DeviceRunResult:
        job, entry = self.job, self._entry
        self._say("lease", force=True)
        connection = self._connected()
        before = past_host_faults(connection.snapshot)
        fit.check_fit(job, entry, before.facts)
        runner = self._context.find_runner(job.runner)
        build = self._build(runner, before)
        waiting = partial(self._say, "lease", force=True)
        past_host_faults(partial(self._lease.take, connection.helper, waiting))
        stale = past_host_faults(partial(connection.helper.clean_stale, self.owner))
        if stale:
            log.info("%s: removed abandoned work folders %s", entry.name, ", ".join(stale))
        build = self._started(runner, build, before)
        deployed = self._deploy((*job.own_files, *build.files), before)
        launcher = self._launcher(runner, device_class(before.facts, entry.labels))
        arms, starts = launcher.arms, launcher.starts
        arms["candidate"] = ours = ArmFiles(job.artifact, build, self._work)
        checks: dict[str, LaunchResult] = {}
        for name, check in job.checks.items():
            files = ArmFiles((check.file,), build, self._work)
            checks[name] = launcher.start(0, check.request, files, name)
        job, unpaired = self._second_arm(build, before, arms)
        ways = Ways(
            launcher.one,
            launcher.in_turn,
            lambda: persevere(self, ours.evict),
            lambda: persevere(self, lambda _helper: self._snapshot().facts.ram_available_bytes),
        )
        self._progress.launches = rounds = Rounds(
            job,
            ways,
            fresh=deployed.pushed_bytes > 0,
            clock=lambda: time.monotonic() - sum(start.waited_s for start in starts),
        )
        launched = rounds.run()
        self._progress.launches = None
        long = partial(launcher.start, len(launched.launches), files=ours, name="sustained")
        sustained = sustain(job, launched.launches, long, launcher.telemetry, starts)
        count = len(launched.launches)
        asked = ask(job, lambda request, name: launcher.start(count, request, ours, name))
        self._say("clean", force=True)
        persevere(self, lambda helper: deploy.check_intact(helper, self._deployed, self.owner))
        after = persevere(self, lambda _helper: self._snapshot())
        persevere(self, self._clean)
        return DeviceRunResult(
            build,
            common_clock(launched.launches),
            deploy.total((*self._greeted, deployed)),
            conditions(before, after, niceness() if entry.transport == "local" else None)
            + ((("turns", launched.turns),) if launched.turns else ()),
            starts=tuple(starts),
            telemetry=tuple(launcher.telemetry),
            usual=usual_speeds(self._context.home, before.facts.identity, launcher.telemetry),
            stop=launched.stop,
            same_as_baseline=job.baseline is not self.job.baseline and not unpaired,
            unpaired=unpaired or launched.unpaired,
            canary=checks.get("canary"),
            replay=checks.get("replay"),
            sustained=sustained,
            asked=asked,
        )

    def _launcher(self, runner: Runner, kind: DeviceClass) -> Launcher:
        return Launcher(
            self,
            self.job,
            self._entry,
            runner,
            kind,
            self._progress,
            self._deadline,
            self._context.store,
            self._snapshot,
            self.logs.extend,
        )

    def _snapshot(self) -> Snapshot:
        return self._present().snapshot()

    def _second_arm(
        self, build: RunnerBuild, snapshot: Snapshot, arms: dict[Arm, ArmFiles]
    ) -> tuple[DeviceJob, str]:
        """Deploy the baseline's arm; return the job as it goes on, and why it is unpaired."""
        job, other = self.job, self.job.baseline
        if other is None:
            return job, ""
        words = () if job.tokenizer is None else (job.tokenizer,)
        if other.runner.abi != build.abi:
            return without_baseline(job), f"the baseline's runner is for {other.runner.abi}"
        if not other.even_if_same and is_same(other, job.artifact, build):
            return without_baseline(job), ""
        try:
            self._deploy((*other.artifact, *words, *other.runner.files), snapshot)
        except DeviceUnfit as error:
            return without_baseline(job), f"no room for the baseline's artifact: {error.message}"
        arms["baseline"] = ArmFiles(other.artifact, other.runner, self._work)
        return job, ""

    def _started(self, runner: Runner, build: RunnerBuild, before: Snapshot) -> RunnerBuild:
        def hello(other: RunnerBuild) -> Trouble | None:
            self._greeted.append(self._deploy(other.files, before))
            words = (*other.argv, *(runner.greeting or ()))
            trouble = start_once(self, self._work, words, other.env, self._context.store)
            persevere(self, lambda helper: helper.clean(self._works[-1]))
            self._works.pop()
            return trouble

        if runner.greeting is None:
            return build
        bundled = partial(self._build, runner, before, own_libc=True)
        return starting_build(build, bundled, hello, self._entry.name)

    def _build(self, runner: Runner, snapshot: Snapshot, *, own_libc: bool = False) -> RunnerBuild:
        def step(text: str) -> None:
            self._check_cancelled()
            self._say("deploy", detail=text, force=True)

        profile = any(request.profiles for request in self.job.launches)
        variant = BuildVariant(own_libc=own_libc, profile=profile)
        build = provide_runner(runner, snapshot.facts, self.job, self._context, step, variant)
        self._check_cancelled()
        return build

    def _deploy(self, files: tuple[DeployFile, ...], snapshot: Snapshot) -> Deployed:
        deployed = send(
            self,
            files,
            self._context.store,
            self.owner,
            deadline=self._deadline,
            free_bytes=snapshot.facts.storage_free_bytes,
            tell=lambda done, total: self._say(
                "deploy", done, total, "bytes", force=done in (0, total)
            ),
        )
        self._deployed += [file.object for file in files]
        self._works.append(self._work_name + (f"-{len(self._works)}" if self._works else ""))
        tries = 0

        def assemble(helper: DeviceHelper) -> str:
            nonlocal tries
            if tries:  # it may be there, whole, and its answer lost
                helper.clean(self._works[-1])
            tries += 1
            return helper.assemble(self._works[-1], files, self.owner)

        self._work = persevere(self, assemble)
        return deployed

    def _after_failure(self, error: BaseException) -> BaseException:
        """Clean up, and return the error that ended the attempt."""
        with self._lock:
            cancelled = self._cancelled
        found: BaseException = cancelled or error
        if cancelled is None and isinstance(error, RunnerError) and self._deployed:
            found = deploy.damage_or(error, self.helper, self._deployed, self.owner)
        if self._lease.held or self._works:
            limits = self.limits
            self._clean_anew(limits.clean_s if cancelled is None else limits.cancelled_clean_s)
        return found

    def _clean_anew(self, limit_s: float) -> None:
        """Clean through a fresh connection, which is closed from outside when it takes long."""
        old = self._present_or_none()
        assert old is not None
        old.close()
        fresh = old.reopen()
        timer = threading.Timer(limit_s, fresh.close)
        timer.daemon = True
        timer.start()
        try:
            self._clean(fresh.helper)
        except FarmError as trouble:
            # Without polls the device ends the job by itself.
            log.warning("%s: not cleaned: %s", self._entry.name, trouble)
        finally:
            timer.cancel()
            fresh.close()

    def _clean(self, helper: DeviceHelper) -> None:
        while self._works:
            helper.clean(self._works[-1])
            self._works.pop()
        self._lease.release(helper)

    def _connected(self) -> Connection:
        """Return the connection that was kept, if the device still answers on it, or a new one.

        Raises:
            TransportTimeout: It holds the connection and says nothing: it is frozen.
        """
        kept = self._present_or_none()
        answers = kept is not None and kept.answers()
        self._check_cancelled()
        if kept is not None and answers:
            return kept
        self._use(Connection(self._entry, self._context.home, self._context.open_transport))
        return self._present()

    def _use(self, connection: Connection) -> None:
        with self._lock:
            self._connection = connection
            cancelled = self._cancelled
        if cancelled is not None:
            connection.close()
            raise cancelled

    def _present(self) -> Connection:
        self._check_cancelled()
        connection = self._present_or_none()
        assert connection is not None  # set before anything asks for it
        return connection

    def _present_or_none(self) -> Connection | None:
        with self._lock:
            return self._connection

    def _check_cancelled(self) -> None:
        with self._lock:
            if self._cancelled is not None:
                raise self._cancelled

    def _close(self) -> None:
        connection = self.take_connection()
        if connection is not None:
            connection.close()
