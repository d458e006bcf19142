"""Rates as llama-bench writes them, as JSON lines and as SQL, for tools that read its output.

That format has no place for an outcome: rates of a model that wasn't found right, and numbers whose
trust is `invalid`, are left out. JSON lines end in fields of farm's own, which such tools ignore.
What llama-bench knows and farm has no word for is -1 or empty, since its readers compare NULLs as
different.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import Any

from farm.core.printable import one_line
from farm.core.result import CellResult, PerformanceReport, Report

#: Columns of its table, in order, with the value of those that say nothing here.
_COLUMNS: dict[str, tuple[str, Any]] = {
    "build_commit": ("TEXT", ""), "build_number": ("INTEGER", -1), "cpu_info": ("TEXT", ""),
    "gpu_info": ("TEXT", ""), "backends": ("TEXT", ""), "model_filename": ("TEXT", ""),
    "model_type": ("TEXT", ""), "model_size": ("INTEGER", -1), "model_n_params": ("INTEGER", -1),
    "n_batch": ("INTEGER", -1), "n_ubatch": ("INTEGER", -1), "n_threads": ("INTEGER", -1),
    "cpu_mask": ("TEXT", ""), "cpu_strict": ("INTEGER", -1), "poll": ("INTEGER", -1),
    "type_k": ("TEXT", ""), "type_v": ("TEXT", ""), "n_gpu_layers": ("INTEGER", -1),
    "n_cpu_moe": ("INTEGER", -1), "split_mode": ("TEXT", ""), "main_gpu": ("INTEGER", -1),
    "no_kv_offload": ("INTEGER", -1), "flash_attn": ("INTEGER", -1), "tensor_split": ("TEXT", ""),
    "tensor_buft_overrides": ("TEXT", ""), "use_mmap": ("INTEGER", -1),
    "embeddings": ("INTEGER", -1), "no_op_offload": ("INTEGER", -1), "fit_target": ("INTEGER", -1),
    "fit_min_ctx": ("INTEGER", -1), "n_prompt": ("INTEGER", 0), "n_gen": ("INTEGER", 0),
    "n_depth": ("INTEGER", 0), "test_time": ("TEXT", ""), "avg_ns": ("INTEGER", -1),
    "stddev_ns": ("INTEGER", -1), "avg_ts": ("REAL", -1), "stddev_ts": ("REAL", -1),
}  # fmt: skip
_METRIC = re.compile(r"(pp|tg)([0-9]+)(?:@d([0-9]+))?")


def render(report: Report) -> str:
    """Render a line of JSON for each rate."""
    return "".join(f"{json.dumps(row | more, allow_nan=False)}\n" for row, more in _rows(report))


def render_sql(report: Report) -> str:
    """Render the table and a row for each rate."""
    names = ", ".join(_COLUMNS)
    columns = ",\n".join(f"  {name} {kind}" for name, (kind, _) in _COLUMNS.items())
    lines = [f"CREATE TABLE IF NOT EXISTS llama_bench (\n{columns}\n);"]
    for row, _ in _rows(report):
        values = ", ".join(map(_literal, row.values()))
        lines.append(f"INSERT INTO llama_bench ({names}) VALUES ({values});")
    return "\n".join(lines) + "\n"


def _literal(value: str | float) -> str:
    if not isinstance(value, str):
        return repr(value)
    quoted = value.replace("'", "''")
    return f"'{quoted}'"


def _rows(report: Report) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The columns of each rate, and what only farm knows of it."""
    for result in report.results:
        if result.correctness_decision != "passed":
            continue
        for p in result.performance:
            found = _METRIC.fullmatch(p.metric)
            values = [s.value for s in p.samples if s.arm == "candidate" and s.value > 0]
            if found and values and p.regime == "warm" and p.trust != "invalid":
                row = _of_cell(report, result, p) | _of_rate(found, values)
                yield row, _of_farm(report, result, p, int(found[2]), values)


def _of_cell(report: Report, result: CellResult, p: PerformanceReport) -> dict[str, Any]:
    size = result.artifact.size_bytes
    device, runner = result.device, result.runner
    started = next((a.started_at for a in reversed(result.attempts) if a.started_at), None)
    own = {
        # What was built and is compared here is the program that was deployed.
        "build_commit": (result.artifact.sha256 or "")[:8],
        "cpu_info": one_line(f"{device.name} {device.soc or device.abi or ''}"),
        "backends": one_line(runner.backend_effective or runner.backend_requested or ""),
        "model_filename": one_line(f"{result.model}/{result.recipe}"),
        "model_type": one_line(f"{result.model} {result.recipe}"),
        "model_size": -1 if size is None else size + (result.artifact.data_size_bytes or 0),
        "n_threads": p.threads,
        "cpu_mask": one_line(p.affinity),
        "test_time": f"{(started or report.started_at).removesuffix('Z')[:19]}Z",
    }
    return {name: default for name, (_, default) in _COLUMNS.items()} | own


def _of_rate(found: re.Match[str], values: list[float]) -> dict[str, Any]:
    kind, tokens = found[1], int(found[2])
    times = _times(tokens, values)
    return {
        "n_prompt": tokens if kind == "pp" else 0,
        "n_gen": tokens if kind == "tg" else 0,
        "n_depth": int(found[3] or 0),
        "avg_ns": round(fmean(times)),
        "stddev_ns": round(stdev(times)) if len(times) > 1 else 0,
        "avg_ts": fmean(values),
        "stddev_ts": stdev(values) if len(values) > 1 else 0.0,
    }


def _times(tokens: int, values: list[float]) -> list[int]:
    return [round(1e9 * tokens / value) for value in values]


def _of_farm(
    report: Report, result: CellResult, p: PerformanceReport, tokens: int, values: list[float]
) -> dict[str, Any]:
    return {
        "samples_ns": _times(tokens, values),
        "samples_ts": values,
        "farm_run": one_line(report.run_id),
        "farm_exit_code": report.exit_code,
        "farm_cell": one_line(result.cell_id),
        "farm_device": one_line(result.device.name),
        "farm_outcome": "waived" if result.waived else result.outcome,
        "farm_trust": p.trust,
    }
