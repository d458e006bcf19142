"""Frozen core dataclasses to JSON and back, through pydantic, and the hash of a value."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

import pydantic

T = TypeVar("T")


#: Building an adapter takes milliseconds; there is one for each core type in use.
_ADAPTERS: dict[Any, pydantic.TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = pydantic.TypeAdapter(kind)
    return _ADAPTERS[kind]


def to_data(value: Any) -> Any:
    """Turn a core value into plain JSON data (dicts, lists, numbers, strings, None)."""
    return _adapter(type(value)).dump_python(value, mode="json")


def to_json(value: Any) -> str:
    """Turn a core value into one line of JSON with sorted keys."""
    return json.dumps(to_data(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_data(kind: type[T], data: Any) -> T:
    """Rebuild a core value from plain data.

    Raises:
        pydantic.ValidationError: The data isn't of that kind.
    """
    result: T = _adapter(kind).validate_python(data, strict=False)
    return result


def from_json(kind: type[T], text: str | bytes) -> T:
    """Rebuild a core value from JSON.

    Raises:
        pydantic.ValidationError: The text isn't JSON of that kind.
    """
    result: T = _adapter(kind).validate_json(text)
    return result


def json_schema(kind: Any) -> dict[str, Any]:
    """JSON Schema of a core type, as it is serialised."""
    return _adapter(kind).json_schema(mode="serialization")


def digest(*parts: Any) -> str:
    """Return the sha256 (hex) over the JSON of the parts: a stable key of values."""
    text = json.dumps([to_data(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
