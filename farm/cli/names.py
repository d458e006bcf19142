"""Names that a shell completes: runs, cells, devices, formats. Nothing is said of errors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Newest runs that are offered.
_MOST = 20


def runs(incomplete: str) -> list[str]:
    """Runs of the folder `runs`, the newest first."""
    known = sorted(p.name for p in Path("runs").glob("*/journal.db") for p in [p.parent])
    newest = [name for name in reversed(known) if name != "latest"][:_MOST]
    return _starting(incomplete, ["latest", *newest] if newest else [])


def cells(incomplete: str) -> list[str]:
    """Cells of the newest run."""
    return _starting(incomplete, [row["cell_id"] for row in _latest().get("results", [])])


def devices(incomplete: str) -> list[str]:
    """Devices of the inventory that the environment names, and of the newest run."""
    found = [row["name"] for row in _latest().get("devices", [])]
    inventory = os.environ.get("FARM_INVENTORY")
    if inventory:
        import yaml

        try:
            data = yaml.safe_load(Path(inventory).read_text(encoding="utf-8"))
            found += [row["name"] for row in data["devices"]]
        except (OSError, yaml.YAMLError, TypeError, KeyError):
            pass  # the command itself says what is wrong with the file
    return _starting(incomplete, found)


def formats(incomplete: str) -> list[str]:
    """Report formats."""
    from farm.reports.renderers import REGISTRY

    return _starting(incomplete, REGISTRY.names())


def _latest() -> dict[str, Any]:
    try:
        found = json.loads(Path("runs/latest/report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
