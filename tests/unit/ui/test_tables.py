from __future__ import annotations

import io
import re
from dataclasses import replace

from rich.console import Console, RenderableType

from farm.commands.cluster_state import ClusterState, SiteState
from farm.commands.doctor import Check
from farm.core.artifact import Recipe
from farm.core.comparison import BaselineReport, MetricComparison
from farm.core.device import InQueue
from farm.core.plan import Plan, Skip
from farm.core.spec import Gate, RunSpec
from farm.ui import cluster, tables
from tests.unit.core import builders as b
from tests.unit.reports.builders import ARTIFACT, cell, report


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
    # What an export did without failing is said where everybody looks.
    assert "alarm: export smollm2-135m/xnnpack-8da4w: 1 Linears were left unquantised" in shown
    assert "211/240 operators delegated; tied weights are stored twice" in shown


def test_results_of_a_narrow_terminal_are_lines() -> None:
    shown = text(tables.report(report()), 80)
    assert "✓ passed  local · smollm2-135m · xnnpack-8da4w" in shown
    flat = " ".join(shown.split())
    assert "correctness bit-equal, ppl 8.5, prefill tok/s" in flat
    assert "peak RSS 134 MiB, noisy" in flat
    assert "device" not in shown.splitlines()[0], "there is no table"


def test_external_weights_are_a_size_of_their_own() -> None:
    (export,) = report().exports
    artifact = replace(export.artifact, size_bytes=90 << 10, data_size_bytes=105 << 20)
    shown = text(tables.exports([replace(export, artifact=artifact)]))
    assert "90 KiB + 105 MiB weights" in shown
    assert "1 Linears left unquantised: layers.0.feed_forward.w1" in shown
    assert ".ptd" in text(tables.recipes([Recipe("mine", external_weights=True)]))


def test_bench() -> None:
    result = report().results[0]
    missing = replace(result.performance[0], metric="pp9", median=None, ci95=None, reason="too far")
    rows = (*result.performance, missing)
    shown = text(tables.bench("local", rows, 134 << 20, ("3 launches, as asked for",)))
    assert "local, peak RSS 134 MiB" in shown
    assert re.search(r"tg32 +warm +2 +80.4 tok/s +±\d", shown)
    assert re.search(r"pp9 .*too far", shown)
    assert "3 launches, as asked for" in shown


def test_a_comparison_says_how_it_was_made() -> None:
    metrics = (MetricComparison("tg64", "REGRESSED", 0.9, (0.88, 0.92), "0.9x the baseline"),)
    found = BaselineReport("old", "REGRESSED", 0.9, (0.88, 0.92), metrics, "", "paired")
    result = replace(report().results[0], baseline=found)
    shown = text(tables.report(replace(report(), results=(result,))))
    assert "against old (side by side in one lease): REGRESSED" in shown
    assert re.search(r"tg64 +REGRESSED +0.900 +0.880 to 0.920 +0.9x the baseline", shown)
    same = BaselineReport("old", "PASS", None, None, (), "byte for byte", "identity")
    result = replace(report().results[0], baseline=same)
    shown = text(tables.report(replace(report(), results=(result,))))
    assert "against old (the same bytes): PASS  byte for byte" in shown


def test_plan_with_skips_and_gates() -> None:
    spec = RunSpec("tiny", (), (), gates=(Gate("decode_tok_s", ">=", 5, None, ">= 5"),))
    skip = Skip(cell("s23"), "excluded", "excluded by the config: device=s23")
    left = {"pp600 of r": "needs 600 tokens of context, the artifact has 512"}
    shown = text(tables.plan(spec, Plan((cell("local"),), (skip,), (ARTIFACT,), ()), left))
    assert "tiny: 1 cells, 1 exports; 256 tokens checked, pp128 tg64, 3 to 50 launches x 3" in shown
    assert "not measured pp600 of r: needs 600 tokens" in shown
    assert "excluded by the config" in shown
    assert "gate decode_tok_s >= 5" in shown


def test_recipes_exports_checks_and_plain_words() -> None:
    recipe = Recipe("xnnpack-8da4w", linear="8da4w", group_size=32, embedding_bits=8)
    assert "8da4w g32" in text(tables.recipes([recipe]))
    assert "211/240" in text(tables.exports(report().exports))
    check = Check("compiler", "error", "no C++ compiler", "apt install g++")
    assert "apt install g++" in text(tables.doctor([check]))
    assert "[b]bold" in text(tables.plain(("name",), [("[b]bold",)]))


def test_a_cluster_shows_who_waits_for_which_device() -> None:
    queue = (
        InQueue("hold", "ann@desk", None, None, 120.0),
        InQueue("night-7", None, "m1/r1:x", 5, 8.0),
    )
    phone = replace(b.device("phone"), queue=queue)
    state = ClusterState("head:1", {}, (), (SiteState("rack", "ip", "h", "up", devices=(phone,)),))
    shown = text(cluster.cluster(state))
    assert re.search(r"phone +1 +a person \(ann@desk\) +2 min", shown)
    assert re.search(r"phone +2 +run night-7 +5 +m1/r1:x +8 s", shown)
    idle = replace(state, sites=(replace(state.sites[0], devices=(b.device("phone"),)),))
    assert "who waits" not in text(cluster.cluster(idle))
