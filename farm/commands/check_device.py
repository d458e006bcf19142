"""Whether a device can do what farm asks of it, piece by piece: for a device never seen before.

Each piece works, fails, or is blind: it can't be read there, and then something can't be judged.
Nothing is left behind, and a device that somebody has is not disturbed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from farm import codec
from farm.clock import Deadline
from farm.commands import check_verbs as verbs
from farm.commands import check_words as words
from farm.commands.bench import BenchRequest, bench
from farm.core.command import Command
from farm.core.errors import FarmError, LeaseError, TransferError
from farm.core.lease import LeaseOwner
from farm.core.printable import MASK
from farm.core.rules.classes import device_class
from farm.core.runner import RunnerBuild
from farm.core.runtime import Deployed, DeviceRunResult
from farm.core.spec import Workload
from farm.core.telemetry import LaunchTelemetry
from farm.judge.environment import environment_guards
from farm.site.device.connection import Connection, Snapshot
from farm.site.device.helper import Polled
from farm.site.device.lease import user_and_host
from farm.site.job.cooldown import cool_down
from farm.site.job.power import gauge
from farm.site.job.telemetry import INTERVAL_S, summarise
from farm.site.parsers.telemetry import Recording, parse_telemetry

log = logging.getLogger(__name__)

State = Literal["works", "fails", "blind", "skipped"]

_RUN = "check"
_MAX_TELEMETRY = 16 << 20

#: Works on every core for a while. Each piece of work is short and waited for, else its CPU time
#: would count as that of other programs.
_BURN = """sleep {seconds:g} & end=$!
while kill -0 $end 2>/dev/null; do pids=
for i in {cores}; do (j=0; while [ $j -lt 20000 ]; do j=$((j+1)); done) & pids="$pids $!"; done
wait $pids; done; exit 0"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece."""

    area: str
    name: str
    state: State
    #: What was seen.
    detail: str = ""
    #: What follows from it for runs and their numbers; empty while it works.
    means: str = ""


@dataclass
class CheckUp:
    """A check of one device in progress.

    Args:
        connection: To the device.
        soak_s: How long all cores compute, to see clocks and heat under load.
    """

    connection: Connection
    soak_s: float
    findings: list[Finding] = field(default_factory=list)
    snapshot: Snapshot | None = None

    def run(self) -> list[Finding]:
        """Look at everything, in an order in which each step needs only those before it.

        Raises:
            TransportError: The device can't be reached at all.
        """
        self.connection.transport.run(Command(("true",)))
        self._transport()
        if self._ask("helper", "starts", self._helper):
            self._facts()
            self._leased()
        return self.findings

    def _ask(self, area: str, name: str, question: Callable[[], str]) -> bool:
        """Record what came of one question; its answer is the detail."""
        try:
            self._add(area, name, "works", question())
        except FarmError as error:
            self._add(area, name, "fails", error.message, words.of_failure(area))
            return False
        return True

    def _add(self, area: str, name: str, state: State, detail: str = "", means: str = "") -> None:
        self.findings.append(Finding(area, name, state, detail, means))

    def _transport(self) -> None:
        transport = self.connection.transport
        self._ask("transport", "exit code", lambda: verbs.exit_code(transport))
        self._ask("transport", "words as given", lambda: verbs.words_as_given(transport))
        self._ask("transport", "stdin, stdout and stderr apart", lambda: verbs.streams(transport))
        self._ask("transport", "round trip", lambda: verbs.round_trip(transport))
        try:
            root = transport.default_root()
        except FarmError as error:
            self._add("transport", "folder", "fails", error.message, words.of_failure("transport"))
            return
        with contextlib.ExitStack() as stack:
            folder = f"{root}/check-{os.getpid()}"
            made = transport.run(Command(("mkdir", "-p", folder)))
            if not made.ok:
                said = made.error_text[:200]
                self._add("transport", "folder", "fails", said, words.of_failure("transport"))
                return
            stack.callback(transport.run, Command(("rm", "-rf", folder)))
            self._add("transport", "folder", "works", root)
            self._ask(
                "transport", "push, resume, stat, pull", lambda: verbs.files(transport, folder)
            )

    def _helper(self) -> str:
        helper = self.connection.helper
        helper.version()
        return helper.path.rpartition("/")[2][:24]

    def _facts(self) -> None:
        raw = self.connection.raw_facts()
        probe = json.loads(raw.probe)
        system = probe.get("filesystems", {}).get(self.connection.helper.root, {})
        no_exec = system.get("no_exec")
        state: State = "blind" if no_exec is None else "fails" if no_exec else "works"
        means = "" if state == "works" else words.of_failure("helper")
        self._add("disk", "programs may run there", state, f"no_exec: {no_exec}", means)
        self.snapshot = self.connection.snapshot()
        facts = self.snapshot.facts
        free = facts.storage_free_bytes
        detail = "unknown" if free is None else f"{free >> 20} MiB free"
        self._add("disk", "space", "blind" if free is None else "works", detail)
        names = (
            *("model", "soc", "os", "abi", "cores", "ram_bytes", "kernel", "libc", "governor"),
            *("battery_c", "battery_level", "thermal_status"),
        )
        for name in names:
            value = getattr(facts, name)
            if value is not None:
                self._add("facts", name, "works", str(value))
        for line in facts.unread:
            name, _, why = line.partition(": ")
            self._add("facts", name, "blind", why, words.of_unread(name))
        heat = self.snapshot.hottest
        sensors = len(self.snapshot.temperatures)
        self._add(
            "sensors",
            "temperatures",
            "works" if heat else "blind",
            f"{sensors} sensors, warmest {heat[0]} {heat[1]:.1f} °C" if heat else "none",
            "" if heat else words.of_unread("temperatures"),
        )
        if raw.getprop is not None:
            done = self.connection.transport.run(Command(("getenforce",)))
            said = done.text.strip() if done.ok else done.error_text[:80]
            means = "" if done.ok else words.of_unread("SELinux")
            self._add("facts", "SELinux", "works" if done.ok else "blind", said, means)

    def _leased(self) -> None:
        helper = self.connection.helper
        lease = LeaseOwner(user_and_host(), f"{_RUN}-{os.getpid()}", 1)
        try:
            helper.take_lease(lease)
        except LeaseError as error:
            self._add("lease", "take", "skipped", error.message, words.HELD)
            return
        try:
            self._add("lease", "take", "works")
            self._ask("lease", "renew and show", lambda: verbs.renewed(helper, lease))
            work = f"{_RUN}-{os.getpid()}"
            try:
                if self._ask("helper", "store", lambda: verbs.stored(helper, lease, work)):
                    self._ask("helper", "supervise, poll, kill", lambda: self._supervised(lease))
                    self._soaked(lease)
            finally:
                helper.clean(work)
        finally:
            self._ask("lease", "release", lambda: verbs.released(helper, lease))

    def _supervised(self, lease: LeaseOwner) -> str:
        helper, work = self.connection.helper, self._work()
        ended = self._follow(work, ("sh", "-c", 'echo "$CHECK"; exit 7'), lease, limit_s=20)
        if (ended.exit_code, ended.output) != (7, b"as set\n"):
            raise TransferError(f"a job that prints and ends gave {ended}")
        self._start(work, ("sh", "-c", "sleep 60 & sleep 60"), lease)
        helper.kill(work)
        ended = helper.poll(work, offset=0, wait_s=0, max_bytes=100)
        if ended.state != "killed":
            raise TransferError(f"a job that was ended is {ended.state}")
        return "output, exit code and environment arrive; a killed job is gone"

    def _soaked(self, lease: LeaseOwner) -> None:
        """Let all cores compute, and judge what telemetry tells of that time as a run would."""
        snapshot = self.snapshot
        assert snapshot is not None  # facts come first
        cores = snapshot.facts.cores or 1
        script = _BURN.format(cores=" ".join(map(str, range(cores))), seconds=self.soak_s)
        work = self._work()
        try:
            self._follow(work, ("sh", "-c", script), lease, limit_s=self.soak_s + 60, watched=True)
            recording = self._recording(work)
        except FarmError as error:
            self._add("sensors", "soak", "fails", error.message, words.of_failure("sensors"))
            return
        telemetry = summarise(recording, 0, ())
        found = f"{telemetry.samples} samples in {telemetry.seconds:.0f} s"
        self._add("sensors", "soak", "works" if telemetry.samples else "blind", found)
        told, energy = gauge(recording)
        state: State = "works" if told else "blind"
        self._add("sensors", "energy", state, energy, "" if told else words.of_unread("energy"))
        self._judged(snapshot, telemetry)

    def _judged(self, snapshot: Snapshot, telemetry: LaunchTelemetry) -> None:
        entry, facts = self.connection.entry, snapshot.facts
        kind = device_class(facts, entry.labels)
        limits = replace(entry.thermal, wait_max_s=0.0)
        start = cool_down(0, kind, limits, self.connection.snapshot, lambda _text, _s: None)
        nothing = RunnerBuild("none", "0", facts.abi, "", (), ())
        run = DeviceRunResult(
            nothing, (), Deployed(0, 0, 0.0), starts=(start,), telemetry=(telemetry,)
        )
        for guard in environment_guards(facts, entry, kind, run):
            state: State = "blind" if guard.state == "unavailable" else "works"
            detail = guard.detail or guard.state
            means = words.of_guard(guard.name) if guard.state == "unavailable" else ""
            if guard.state == "flagged":
                means = "numbers measured now would be flagged so"
            self._add("trust", guard.name, state, detail, means)

    def _recording(self, work: str) -> Recording:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, "telemetry")
            path = f"{work}/telemetry.jsonl"
            self.connection.transport.pull(path, local, max_bytes=_MAX_TELEMETRY)
            return parse_telemetry(local.read_bytes())

    def _work(self) -> str:
        return "/".join((self.connection.helper.root, "work", f"{_RUN}-{os.getpid()}"))

    def _start(
        self, work: str, argv: Sequence[str], lease: LeaseOwner, *, watched: bool = False
    ) -> None:
        self.connection.helper.supervise(
            work,
            argv,
            env=(("CHECK", "as set"),),
            stale_s=30.0,
            max_output_bytes=1 << 20,
            lease=lease,
            telemetry_s=INTERVAL_S if watched else 0.0,
        )

    def _follow(
        self,
        work: str,
        argv: Sequence[str],
        lease: LeaseOwner,
        *,
        limit_s: float,
        watched: bool = False,
    ) -> Polled:
        helper, limit = self.connection.helper, Deadline(limit_s)
        self._start(work, argv, lease, watched=watched)
        while not limit.passed:
            polled = helper.poll(work, offset=0, wait_s=2.0, max_bytes=1000)
            if polled.state != "running":
                return polled
            helper.renew_lease(lease)
        helper.kill(work)
        raise TransferError(f"a job of {limit_s:.0f} s didn't end")


def check(connection: Connection, soak_s: float) -> tuple[list[Finding], str | None]:
    """Check a device; see the module. Returns what was found, and the device's identity.

    Raises:
        TransportError: It can't be reached at all.
    """
    done = CheckUp(connection, soak_s)
    return done.run(), done.snapshot.facts.identity if done.snapshot else None


def counts(findings: Sequence[Finding]) -> dict[State, int]:
    """How many pieces are in each state."""
    states: tuple[State, ...] = ("works", "fails", "blind", "skipped")
    return {state: sum(f.state == state for f in findings) for state in states}


def to_data(
    findings: Sequence[Finding], connection: Connection, identity: str | None
) -> dict[str, Any]:
    """What a person can attach to an issue: names of the device and its owner are masked."""
    data = {
        "transport": connection.entry.transport,
        "counts": counts(findings),
        "findings": [codec.to_data(finding) for finding in findings],
    }
    private = sorted(set(_private(connection, identity)), key=len, reverse=True)
    return {key: _masked(value, private) for key, value in data.items()}


def _private(connection: Connection, identity: str | None) -> Iterator[str]:
    entry = connection.entry
    user, _, host = user_and_host().partition("@")
    values = [entry.serial, entry.host, entry.name, entry.user, entry.root, user, host]
    values += [(entry.serial or "").partition(":")[0], str(Path.home())]
    values.append(identity or "")
    # A short one would mask parts of other words.
    yield from (value for value in values if value and len(value) > 3)


def _masked(value: Any, private: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {key: _masked(item, private) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, private) for item in value]
    if isinstance(value, str) and private:
        return re.sub("|".join(map(re.escape, private)), MASK, value)
    return value


def check_model(name: str, inventory: Path | None, pte: Path | None, home: Path) -> Finding:
    """Run a small program as `farm bench` does, briefly; without one say so."""
    if pte is None:
        return Finding("model", "runs", "skipped", "no artifact", "name one with --pte FILE")
    workload = Workload(prefill=(16,), decode=(8,), launches=1, max_launches=1, budget_s=30)
    try:
        result = bench(BenchRequest(pte, None, name, inventory, workload), home, lambda _: None)
    except FarmError as error:
        return Finding("model", "runs", "fails", error.message, words.of_failure("helper"))
    speeds = ", ".join(
        f"{row.metric} {row.median:.1f} {row.unit} ({row.trust})"
        for row in result.performance
        if row.median is not None
    )
    return Finding("model", "runs", "works", speeds or "no speed")
