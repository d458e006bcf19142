"""No import goes in a circle, neither between modules nor between folders."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules() -> dict[str, Path]:
    found = {}
    for package in ("farm", "models", "runners"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> dict[str, set[str]]:
    """Every module and those that it imports, inside functions and for types only included."""
    known = modules()
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {one if one in known else node.module for one in names}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
    return {name: targets & set(known) for name, targets in found.items()}


def folder(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[:2] == ["farm", "site"] else 2])


def circles(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Each place from which a walk along the arrows comes back, by the walk."""
    done: set[str] = set()
    found: list[str] = []

    def walk(place: str, way: tuple[str, ...]) -> None:
        if place in way:
            found.append(" -> ".join((*way[way.index(place) :], place)))
        elif place not in done:
            for target in sorted(graph.get(place, ())):
                walk(target, (*way, place))
            done.add(place)

    for place in sorted(graph):
        walk(place, ())
    return found


def test_circles_are_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == ["a -> b -> c -> a"]
    assert circles({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_no_module_imports_in_a_circle() -> None:
    assert circles(imports()) == []


def test_no_folder_imports_in_a_circle() -> None:
    between: dict[str, set[str]] = defaultdict(set)
    for name, targets in imports().items():
        between[folder(name)] |= {folder(target) for target in targets} - {folder(name)}
    assert circles(between) == []


def loaded(imports: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {imports}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return set(done.stdout.split())


def test_help_needs_no_event_loop() -> None:
    """What asyncio brings in takes as long as everything else that `farm --help` imports."""
    found = loaded("farm, farm.cli.commands")
    assert "typer" in found
    assert not found & {"asyncio", "ssl", "yaml", "rich", "pydantic", "numpy"}


def test_a_run_starts_without_what_only_a_few_runs_need() -> None:
    """Each of these takes as long to import as all the rest together."""
    heavy = {"ray", "scipy", "torch", "transformers"}
    found = loaded("farm.run.run, farm.cli")
    assert "farm.tasks.perform" in found
    assert not found & heavy
