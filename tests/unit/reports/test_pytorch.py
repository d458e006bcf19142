from __future__ import annotations

import json
from dataclasses import replace

from farm.reports import pytorch
from tests.unit.reports.builders import report


def test_records_have_the_fields_that_the_database_requires() -> None:
    records = json.loads(pytorch.render(report()))
    assert records
    for record in records:
        assert record["benchmark"]["name"] == "ExecuTorch"
        assert record["model"]["name"] == "smollm2-135m"
        assert record["metric"]["benchmark_values"]
        assert all(isinstance(v, float) for v in record["metric"]["benchmark_values"])
        assert record["runners"][0]["name"]
        assert record["dependencies"]["executorch"] == {"version": "1.5.1"}


def test_times_are_milliseconds_and_named_so() -> None:
    records = json.loads(pytorch.render(report()))
    first = {r["metric"]["name"]: r["metric"]["benchmark_values"] for r in records[:8]}
    assert 190 < first["ttft(ms)"][0] < 210
    assert 70 < first["tg32(tok/s)"][0] < 90
    assert len(first["tg32(tok/s)"]) == 9
    assert {"peak_rss(mb)", "perplexity", "kl_to_eager"} <= set(first)


def test_invalid_numbers_are_left_out() -> None:
    full = report()
    first = full.results[0]
    invalid = replace(
        first, performance=tuple(replace(p, trust="invalid") for p in first.performance)
    )
    records = json.loads(pytorch.render(replace(full, results=(invalid,))))
    assert {r["metric"]["name"] for r in records} == {"peak_rss(mb)", "perplexity", "kl_to_eager"}
