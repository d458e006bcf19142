"""A report as flat rows: cells, metrics, samples, stages. Pure.

Columns are only ever added to the end; a number that doesn't exist is None.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from farm.core.result import CellResult, Report, SampleReport, StageComparison

Row = Mapping[str, Any]

_CELL = ("run_id", "cell_id", "model", "recipe", "toolchain", "runner", "threads", "device")
_SAMPLE = tuple(field.name for field in dataclasses.fields(SampleReport))
_STAGE = tuple(field.name for field in dataclasses.fields(StageComparison))


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of rows."""

    columns: tuple[str, ...]
    #: Makes the rows of a report, each with every column.
    rows: Callable[[Report], Iterator[Row]]

    def as_csv(self, report: Report) -> str:
        """Return the rows as CSV; a number that doesn't exist is an empty field."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows(report))
        return text.getvalue()


def _cells(report: Report) -> Iterator[Row]:
    for cell in report.results:
        right, against = cell.correctness, cell.baseline
        yield {
            **_named(report, cell),
            **_taken(cell.device, ("transport", "abi", "soc", "os", "emulated")),
            "outcome": cell.outcome,
            "waived": cell.waived,
            "correctness": cell.correctness_decision,
            "speed": cell.speed_decision,
            "reason": cell.reason,
            "flags": " ".join(cell.flags),
            "artifact_sha256": cell.artifact.sha256,
            "artifact_bytes": cell.artifact.size_bytes,
            "peak_rss_bytes": cell.memory.peak_rss_bytes,
            "j_per_token": cell.energy.j_per_token,
            "generated_text": None if right is None else right.generated_text,
            "baseline_verdict": None if against is None else against.verdict,
            "baseline_ratio": None if against is None else against.ratio,
        }


def _metrics(report: Report) -> Iterator[Row]:
    for cell in report.results:
        for row in cell.performance:
            low, high = row.ci95 or (None, None)
            yield {
                **_named(report, cell),
                **_taken(row, ("metric", "regime", "unit", "median")),
                "low": low,
                "high": high,
                **_taken(row, ("min_detectable_change", "trust", "reason", "definition")),
            }


def _samples(report: Report) -> Iterator[Row]:
    for cell in report.results:
        for row in cell.performance:
            of_row = _taken(row, ("metric", "regime", "unit", "trust"))
            for sample in row.samples:
                yield {**_named(report, cell), **of_row, **_taken(sample, _SAMPLE)}


def _stages(report: Report) -> Iterator[Row]:
    for cell in report.results:
        for stage in cell.correctness.stages if cell.correctness else ():
            numbers = {name.rstrip("_"): getattr(stage, name) for name in _STAGE}
            yield {**_named(report, cell), **numbers}


def _named(report: Report, cell: CellResult) -> dict[str, Any]:
    return {
        "run_id": report.run_id,
        **_taken(cell, ("cell_id", "model", "recipe", "toolchain")),
        "runner": cell.runner.name,
        "threads": cell.threads,
        "device": cell.device.name,
    }


def _taken(value: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


CELLS = Table(
    (
        *_CELL, "transport", "abi", "soc", "os", "emulated", "outcome", "waived", "correctness",
        "speed", "reason", "flags", "artifact_sha256", "artifact_bytes", "peak_rss_bytes",
        "j_per_token", "generated_text", "baseline_verdict", "baseline_ratio",
    ),
    _cells,
)  # fmt: skip
METRICS = Table(
    (
        *_CELL, "metric", "regime", "unit", "median", "low", "high", "min_detectable_change",
        "trust", "reason", "definition",
    ),
    _metrics,
)  # fmt: skip
SAMPLES = Table((*_CELL, "metric", "regime", "unit", "trust", *_SAMPLE), _samples)
STAGES = Table((*_CELL, *(name.rstrip("_") for name in _STAGE)), _stages)
