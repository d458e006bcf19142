"""What holds for the repository as a whole: sizes, paths, pins, layers, example configs."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from farm.config.load import load_inventory, load_run
from farm.core.plan import make_plan
from farm.planning import catalog
from tests.unit.core.builders import device

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("farm", "runners", "models")
MAX_LINES = 400


def tracked(*patterns: str) -> list[Path]:
    """Files of the commit and those on their way into it."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    rows = [line.split("==") for line in lines if not line.startswith("#")]
    return {name: version for name, version in rows}


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "Makefile",
        "Dockerfile",
        "constraints.txt",
        ".ci/run",
    ],
)
def test_the_files_that_people_look_for_are_there(name: str) -> None:
    assert (ROOT / name).read_text().strip()


def test_modules_stay_small() -> None:
    sizes = {
        path.relative_to(ROOT): len(path.read_text().splitlines())
        for package in PACKAGES
        for path in tracked(f"{package}/*.py")
    }
    assert {path: lines for path, lines in sizes.items() if lines > MAX_LINES} == {}


def test_no_path_of_a_developers_machine_stands_in_a_file() -> None:
    foreign = re.compile(r"(?<![\w.])/(?:(?:home|Users)/\w+|root)/\S|" + re.escape(f"{ROOT}/"))
    found = []
    for path in tracked():
        if path.is_relative_to(ROOT / "tests") or path.name == "Dockerfile":
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in foreign.finditer(text)]
    assert found == []


def test_what_pyproject_asks_for_is_pinned_exactly() -> None:
    table = project()["project"]
    groups = [table["dependencies"], *table["optional-dependencies"].values()]
    wanted = [Requirement(text) for group in groups for text in group]
    assert {canonicalize_name(item.name) for item in wanted} - set(pins()) == set()
    wrong = [str(item) for item in wanted if not item.specifier.contains(pins()[_name(item)])]
    assert wrong == []
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins().values())


def test_what_the_pinned_packages_ask_for_is_pinned_too() -> None:
    missing = []
    for name in pins():
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, requires):
            exact = any(item.operator == "==" for item in requirement.specifier)
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            # What is asked for exactly is pinned by who asks, as torch does with CUDA's packages.
            if needed and not exact and _name(requirement) not in pins():
                missing.append(f"{name} -> {requirement}")
    assert missing == []


def test_every_module_of_farm_has_a_layer() -> None:
    contracts = project()["tool"]["importlinter"]["contracts"]
    layers = next(item["layers"] for item in contracts if item["type"] == "layers")
    named = set(re.findall(r"farm\.(\w+)", " ".join(layers)))
    present = {path.stem for path in (ROOT / "farm").glob("*.py")}
    present |= {path.parent.name for path in (ROOT / "farm").glob("*/__init__.py")}
    assert present - {"__init__"} - named == set()


def test_core_imports_only_itself_and_the_standard_library() -> None:
    foreign = []
    for path in tracked("farm/core/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            foreign += [
                f"{path.name}: {name}"
                for name in names
                if name.partition(".")[0] not in sys.stdlib_module_names
                and not name.startswith("farm.core")
            ]
    assert foreign == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_run_config_loads_and_plans(path: Path) -> None:
    spec, _ = load_run(path)
    plan = make_plan(
        spec, [device("phone"), device("board", transport="ssh")], catalog.resolve_names(spec)
    )
    assert {place for cell in plan.cells for place in cell.devices} == {"phone", "board"}
    assert plan.skips == ()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs/inventory").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_inventory_loads(path: Path) -> None:
    assert load_inventory(path).entries


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)
