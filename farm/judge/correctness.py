"""The correctness chain: source -> eager_fp32 -> eager_quantised -> host_pte -> device_pte.

Neighbouring stages that exist are compared on every path, and eager_fp32 with device_pte from
end to end. Knows no file: logits arrive as matrices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from farm.core.result import GateResult, StageComparison
from farm.judge.logits import Logits, common_rows
from farm.judge.metrics import compare, first_non_finite
from farm.judge.rules import Pair, not_finite

CHAIN = ("eager_fp32", "eager_quantised", "host_pte", "device_pte")
PATHS: tuple[Literal["decode", "prefill"], ...] = ("decode", "prefill")
#: Path of logits that hold a row for every position and so serve every path.
EVERY_PATH = "every"

#: Stage -> path (`decode`, `prefill` or EVERY_PATH) -> logits.
StageLogits = Mapping[str, Mapping[str, Logits]]


@dataclass(frozen=True, slots=True)
class ChainResult:
    """All comparisons, and gates beside theirs.

    Those fail where a stage's logits have the wrong shape or a NaN, and are undecided where logits
    that came in part show too little.
    """

    pairs: tuple[Pair, ...]
    malformed: tuple[GateResult, ...]


def compare_chain(
    logits: StageLogits, tokens: Sequence[int], extra: Iterable[tuple[str, str]] = ()
) -> ChainResult:
    """Compare the stages.

    Args:
        logits: Whatever stages exist; a missing one is bridged by its neighbours.
        tokens: The teacher-forced token ids.
        extra: Further (from, to) pairs to compare on the decode path.
    """
    good, malformed = _well_formed(logits, len(tokens))
    pairs = []
    for path in PATHS:
        present = [stage for stage in CHAIN if _on_path(good, stage, path) is not None]
        wanted = list(itertools.pairwise(present))
        if path == "decode":
            wanted += [("eager_fp32", "device_pte"), *sorted(extra)]
        for from_, to in dict.fromkeys(wanted):
            first, second = _on_path(good, from_, path), _on_path(good, to, path)
            if first is None or second is None or not common_rows(first, second)[2]:
                continue
            if path != "decode" and _pathless(good, from_) and _pathless(good, to):
                continue  # the same rows as on the decode path
            pairs.append(Pair(from_, to, path, compare(first, second, tokens)))
    return ChainResult(tuple(pairs), (*malformed, *_alone(good, pairs), *_hidden(pairs)))


def stage_report(
    pair: Pair, path: Literal["decode", "prefill"], noise_floor: float | None
) -> StageComparison:
    """Put a comparison into the report's form."""
    c = pair.comparison
    return StageComparison(
        from_=pair.from_,
        to=pair.to,
        path=path,
        tokens=c.rows,
        bit_equal=c.bit_equal,
        cosine_min=c.cosine_min,
        kl_mean=c.kl_mean,
        kl_max=c.kl_max,
        top1_agreement=c.top1_agreement,
        max_abs_error=c.max_abs_error,
        first_divergence=c.first_divergence,
        perplexity_from=c.perplexity_from,
        perplexity_to=c.perplexity_to,
        noise_floor_kl=noise_floor,
    )


def source_report(max_abs_error: float, tokens: int) -> StageComparison:
    """The comparison with the source's published logits, of which only the error is known."""
    return StageComparison(
        from_="source",
        to="eager_fp32",
        path="decode",
        tokens=tokens,
        bit_equal=max_abs_error == 0.0,
        cosine_min=None,
        kl_mean=None,
        kl_max=None,
        top1_agreement=None,
        max_abs_error=max_abs_error if math.isfinite(max_abs_error) else None,
        first_divergence=None,
        perplexity_from=None,
        perplexity_to=None,
    )


def _on_path(logits: StageLogits, stage: str, path: str) -> Logits | None:
    paths = logits.get(stage, {})
    return paths.get(path) or paths.get(EVERY_PATH)


def _pathless(logits: StageLogits, stage: str) -> bool:
    return list(logits.get(stage, {})) == [EVERY_PATH]


def form_condition(pairs: Sequence[Pair]) -> dict[str, str]:
    """How much of the device's logits was there, as a condition of the result."""
    texts = [
        f"{pair.from_}, {pair.path}: {check.whole} of {pair.comparison.rows} rows whole,"
        f" KL x {check.scale:.3f}"
        for pair in pairs
        if pair.to == "device_pte" and (check := pair.comparison.compact) is not None
    ]
    return {"logits": f"in the compact form ({'; '.join(texts)})"} if texts else {}


def _hidden(pairs: Sequence[Pair]) -> list[GateResult]:
    """An undecided gate for each pair of which the compact form shows too little."""
    return [
        GateResult(
            metric="logits",
            op="==",
            threshold=None,
            value=None,
            passed=None,
            text=f"{pair.from_} -> {pair.to} ({pair.path}): what the compact form shows",
            reason=f"of a mean KL of {check.kl_whole:.2g} on {check.whole} whole rows the compact"
            f" form shows {check.kl_coarse:.2g}: set `correctness: {{logits: whole}}`",
        )
        for pair in pairs
        if (check := pair.comparison.compact) is not None and not (check.whole and check.tells)
    ]


def _alone(logits: StageLogits, pairs: Sequence[Pair]) -> list[GateResult]:
    """Logits with a NaN that nothing was compared with: no pair tells of it."""
    compared = {(stage, pair.path) for pair in pairs for stage in (pair.from_, pair.to)}
    found = []
    for stage, paths in logits.items():
        for path, matrix in paths.items():
            ways = PATHS if path == EVERY_PATH else (path,)
            if any((stage, way) in compared for way in ways):
                continue
            position = first_non_finite(matrix)
            if position is not None:
                found.append(not_finite(stage, path, position))
    return found


def _well_formed(logits: StageLogits, tokens: int) -> tuple[StageLogits, list[GateResult]]:
    """Split off stages whose rows or vocabulary don't fit: wrong output, not an exception.

    Rows of other tokens, or of some of them only, would be compared where both have one.
    """
    vocabulary = _vocabulary(logits)
    good: dict[str, dict[str, Logits]] = {}
    bad = []
    for stage, paths in logits.items():
        for path, matrix in paths.items():
            rows = tokens if path == EVERY_PATH else len(matrix.positions)
            expected = (rows, vocabulary)
            if matrix.values.shape == expected and max(matrix.positions, default=0) < tokens:
                good.setdefault(stage, {})[path] = matrix
                continue
            bad.append(
                GateResult(
                    metric="shape",
                    op="==",
                    threshold=None,
                    value=None,
                    passed=False,
                    text=f"{stage} ({path}): shape of the logits",
                    reason=f"logits of {stage} have shape {matrix.values.shape}, not {expected}",
                )
            )
    return good, bad


def _vocabulary(logits: StageLogits) -> int:
    """Width of the earliest stage: the one that is trusted most."""
    for stage in CHAIN:
        for matrix in logits.get(stage, {}).values():
            if matrix.values.ndim == 2:
                return int(matrix.values.shape[1])
    return 0
