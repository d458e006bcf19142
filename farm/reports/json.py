"""report.json: the report as data, its schema, and reading it back.

`from_` of a stage comparison is spelled `from` in the file; nothing else differs from the types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic

from farm import codec
from farm.core.errors import ConfigError
from farm.core.result import Report

SCHEMA_VERSION = 1

#: DEL, C1 controls, and marks that reorder or hide text; JSON itself escapes the C0 controls.
_ACTIVE = re.compile("[\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

_OURS, _THEIRS = "from_", "from"


def render(report: Report) -> str:
    """One JSON document, indented, ending in a newline; NaN and infinity are refused.

    Characters that could act on a terminal stay escaped, so that the file can be looked at.
    """
    text = json.dumps(report_data(report), indent=1, ensure_ascii=False, allow_nan=False)
    return _ACTIVE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def report_data(report: Report) -> dict[str, Any]:
    """The report as plain data, as the schema describes it."""
    data: dict[str, Any] = codec.to_data(report)
    _each_stage(data, lambda stage: _rename(stage, _OURS, _THEIRS))
    return data


def report_schema() -> dict[str, Any]:
    """JSON Schema of report.json."""
    schema = codec.json_schema(Report)
    stage = schema["$defs"]["StageComparison"]
    stage["properties"] = _rename(stage["properties"], _OURS, _THEIRS)
    stage["required"] = [_THEIRS if name == _OURS else name for name in stage["required"]]
    stage["properties"][_THEIRS]["title"] = "From"
    return schema


def load_report(path: Path) -> Report:
    """Read report.json, or the one inside a run folder.

    Raises:
        ConfigError: There is none, it isn't JSON, of another schema version, or damaged; the
            message names the file and the first key that is wrong.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}; give a run folder or its report.json", file=str(file)
        ) from error
    except ValueError as error:
        raise ConfigError(f"{file}: not a JSON document: {error}", file=str(file)) from error
    return parse_report(data, str(file))


def parse_report(data: Any, file: str) -> Report:
    """Turn plain data into a report.

    Raises:
        ConfigError: As load_report.
    """
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        found = "has none" if version is None else f"is {version!r}"
        raise ConfigError(
            f"{file}: schema_version: {found}, this farm reads {SCHEMA_VERSION}",
            file=file,
            key="schema_version",
        )
    data = json.loads(json.dumps(data))
    _each_stage(data, lambda stage: _rename(stage, _THEIRS, _OURS))
    try:
        return codec.from_data(Report, data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(_THEIRS if part == _OURS else str(part) for part in first["loc"])
        raise ConfigError(f"{file}: {key}: {first['msg']}", file=file, key=key) from error


def _each_stage(data: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace every stage comparison in place; what isn't one is left for the validation."""
    results = data.get("results")
    for result in results if isinstance(results, list) else []:
        correctness = result.get("correctness") if isinstance(result, dict) else None
        stages = correctness.get("stages") if isinstance(correctness, dict) else None
        if isinstance(correctness, dict) and isinstance(stages, list):
            correctness["stages"] = [
                change(stage) if isinstance(stage, dict) else stage for stage in stages
            ]


def _rename(mapping: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in mapping.items()}
