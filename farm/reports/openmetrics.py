"""Gauges of a run in the OpenMetrics text format, for Prometheus (textfile collector) and Grafana.

A number that doesn't exist, or whose trust is `invalid`, has no sample: absent is never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from farm.core.printable import one_line
from farm.core.result import CellResult, Report
from farm.reports.summary import device_stage

Sample = tuple[Mapping[str, str], float]


def render(report: Report) -> str:
    """Render the gauges of the run, then those of each cell."""
    lines = []
    for name, unit, text, samples in _families(report):
        if not samples:
            continue
        lines.append(f"# TYPE {name} gauge")
        lines += [f"# UNIT {name} {unit}"] if unit else []
        lines.append(f"# HELP {name} {text}")
        lines += [f"{name}{{{_labels(labels)}}} {value!r}" for labels, value in samples]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _families(report: Report) -> Iterator[tuple[str, str, str, list[Sample]]]:
    run = {"run": report.run_id, "name": report.name}
    s = report.summary
    outcomes = ("passed", "failed", "waived", "inconclusive", "errored", "skipped")
    counts = {name: getattr(s, name) for name in outcomes}
    cells = report.results
    yield "farm_run_exit_code", "", "Exit code of the run.", [(run, float(report.exit_code))]
    if report.ended_at:  # a run that was killed never ended
        ended = datetime.fromisoformat(report.ended_at).timestamp()
        yield "farm_run_end_seconds", "seconds", "When the run ended, Unix time.", [(run, ended)]
    yield "farm_run_alarms", "", "Alarms of the run.", [(run, float(len(report.alarms)))]
    yield (
        "farm_run_cells", "", "Planned cells by outcome.",
        [({**run, "outcome": name}, float(count)) for name, count in counts.items()],
    )  # fmt: skip
    yield (
        "farm_run_speeds_gated", "", "Cells whose speed is gated.", [(run, float(s.speed_gated))],
    )  # fmt: skip
    yield (
        "farm_run_speeds_decided", "", "Of those, the ones that were decided.",
        [(run, float(s.speed_decided))],
    )  # fmt: skip
    yield (
        "farm_cell_passed", "", "1: the cell passed. 0: it failed. Absent: it was not judged.",
        [(_cell(report, r), float(r.outcome == "passed")) for r in cells
         if r.outcome in ("passed", "failed")],
    )  # fmt: skip
    yield (
        "farm_baseline_ratio", "", "Number against the baseline's, new / old, and its verdict.",
        [({**_cell(report, r), "metric": m.metric, "verdict": m.verdict}, m.ratio)
         for r in cells for m in (r.baseline.metrics if r.baseline else ()) if m.ratio is not None],
    )  # fmt: skip
    yield "farm_speed", "", "Median of a rate in tokens per second.", _speeds(report, "tok/s")
    yield "farm_latency_seconds", "seconds", "Median of a time.", _speeds(report, "s")
    yield (
        "farm_peak_rss_bytes", "bytes", "Peak memory of the runner.",
        [(_cell(report, r), float(r.memory.peak_rss_bytes)) for r in cells
         if r.memory.peak_rss_bytes is not None],
    )  # fmt: skip
    stages = [(r, device_stage(r.correctness.stages)) for r in cells if r.correctness]
    yield (
        "farm_perplexity", "", "Perplexity of the deployed model on the device.",
        [(_cell(report, r), stage.perplexity_to) for r, stage in stages
         if stage and stage.perplexity_to is not None],
    )  # fmt: skip
    yield (
        "farm_kl_nats", "", "KL divergence on the device from the nearest stage, mean.",
        [({**_cell(report, r), "from": stage.from_}, stage.kl_mean) for r, stage in stages
         if stage and stage.kl_mean is not None],
    )  # fmt: skip


def _cell(report: Report, result: CellResult) -> dict[str, str]:
    return {
        "run": report.run_id,
        "model": result.model,
        "recipe": result.recipe,
        "toolchain": result.toolchain,
        "runner": result.runner.name,
        "threads": str(result.threads),
        "device": result.device.name,
    }


def _speeds(report: Report, unit: str) -> list[Sample]:
    return [
        (
            {**_cell(report, r), "metric": p.metric, "regime": p.regime, "trust": p.trust},
            p.median,
        )
        for r in report.results
        for p in r.performance
        if p.unit == unit and p.median is not None and p.trust != "invalid"
    ]


def _labels(labels: Mapping[str, str]) -> str:
    def quoted(text: str) -> str:
        line = one_line(text).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{line}"'

    return ",".join(f"{name}={quoted(value)}" for name, value in labels.items())
