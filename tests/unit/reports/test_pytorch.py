from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from farm.reports import pytorch
from tests.unit.reports.builders import report

#: The columns of the database's table (oss_ci_benchmark_v3) that a record may fill, by their types;
#: `{}` is a map of texts to texts. What isn't here is filled in by whoever uploads.
TABLE: dict[str, Any] = {
    "benchmark": {"name": str, "mode": str, "dtype": str, "extra_info": {}},
    "model": {"name": str, "type": str, "backend": str, "origins": [str], "extra_info": {}},
    "metric": {"name": str, "benchmark_values": [float], "target_value": float, "extra_info": {}},
    "runners": [
        {
            "name": str, "type": str, "cpu_info": str, "cpu_count": int, "mem_info": str,
            "avail_mem_in_gb": int, "gpu_info": str, "gpu_count": int, "gpu_mem_info": str,
            "avail_gpu_mem_in_gb": int, "extra_info": {},
        }
    ],
    "dependencies": {
        None: {"repo": str, "branch": str, "sha": str, "version": str, "extra_info": {}}
    },
}  # fmt: skip


def wrong(value: Any, column: Any, where: str = "") -> list[str]:
    """Places at which a record is not what the table's columns take."""
    if isinstance(column, list):
        is_list = isinstance(value, list)
        places = enumerate(value) if is_list else ()
        return [w for n, one in places for w in wrong(one, column[0], f"{where}[{n}]")] or (
            [] if is_list else [f"{where}: no list"]
        )
    if isinstance(column, dict):
        if not isinstance(value, dict):
            return [f"{where}: no map"]
        found = []
        for name, one in value.items():
            kind = column.get(name, column.get(None)) if column else str
            found += [f"{where}.{name}: no such column"] if kind is None else []
            found += wrong(one, kind, f"{where}.{name}") if kind is not None else []
        return found
    if column is int:
        return [] if type(value) is int and value >= 0 else [f"{where}: {value!r} is no count"]
    if column is float:
        good = type(value) in (int, float) and math.isfinite(value)
        return [] if good else [f"{where}: {value!r} is no number"]
    return [] if isinstance(value, str) else [f"{where}: {value!r} is no text"]


def test_records_fit_the_columns_of_the_database() -> None:
    records = json.loads(pytorch.render(report()))
    assert [one for record in records for one in wrong(record, TABLE)] == []
    guards = [
        r["metric"]["extra_info"]["guards"]
        for r in records
        if r["metric"]["extra_info"].get("guards")
    ]
    assert all(isinstance(json.loads(text), dict) for text in guards)
    assert guards
    bent = {**records[0], "runners": [{"name": 1, "cpu_count": 1.5}], "odd": 1}
    assert len(wrong(bent, TABLE)) == 3


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
