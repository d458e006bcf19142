"""A run in virtual time: the real flow, devices and hosts that only take time. Pure.

What comes back from a host or a device has the kind that the flow expects and no content: nothing
is judged here, and a simulated result must never reach a report.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from sys import intern

from farm.core.artifact import (
    Bundle,
    CanaryProgram,
    ExportResult,
    LogitsRef,
    ModelMetadata,
    ObjectRef,
    Recipe,
    ToolchainVersions,
)
from farm.core.asked import ChatPrompt
from farm.core.errors import DeviceLost
from farm.core.events import JobFinished
from farm.core.flow.cellstate import FlowDefect
from farm.core.flow.flow import RunFlow
from farm.core.flow.stimuli import (
    FinishCell,
    Instruction,
    RetryDue,
    RetryLater,
    Started,
    StartTask,
    Stimulus,
    SubmitJob,
    TaskEnded,
)
from farm.core.hostrun import HostRunResult
from farm.core.judgement import Judgement
from farm.core.reference import ReferenceResult, Tokenized
from farm.core.result import EnergyReport, MemoryReport
from farm.core.runner import RunnerBuild, RunnerSpec
from farm.core.runtime import Deployed, DeviceJob, DeviceRunResult, Hello
from farm.core.tasks import (
    KIND_NAMES,
    CanaryTask,
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    ReferenceTask,
    TokensTask,
)

_NOTHING = ObjectRef("0" * 64, 0, "simulated")
_LOGITS = LogitsRef(_NOTHING, 1, 1)
_JUDGEMENT = Judgement(
    "passed", "simulated", (), None, (), MemoryReport(None), EnergyReport(None), {}
)


@dataclass(frozen=True, slots=True)
class Hosts:
    """Hosts that do host tasks, all alike."""

    count: int
    #: Of each.
    cpus: int
    #: Of an export or reference whose config asks for none.
    cpus_per_export: int


@dataclass(frozen=True, slots=True)
class Span:
    """Something that was busy with something, seconds of the simulated run."""

    #: `export`, `reference`, `host_run`, `compare`, `canary`; `job` on a device.
    kind: str
    #: Task id, or cell id of a job.
    what: str
    #: `host 1`, or the name of a device.
    where: str
    begin_s: float
    end_s: float
    #: CPUs of the host that it took; 0 for a job.
    cpus: int = 0

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """What a simulated run took."""

    wall_s: float
    #: In the order of their ends.
    spans: tuple[Span, ...]
    #: Cells by outcome; `passed` means no more than that they got to their end.
    outcomes: dict[str, int]

    def busy_s(self, kind: str) -> float:
        """Time that work of a kind took, seconds; CPU seconds where it is a host task."""
        return sum(span.seconds * max(1, span.cpus) for span in self.spans if span.kind == kind)


def simulate(
    flow: RunFlow,
    seconds: Callable[[HostTask | DeviceJob], float],
    hosts: Hosts,
    lost: Callable[[DeviceJob], bool] = lambda job: False,
) -> SimulatedRun:
    """Run a flow to its end in virtual time.

    Args:
        flow: A fresh flow.
        seconds: How long a task or a job takes.
        hosts: What host tasks run on, each on the first host with CPUs to spare, in turn.
        lost: Whether a device is lost during this job, half-way through.

    Raises:
        FlowDefect: The flow waits for something that never comes.
    """
    return _Simulation(flow, seconds, hosts, lost).run()


class _Simulation:
    def __init__(
        self,
        flow: RunFlow,
        seconds: Callable[[HostTask | DeviceJob], float],
        hosts: Hosts,
        lost: Callable[[DeviceJob], bool],
    ) -> None:
        self._flow, self._seconds, self._hosts, self._lost = flow, seconds, hosts, lost
        self._now, self._number = 0.0, 0
        self._coming: list[tuple[float, int, Stimulus, int, int]] = []
        self._waiting: deque[HostTask] = deque()
        self._free = [hosts.cpus] * hosts.count
        self._spans: list[Span] = []
        self._outcomes: Counter[str] = Counter()

    def run(self) -> SimulatedRun:
        self._after(0.0, Started())
        while not self._flow.finished:
            if not self._coming:
                raise FlowDefect("the simulated run waits for something that never comes")
            self._now, _, stimulus, host, cpus = heapq.heappop(self._coming)
            if cpus:
                self._free[host] += cpus
            for instruction in self._flow.handle(stimulus):
                self._perform(instruction)
            self._start_tasks()
        spans = sorted(self._spans, key=lambda span: (span.end_s, span.what))
        return SimulatedRun(self._now, tuple(spans), dict(sorted(self._outcomes.items())))

    def _after(self, delay_s: float, stimulus: Stimulus, host: int = 0, cpus: int = 0) -> None:
        self._number += 1  # what comes at one time comes in the order of its cause
        entry = (self._now + delay_s, self._number, stimulus, host, cpus)
        heapq.heappush(self._coming, entry)

    def _perform(self, instruction: Instruction) -> None:
        match instruction:
            case StartTask(task=TokensTask() as task):
                self._start(task, host=0, cpus=0)  # as in the pools: it waits for no CPU
            case StartTask(task=task):
                self._waiting.append(task)
            case SubmitJob(job=job):
                self._submit(job)
            case RetryLater(cell_id=cell_id, delay_s=delay_s):
                self._after(delay_s, RetryDue(cell_id))
            case FinishCell(result=result):
                self._outcomes[result.outcome] += 1

    def _submit(self, job: DeviceJob) -> None:
        took, lost = self._seconds(job), self._lost(job)
        took = took / 2 if lost else took
        end = self._now + took
        error = DeviceLost(f"{job.device}: lost in the simulation") if lost else None
        result = None if lost else DeviceRunResult(_build(job.runner), (), Deployed(0, 0, 0.0))
        self._spans.append(Span("job", job.cell_id, job.device, self._now, end))
        finished = JobFinished(job.attempt_id, job.device, f"{end:.1f} s", result, error)
        self._after(took, finished)

    def _start_tasks(self) -> None:
        """Start what fits, in turn; as in the pools, a small task overtakes one that doesn't."""
        left: list[HostTask] = []
        while self._waiting and any(self._free):
            task = self._waiting.popleft()
            cpus = min(self._cpus(task), self._hosts.cpus)
            host = next((at for at, free in enumerate(self._free) if free >= cpus), None)
            if host is None:
                left.append(task)
                continue
            self._start(task, host, cpus)
        self._waiting.extendleft(reversed(left))

    def _start(self, task: HostTask, host: int, cpus: int) -> None:
        self._free[host] -= cpus
        took, where = self._seconds(task), intern(f"host {host + 1}")
        span = Span(KIND_NAMES[type(task)], task.task_id, where, self._now, self._now + took, cpus)
        self._spans.append(span)
        self._after(took, TaskEnded(task.task_id, _answer(task), None), host, cpus)

    def _cpus(self, task: HostTask) -> int:
        if isinstance(task, ExportTask | ReferenceTask):
            return task.resources.cpus or self._hosts.cpus_per_export
        return 1


def _answer(task: HostTask) -> HostTaskResult:
    """Return a result of the kind that the task gives."""
    match task:
        case ExportTask(request=request):
            versions = ToolchainVersions("", "", "", "")
            bundle = _bundle(request.model.name, request.recipe, request.toolchain.name)
            return ExportResult(bundle, versions, 0.0, 0.0, 0, None)
        case TokensTask(request=request, prompts=prompts):
            asked = tuple(ChatPrompt((0,)) for _ in prompts)
            return Tokenized((0,) * request.tokens, (0,), (), asked=asked)
        case ReferenceTask(request=request):
            return ReferenceResult((0,) * request.tokens, (0,), (), _LOGITS, _LOGITS)
        case HostRunTask(runner=runner):
            return HostRunResult(_build(runner), _hello(), (), None)
        case CompareTask():
            return _JUDGEMENT
        case CanaryTask():
            return CanaryProgram(_NOTHING, (0,), _LOGITS)


def _bundle(model: str, recipe: Recipe, toolchain: str) -> Bundle:
    context = recipe.max_context
    return Bundle(
        key=f"{model}/{recipe.name}/{toolchain}",
        model=model,
        recipe=recipe.name,
        toolchain=toolchain,
        pte=_NOTHING,
        data=None,
        tokenizer=_NOTHING,
        chat_template=None,
        metadata=ModelMetadata(1, 1, 1, context, context, None, ()),
        backend=recipe.backend,
    )


def _build(runner: RunnerSpec) -> RunnerBuild:
    return RunnerBuild(runner.name, "simulated", "", "0" * 64, (), ())


def _hello() -> Hello:
    return Hello(protocol=0, version="simulated", abi="", isa="", backends=(), kernels=())
