"""Values of config files: what each has to be, and errors that name file and key."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from farm.core.errors import ExportError
from models.sources.files import refuse_lfs_pointer

_OTHER_FORMAT = (
    "farm's graph doesn't have it. Remove the key if the model computes the same without it"
)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ExportError: It isn't there, isn't JSON, or isn't an object; names the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ExportError(
                f"{path}: a link to {path.readlink()}, which isn't there; fetch the file again"
            ) from error
        raise ExportError(f"{path.parent}: no {path.name}; {_not_a_model(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: not readable: {error}") from error
    refuse_lfs_pointer(text, path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path}: not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise ExportError(f"{path}: a JSON {type(data).__name__}, an object is expected")
    return data


def _not_a_model(path: Path) -> str:
    if (path.parent / "snapshots").is_dir():
        found = sorted((path.parent / "snapshots").iterdir())
        if found:
            return f"this is the root of the hub's cache: give {found[-1]}"
    return "not a model folder"


class Numbers:
    """Numbers of one file; each error names file and key."""

    def __init__(self, data: dict[str, Any], path: Path, prefix: str = "") -> None:
        self.data, self.path, self.prefix = data, path, prefix

    def real(self, key: str, default: float | None = None) -> float:
        """Return a number; without a default it has to be there."""
        value = self.data.get(key, default)
        if value is None:
            raise ExportError(f"{self.path}: {self.prefix}{key} is missing")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ExportError(f"{self.path}: {self.prefix}{key} is {value!r}, a number is expected")
        # JSON as Python reads it has NaN, Infinity and whole numbers of any length.
        if not abs(value) <= sys.float_info.max:
            shown = str(value)[:20]
            raise ExportError(
                f"{self.path}: {self.prefix}{key} is {shown}, a finite number is expected"
            )
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number; without a default it has to be there."""
        value = self.real(key, default)
        if not value.is_integer():
            raise ExportError(
                f"{self.path}: {self.prefix}{key} is {value!r}, a whole number is expected"
            )
        return int(value)


def flag(data: dict[str, Any], key: str, path: Path, default: bool = False) -> bool:
    """Return a value that is true or false.

    Raises:
        ExportError: It is something else.
    """
    value = data.get(key, default)
    if not isinstance(value, bool):
        raise ExportError(f"{path}: {key} is {value!r}, true or false is expected")
    return value


def refused(path: Path, key: str, value: Any, effect: str) -> ExportError:
    """The error of a value that the graph doesn't have; `effect` is what it changes."""
    text = json.dumps(value)
    shown = text if len(text) <= 80 else text[:77] + "..."
    return ExportError(f"{path}: {key} is {shown}: it changes {effect}; {_OTHER_FORMAT}")
