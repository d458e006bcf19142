"""farm-helper on a device, as typed calls. Every verb is one round trip.

The program itself is described in runners/native/PROTOCOL.md. Nothing here knows how it came
to the device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from farm.core.artifact import ObjectRef
from farm.core.command import Command
from farm.core.errors import (
    RAW_BYTES,
    DeviceError,
    DeviceLost,
    LeaseError,
    RunnerCrashed,
    StorageFull,
    TransferError,
)
from farm.core.lease import HOLD_RUN, Hold, Lease, LeaseOwner, Waiting, read_lease
from farm.core.runner import DeployFile
from farm.protocols import Transport
from farm.site.device.answer import Answer, bad_answer
from farm.site.parsers.start import diagnose
from farm.site.parsers.text import clean_text

#: Slowest hashing expected of a device, bytes a second: sets the deadline of verbs that hash.
HASH_BYTES_S = 20e6
#: Limit of a verb that hashes nothing, seconds.
SHORT_S = 8.0
#: Largest file of a job that is hashed: sets that deadline.
MAX_FILE_BYTES = 4 << 30

_ERRORS: dict[str, type[DeviceError]] = {
    "held": LeaseError,
    "stale_epoch": LeaseError,
    "not_held": LeaseError,
    "storage_full": StorageFull,
    "mismatch": TransferError,
    "incomplete": TransferError,
    "missing_part": TransferError,
    "missing_object": TransferError,
    "no_work": DeviceLost,
    "no_job": DeviceLost,
}


@dataclass(frozen=True, slots=True)
class Present:
    """What the device has of one object."""

    sha256: str
    #: `ok`, `partial`, `missing` or `changed` (the content isn't what its name says).
    state: str
    part_bytes: int


@dataclass(frozen=True, slots=True)
class Polled:
    """A supervised job, and the output that is new."""

    #: `running`, `exited` or `killed`.
    state: str
    exit_code: int | None
    signal: int | None
    #: Why it was killed, as the helper names it.
    reason: str | None
    stdout_size: int
    stderr_size: int
    output: bytes


class DeviceHelper:
    """The helper at `path` on one device, working under the folder `root`."""

    def __init__(self, transport: Transport, device: str, path: str, root: str) -> None:
        self.transport = transport
        self.device = device
        self.path = path
        self.root = root

    def version(self) -> None:
        """Ask for the helper's version: whether it runs."""
        self._ask("version")

    def probe(self) -> bytes:
        """Read raw facts of the device: one JSON document, for farm.site.look.facts."""
        return self._run(("probe", "--root", self.root), timeout_s=SHORT_S)

    def have(
        self,
        shas: Sequence[str],
        *,
        size_bytes: int,
        rehash: bool = False,
        lease: LeaseOwner | None = None,
    ) -> dict[str, Present]:
        """Look at objects; hash those that changed since they were stamped.

        Args:
            shas: Objects asked for.
            size_bytes: Their sum; sets the deadline.
            rehash: Hash all of them whatever their stamps say.
            lease: Kept alive while they are hashed.
        """
        if not shas:
            return {}
        flags = (*(("--rehash",) if rehash else ()), *(lease.kept if lease else ()))
        text = self._run(("have", self.root, *shas, *flags), timeout_s=_hash_limit_s(size_bytes))
        found = {}
        for line in text.splitlines():
            value = Answer(line, self.device)
            sha = value.text("sha256")
            found[sha] = Present(sha, value.text("state"), value.size("part_size"))
        missing = [sha for sha in shas if sha not in found]
        if missing:
            raise bad_answer(text, self.device, f"didn't report object {missing[0][:12]}")
        return found

    def hash_file(self, path: str, lease: LeaseOwner) -> ObjectRef:
        """Hash a file of the device, in a work folder for example.

        Raises:
            DeviceError: There is no such file, or it can't be read.
            TransportError: The connection broke.
        """
        limit_s = _hash_limit_s(MAX_FILE_BYTES)
        words = ("hash", path, "--root", self.root, *lease.kept)
        value = Answer(self._run(words, timeout_s=limit_s), self.device)
        return ObjectRef(value.text("sha256"), value.size("size"), path.rpartition("/")[2])

    def commit(self, sha256: str, size_bytes: int, *, executable: bool, lease: LeaseOwner) -> None:
        """Verify a pushed part and make it an object.

        Raises:
            TransferError: It is incomplete or damaged.
        """
        mode = ("--mode", "700") if executable else ()
        words = ("commit", self.root, sha256, str(size_bytes), *mode, *lease.kept)
        self._ask(*words, timeout_s=_hash_limit_s(size_bytes))

    def free_space(self, need_bytes: int, keep: Sequence[str], lease: LeaseOwner) -> int:
        """Evict least recently used objects until `need_bytes` are free; return bytes freed.

        Raises:
            StorageFull: Not even evicting everything would do; nothing was removed.
        """
        words = ["gc", self.root, "--need", str(need_bytes), *lease.fence]
        for sha in keep:
            words += ["--keep", sha]
        return self._ask(*words).size("freed_bytes")

    def assemble(self, name: str, files: Sequence[DeployFile], lease: LeaseOwner) -> str:
        """Make a work folder of links to objects; return its path."""
        manifest = "".join(
            f"{file.object.sha256} {'700' if file.executable else '600'} {file.path}\n"
            for file in files
        )
        words = ("assemble", self.root, name, *lease.fence)
        return self._ask(*words, stdin=manifest.encode()).text("work")

    def evict(self, paths: Sequence[str]) -> float:
        """Put files out of the page cache; return the share that stayed, 0..1."""
        lines = [
            Answer(line, self.device)
            for line in self._run(("evict", *paths), timeout_s=SHORT_S).splitlines()
        ]
        size = sum(line.size("size") for line in lines)
        return min(1.0, sum(line.size("resident_bytes") for line in lines) / max(1, size))

    def supervise(
        self,
        work: str,
        argv: Sequence[str],
        *,
        env: Sequence[tuple[str, str]],
        stale_s: float,
        max_output_bytes: int,
        lease: LeaseOwner,
        telemetry_s: float = 0.0,
        start: str = "",
    ) -> None:
        """Start a program in a work folder, detached; without polls it is ended.

        With `telemetry_s`, its supervisor writes `telemetry.jsonl` there: a sample every so
        many seconds, and fixed work before and after. What was started under the name `start`
        is not started again.

        Raises:
            RunnerCrashed: It can't be started.
        """
        words = ["supervise", "--work", work, "--stale-s", f"{stale_s:g}"]
        words += ["--max-output-bytes", str(max_output_bytes), "--root", self.root, *lease.fence]
        if telemetry_s:
            words += ["--telemetry-s", f"{telemetry_s:g}"]
        if start:
            words += ["--start", start]
        # Not as arguments: whoever lists the device's processes would read the values.
        stdin = "".join(f"{key}={value}\0" for key, value in env).encode()
        self._ask(*words, *(("--env",) if env else ()), "--", *argv, stdin=stdin)

    def poll(self, work: str, *, offset: int, wait_s: float, max_bytes: int) -> Polled:
        """Send a job's heartbeat and wait for news of the job.

        Raises:
            DeviceLost: The device knows no such job any more.
        """
        text = self._run(
            (
                *("poll", "--work", work, "--stdout-offset", str(offset)),
                *("--wait-s", f"{wait_s:g}", "--max-bytes", str(max_bytes)),
            ),
            timeout_s=wait_s + SHORT_S,
            max_output_bytes=max_bytes + (64 << 10),
        )
        head, _, output = text.partition(b"\n")
        value = Answer(head, self.device)
        if len(output) != value.size("bytes"):
            what = f"sent {len(output)} of {value.size('bytes')} bytes"
            raise bad_answer(text, self.device, what)
        return Polled(
            state=value.text("state"),
            exit_code=value.code("exit_code"),
            signal=value.code("signal"),
            reason=value.word("reason"),
            stdout_size=value.size("stdout_size"),
            stderr_size=value.size("stderr_size"),
            output=output,
        )

    def kill(self, work: str) -> None:
        """End what runs in a work folder; its output and status stay."""
        self._ask("kill", "--work", work)

    def clean(self, name: str) -> None:
        """End what runs in a work folder and remove it; nothing happens when there is none."""
        self._ask("clean", self.root, "--work", name)

    def clean_stale(self, lease: LeaseOwner) -> list[str]:
        """End whatever runs in work folders and remove them; return their names.

        Whoever holds the lease is alone on the device.
        """
        return self._ask("clean", self.root, "--stale", *lease.fence).texts("cleaned")

    def take_lease(self, lease: LeaseOwner) -> None:
        """Take the device for a run, for the lease's time.

        Raises:
            LeaseError: Somebody else has it, or our epoch was overtaken.
        """
        self._lease("take", lease, *lease.time)

    def take_hold(self, hold: Hold) -> None:
        """Take the device for a person, over reboots; one held by this person is held anew.

        Raises:
            LeaseError: Somebody else has it.
        """
        reason = ("--reason", hold.reason) if hold.reason else ()
        person = _held_by(hold.owner, hold.left_s)
        self._lease("take", person, *person.time, "--lasting", *reason)

    def renew_lease(self, lease: LeaseOwner) -> None:
        """Extend our lease.

        Raises:
            LeaseError: It isn't ours any more.
        """
        self._lease("renew", lease, *lease.time)

    def release_lease(self, lease: LeaseOwner) -> None:
        """Give the device back; nothing happens when it wasn't ours."""
        self._lease("release", lease)

    def release_hold(self, person: str) -> None:
        """End a person's hold; nothing happens when there is none."""
        self.release_lease(_held_by(person))

    def release_from(self, owner: str, person: str, *, force: bool) -> None:
        """End the lease or hold of `owner`; the device records that `person` did it.

        Raises:
            LeaseError: A third one has the device, or it is another's and `force` isn't given.
        """
        forced = ("--force",) if force else ()
        self._lease("release", _held_by(person), "--from", owner, *forced)

    def show_lease(self) -> Lease | Hold | None:
        """Look at the lease or hold; None when the device is free or it has expired."""
        value = self._ask("lease", self.root, "show")
        if value.text("state") != "held":
            return None
        return replace(_read_lease(value.word, value.number("left_s")), waiting=_waiting(value))

    def waiting(self) -> tuple[Waiting, ...]:
        """Return those who asked for the device lately and didn't get it."""
        return _waiting(self._ask("lease", self.root, "show"))

    def lines(
        self, *words: str, stdin: bytes = b"", timeout_s: float = SHORT_S
    ) -> tuple[Answer, ...]:
        """Call a verb that has a module of its own; return what it printed, line by line."""
        text = self._run(words, stdin=stdin, timeout_s=timeout_s)
        return tuple(Answer(line, self.device) for line in text.splitlines())

    def _not_started(self, message: str) -> RunnerCrashed:
        trouble = diagnose(message)
        if trouble is not None and trouble.kind == "no_execute":
            trouble = diagnose(message, no_exec=self._no_exec())
        if trouble is None:
            return RunnerCrashed(f"on {self.device}: {message}", device=self.device, code=127)
        return RunnerCrashed(
            f"on {self.device}: {message}. Remedy: {trouble.remedy}",
            device=self.device,
            code=127,
            trouble=trouble.kind,
            remedy=trouble.remedy,
        )

    def _no_exec(self) -> bool | None:
        """Whether programs are forbidden where farm's folder is; None where it can't be asked."""
        systems = Answer(self.probe(), self.device).answer("filesystems")
        return systems.answer(self.root).truth("no_exec")

    def _lease(self, action: str, lease: LeaseOwner, *more: str) -> None:
        self._ask("lease", self.root, action, "--owner", lease.owner, *lease.fence, *more)

    def _ask(self, *words: str, stdin: bytes = b"", timeout_s: float = SHORT_S) -> Answer:
        return Answer(self._run(words, stdin=stdin, timeout_s=timeout_s), self.device)

    def _run(
        self,
        words: tuple[str, ...],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        max_output_bytes: int = 8 << 20,
    ) -> bytes:
        command = Command(
            (self.path, *words),
            timeout_s=timeout_s,
            stdin=stdin,
            max_output_bytes=max_output_bytes,
        )
        done = self.transport.run(command)
        if done.ok:
            return done.stdout
        try:
            error = json.loads(done.stdout.splitlines()[-1])["error"]
            code, message = str(error.pop("code")), clean_text(str(error.pop("message")))
        except (ValueError, LookupError, TypeError, AttributeError) as broken:
            raise DeviceError(
                f"farm-helper on {self.device} failed at '{words[0]}' with exit code"
                f" {done.exit_code}: {clean_text(done.error_text[:RAW_BYTES]) or 'no message'}",
                device=self.device,
                exit_code=done.exit_code,
            ) from broken
        if code == "held":
            message = _read_lease(error.get, _seconds(error.get("left_s"))).text
        if code == "cannot_start":
            raise self._not_started(message)
        kind = _ERRORS.get(code, DeviceError)
        more = {key: value for key, value in error.items() if key not in ("self", "device")}
        raise kind(f"{self.device}: {message}", device=self.device, code=code, **more)


def _held_by(person: str, ttl_s: float = 0.0) -> LeaseOwner:
    return LeaseOwner(person, HOLD_RUN, 1, ttl_s)


def _waiting(value: Answer) -> tuple[Waiting, ...]:
    return tuple(
        Waiting(
            clean_text(entry.text("owner")),
            clean_text(entry.text("run")),
            entry.number("waits_s"),
        )
        for entry in value.answers("waiting")
    )


def _read_lease(member: Callable[[str], object], left_s: float) -> Lease | Hold:
    owner, run_id, reason = (
        clean_text(str(member(key) or "")) for key in ("owner", "run", "reason")
    )
    return read_lease(owner, run_id, reason, left_s)


def _hash_limit_s(size_bytes: int) -> float:
    return SHORT_S + size_bytes / HASH_BYTES_S


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else 0.0
