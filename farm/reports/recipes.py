"""`farm recipes compare`: what each recipe costs and gives on each device, and which are worth it.

A recipe is on the front when no other one of its group is at least as good in every number and
better in one. A row that lacks a number, or was judged wrong, is never on it, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from farm.core.result import CellResult, CorrectnessReport, ExportReport, Report

Number = Literal[
    "kl", "perplexity", "size_bytes", "peak_rss_bytes", "prefill_tok_s", "decode_tok_s"
]
#: Numbers that decide, and whether more of one is better.
NUMBERS: dict[Number, bool] = {
    "kl": False,
    "perplexity": False,
    "size_bytes": False,
    "peak_rss_bytes": False,
    "prefill_tok_s": True,
    "decode_tok_s": True,
}


@dataclass(frozen=True, slots=True)
class RecipeRow:
    """One recipe on one device."""

    recipe: str
    outcome: str
    #: Of what the device computes to eager PyTorch in fp32, mean over the text, nats.
    kl: float | None
    #: On the device.
    perplexity: float | None
    #: Program and external weights.
    size_bytes: int | None
    peak_rss_bytes: int | None
    prefill_tok_s: float | None
    decode_tok_s: float | None
    #: Wall time of the export, also of one that was taken from the store.
    export_s: float | None
    #: Why a number is missing or not to be trusted, by its name.
    reasons: tuple[tuple[str, str], ...]
    on_front: bool = False
    #: Why it isn't on the front; empty where it is.
    off_front: str = ""
    #: Its numbers divided by those of the first recipe of the group; None where one has none.
    kl_ratio: float | None = None
    decode_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class RecipeGroup:
    """Recipes that were measured alike: one model on one device."""

    model: str
    toolchain: str
    runner: str
    device: str
    #: Asked for; 0 is auto.
    threads: int
    #: Metrics whose rates are shown, for example `pp128`; empty where nothing was timed.
    prefill: str
    decode: str
    rows: tuple[RecipeRow, ...]


def compare_recipes(report: Report) -> list[RecipeGroup]:
    """Group the cells of a run, and find the front of each group."""
    groups: dict[tuple[str, str, str, str, int], list[CellResult]] = {}
    for result in report.results:
        runner, device = result.runner.name, result.device.name
        key = (result.model, result.toolchain, runner, device, result.threads)
        groups.setdefault(key, []).append(result)
    exports = {(e.model, e.recipe, e.toolchain): e for e in report.exports}
    return [_group(key, results, exports) for key, results in groups.items()]


def _group(
    key: tuple[str, str, str, str, int],
    results: Sequence[CellResult],
    exports: dict[tuple[str, str, str], ExportReport],
) -> RecipeGroup:
    prefill, decode = (_metric(results, prefix) for prefix in ("pp", "tg"))
    rows = [
        _row(result, exports.get((result.model, result.recipe, result.toolchain)), prefill, decode)
        for result in results
    ]
    first = rows[0]
    judged = [
        replace(
            _placed(row, rows),
            kl_ratio=_ratio(row.kl, first.kl),
            decode_ratio=_ratio(row.decode_tok_s, first.decode_tok_s),
        )
        for row in rows
    ]
    return RecipeGroup(*key, prefill, decode, tuple(judged))


def _metric(results: Iterable[CellResult], prefix: str) -> str:
    """The first metric of a kind: cells of one run time the same ones."""
    names = (row.metric for result in results for row in result.performance)
    return next((name for name in names if name.startswith(prefix)), "")


def _row(result: CellResult, export: ExportReport | None, prefill: str, decode: str) -> RecipeRow:
    reasons: dict[str, str] = {}
    kl, perplexity = _quality(result.correctness)
    unjudged = result.reason or "the run didn't judge it"
    if kl is None:
        reasons["kl"] = "no eager reference in fp32" if perplexity else unjudged
    if perplexity is None:
        reasons["perplexity"] = unjudged
    artifact = result.artifact
    size = None if artifact.size_bytes is None else artifact.size_bytes
    if size is None:
        reasons["size_bytes"] = unjudged
    rss = result.memory.peak_rss_bytes
    if rss is None:
        reasons["peak_rss_bytes"] = "the kernel doesn't tell" if result.performance else unjudged
    rates = []
    for name, metric in (("prefill_tok_s", prefill), ("decode_tok_s", decode)):
        rate, why = _rate(result, metric)
        rates.append(rate)
        if why:
            reasons[name] = why
    return RecipeRow(
        recipe=result.recipe,
        outcome=result.outcome,
        kl=kl,
        perplexity=perplexity,
        size_bytes=None if size is None else size + (artifact.data_size_bytes or 0),
        peak_rss_bytes=rss,
        prefill_tok_s=rates[0],
        decode_tok_s=rates[1],
        export_s=None if export is None else export.seconds,
        reasons=tuple(reasons.items()),
    )


def _quality(found: CorrectnessReport | None) -> tuple[float | None, float | None]:
    """KL to eager fp32 and perplexity, both on the device and of one token at a time."""
    kl = perplexity = None
    for stage in () if found is None else found.stages:
        if (stage.path, stage.to) != ("decode", "device_pte"):
            continue
        perplexity = stage.perplexity_to
        kl = stage.kl_mean if stage.from_ == "eager_fp32" else kl
    return kl, perplexity


def _rate(result: CellResult, metric: str) -> tuple[float | None, str]:
    """A warm rate, and why it is missing or not to be trusted."""
    if not metric:
        return None, "nothing of the kind was timed"
    for row in result.performance:
        if (row.metric, row.regime) != (metric, "warm"):
            continue
        if row.trust == "invalid" or row.median is None:
            return None, row.reason or f"{metric} is {row.trust}"
        return row.median, "" if row.trust == "ok" else f"{metric} is {row.trust}"
    return None, result.reason or f"{metric} wasn't measured"


def _placed(row: RecipeRow, others: Sequence[RecipeRow]) -> RecipeRow:
    missing = [name for name in NUMBERS if getattr(row, name) is None]
    if row.outcome in ("failed", "errored", "skipped"):
        return replace(row, off_front=row.outcome)
    if missing:
        return replace(row, off_front=f"no {', '.join(missing)}")
    better = [other.recipe for other in others if _dominates(other, row)]
    return replace(row, on_front=not better, off_front=f"{better[0]} is better" if better else "")


def _dominates(one: RecipeRow, other: RecipeRow) -> bool:
    """Whether one is at least as good in every number, and better in one."""
    if one.outcome in ("failed", "errored", "skipped"):
        return False
    better = False
    for name, more in NUMBERS.items():
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine is None or (mine < theirs if more else mine > theirs):
            return False
        better = better or mine != theirs
    return better


def _ratio(value: float | None, first: float | None) -> float | None:
    return value / first if value is not None and first else None
