"""A realistic report: every outcome, judged by the real judge, with hostile device text."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from farm.core.artifact import Delegation, ToolchainVersions
from farm.core.asked import Prompt
from farm.core.device import Device, DeviceEntry
from farm.core.errors import DeviceLost
from farm.core.flow.outcomes import errored, judged, skipped
from farm.core.plan import ArtifactId, Cell, Plan
from farm.core.report import RunFacts, build_report, export_report
from farm.core.result import AttemptReport, CellResult, ErrorReport, FarmReport, Report
from farm.core.spec import Gate, RunSpec
from farm.judge.cell import judge_cell
from tests.unit.judge.builders import (
    TEXT,
    Case,
    check_launch,
    disturbed,
    facts,
    launch,
    telemetry,
)

#: What a hostile device or model may say.
EVIL = 'x\x1b[31m<script>alert("1")</script>\x00\x9b2J & </pre>```|\u202egnp.\ud800'
ARTIFACT = ArtifactId("smollm2-135m", "xnnpack-8da4w", "default")
GATES = (
    Gate("perplexity", "<=", 1.01, "host", "<= 1.01x host"),
    Gate("decode_tok_s", ">=", 5.0, None, ">= 5"),
)


def cell(place: str) -> Cell:
    return Cell(f"{ARTIFACT}:executorch:auto:{place}", ARTIFACT, "executorch", 0, (place,), place)


def attempt(n: int, device: str, outcome: str, error: ErrorReport | None = None) -> AttemptReport:
    start, end = f"2026-01-02T03:0{n}:00.000Z", f"2026-01-02T03:0{n}:42.500Z"
    return AttemptReport(n, device, start, end, outcome, error)


def judged_cell(
    case: Case,
    place: str,
    text: str | None = TEXT,
    attempts: int = 1,
    gates: tuple[Gate, ...] = GATES,
) -> CellResult:
    case.gates = gates
    case.entry = DeviceEntry(place, "local" if place == "local" else "adb")
    task = case.task()
    judgement = judge_cell(task, case.logits(), generated_text=text)
    lost = ErrorReport("DeviceLost", "the cable was pulled")
    tries = tuple(
        attempt(n, place, "errored" if n < attempts else "passed", lost if n < attempts else None)
        for n in range(1, attempts + 1)
    )
    return judged(cell(place), task.device, task, judgement, tries)


def android(**changes: object) -> Case:
    case = Case(host_sha="b" * 64)
    # A phone that shows neither clocks nor how fast fixed work is.
    case.telemetry = tuple(
        telemetry(number, clocks=(), before=None, after=None) for number in (1, 2, 3)
    )
    case.device_facts = facts(
        identity="R5CT", abi="arm64-v8a", os="Android 15", model="SM-S921B", soc="Exynos 2400",
        ram_bytes=8 << 30, cores=10, thermal_status=0, battery_c=31.0, **changes,
    )  # fmt: skip
    host = disturbed(case.fp32, 0.3, 5)
    case.host, case.device = host, disturbed(host, 0.15, 6)
    return case


def broken() -> Case:
    case = android()
    case.device = np.roll(case.fp32, 1, axis=0)
    return case


def noisy() -> Case:
    scattered = (check_launch(), *(launch(n, decode_s=2.0 * n * n) for n in (1, 2, 3)))
    case = android()
    case.launches = scattered
    return case


@cache
def results() -> tuple[CellResult, ...]:
    lost = DeviceLost(f"pixel8: gone {EVIL}", device="pixel8")
    error = ErrorReport("DeviceLost", lost.message)
    away = Device(DeviceEntry("tablet", "adb"), None, "offline", "the cable is loose")
    pixel = Device(DeviceEntry("pixel8", "adb"), facts(os="Android 15", abi="arm64-v8a"))
    return (
        judged_cell(Case(), "local"),
        judged_cell(android(), "s24", attempts=2),
        judged_cell(broken(), "s23", EVIL + "!" * 40),
        judged_cell(noisy(), "s22"),
        errored(cell("pixel8"), pixel, lost, "device_lost",
                attempts=(attempt(1, "pixel8", "errored", error),)),
        skipped(cell("tablet"), away, "device_missing", "tablet: the cable is loose"),
    )  # fmt: skip


def report(
    cells: tuple[CellResult, ...] | None = None,
    unmet: tuple[str, ...] = (),
    prompts: tuple[Prompt, ...] = (),
) -> Report:
    found = results() if cells is None else cells
    spec = RunSpec("llama-q4", (), (), sha256="c" * 64, gates=GATES, prompts=prompts)
    devices = (
        Device(DeviceEntry("local", "local"), Case().device_facts),
        Device(DeviceEntry("s24", "adb", serial="R5CT"), android().device_facts),
        Device(DeviceEntry("tablet", "adb"), None, "offline", "the cable is loose"),
    )
    versions = ToolchainVersions("3.11.2", "2.13.0", "1.5.1", "0.18.0")
    export = replace(
        Case().task().export,
        versions=versions,
        delegation=Delegation(211, 240),
        warnings=("tied weights are stored twice",),
        unquantised=("layers.0.feed_forward.w1",),
        seconds=84.2,
        cpu_s=120.0,
        peak_rss_bytes=1_500_000_000,
    )
    run = RunFacts(
        run_id="20260102-030405-llama-q4-1f2e",
        started_at="2026-01-02T03:00:00.000Z",
        ended_at="2026-01-02T03:10:00.000Z",
        wall_s=600.0,
        interrupted=False,
        config={"name": "llama-q4", "models": ["smollm2-135m"]},
        host={"name": "rack2", "cpu": "x86_64", "cores": 2},
        farm=FarmReport("0.1.0", "d" * 64),
        busy_s={"local": 42.5, "s24": 85.0},
    )
    plan = Plan(tuple(cell(r.device.name) for r in found), (), (ARTIFACT,), devices, unmet)
    exports = (export_report(ARTIFACT, export, None),)
    return build_report(spec, plan, run, found, exports, {"default": versions})
