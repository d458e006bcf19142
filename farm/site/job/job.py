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
from farm.core.rules.launches import least_launches, without_baseline
from farm.core.runner import BuildVariant, DeployFile, RunnerBuild
from farm.core.runtime import Arm, Deployed, DeviceJob, DeviceRunResult, LaunchRequest, LaunchResult
from farm.core.telemetry import LaunchTelemetry, Start
from farm.host.priority import niceness
from farm.protocols import Runner
from farm.site.context import Limits, SiteContext
from farm.site.device import deploy
from farm.site.device.connection import Connection, Snapshot
from farm.site.device.helper import DeviceHelper
from farm.site.device.lease import LeaseKeeper, user_and_host
from farm.site.device.sending import provide_runner, send
from farm.site.device.supervised import MAX_OUTPUT_BYTES, follow, persevere
from farm.site.job import fit
from farm.site.job.arms import ArmFiles, is_same
from farm.site.job.conditions import conditions
from farm.site.job.cooldown import cool_down, paced
from farm.site.job.launch import read_launch, timed_out
from farm.site.job.preflight import start_once, starting_build
from farm.site.job.progress import Progress
from farm.site.job.results import (
    common_clock,
    fetch_logits,
    fetch_logs,
    push_files,
    with_text,
)
from farm.site.job.rounds import Rounds
from farm.site.job.telemetry import INTERVAL_S, fetch_telemetry
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
    """

    def __init__(
        self,
        job: DeviceJob,
        entry: DeviceEntry,
        context: SiteContext,
        report: Callable[[JobProgress], None],
        kept: Connection | None = None,
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
        self._lease = LeaseKeeper(self.owner)
        self._deadline = Deadline(job.timeout_s)
        self._work_name = deploy.work_name(job)
        #: Names of work folders on the device: the candidate's, and the baseline's after it.
        self._works: list[str] = []
        self._work = ""
        self._arms: dict[Arm, ArmFiles] = {}
        self._deployed: list[ObjectRef] = []
        self._greeted: list[Deployed] = []
        self._kind: DeviceClass = "server"
        self._starts: list[Start] = []
        self._telemetry: list[LaunchTelemetry] = []
        self._progress = Progress(job, report)
        self._say = self._progress.say
        #: Standard output and error of launches so far.
        self.logs: list[ObjectRef] = []

    def run(self) -> DeviceRunResult:
        """Do the job. Its connection stays open for the next one: see `take_connection`.

        Raises:
            FarmError: Why there is no result; the device is clean again where it answers.
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
        before = connection.snapshot()
        fit.check_fit(job, entry, before.facts)
        self._kind = device_class(before.facts, entry.labels)
        runner = self._context.find_runner(job.runner)
        build = self._build(runner, before)
        self._lease.take(connection.helper)
        stale = connection.helper.clean_stale(self.owner)
        if stale:
            log.info("%s: removed abandoned work folders %s", entry.name, ", ".join(stale))
        build = self._started(runner, build, before)
        deployed = self._deploy((*job.own_files, *build.files), before)
        self._arms["candidate"] = ArmFiles(job.artifact, build, self._work)
        checks: dict[str, LaunchResult] = {}
        for name, check in job.checks.items():
            files = ArmFiles((check.file,), build, self._work)
            checks[name] = self._launch(0, check.request, runner, files, name)
        job, unpaired = self._second_arm(build, before)
        launched = Rounds(
            job,
            lambda index, request: self._launch(index, request, runner, self._arms[request.arm]),
            lambda: persevere(self, self._arms["candidate"].evict),
            fresh=deployed.pushed_bytes > 0,
            clock=lambda: time.monotonic() - sum(start.waited_s for start in self._starts),
        ).run()
        self._say("clean", force=True)
        persevere(self, lambda helper: deploy.check_intact(helper, self._deployed, self.owner))
        after = persevere(self, lambda _helper: self._present().snapshot())
        self._clean(self.helper)
        return DeviceRunResult(
            build,
            common_clock(launched.launches),
            deploy.total((*self._greeted, deployed)),
            conditions(before, after, niceness() if entry.transport == "local" else None),
            starts=tuple(self._starts),
            telemetry=tuple(self._telemetry),
            usual=usual_speeds(self._context.home, before.facts.identity, self._telemetry),
            stop=launched.stop,
            same_as_baseline=job.baseline is not self.job.baseline and not unpaired,
            unpaired=unpaired or launched.unpaired,
            canary=checks.get("canary"),
            replay=checks.get("replay"),
        )

    def _second_arm(self, build: RunnerBuild, snapshot: Snapshot) -> tuple[DeviceJob, str]:
        """Deploy the baseline's arm; return the job as it goes on, and why it is unpaired."""
        job, other = self.job, self.job.baseline
        if other is None:
            return job, ""
        words = () if job.tokenizer is None else (job.tokenizer,)
        if other.runner.abi != build.abi:
            return without_baseline(job), f"the baseline's runner is for {other.runner.abi}"
        if is_same(other, job.artifact, build):
            return without_baseline(job), ""
        try:
            self._deploy((*other.artifact, *words, *other.runner.files), snapshot)
        except DeviceUnfit as error:
            return without_baseline(job), f"no room for the baseline's artifact: {error.message}"
        self._arms["baseline"] = ArmFiles(other.artifact, other.runner, self._work)
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
        self._work = self.helper.assemble(self._works[-1], files, self.owner)
        return deployed

    def _launch(
        self,
        index: int,
        request: LaunchRequest,
        runner: Runner,
        files: ArmFiles,
        name: str = "",
    ) -> LaunchResult:
        stage = "measure" if request.measures or request.profiles else "check"
        if request.measures:
            self._starts.append(self._cool_down(index))
        if (limit_s := min(request.timeout_s, self._deadline.remaining_s)) <= 0:
            raise timed_out(self.job.timeout_s, b"", self._entry.name)
        total = max(index + 1, least_launches(self.job))
        self._say(stage, index, total, "launches", force=True)
        work = files.work
        # A launch overwrites the files of the one before, which were fetched and verified.
        words, small = runner.arguments(request, files.named(self.job.tokenizer))
        text_file = self.job.runner.text_file
        # Emptied, so that the answer of the launch before isn't read as this one's.
        small = {**small, **({text_file: b""} if text_file else {})}
        push_files(self.helper, work, small, self._context.store)
        self.helper.supervise(
            work,
            (*files.build.argv, *words),
            env=files.build.env,
            stale_s=self.limits.stale_s,
            max_output_bytes=MAX_OUTPUT_BYTES,
            lease=self.owner,
            telemetry_s=INTERVAL_S if request.measures else 0.0,
        )
        ended = follow(self, work, limit_s, lambda line: self._progress.line(runner, stage, line))
        name = name or f"launch-{index}"
        stderr, logs = fetch_logs(self, name, work, ended, self._context.store)
        self.logs += logs
        if ended.timed_out:
            raise timed_out(limit_s, stderr, self._entry.name)
        result = read_launch(
            runner, request, ended.status, ended.stdout, stderr, index, self._entry.name
        )
        self._say("collect", index + 1, total, "launches")
        if request.measures:
            telemetry, log_ref = fetch_telemetry(self, index, work, result, self._context.store)
            self._telemetry.append(telemetry)
            self.logs.append(log_ref)
        result = with_text(self, work, text_file, request, result, self._context.store)
        return fetch_logits(self, work, result, self._context.store)

    def _cool_down(self, index: int) -> Start:
        wait = paced(partial(self._say, "cooldown", index), self.beat, self._deadline)
        look = partial(persevere, self, lambda _helper: self._present().snapshot())
        return cool_down(index, self._kind, self._entry.thermal, look, wait)

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
