"""Small JSON files of FARM_HOME that several farm processes change: one at a time, atomically."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from farm.core.errors import StoreError
from farm.files import locked, write_whole


def read_state(path: Path) -> dict[str, Any]:
    """Return the document of a file; empty where there is none.

    Raises:
        StoreError: It can't be read, or isn't what farm wrote.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: can't be read ({error}); look at it, or delete it") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path}: isn't what farm wrote; look at it, or delete it")
    return value


@contextlib.contextmanager
def changed_state(path: Path) -> Iterator[dict[str, Any]]:
    """Change the document of a file: alone under a lock, written as a whole at the end.

    Raises:
        StoreError: As `read_state`, or it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock")):
            value = read_state(path)
            before = json.dumps(value, sort_keys=True)
            yield value
            if json.dumps(value, sort_keys=True) != before:
                write_whole(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise StoreError(f"{path}: can't be written: {error}") from error
