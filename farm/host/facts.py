"""Facts about this host and this farm for reports. Reads only what is cheap to read."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from farm.core.result import FarmReport
from farm.core.version import VERSION
from farm.host.source_tree import tree_sha256


def host_facts() -> dict[str, Any]:
    """Return what describes the controller's host."""
    return {
        "hostname": platform.node(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "ray": version_of("ray"),
    }


def version_of(package: str) -> str | None:
    """Return the installed version of a package; None when it isn't installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def farm_report() -> FarmReport:
    """Return which farm this is."""
    return FarmReport(version=VERSION, tree_sha256=tree_sha256())
