"""What a cell's launches do: cold ones, the check of correctness, and those that measure. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from farm.core.artifact import Bundle, CanaryProgram, LayerReplay, LogitsPass
from farm.core.asked import ChatPrompt, Prompt
from farm.core.reference import Tokenized
from farm.core.rules.sustained import SLOWEST
from farm.core.rules.verdict import gates_speed
from farm.core.runner import DeployFile
from farm.core.runtime import (
    CanaryLaunch,
    DeviceJob,
    Generate,
    LaunchPolicy,
    LaunchRequest,
    Measure,
    SustainedLaunch,
)
from farm.core.spec import Correctness, Gate, RunSpec, Workload

#: Length of the later chunks of the prefill pass: short enough for several rows of evidence.
_CHUNK = 16
#: The same of a replayed layer: longer than the block of rows of any kernel, and no multiple of it.
_REPLAY_CHUNK = 5
#: Tokens of the canary that go one by one: enough for attention to work in blocks, with a rest.
_STEPS = 90
#: How often all of them go at once. Two threads with one scratch spoil a third of such passes on a
#: host with 40 processes for 2 cores, where threads seldom work at one time.
_WIDE = 12


def logits_passes(correctness: Correctness, workload: Workload) -> tuple[LogitsPass, ...]:
    """Return the teacher-forced passes: token by token, and in chunks.

    The prefill pass begins with one forward of the length that is timed, so that what is timed
    is what is checked, and goes on in short chunks that continue from the cache.
    """
    tokens = correctness.tokens
    first = min(workload.prefill[0] if workload.prefill else _CHUNK, tokens // 2)
    rest = tokens - first
    chunks = [first, *([_CHUNK] * (rest // _CHUNK))]
    if rest % _CHUNK:
        chunks.append(rest % _CHUNK)
    return (LogitsPass("decode", (1,) * tokens), LogitsPass("prefill", tuple(chunks)))


def measures(workload: Workload) -> tuple[Measure, ...]:
    """Return the timed workloads of one launch: pp and tg at every depth."""
    found = []
    for depth in workload.depth:
        suffix = f"@d{depth}" if depth else ""
        for prefill in workload.prefill:
            found.append(_measure(f"pp{prefill}{suffix}", workload, prefill=prefill, depth=depth))
        for decode in workload.decode:
            found.append(_measure(f"tg{decode}{suffix}", workload, decode=decode, depth=depth))
    return tuple(found)


def _measure(
    name: str, workload: Workload, *, prefill: int = 0, decode: int = 0, depth: int
) -> Measure:
    return Measure(
        name=name,
        prefill=prefill,
        decode=decode,
        depth=depth,
        repetitions=workload.repetitions,
        window_ms=workload.window_ms,
        warmup=workload.warmup,
    )


def too_long(workload: Workload, max_context: int) -> dict[str, str]:
    """Measures that the artifact's context can't hold, and why, by name."""
    return {
        measure.name: f"needs {positions(measure)} tokens of context, the artifact has"
        f" {max_context}"
        for measure in measures(workload)
        if positions(measure) > max_context
    }


def positions(measure: Measure) -> int:
    """Positions of the context that one window fills; a decode starts from one token at least."""
    return max(measure.depth + measure.prefill, 1) + measure.decode


@dataclass(frozen=True, slots=True)
class CellLaunches:
    """What one cell launches."""

    #: Once each, in order.
    once: tuple[LaunchRequest, ...]
    #: And then again and again; None when nothing of the workload fits the context.
    policy: LaunchPolicy | None
    #: And at last without a pause; None where that isn't asked for, or no decode fits.
    sustained: SustainedLaunch | None = None
    #: Of each prompt of the config, or why it can't be asked.
    asked: tuple[LaunchRequest | str, ...] = ()


def cell_launches(
    spec: RunSpec,
    given: Tokenized,
    *,
    threads: int,
    max_context: int,
    paired: bool,
    sweeps: bool = True,
    regress: float | None = None,
) -> CellLaunches:
    """Return the launches of one cell; `regress` is what they tell apart, the config's by default.

    First the cold ones, then the check of correctness, then those that are timed warm. Of two
    arms each gets one launch that warms its files before any that counts.
    """
    workload = spec.workload
    long = too_long(workload, max_context)
    timed = tuple(m for m in measures(workload) if m.name not in long)
    check = LaunchRequest(
        threads=threads,
        tokens=given.tokens,
        passes=logits_passes(spec.correctness, workload),
        logits=spec.correctness.logits,
        generate=Generate(
            given.prompt,
            spec.correctness.max_new_tokens,
            given.stop_ids,
            given.prompt_text,
        ),
    )
    asked = tuple(
        _ask(prompt, chat, given.stop_ids, threads, max_context)
        for prompt, chat in zip(spec.prompts, given.asked, strict=True)
    )
    if not timed:
        return CellLaunches((check,), None, asked=asked)
    first = replace(timed[0], repetitions=1, warmup=0)
    warm = replace(check, passes=(), generate=None, measures=timed, texts=given.texts)
    start = replace(warm, measures=(first,))
    cold = (replace(start, cold=True),) * workload.cold_launches
    ours = (warm,) if sweeps else one_by_one(warm)
    on_and_on = _sustained(workload, warm) if sweeps else None
    if not paired:
        return CellLaunches((*cold, check), _policy(spec, ours, regress), on_and_on, asked)
    theirs = tuple(replace(request, arm="baseline") for request in ours)
    once = (*cold, check, replace(start, arm="baseline"))
    policy = _policy(spec, (*ours, *theirs, *theirs, *ours), regress)
    return CellLaunches(once, policy, on_and_on, asked)


def _ask(
    prompt: Prompt, chat: ChatPrompt, stop_ids: tuple[int, ...], threads: int, max_context: int
) -> LaunchRequest | str:
    """Return the launch that answers a prompt, or why there can't be one."""
    room = max_context - len(chat.ids)
    if not chat.ids:
        return chat.reason
    if room < 1:
        return f"the prompt has {len(chat.ids)} tokens, the artifact's context {max_context}"
    length = min(prompt.max_new_tokens, room)
    return LaunchRequest(threads, generate=Generate(chat.ids, length, stop_ids, chat.text))


def _sustained(workload: Workload, warm: LaunchRequest) -> SustainedLaunch | None:
    """The launch that decodes on and on: the first decode that fits, at its depth."""
    decodes = [measure for measure in warm.measures if measure.decode]
    if workload.sustained_s is None or not decodes:
        return None
    seconds = workload.sustained_s
    request = replace(warm, measures=(decodes[0],), timeout_s=SLOWEST * seconds + warm.timeout_s)
    return SustainedLaunch(request, seconds)


def without_baseline(job: DeviceJob) -> DeviceJob:
    """Return the job for the candidate alone."""
    policy = job.policy
    if policy is not None:
        ours = dict.fromkeys(request for request in policy.block if request.arm == "candidate")
        policy = replace(policy, block=tuple(ours))
    launches = tuple(request for request in job.launches if request.arm == "candidate")
    return replace(job, launches=launches, policy=policy, baseline=None)


def least_launches(job: DeviceJob) -> int:
    """Launches that a job has at least; its policy may add more."""
    policy = job.policy
    if policy is None:
        return len(job.launches)
    return len(job.launches) + -(-policy.least // policy.per_block) * len(policy.block)


def _policy(spec: RunSpec, block: tuple[LaunchRequest, ...], regress: float | None) -> LaunchPolicy:
    names = dict.fromkeys(measure.name for request in block for measure in request.measures)
    bounds = tuple((name, value) for name in names for value in _bounds(spec.gates, name))
    # Widths are for comparisons, and for a share of speeds that has to be decided.
    wanted = any(r.arm == "baseline" for r in block) or bool(spec.require.speed)
    policy = launch_policy(spec.workload, block, regress=spec.regress, wanted=wanted)
    return replace(
        policy,
        bounds=bounds,
        regress=spec.regress if regress is None else regress,
        judged=policy.judged or gates_speed(spec.gates),
    )


def launch_policy(
    workload: Workload, block: tuple[LaunchRequest, ...], *, regress: float, wanted: bool = True
) -> LaunchPolicy:
    """Return how often a block is repeated for a workload.

    Args:
        workload: What is measured.
        block: The launches that are repeated.
        regress: How narrow intervals have to be where the workload doesn't say.
        wanted: Whether they have to be narrow where the workload doesn't say.
    """
    precision = workload.precision
    if precision is None and wanted:
        precision = regress
    return LaunchPolicy(
        block=block,
        least=workload.launches,
        most=workload.max_launches,
        budget_s=workload.budget_s,
        precision=precision,
        regress=regress,
        judged=precision is not None,
    )


def text_lengths(workload: Workload) -> tuple[int, ...]:
    """Return the lengths in tokens of the texts for runners that take no ids.

    A reply alone is measured after a short text: such a runner starts from a prompt always.
    """
    return workload.prefill or (_CHUNK,)


def _bounds(gates: Sequence[Gate], metric: str) -> list[float]:
    """Bounds of the gates on one rate, by its class (`decode_tok_s`) or its own name."""
    kind = {"pp": "prefill_tok_s", "tg": "decode_tok_s"}[metric[:2]]
    return [
        gate.value for gate in gates if gate.metric in (kind, metric) and gate.relative_to is None
    ]


def one_by_one(launch: LaunchRequest) -> tuple[LaunchRequest, ...]:
    """Split a timed launch for runners that do one prompt and one reply each, at depth 0."""
    prefills = [m for m in launch.measures if m.prefill and not m.depth]
    decodes = [m for m in launch.measures if m.decode and not m.depth]
    pairs = [
        tuple(m for m in pair if m is not None) for pair in itertools.zip_longest(prefills, decodes)
    ]
    return tuple(replace(launch, measures=pair) for pair in pairs) or (launch,)


def canary_passes(program: CanaryProgram) -> tuple[LogitsPass, ...]:
    """Return the canary's passes: token by token, in chunks that end at odd places, and at once.

    The last ones are long: their threads work side by side, so what they share unasked shows.
    """
    total = min(len(program.tokens), _STEPS)
    first, second = total // 2 + 1, total // 4 + 1
    chunks = (first, second, total - first - second)
    passes = (LogitsPass("decode", (1,) * total), LogitsPass("prefill", chunks))
    if total == len(program.tokens):
        return passes
    wide = (LogitsPass(f"wide-{n}", (len(program.tokens),)) for n in range(_WIDE))
    return (*passes, *wide)


def canary_launch(program: CanaryProgram, *, threads: int) -> CanaryLaunch:
    """Return the launch that checks the kernels."""
    return CanaryLaunch(
        DeployFile(program.pte, "canary.pte"),
        LaunchRequest(threads=threads, tokens=program.tokens, passes=canary_passes(program)),
    )


def replay_passes(replay: LayerReplay) -> tuple[LogitsPass, ...]:
    """Return the passes over one layer's recorded inputs: token by token, and in chunks."""
    total = replay.inputs.rows
    rest = total % _REPLAY_CHUNK
    chunks = (_REPLAY_CHUNK,) * (total // _REPLAY_CHUNK) + ((rest,) if rest else ())
    return (LogitsPass("decode", (1,) * total), LogitsPass("prefill", chunks))


def replay_launch(replay: LayerReplay, *, threads: int) -> CanaryLaunch:
    """Return the launch that runs one layer of the artifact on its own."""
    return CanaryLaunch(
        DeployFile(replay.pte, "replay.pte"),
        LaunchRequest(threads=threads, tokens=replay.tokens, passes=replay_passes(replay)),
    )


def ram_need_bytes(bundle: Bundle) -> int:
    """Return a lower bound of the memory that the artifact needs on a device.

    The program is mapped and read in full while it runs; 48 MiB cover the runtime and
    activations of small models (measured: 133 MB peak for a 105 MB program).
    """
    data = 0 if bundle.data is None else bundle.data.size_bytes
    return bundle.pte.size_bytes + data + (48 << 20)
