"""What pydantic finds wrong with a config, in the words of its user: file, key, what is right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
from pydantic import BaseModel

from farm.config.forms import NAME
from farm.core.errors import ConfigError
from farm.core.names import nearest


def refusal(kind: type[BaseModel], error: pydantic.ValidationError, path: Path) -> ConfigError:
    """Return what to tell of a config that doesn't have its form: each key, and what is right."""
    lines: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        loc = [str(part) for part in item["loc"] if not str(part).startswith(_UNION_TAGS)]
        message = _FORMS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        if item.get("ctx", {}).get("pattern") == NAME:
            message = (
                "a name has letters, digits and . _ + - alone, and begins with one of the first"
            )
        if item["type"] == "extra_forbidden":
            allowed = _allowed_keys(kind, loc[:-1])
            meant = nearest(loc[-1], allowed)
            message = f"unknown key; allowed: {', '.join(allowed)}" if allowed else "unknown key"
            message += "" if meant is None else f"; did you mean {meant}?"
        elif item["type"] == "too_short" and lines:
            continue  # a list whose items were refused counts as empty: only the cause helps
        elif item["type"] == "string_type" and isinstance(item["input"], dict):
            continue  # the other form of a union, which the user did not mean
        if (loc in _NAMING or loc[:1] == ["devices"]) and (named := _KEY.match(message)):
            loc, message = [*loc, named[1]], message[named.end() :]
        lines.setdefault(".".join(loc) or "(top)", []).append(message)
    text = [f"{path}: {key}: {message}" for key, found in lines.items() for message in found]
    return ConfigError("\n".join(text), file=str(path), key=next(iter(lines), "(top)"))


_DATE = "write a date such as 2027-01-31"
#: What pydantic calls by names of Python.
_FORMS = {
    "tuple_type": "write a list, in square brackets or a line each with a dash",
    "dict_type": "write keys and values, `{key: value}`",
    "model_type": "write keys and values, `{key: value}`",
    "model_attributes_type": "write keys and values, `{key: value}`",
    "string_type": "write a text, in quotes where it looks like a number or a date",
    "date_from_datetime_parsing": _DATE,
    "date_from_datetime_inexact": _DATE,
}
#: Places whose own checks begin their messages with the key below them.
_NAMING: tuple[list[str], ...] = ([], ["gates"])
_KEY = re.compile(r"([\w.@-]+): ")


#: Parts of pydantic's error locations that name a member of a union, not a key.
_UNION_TAGS = (
    "constrained-str",
    "function-after",
    "ModelConfig",
    "CommandStep",
    "RegexConfig",
    "PromptConfig",
    "literal[",
)


def _allowed_keys(kind: Any, loc: Sequence[str]) -> list[str]:
    """Names of the keys of the model that stands at a place of the config."""
    candidates = [kind]
    for part in loc:
        following: list[Any] = []
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                field = candidate.model_fields.get(part)
                if field is not None:
                    following += _models_in(field.annotation)
            if not following and part.isdigit():
                following.append(candidate)
        candidates = following or candidates
    return [
        name
        for candidate in candidates
        if isinstance(candidate, type) and issubclass(candidate, BaseModel)
        for name in candidate.model_fields
    ]


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[Any] = []
    for argument in getattr(annotation, "__args__", ()):
        found += _models_in(argument)
    return found
