"""OpenMetrics, CSV and llama-bench's rows, as other people's readers see them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sqlite3
from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import runners
from farm.core.artifact import ObjectRef
from farm.core.result import Report
from farm.core.runner import DeployFile, RunnerSpec
from farm.core.runtime import LaunchRequest, Measure
from farm.reports import csv as table
from farm.reports import llama_bench, openmetrics
from tests.unit.reports.builders import EVIL, report


def gauges(found: Report) -> dict[str, list[tuple[dict[str, str], float]]]:
    families = text_string_to_metric_families(openmetrics.render(found))  # type: ignore[no-untyped-call]
    return {f.name: [(s.labels, s.value) for s in f.samples] for f in families}


def test_prometheus_reads_every_gauge() -> None:
    full = report()
    found = gauges(full)
    assert found["farm_run_exit_code"][0][1] == full.exit_code
    counts = {labels["outcome"]: value for labels, value in found["farm_run_cells"]}
    assert counts["failed"] == 1
    assert [value for _, value in found["farm_cell_passed"]] == [1, 1, 0]
    rates = [
        value for labels, value in found["farm_speed"]
        if (labels["device"], labels["metric"], labels["regime"]) == ("local", "tg32", "warm")
    ]  # fmt: skip
    median = next(
        p.median for p in full.results[0].performance if (p.metric, p.regime) == ("tg32", "warm")
    )
    assert rates == [median]


def test_what_nobody_may_believe_has_no_gauge() -> None:
    first = report().results[0]
    invalid = tuple(replace(p, trust="invalid") for p in first.performance)
    blind = replace(report(), results=(replace(first, performance=invalid),))
    assert "farm_speed" not in gauges(blind)
    assert "farm_latency_seconds" not in gauges(blind)


def test_a_run_that_was_killed_has_no_end() -> None:
    found = gauges(replace(report(), ended_at=""))
    assert "farm_run_end_seconds" not in found
    assert "farm_run_exit_code" in found


def test_hostile_names_stay_labels() -> None:
    first = report().results[0]
    evil = replace(first, model=EVIL, device=replace(first.device, name='a"b\\c\n# EOF'))
    found = gauges(replace(report(), results=(evil,)))
    assert found["farm_cell_passed"][0][0]["device"] == 'a"b\\c # EOF'


def test_csv_has_each_number_and_each_cell() -> None:
    full = report()
    lines = list(csv.DictReader(io.StringIO(table.render(full))))
    assert {line["cell"] for line in lines} == {result.cell_id for result in full.results}
    errored = [line for line in lines if line["outcome"] == "errored"]
    assert [(line["metric"], line["value"]) for line in errored] == [("", "")]
    warm = next(x for x in lines if (x["metric"], x["regime"]) == ("tg32", "warm"))
    assert float(warm["low"]) <= float(warm["value"]) <= float(warm["high"])


def test_llama_bench_lines_are_read_by_what_reads_llama_bench() -> None:
    full = report()
    lines = llama_bench.render(full).splitlines()
    local = [json.loads(line) for line in lines if json.loads(line)["farm_device"] == "local"]
    programs = tuple(
        DeployFile(ObjectRef("0" * 64, 1, name), name, executable=True)
        for name in ("llama-bench", "llama-completion")
    )
    runner = runners.find(RunnerSpec("mine", "llama_cpp", files=programs))
    measures = Measure("pp64", 64, 0, 0, 3, 1), Measure("tg32", 0, 32, 0, 3, 1)
    asked = LaunchRequest(2, measures=measures)
    read = runner.parse("\n".join(map(json.dumps, local)).encode(), 0, asked)
    windows = [(s.metric, s.tokens) for s in read.samples]
    assert windows == [("pp64", 64)] * 9 + [("tg32", 32)] * 9
    generated = next(line for line in local if line["n_gen"] == 32)
    median = next(
        p.median for p in full.results[0].performance if (p.metric, p.regime) == ("tg32", "warm")
    )
    assert generated["avg_ts"] == pytest.approx(median, rel=0.05)
    assert generated["avg_ns"] == pytest.approx(32e9 / generated["avg_ts"], rel=0.01)
    assert generated["n_prompt"] == generated["n_depth"] == 0


def test_rates_of_a_model_that_is_not_right_are_no_llama_bench_rows() -> None:
    text = llama_bench.render(report())
    assert {json.loads(line)["farm_outcome"] for line in text.splitlines()} == {
        "passed", "inconclusive",
    }  # fmt: skip


def test_sqlite_takes_the_rows_of_llama_bench_twice() -> None:
    first = report().results[0]
    evil = replace(first, model=EVIL + "'); DROP TABLE llama_bench; --")
    text = llama_bench.render_sql(replace(report(), results=(evil,)))
    with contextlib.closing(sqlite3.connect(":memory:")) as base:
        base.executescript(text)
        base.executescript(text)
        rows = base.execute("SELECT model_type, n_gen, avg_ts FROM llama_bench").fetchall()
    assert len(rows) == 2 * len(llama_bench.render(replace(report(), results=(evil,))).splitlines())
    assert all("DROP TABLE" in model for model, _, _ in rows)
    assert [ts for _, n_gen, ts in rows if n_gen == 32] == pytest.approx([80, 80], rel=0.1)
