"""One attempt of one job on one device, from the first probe to the released lease.

Runs in its session's thread and blocks; `cancel` comes from any other thread. It emits no
terminal event: it returns a result or raises.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable

from farm.clock import Deadline
from farm.core.artifact import ObjectRef
from farm.core.device import DeviceEntry
from farm.core.errors import (
    FarmError,
    RunnerError,
    TransferError,
    TransportError,
)
from farm.core.events import JobProgress
from farm.core.runtime import (
    Deployed,
    DeployFile,
    DeviceJob,
    DeviceRunResult,
    LaunchRequest,
    LaunchResult,
    RunnerBuild,
)
from farm.protocols import Runner
from farm.site import deploy, fit
from farm.site.conditions import conditions
from farm.site.connection import Connection, Snapshot
from farm.site.context import Limits, SiteContext
from farm.site.helper import DeviceHelper
from farm.site.launch import read_launch, timed_out
from farm.site.lease import LeaseKeeper, lease_owner
from farm.site.parsers.text import clean_text
from farm.site.results import common_clock, fetch_logits, fetch_logs, push_files
from farm.site.supervised import MAX_OUTPUT_BYTES, Ended, follow, persevere

log = logging.getLogger(__name__)

#: Least time between two progress events of one stage.
PROGRESS_S = 0.25


class JobRun:
    """One attempt.

    Args:
        job: What to do.
        entry: The device.
        context: Folders and factories of this host.
        report: Takes progress events.
    """

    def __init__(
        self,
        job: DeviceJob,
        entry: DeviceEntry,
        context: SiteContext,
        report: Callable[[JobProgress], None],
    ) -> None:
        self.job = job
        self._entry = entry
        self._context = context
        self._report = report
        # Protects _connection and _cancelled: cancel() comes from another thread and must
        # close whatever connection is the present one, or prevent the next.
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._cancelled: FarmError | None = None
        self._lease = LeaseKeeper(lease_owner(job.run_id, job.epoch))
        self._deadline = Deadline(job.timeout_s)
        self._work_name = work_name(job)
        self._work: str | None = None
        self._deployed: list[ObjectRef] = []
        self._last_report = 0.0
        self._last_event: JobProgress | None = None
        self._stage = ""
        #: Standard output and error of launches so far.
        self.logs: list[ObjectRef] = []

    def run(self) -> DeviceRunResult:
        """Do the job.

        Raises:
            FarmError: Why there is no result; the device is clean again where it answers.
        """
        try:
            result = self._attempt()
        except BaseException as error:
            found = self._after_failure(error)
            if found is error:
                raise
            raise found from error
        finally:
            self._close()
        return result

    def cancel(self, error: FarmError) -> None:
        """End the attempt with this error, from another thread. May be repeated."""
        with self._lock:
            if self._cancelled is not None:
                return
            self._cancelled = error
            connection = self._connection
        if connection is not None:
            connection.close()

    # -- supervised.Link

    @property
    def limits(self) -> Limits:
        """Times that decide about lost devices."""
        return self._context.limits

    @property
    def helper(self) -> DeviceHelper:
        """The helper through the present connection."""
        return self._present().helper

    def reconnect(self, error: TransportError, waited_s: float) -> None:
        """Replace a broken connection; see `farm.site.supervised.Link`."""
        log.info("%s: reconnecting after: %s", self._entry.name, error)
        detail = f"connection lost, looking for the device ({waited_s:.0f} s)"
        self._say(self._stage, detail=detail, force=True)
        old = self._present()
        old.close()
        self._use(old.reopen())

    def beat(self) -> None:
        """Renew the lease when it is time."""
        persevere(self, self._lease.renew_if_due)

    # -- the attempt

    def _attempt(self) -> DeviceRunResult:
        job, entry = self.job, self._entry
        self._say("lease", force=True)
        connection = Connection(entry, self._context.home, self._context.open_transport)
        self._use(connection)
        before = connection.snapshot()
        fit.check_fit(job, entry, before.facts)
        runner = self._context.find_runner(job.runner)
        build = self._build(runner, before)
        self._lease.take(connection.helper)
        stale = connection.helper.clean_stale(self._lease.owner)
        if stale:
            log.info("%s: removed abandoned work folders %s", entry.name, ", ".join(stale))
        deployed = self._deploy((*job.artifact, *build.files), before)
        launches = tuple(
            self._launch(index, request, runner, build)
            for index, request in enumerate(job.launches)
        )
        self._say("clean", force=True)
        persevere(self, lambda helper: deploy.check_intact(helper, self._deployed))
        after = persevere(self, lambda _helper: self._present().snapshot())
        self._clean(self.helper)
        return DeviceRunResult(build, common_clock(launches), deployed, conditions(before, after))

    def _build(self, runner: Runner, snapshot: Snapshot) -> RunnerBuild:
        facts = snapshot.facts

        def step(text: str) -> None:
            self._check_cancelled()
            self._say("deploy", detail=text, force=True)

        build = runner.build(facts.abi, facts, self._context.home, self.job.executorch, step)
        missing = [f.object for f in build.files if not self._context.store.has(f.object.sha256)]
        if missing:
            places = runner.files(build)
            for ref in missing:
                self._context.store.put_file(places[ref.sha256], ref.name, sha256=ref.sha256)
        self._check_cancelled()
        return build

    def _deploy(self, files: tuple[DeployFile, ...], snapshot: Snapshot) -> Deployed:
        missing: int | None = None
        moved_at = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal missing, moved_at
            missing = total if missing is None else missing
            moved_at = time.monotonic() if done else moved_at
            self._say("deploy", done, total, "bytes", force=done in (0, total))
            self._lease.renew_aside(lambda: self._present().reopen().helper)

        started = time.monotonic()
        # What arrived before a break is a `.part` on the device: a repeat sends only the rest.
        last = persevere(
            self,
            lambda helper: deploy.deploy(
                helper,
                files,
                self._context.store,
                self._lease.owner,
                free_bytes=snapshot.facts.storage_free_bytes,
                progress=progress,
            ),
            last_sign=lambda: moved_at,
        )
        pushed = missing or 0
        deployed = Deployed(
            pushed_bytes=pushed,
            skipped_bytes=last.pushed_bytes + last.skipped_bytes - pushed,
            seconds=time.monotonic() - started,
        )
        self._deployed = [file.object for file in files]
        self._work = self.helper.assemble(self._work_name, files, self._lease.owner)
        return deployed

    def _launch(
        self, index: int, request: LaunchRequest, runner: Runner, build: RunnerBuild
    ) -> LaunchResult:
        stage = "measure" if request.measures else "check"
        limit_s = min(request.timeout_s, self._deadline.remaining_s)
        if limit_s <= 0:
            raise timed_out(self.job.timeout_s, b"", self._entry.name)
        self._say(stage, index, len(self.job.launches), "launches", force=True)
        work = self._work or ""
        model, *data = (file.path for file in self.job.artifact)
        # Each launch overwrites the last one's files: they were fetched and verified by then.
        words, files = runner.arguments(request, model=model, data=data, out=".")
        push_files(self.helper, work, files, self._context.store)
        self.helper.supervise(
            work,
            (*build.argv, *words),
            env=build.env,
            stale_s=self.limits.stale_s,
            max_output_bytes=MAX_OUTPUT_BYTES,
            lease=self._lease.owner,
        )
        ended = follow(self, work, limit_s, lambda line: self._line(runner, stage, line))
        stderr = self._keep_logs(index, work, ended)
        if ended.timed_out:
            raise timed_out(limit_s, stderr, self._entry.name)
        result = read_launch(runner, ended.status, ended.stdout, stderr, index, self._entry.name)
        self._say("collect", index + 1, len(self.job.launches), "launches")
        return fetch_logits(self, work, result, self._context.store)

    def _keep_logs(self, index: int, work: str, ended: Ended) -> bytes:
        store = self._context.store
        stderr, refs = fetch_logs(self, index, work, ended, store)
        self.logs += refs
        return stderr

    def _line(self, runner: Runner, stage: str, line: bytes) -> None:
        rate = runner.rate(line)
        if rate is not None:
            self._say(stage, rate=(clean_text(rate[0])[:80], rate[1]), force=True)
            return
        found = runner.progress(line)
        if found is not None:
            phase, done, total = found
            self._say(stage, done, total, "tokens", detail=clean_text(phase)[:80])

    # -- the end

    def _after_failure(self, error: BaseException) -> BaseException:
        """Clean up, and say what the attempt failed of."""
        with self._lock:
            cancelled = self._cancelled
        found: BaseException = cancelled or error
        if cancelled is None and isinstance(error, RunnerError) and self._deployed:
            found = self._explained(error)
        if self._lease.held or self._work is not None:
            limits = self.limits
            self._clean_anew(limits.clean_s if cancelled is None else limits.cancelled_clean_s)
        return found

    def _clean_anew(self, limit_s: float) -> None:
        """Clean through a fresh connection, which is closed from outside when it takes long."""
        old = self._present_or_none()
        assert old is not None  # a lease or a work folder needs a connection
        old.close()
        fresh = old.reopen()
        timer = threading.Timer(limit_s, fresh.close)
        timer.daemon = True
        timer.start()
        try:
            self._clean(fresh.helper)
        except FarmError as trouble:
            # The device ends the job by itself once nobody polls it.
            log.warning("%s: not cleaned: %s", self._entry.name, trouble)
        finally:
            timer.cancel()
            fresh.close()

    def _explained(self, error: RunnerError) -> FarmError:
        """A runner that failed on damaged files is no evidence against the model."""
        try:
            deploy.check_intact(self.helper, self._deployed)
        except TransferError as damage:
            return damage
        except FarmError as trouble:
            log.warning("%s: objects not checked again: %s", self._entry.name, trouble)
        return error

    def _clean(self, helper: DeviceHelper) -> None:
        helper.clean(self._work_name)
        self._work = None
        self._lease.release(helper)

    # -- connection and progress

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
        connection = self._present_or_none()
        if connection is not None:
            connection.close()

    def _say(
        self,
        stage: str,
        done: int = 0,
        total: int = 0,
        unit: str = "",
        *,
        detail: str = "",
        rate: tuple[str, float] | None = None,
        force: bool = False,
    ) -> None:
        now = time.monotonic()
        if not force and stage == self._stage and now - self._last_report < PROGRESS_S:
            return
        self._stage, self._last_report = stage, now
        job = self.job
        self._report(
            JobProgress(job.job_id, job.attempt, job.device, stage, done, total, unit, detail, rate)
        )


def work_name(job: DeviceJob) -> str:
    """Name of the job's folder on the device: unique, and plain whatever the job is called."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", job.job_id).strip("-")[:60]
    mark = hashlib.sha256(f"{job.run_id}\0{job.job_id}".encode()).hexdigest()[:12]
    return f"{plain or 'job'}-{mark}-{job.attempt}-{job.epoch}"
