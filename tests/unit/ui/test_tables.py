from __future__ import annotations

import io

from rich.console import Console, RenderableType

from farm.core.artifact import Recipe
from farm.core.device import Device, DeviceEntry
from farm.core.plan import Plan, Skip
from farm.core.spec import Gate, RunSpec
from farm.doctor import Check
from farm.ui import tables
from tests.unit.reports.builders import ARTIFACT, android, cell, report


def text(renderable: RenderableType, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_results() -> None:
    shown = text(tables.report(report()))
    for words in ("✓ passed", "✗ failed", "bit-equal, ppl 8.5", "80.4 ±1 %", "134 MiB", "noisy"):
        assert words in shown
    assert "unverified: could not be read: clock_cap, hidden_cap" in shown
    assert "What is the capital of France? The capital of France is Paris." in shown
    assert "\x1b[31m" not in shown


def test_bench() -> None:
    result = report().results[0]
    shown = text(tables.bench("local", result.performance, 134 << 20))
    assert "local, 2 threads, peak RSS 134 MiB" in shown
    assert "tg32" in shown


def test_devices_with_reasons() -> None:
    found = [
        Device(DeviceEntry("s24", "adb"), android().device_facts),
        Device(DeviceEntry("x[red]", "adb"), None, "offline", "replug \x1b[5mthe cable"),
        Device(DeviceEntry("pi5", "ssh"), android().device_facts, "held", "", "anna"),
    ]
    shown = text(tables.devices(found))
    assert "SM-S921B" in shown
    assert "31 °C" in shown
    assert "held by anna" in shown
    assert "x[red]: replug the cable" in shown


def test_plan_with_skips_and_gates() -> None:
    spec = RunSpec("tiny", (), (), gates=(Gate("decode_tok_s", ">=", 5, None, ">= 5"),))
    skip = Skip(cell("s23"), "excluded", "excluded by the config: device=s23")
    shown = text(tables.plan(spec, Plan((cell("local"),), (skip,), (ARTIFACT,), ())))
    assert "tiny: 1 cells, 1 exports; 256 tokens checked, pp128 tg64, 3 launches x 3" in shown
    assert "excluded by the config" in shown
    assert "gate decode_tok_s >= 5" in shown


def test_recipes_exports_checks_and_plain_words() -> None:
    recipe = Recipe("xnnpack-8da4w", linear="8da4w", group_size=32, embedding_bits=8)
    assert "8da4w g32" in text(tables.recipes([recipe]))
    assert "211/240" in text(tables.exports(report().exports))
    check = Check("compiler", "error", "no C++ compiler", "apt install g++")
    assert "apt install g++" in text(tables.doctor([check]))
    assert "[b]bold" in text(tables.plain(("name",), [("[b]bold",)]))
