"""Records for the PyTorch OSS benchmark database: one for each metric of each cell, as JSON.

Values are the samples, so that the database's own statistics hold. Numbers whose trust is
`invalid` are left out: the database has no place to say so. A cell that didn't pass has a record
`FAILURE_REPORT`, the database's name for a job without a good end: its value is always 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from farm.core.printable import one_line
from farm.core.result import CellResult, PerformanceReport, Report

#: Names of units inside the metric names, as the database's other ExecuTorch records have them.
_UNITS = {"tok/s": "tok/s", "s": "ms"}


def render(report: Report) -> str:
    """Render a JSON list of records."""
    records = [record for result in report.results for record in _records(report, result)]
    return json.dumps(records, indent=1, allow_nan=False) + "\n"


def _records(report: Report, result: CellResult) -> Iterator[dict[str, Any]]:
    if (result.outcome != "passed" or result.waived) and "excluded" not in result.flags:
        yield _record(report, result, "FAILURE_REPORT", [0.0], {"reason": result.reason})
    for performance in result.performance:
        if performance.trust != "invalid" and performance.samples:
            yield _record(report, result, *_speed(performance))
    if result.memory.peak_rss_bytes is not None:
        megabytes = result.memory.peak_rss_bytes / 1e6
        yield _record(report, result, "peak_rss(mb)", [megabytes], {})
    device = [
        stage
        for stage in (result.correctness.stages if result.correctness else ())
        if (stage.from_, stage.to, stage.path) == ("eager_fp32", "device_pte", "decode")
    ]
    for stage in device:
        for name, value in (("perplexity", stage.perplexity_to), ("kl_to_eager", stage.kl_mean)):
            if value is not None:
                yield _record(report, result, name, [value], {"tokens": stage.tokens})


def _speed(p: PerformanceReport) -> tuple[str, list[float], dict[str, Any]]:
    factor = 1000.0 if p.unit == "s" else 1.0
    info = {
        "trust": p.trust,
        "regime": p.regime,
        "threads": p.threads,
        "affinity": p.affinity,
        "definition": p.definition,
        "launches": len({sample.launch for sample in p.samples}),
        "guards": dict(p.guards),
    }
    name = p.metric if p.regime == "warm" else f"{p.metric}_{p.regime}"
    values = [factor * sample.value for sample in p.samples if sample.arm == "candidate"]
    return f"{name}({_UNITS.get(p.unit, p.unit)})", values, info


def _record(
    report: Report, result: CellResult, metric: str, values: list[float], info: dict[str, Any]
) -> dict[str, Any]:
    versions = report.toolchains.get(result.toolchain)
    device = result.device
    record: dict[str, Any] = {
        "benchmark": {
            "name": "ExecuTorch",
            "mode": "inference",
            "dtype": one_line(result.recipe),
            "extra_info": _texts(
                {
                    "run_id": report.run_id,
                    "cell_id": result.cell_id,
                    "farm": report.farm.version,
                    "outcome": "waived" if result.waived else result.outcome,
                    "exit_code": str(report.exit_code),
                    "app_type": f"{device.transport}:{result.runner.name}",
                }
            ),
        },
        "model": {
            "name": one_line(result.model),
            "type": "OSS model",
            "backend": result.runner.backend_effective or result.runner.backend_requested or "",
            "extra_info": _texts({"artifact_sha256": result.artifact.sha256}),
        },
        "metric": {
            "name": metric,
            "benchmark_values": values,
            "target_value": 0,
            "extra_info": _texts(info),
        },
        "runners": [
            {
                "name": one_line(device.name),
                "type": one_line(device.os or "unknown"),
                "cpu_info": one_line(device.soc or device.abi or "unknown"),
                "cpu_count": device.cores or 0,
                "avail_mem_in_gb": round((device.ram_bytes or 0) / 2**30),
                "extra_info": _texts({"abi": device.abi, "emulated": device.emulated}),
            }
        ],
        "dependencies": {},
    }
    if versions is not None:
        record["dependencies"] = {
            name: {"version": version}
            for name, version in (
                ("executorch", versions.executorch),
                ("torch", versions.torch),
                ("torchao", versions.torchao),
            )
        }
    return record


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """As the database's maps take them: text alone; what isn't known is left out."""
    return {
        name: one_line(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for name, value in values.items()
        if value is not None
    }
