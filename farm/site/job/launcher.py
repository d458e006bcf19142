"""The launches of one attempt: one arm alone, or both in turn; what they leave is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from farm.clock import Deadline
from farm.core.artifact import ObjectRef
from farm.core.device import DeviceEntry
from farm.core.errors import RunnerCrashed
from farm.core.rules.classes import DeviceClass
from farm.core.rules.launches import least_launches
from farm.core.runtime import Arm, DeviceJob, LaunchRequest, LaunchResult
from farm.core.telemetry import LaunchTelemetry, Start
from farm.protocols import Runner
from farm.site.device.connection import Snapshot
from farm.site.device.supervised import Ended, Link, follow, launch, persevere
from farm.site.job.arms import ArmFiles
from farm.site.job.cooldown import cool_down, heat, paced
from farm.site.job.launch import read_launch, timed_out
from farm.site.job.logits import fetch_logits
from farm.site.job.progress import Progress
from farm.site.job.results import fetch_logs, push_files, with_text
from farm.site.job.telemetry import INTERVAL_S, fetch_telemetry
from farm.site.job.turns import PLAN, ArmStart, complaint, output_of, plan_json
from farm.site.parsers.text import clean_text
from farm.store.objects import ContentStore


@dataclass(slots=True)
class Launcher:
    """Starts a runner on a device again and again."""

    link: Link
    job: DeviceJob
    entry: DeviceEntry
    runner: Runner
    kind: DeviceClass
    progress: Progress
    deadline: Deadline
    store: ContentStore
    #: A fresh look at the device.
    snapshot: Callable[[], Snapshot]
    #: Takes the objects of each launch's output.
    keep: Callable[[Sequence[ObjectRef]], None]
    #: Files of the arms, by name.
    arms: dict[Arm, ArmFiles] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    telemetry: list[LaunchTelemetry] = field(default_factory=list)

    def one(self, index: int, request: LaunchRequest) -> LaunchResult:
        """Launch the arm of a request.

        Raises:
            FarmError: It failed, or the device did.
        """
        return self.start(index, request, self.arms[request.arm])

    def start(
        self, index: int, request: LaunchRequest, files: ArmFiles, name: str = ""
    ) -> LaunchResult:
        """Launch some files; `name` is that of a launch that has no number."""
        stage, limit_s = self._begin(index, request, request.timeout_s)
        work = files.work
        # A launch overwrites the files of the one before, which were fetched and verified.
        words, small = self.runner.arguments(request, files.named(self.job.tokenizer))
        text_file = self.job.runner.text_file
        # Emptied, so that the answer of the launch before isn't read as this one's.
        small = {**small, **({text_file: b""} if text_file else {})}
        push_files(self.link, work, small, self.store)
        self._launch(work, (*files.build.argv, *words), files.build.env, request)
        ended, stderr = self._follow(work, limit_s, stage, name or f"launch-{index}")
        result = read_launch(
            self.runner, request, ended.status, ended.stdout, stderr, index, self.entry.name
        )
        self._collect(index, work, request, result)
        result = with_text(self.link, work, text_file, request, result, self.store)
        return fetch_logits(self.link, work, request, result, self.store)

    def in_turn(
        self, index: int, first: LaunchRequest, second: LaunchRequest
    ) -> tuple[LaunchResult, LaunchResult]:
        """Launch both arms at once, to work window by window; the first one leads.

        Raises:
            FarmError: One of them failed, or the device did.
        """
        requests = [replace(request, turns=True) for request in (first, second)]
        stage, limit_s = self._begin(index, first, first.timeout_s + second.timeout_s)
        plan = []
        for request in requests:
            files = self.arms[request.arm]
            words, small = self.runner.arguments(request, files.named(self.job.tokenizer))
            push_files(self.link, files.work, small, self.store)
            argv = (*files.build.argv, *words)
            plan.append(ArmStart(request.arm, files.work, argv, files.build.env))
        work = self.arms["candidate"].work
        push_files(self.link, work, {PLAN: plan_json(plan)}, self.store)
        self._launch(work, (self.link.helper.path, "turns", PLAN), (), first)
        ended, stderr = self._follow(work, limit_s, stage, f"launch-{index}")
        why = complaint(ended.stdout)
        if why and ended.status.state == "exited" and ended.status.exit_code != 0:
            raise RunnerCrashed(
                f"{self.entry.name}: arms in turn: {clean_text(why)}",
                device=self.entry.name,
                code=ended.status.exit_code,
                stderr_tail=clean_text(stderr[-4096:]),
            )
        results = []
        for request in requests:
            own = output_of(ended.stdout, request.arm)
            read = read_launch(
                self.runner, request, ended.status, own, stderr, index, self.entry.name
            )
            results.append(replace(read, arm=request.arm, in_turn=True))
        ours = next(one for one in results if one.arm == "candidate")
        self._collect(index, work, first, ours)
        return results[0], results[1]

    def _begin(self, index: int, request: LaunchRequest, most_s: float) -> tuple[str, float]:
        """Wait for a cool device; return the stage and the time that the launch may take."""
        stage = "measure" if request.measures or request.profiles else "check"
        if request.measures:
            self.starts.append(start := self._cool_down(index))
            self.progress.heat = heat(start, self.entry.thermal)
        if (limit_s := min(most_s, self.deadline.remaining_s)) <= 0:
            raise timed_out(self.job.timeout_s, b"", self.entry.name)
        total = max(index + 1, least_launches(self.job))
        self.progress.say(stage, index, total, "launches", force=True)
        return stage, limit_s

    def _launch(
        self,
        work: str,
        argv: tuple[str, ...],
        env: tuple[tuple[str, str], ...],
        request: LaunchRequest,
    ) -> None:
        launch(self.link, work, argv, env, telemetry_s=INTERVAL_S if request.measures else 0.0)

    def _follow(self, work: str, limit_s: float, stage: str, name: str) -> tuple[Ended, bytes]:
        tell = partial(self.progress.line, self.runner, stage)
        ended = follow(self.link, work, limit_s, tell)
        stderr, logs = fetch_logs(self.link, name, work, ended, self.store)
        self.keep(logs)
        if ended.timed_out:
            raise timed_out(limit_s, stderr, self.entry.name)
        return ended, stderr

    def _collect(self, index: int, work: str, request: LaunchRequest, result: LaunchResult) -> None:
        total = max(index + 1, least_launches(self.job))
        self.progress.say("collect", index + 1, total, "launches")
        if request.measures:
            telemetry, log_ref = fetch_telemetry(self.link, index, work, result, self.store)
            self.telemetry.append(telemetry)
            self.keep((log_ref,))

    def _cool_down(self, index: int) -> Start:
        say = partial(self.progress.say, "cooldown", index)
        wait = paced(say, self.link.beat, self.deadline)
        look = partial(persevere, self.link, lambda _helper: self.snapshot())
        return cool_down(index, self.kind, self.entry.thermal, look, wait)
