"""Telemetry files as farm-helper writes them, made of what a test says happened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

STAT = "cpu  {busy} 0 0 {idle} 0 0 0 {steal} 0 0"
PID_STAT = "77 (farm runner) R 1 77 77 0 -1 0 0 0 0 0 {ticks} 0 0 0 39 19 2 0 1 1 1"


def sensors(paths: Sequence[str], names: Mapping[str, str] | None = None) -> str:
    return json.dumps(
        {"type": "sensors", "interval_s": 0.5, "clock_ticks": 100, "paths": list(paths),
         "names": dict(names or {})}
    )  # fmt: skip


def sample(t_s: float, *texts: str | None, cost_s: float = 0.001) -> str:
    read = {str(index): text for index, text in enumerate(texts)}
    return json.dumps(
        {"type": "sample", "t_ns": round(t_s * 1e9), "cost_ns": round(cost_s * 1e9), "texts": read}
    )


def calibration(unit_ns: int = 2_500_000, share: float = 1.0, busy: int = 40) -> str:
    cores = [
        {"cpu": cpu, "units": 9, "unit_ns": unit_ns, "wide_ns": 2 * unit_ns,
         "unit_mean_ns": 3 * unit_ns, "wide_mean_ns": 4 * unit_ns,
         "cpu_ns": round(2e8 * share), "wall_ns": 200_000_000}
        for cpu in (0, 1)
    ]  # fmt: skip
    before, after = STAT.format(busy=0, idle=0, steal=0), STAT.format(busy=busy, idle=0, steal=0)
    return json.dumps(
        {"type": "calibration", "start_ns": 0, "end_ns": 200_000_000, "cores": cores,
         "memory_ns": 150_000,
         "stat_before": before, "stat_after": after}
    )  # fmt: skip


def recorded(*lines: str) -> bytes:
    return "\n".join(lines).encode()
