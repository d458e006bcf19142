"""Pins into constraints.txt what this environment holds of all that pyproject.toml asks for.

Follows the requirements of farm and its extras, so that a package somebody only tried out isn't
pinned. Run it by `make constraints` after a dependency changed.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Exact versions of everything farm installs, tests included. Written by `make constraints`.
# Where the index's torch carries CUDA, its further packages are pinned by torch itself.
"""
#: Build tools: installed before the rest, nobody's requirement.
TOOLS = ("pip", "setuptools")


def wanted(project: Path) -> list[Requirement]:
    """Return what a project asks for: its dependencies and those of all its extras."""
    table = tomllib.loads(project.read_text())["project"]
    groups = [table["dependencies"], *table.get("optional-dependencies", {}).values()]
    return [Requirement(text) for group in groups for text in group]


def closure(requirements: list[Requirement]) -> dict[str, Version]:
    """Follow requirements through the installed packages.

    Returns:
        Canonical name to installed version, without local parts such as `+cpu`.

    Raises:
        importlib.metadata.PackageNotFoundError: One of them isn't installed.
    """
    found: dict[str, Version] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = list(requirements)
    while queue:
        requirement = queue.pop()
        extras = frozenset(requirement.extras)
        name = canonicalize_name(requirement.name)
        if (name, extras) in seen or not _applies(requirement, frozenset()):
            continue
        seen.add((name, extras))
        package = importlib.metadata.distribution(name)
        found[name] = Version(Version(package.version).public)
        for text in package.requires or ():
            child = Requirement(text)
            if _applies(child, extras):
                child.marker = None
                queue.append(child)
    return found


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})


def main() -> int:
    """Write constraints.txt."""
    requirements = wanted(ROOT / "pyproject.toml") + [Requirement(name) for name in TOOLS]
    pins = closure(requirements)
    lines = [f"{name}=={version}\n" for name, version in sorted(pins.items())]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines))
    sys.stdout.write(f"constraints.txt: {len(pins)} packages pinned\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
