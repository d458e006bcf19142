from __future__ import annotations

import json
from pathlib import Path

import pytest

from farm.core.errors import ConfigError
from farm.reports.json import load_report, parse_report, render, report_data, report_schema
from tests.unit.reports.builders import report


def test_a_report_survives_the_file(tmp_path: Path) -> None:
    original = report()
    file = tmp_path / "report.json"
    file.write_text(render(original), encoding="utf-8")
    assert load_report(file) == original
    assert load_report(tmp_path) == original


def test_stages_are_spelled_as_in_the_contract() -> None:
    data = report_data(report())
    stages = data["results"][0]["correctness"]["stages"]
    assert [stage["from"] for stage in stages[:2]] == ["source", "eager_fp32"]
    assert "from_" not in json.dumps(data)


def test_the_data_has_what_the_contract_lists() -> None:
    data = report_data(report())
    assert data["schema_version"] == 1
    assert set(data["summary"]) == {
        "judged", "passed", "failed", "waived", "inconclusive", "errored", "skipped",
        "speed_gated", "speed_decided",
    }  # fmt: skip
    result = data["results"][0]
    for key in ("cell_id", "job_id", "artifact", "runner", "device", "outcome", "reason", "flags",
                "attempts", "correctness", "performance", "memory", "energy", "conditions",
                "baseline"):  # fmt: skip
        assert key in result
    for key in ("metric", "unit", "regime", "threads", "affinity", "definition", "median", "ci95",
                "min_detectable_change", "samples", "gates", "trust", "guards"):  # fmt: skip
        assert key in result["performance"][0]


def test_the_schema_describes_the_file() -> None:
    schema = report_schema()
    stage = schema["$defs"]["StageComparison"]
    assert "from" in stage["properties"]
    assert "from_" not in json.dumps(schema)
    data = report_data(report())
    check(data, schema, schema["$defs"], "report")


def check(value: object, schema: dict[str, object], defs: dict[str, object], where: str) -> None:
    """Validate against the part of JSON Schema that pydantic writes for our types."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[1]
        schema = defs[name]  # type: ignore[assignment]
    if "anyOf" in schema:
        errors = []
        for option in schema["anyOf"]:  # type: ignore[attr-defined]
            try:
                check(value, option, defs, where)
            except AssertionError as error:
                errors.append(str(error))
            else:
                return
        raise AssertionError(f"{where}: {errors}")
    if "enum" in schema:
        assert value in schema["enum"], where  # type: ignore[operator]
    kind = schema.get("type")
    kinds: dict[str, type] = {
        "object": dict,
        "array": list,
        "string": str,
        "null": type(None),
        "boolean": bool,
    }
    if kind in kinds:
        assert isinstance(value, kinds[str(kind)]), f"{where}: {value!r} is no {kind}"
    if kind in ("number", "integer"):
        assert isinstance(value, int | float), where
        assert not isinstance(value, bool), where
    if isinstance(value, dict) and "properties" in schema:
        properties = schema["properties"]
        assert isinstance(properties, dict)
        required = schema.get("required", [])
        assert isinstance(required, list)
        assert set(required) <= set(value), f"{where}: misses {set(required) - set(value)}"
        assert set(value) <= set(properties), f"{where}: unknown {set(value) - set(properties)}"
        for key, item in value.items():
            check(item, properties[key], defs, f"{where}.{key}")
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            check(item, schema["items"], defs, f"{where}[{index}]")  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report\.json: No such file"):
        load_report(tmp_path)


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text('{"schema_version": 1, ')
    with pytest.raises(ConfigError, match="not a JSON document"):
        load_report(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a JSON document"):
        load_report(file)


@pytest.mark.parametrize("version", [None, 2, "1"])
def test_another_schema_version_is_refused(version: object) -> None:
    data = report_data(report())
    data["schema_version"] = version
    with pytest.raises(ConfigError, match="schema_version") as caught:
        parse_report(data, "old.json")
    assert caught.value.context["key"] == "schema_version"


@pytest.mark.parametrize("data", [[], "text", 3, None])
def test_what_is_no_report_at_all_is_refused(data: object) -> None:
    with pytest.raises(ConfigError, match="schema_version"):
        parse_report(data, "odd.json")


def test_the_wrong_key_is_named() -> None:
    data = report_data(report())
    del data["results"][0]["correctness"]["stages"][0]["from"]
    with pytest.raises(ConfigError, match=r"results\.0\.correctness\.stages\.0\.from") as caught:
        parse_report(data, "r.json")
    assert caught.value.context["file"] == "r.json"
    data = report_data(report())
    data["results"][2]["outcome"] = "great"
    with pytest.raises(ConfigError, match=r"results\.2\.outcome"):
        parse_report(data, "r.json")
