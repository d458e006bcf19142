"""What the tables of every format say of one cell, in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farm.core.printable import one_line
from farm.core.result import (
    ArtifactReport,
    CellResult,
    ExportReport,
    PerformanceReport,
    Report,
    StageComparison,
)
from farm.reports.words import number, plus_minus, seconds, size

HEADERS = (
    "device",
    "model",
    "recipe",
    "outcome",
    "correctness",
    "prefill tok/s",
    "decode tok/s",
    "TTFT",
    "peak RSS",
    "trust",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One cell as words; an empty string where there is nothing to say."""

    device: str
    model: str
    recipe: str
    outcome: str
    correctness: str
    prefill: str
    decode: str
    ttft: str
    peak_rss: str
    trust: str
    reason: str

    @property
    def columns(self) -> tuple[str, ...]:
        """In the order of HEADERS."""
        return (
            self.device,
            self.model,
            self.recipe,
            self.outcome,
            self.correctness,
            self.prefill,
            self.decode,
            self.ttft,
            self.peak_rss,
            self.trust,
        )


def artifact_size(artifact: ArtifactReport) -> str:
    """Size of a program, and of its external weights where it has some."""
    program = size(artifact.size_bytes)
    if artifact.data_size_bytes is None:
        return program
    return f"{program} + {size(artifact.data_size_bytes)} weights"


def export_notes(export: ExportReport) -> list[str]:
    """What a user should know about an artifact: Linears left in fp32, warnings."""
    names = export.unquantised
    notes = list(export.warnings)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        notes.insert(0, f"{len(names)} Linears left unquantised: {', '.join(names[:3])}{more}")
    return notes


def rows(report: Report) -> list[Row]:
    """One row for each cell, with the axes named that differ between cells."""
    results = report.results
    show_toolchain = len({r.toolchain for r in results}) > 1
    show_runner = len({r.runner.name for r in results}) > 1
    show_threads = len({r.threads for r in results}) > 1
    return [
        row(
            result,
            toolchain=show_toolchain,
            runner=show_runner,
            threads=show_threads,
        )
        for result in results
    ]


def row(
    result: CellResult, *, toolchain: bool = False, runner: bool = False, threads: bool = False
) -> Row:
    """Describe one cell."""
    axes = [result.recipe]
    if toolchain:
        axes.append(result.toolchain)
    if runner:
        axes.append(result.runner.name)
    if threads:
        axes.append(f"t{result.threads}" if result.threads else "auto")
    warm = [p for p in result.performance if p.regime == "warm"]
    return Row(
        device=one_line(result.device.name),
        model=one_line(result.model),
        recipe=one_line(" ".join(axes)),
        outcome="waived" if result.waived else result.outcome,
        correctness=correctness(result),
        prefill=rates(warm, "pp"),
        decode=rates(warm, "tg"),
        ttft=times(warm, "ttft"),
        peak_rss="" if result.memory.peak_rss_bytes is None else size(result.memory.peak_rss_bytes),
        trust=trust(result),
        reason=one_line(result.reason),
    )


def correctness(result: CellResult) -> str:
    """Say how the device's logits stand: `bit-equal, ppl 18.3`, `KL 0.021, top-1 93 %`."""
    report = result.correctness
    if report is None:
        return ""
    failed = [gate for gate in report.gates if gate.passed is False]
    last = device_stage(report.stages)
    if last is None:
        words = "text only" if report.generated_text else ""
    elif last.bit_equal:
        words = "bit-equal"
    elif last.kl_mean is None:
        words = "NaN" if any(gate.metric == "finite" for gate in failed) else "differs"
    else:
        words = f"KL {last.kl_mean:.2g}, top-1 {100 * (last.top1_agreement or 0.0):.0f} %"
    if last is not None and last.perplexity_to is not None:
        words += f", ppl {number(last.perplexity_to)}"
    return f"{len(failed)} failed: {words}" if failed else words


def speed(result: CellResult) -> str:
    """How the speed of a cell that was timed stands, where that isn't said by its outcome."""
    if result.baseline is not None and result.baseline.verdict == "SLOWER":
        return "SLOWER"
    untold = result.performance and result.speed_decision in ("undecided", "not gated")
    return f"speed {result.speed_decision}" if untold else ""


def device_stage(stages: Sequence[StageComparison]) -> StageComparison | None:
    """The comparison that reaches the device from its nearest stage, on the decode path."""
    order = ("host_pte", "eager_quantised", "eager_fp32")
    found = {s.from_: s for s in stages if s.to == "device_pte" and s.path == "decode"}
    return next((found[stage] for stage in order if stage in found), None)


def rates(performance: Sequence[PerformanceReport], prefix: str) -> str:
    """Rates with their intervals; named where there are several: `pp128 389 ±2 %`."""
    found = [p for p in performance if _is(p.metric, prefix) and p.median is not None]
    return _lines([(p.metric, f"{number(p.median)} {plus_minus(p.median, p.ci95)}") for p in found])


def times(performance: Sequence[PerformanceReport], prefix: str) -> str:
    """Times, named where there are several."""
    found = [p for p in performance if _is(p.metric, prefix) and p.median is not None]
    return _lines([(p.metric, seconds(p.median)) for p in found])


def trust(result: CellResult) -> str:
    """The worst trust of the cell's rates, flags that aren't said by it, how the speed stands."""
    order = ("invalid", "noisy", "unverified", "ok")
    found = {p.trust for p in result.performance if p.regime == "warm"}
    worst = next((word for word in order if word in found), "")
    flags = [one_line(flag) for flag in result.flags if flag not in order]
    return ", ".join(filter(None, (worst, *flags, speed(result))))


def unreadable(result: CellResult) -> list[str]:
    """Guards that this cell needed and nobody could read."""
    names = {
        name
        for p in result.performance
        if p.regime == "warm"
        for name, state in p.guards.items()
        if state == "unavailable"
    }
    return sorted(names)


def _is(metric: str, prefix: str) -> bool:
    rest = metric.removeprefix(prefix)
    return metric.startswith(prefix) and (not rest or rest[0] in "@0123456789")


def _lines(named: Sequence[tuple[str, str]]) -> str:
    if len(named) == 1:
        return named[0][1].strip()
    return "\n".join(f"{name} {value}".strip() for name, value in named)
