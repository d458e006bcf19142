"""The built-in correctness rules: what a healthy deployment stays within, and why that number.

Each rule judges two neighbouring stages on one path. The bounds let a healthy 4-bit model pass
(its rounding noise is amplified to a KL of some hundredths of a nat) and fail a broken one
(wrong rotation, scale, cache or kernel: KL of several tenths and more).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from farm.core.artifact import LinearQuantization
from farm.core.hostrun import IsaControl, PathFloor
from farm.core.reference import LearnedBound, SourceCheck
from farm.core.result import GateResult
from farm.judge.metrics import Comparison, PerplexityChange
from farm.judge.rounding import rounding_gates

#: KL(device || host) against the noise floor, which is the mean over at least 4 order-only
#: perturbations of the host artifact: another binary or ISA is one more such perturbation.
DEVICE_KL_FACTOR = 1.5
#: Device against host perplexity. Rounding noise is unbiased, so perplexity hardly moves.
DEVICE_PERPLEXITY = 0.01
#: The same in units of what order-only perturbations do to the host's, where that is more: 256
#: tokens of a small 4-bit model move by up to 4 % under rounding alone.
PERPLEXITY_NOISE = 3.0
#: Largest noise floor that a pass may rest on. An artifact that the order of its sums alone moves
#: by more hides faults of that size (attention x1.02 is 0.027, a wrong rotation 0.45).
NOISE_MOST = 0.1
#: A control differs alike where its KL is at least this share of the device's.
ALIKE = 0.5
#: Below this KL a device is as good as the host, whatever the noise floor: fp32 logits that
#: differ by 1e-4 give 1e-8 nats. It stands in for the floor of recipes that have none (fp32).
KL_NOTHING = 1e-6
#: The same with activations quantised while running: whether a value rounds up or down is drawn
#: anew on another instruction set, and the few perturbations behind the floor of a small model
#: may have flipped hardly any. A perplexity moves by a hundredth of a percent.
KL_NOTHING_DYNAMIC = 1e-4
#: Host artifact against the eager quantised model: other rounding in every layer, same weights.
#: Three floors, or a tenth of a nat where the floor is lower or unknown: measured kernel to
#: kernel differences of one 4-bit model lie at 0.025-0.03.
HOST_KL_FACTOR = 3.0
HOST_KL = 0.1
#: The same for fp32 linears: kernels differ only in the order of sums, but an 8-bit embedding or
#: a quantised cache may come in.
HOST_KL_FP32 = 1e-3
HOST_PERPLEXITY = 0.05
#: The source against our fp32 model, as a share of the source's largest logit: rounding gave 1e-6
#: with two layers and with thirty; a tenfold epsilon of the norms gives 9e-5 with two. Some models
#: give tokens that they never saw a logit of hundreds: more than this one doesn't count.
SOURCE_ERROR, SOURCE_LARGEST = 2e-5, 50.0
#: Perplexity of the source against our fp32 model, on the same ids: relative.
SOURCE_PERPLEXITY = 1e-3
#: What a healthy export of this model and recipe was measured to lose. On the text that it was
#: measured on only another CPU's rounding comes in; another text is another sample.
LEARNED_FACTOR = 1.15
LEARNED_OTHER_TEXT = 2.0
#: Perplexity: rounding alone moves 256 tokens by that much, ln.
LEARNED_PERPLEXITY = 0.04
#: Fewer rows than this have no perplexity worth judging and a wide KL bound.
MIN_ROWS = 32
#: KL of single rows between two builds scatters by 0.6 of its mean (measured), in longer tails by
#: the mean itself; three standard errors of that.
_FEW_ROWS_WIDENING = 3.0


@dataclass(frozen=True, slots=True)
class QuantisationBound:
    """How much a quantisation may cost against fp32."""

    kl_mean: float
    #: Largest relative increase of perplexity.
    perplexity: float


#: Eager quantised against eager fp32. Not a quality target (that is a gate of the config), only
#: the line to a broken model: SmolLM2-135M at 4 bits in groups of 32 has a KL of 0.54 and loses
#: 44 % perplexity on the built-in text (`farm run configs/llama_q4.yaml`) and larger models less;
#: a wrong scale or rotation gives several nats and ten times the perplexity.
#: ExecuTorch's own export of that model stands at 0.54 and 46 %, int8 at 0.019 and 4 %, fp32 with
#: an 8-bit embedding at 0.0001 and 0.1 % (`none` allows for that embedding).
QUANTISATION: dict[LinearQuantization, QuantisationBound] = {
    "none": QuantisationBound(kl_mean=0.02, perplexity=0.02),
    "int8": QuantisationBound(kl_mean=0.1, perplexity=0.15),
    "4w": QuantisationBound(kl_mean=1.0, perplexity=1.0),
    "8da4w": QuantisationBound(kl_mean=1.0, perplexity=1.0),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two stages compared on one path."""

    from_: str
    to: str
    path: str
    comparison: Comparison

    @property
    def title(self) -> str:
        """For people: `eager_fp32 -> host_pte (decode)`."""
        return f"{self.from_} -> {self.to} ({self.path})"


@dataclass(frozen=True, slots=True)
class RuleContext:
    """What the rules need to know besides the numbers."""

    linear: LinearQuantization
    #: Mean KL of the host artifact under order-only perturbations, by path.
    noise_floor: dict[str, float]
    #: Host and device ran the same binary with the same instruction set.
    same_code: bool
    #: How else those perturbations move the host artifact, by path.
    floors: Mapping[str, PathFloor] = field(default_factory=dict)
    #: What quantising costs a healthy export of this model and recipe; None: nobody measured it.
    bound: LearnedBound | None = None
    #: Their processors have different instruction sets: no order of sums is the same.
    other_abi: bool = False
    #: Other code on the host's own CPU: tells the choice of code from hardware.
    controls: Sequence[IsaControl] = ()

    @property
    def dynamic(self) -> bool:
        """Whether activations are rounded while running."""
        return self.linear in ("8da4w", "int8")


def judge_pair(pair: Pair, context: RuleContext) -> list[GateResult]:
    """Apply the rules of this pair's stages. Pairs that skip a stage have only the NaN rule."""
    bad = pair.comparison.non_finite
    if bad is not None:
        stage = pair.from_ if bad.side == "from" else pair.to
        return [not_finite(stage, pair.path, bad.position)]
    match (pair.from_, pair.to):
        case ("host_pte", "device_pte"):
            return _device(pair, context)
        case ("eager_quantised", "host_pte" | "device_pte"):
            return _host(pair, context)
        case ("eager_fp32", "eager_quantised"):
            return _quantisation(pair, context)
        case _:
            return []


def judge_source(source: SourceCheck) -> list[GateResult]:
    """Judge our token ids and our fp32 model against a source that shares no code with them.

    Ids that differ and logits that could not be compared fail: the source was there to ask.
    """
    if not source.by:
        return []
    error = source.max_abs_error
    gates = [
        GateResult(
            metric="max_abs_error",
            op="<=",
            threshold=source_bound(source.largest),
            value=error if error is not None and math.isfinite(error) else None,
            passed=agrees(source),
            text=f"source ({source.by}) -> eager_fp32",
            reason="" if error is not None else source.reason or "no position could be compared",
        )
    ]
    if source.perplexity is not None and source.own_perplexity is not None:
        gates.append(_source_perplexity(source.by, source.perplexity, source.own_perplexity))
    if source.ids_equal is not None:
        gates.append(
            GateResult(
                metric="token_ids",
                op="==",
                threshold=1.0,
                value=float(source.ids_equal),
                passed=source.ids_equal,
                text=f"source ({source.by}) -> tokens",
                reason=source.reason,
            )
        )
    return gates


def _source_perplexity(by: str, theirs: float, ours: float) -> GateResult:
    moved = abs(math.log(ours / theirs))
    return GateResult(
        metric="perplexity_change",
        op="<=",
        threshold=SOURCE_PERPLEXITY,
        value=moved,
        passed=moved <= SOURCE_PERPLEXITY,
        text=f"source ({by}) -> eager_fp32",
        reason=""
        if moved <= SOURCE_PERPLEXITY
        else f"perplexity {theirs:.6g} -> {ours:.6g}, allowed ±{SOURCE_PERPLEXITY:.1%}",
    )


def not_finite(stage: str, path: str, position: int) -> GateResult:
    """The failed gate of a stage whose logits hold a NaN or infinity."""
    return GateResult(
        metric="finite",
        op="==",
        threshold=None,
        value=None,
        passed=False,
        text=f"{stage} ({path}): finite logits",
        reason=f"NaN or infinity in the logits of {stage} at position {position}",
    )


def _device(pair: Pair, context: RuleContext) -> list[GateResult]:
    if context.same_code:
        equal = pair.comparison.bit_equal
        return [
            GateResult(
                metric="bit_equal",
                op="==",
                threshold=1.0,
                value=float(equal),
                passed=equal,
                text=f"{pair.title}: same binary and instruction set",
                reason="" if equal else f"logits differ by {pair.comparison.max_abs_error:.3g}",
            )
        ]
    if context.other_abi and pair.comparison.bit_equal:
        return [
            GateResult(
                metric="bit_equal",
                op="==",
                threshold=0.0,
                value=1.0,
                passed=None,
                text=f"{pair.title}: another instruction set",
                reason="the logits are the host's, bit for bit: did the device compute them?",
            )
        ]
    floor = _floor(pair, context)
    gates = [_perplexity(pair, _rounding_perplexity(pair, context), both_ways=True)]
    if floor is None:
        gates.append(
            GateResult(
                metric="kl_mean",
                op="<=",
                threshold=None,
                value=pair.comparison.kl_mean,
                passed=None,
                text=f"{pair.title}: {DEVICE_KL_FACTOR}x noise floor",
                reason="the noise floor of this model and recipe isn't known",
            )
        )
    else:
        least = KL_NOTHING_DYNAMIC if context.dynamic else KL_NOTHING
        found = _within_floor(pair, DEVICE_KL_FACTOR, floor, least, "noise floor")
        gates.append(_kernel_or_hardware(found, pair.path, context.controls))
    return [*(gate for gate in gates if gate is not None), *_rounding(pair, context)]


def _kernel_or_hardware(gate: GateResult, path: str, controls: Sequence[IsaControl]) -> GateResult:
    """Say of a device that differs too much whether other code on the host's CPU does so too."""
    known = [(dict(one.kl_mean)[path], one.isa) for one in controls if path in dict(one.kl_mean)]
    if gate.passed is not False or not known or gate.value is None:
        return gate
    most, isa = max(known)
    said = f"on the host's own CPU XNNPACK's {isa} code differs by {most:.3g}"
    if most >= ALIKE * gate.value:
        said += ", alike: it is the choice of code, not this hardware"
    else:
        said += " at most: it is this hardware, or code that only it runs"
    return replace(gate, reason=f"kl_mean {gate.value:.3g}, {gate.threshold:.3g} allowed; {said}")


def _host(pair: Pair, context: RuleContext) -> list[GateResult]:
    floor = _floor(pair, context) or 0.0
    bound = HOST_KL_FP32 if context.linear == "none" else HOST_KL
    gates = [
        _within_floor(pair, HOST_KL_FACTOR, floor, bound, "noise floor, or the fixed bound"),
        _perplexity(pair, HOST_PERPLEXITY, both_ways=True),
    ]
    return [*(gate for gate in gates if gate is not None), *_rounding(pair, context)]


def _quantisation(pair: Pair, context: RuleContext) -> list[GateResult]:
    bound, source = QUANTISATION[context.linear], f"bound of {context.linear}, not learned"
    learned = context.bound
    if learned is not None:
        factor = LEARNED_FACTOR if learned.same_text else LEARNED_OTHER_TEXT
        bound = QuantisationBound(
            learned.kl_mean * factor + KL_NOTHING_DYNAMIC,
            math.expm1(max(0.0, learned.log_perplexity) * factor + LEARNED_PERPLEXITY),
        )
        source = f"{factor:g}x what a healthy export loses"
    gates = [
        _kl(pair, bound.kl_mean, source),
        _perplexity(pair, bound.perplexity, both_ways=False),
    ]
    return [gate for gate in gates if gate is not None]


def _rounding(pair: Pair, context: RuleContext) -> list[GateResult]:
    """Nothing where too few rows, or no floor, say what rounding does to this model."""
    floor = context.floors.get(pair.path)
    if floor is None or pair.comparison.rows < MIN_ROWS:
        return []
    few = context.dynamic and context.noise_floor.get(pair.path, 0.0) < KL_NOTHING_DYNAMIC
    return rounding_gates(pair.title, pair.comparison, floor, few_flips=few)


def agrees(source: SourceCheck) -> bool:
    """Whether an independent source gives the logits that our reading of the checkpoint gives."""
    error = source.max_abs_error
    return bool(source.by) and error is not None and error <= source_bound(source.largest)


def source_bound(largest: float | None) -> float:
    """Largest difference of a logit of ours to a source's whose largest is so large."""
    return SOURCE_ERROR * min(SOURCE_LARGEST if largest is None else largest, SOURCE_LARGEST)


def _floor(pair: Pair, context: RuleContext) -> float | None:
    """The path's noise floor; with few rows at least that of the decode path, which has many."""
    floors = context.noise_floor
    own = floors.get(pair.path)
    if pair.comparison.rows >= MIN_ROWS or own is None:
        return own
    return max(own, floors.get("decode", 0.0))


def _within_floor(pair: Pair, factor: float, floor: float, least: float, source: str) -> GateResult:
    """Allow so many noise floors, or the least bound; a floor beyond NOISE_MOST makes no pass."""
    found = _kl(pair, max(factor * floor, least), source)
    calm = _kl(pair, max(factor * min(floor, NOISE_MOST), least), source)
    if not found.passed or calm.passed:
        return found
    why = f"the order of sums alone moves this artifact by {floor:.3g}: a fault could be as large"
    return replace(found, passed=None, reason=why)


def _kl(pair: Pair, bound: float, source: str) -> GateResult:
    rows = pair.comparison.rows
    if rows < MIN_ROWS:
        bound *= 1 + _FEW_ROWS_WIDENING / math.sqrt(rows)
    value = pair.comparison.kl_mean
    return GateResult(
        metric="kl_mean",
        op="<=",
        threshold=bound,
        value=value,
        passed=None if value is None else value <= bound,
        text=f"{pair.title}: {source}",
    )


def _rounding_perplexity(pair: Pair, context: RuleContext) -> float:
    """Largest change of perplexity of a device, relative: three times what rounding did here."""
    floor = context.floors.get(pair.path)
    noise = 0.0 if floor is None else floor.log_perplexity or 0.0
    return max(DEVICE_PERPLEXITY, math.expm1(PERPLEXITY_NOISE * noise))


def _perplexity(pair: Pair, allowed: float, *, both_ways: bool) -> GateResult | None:
    """Judge the change of perplexity; None where too few rows have a next token.

    Within the bound is a pass. Outside it is a failure where the paired 95 % interval lies outside
    too, and undecided where it reaches back: so many tokens can't tell.
    """
    change = pair.comparison.perplexity_change
    if change is None or change.positions < MIN_ROWS:
        return None
    excess = excess_change(change, math.log1p(allowed), both_ways=both_ways)
    passed = True if excess <= 0 else False if significant(change, excess) else None
    moved = math.expm1(change.log_ratio)
    note = ""
    if excess > 0:
        old, new = pair.comparison.perplexity_from, pair.comparison.perplexity_to
        note = (
            f"perplexity {old:.4g} -> {new:.4g}, allowed {'±' if both_ways else '+'}{allowed:.0%}"
        )
        if passed is None:
            note += f"; {change.positions} tokens can't tell this from the bound"
    return GateResult(
        metric="perplexity_change",
        op="<=",
        threshold=allowed,
        value=abs(moved) if both_ways else moved,
        passed=passed,
        text=pair.title,
        reason=note,
    )


def excess_change(change: PerplexityChange, allowed: float, *, both_ways: bool) -> float:
    """How far ln(perplexity ratio) lies beyond `allowed`; not above 0 means inside."""
    return (abs(change.log_ratio) if both_ways else change.log_ratio) - allowed


def significant(change: PerplexityChange, excess: float) -> bool:
    """True when the paired 95 % interval of the change doesn't reach back into the bound."""
    error = change.standard_error
    return error is None or excess > 1.96 * error
