"""The content store under the real commands: one export for two, kill -9, equal bytes, gc."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command import CONFIGS, SOURCES, Farm

pytestmark = pytest.mark.export

#: The recipe that is exported fastest.
EXPORT = (
    *("export", str(CONFIGS / "tiny.yaml"), "--live", "off"),
    *("--set", "matrix.recipe=[portable-fp32]"),
)
KEYS = """
import sys
from pathlib import Path
from farm.core.artifact import ExportRequest, ModelSource, Toolchain
from models import recipes
from models.exporting.identify import own_versions, prepare_export
recipe = recipes.get("portable-fp32")
request = ExportRequest(ModelSource("tiny-llama"), recipe, Toolchain("default"))
print(prepare_export(request, Path(sys.argv[1]), own_versions()).key)
"""


def until(process: subprocess.Popen[str], word: str) -> str:
    """Read a command's lines up to the first one with a word, and return it."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if word in line:
            return line
    raise AssertionError(f"no {word!r} in: {''.join(seen)}")


def artifacts(farm: Farm) -> list[dict[str, Any]]:
    listed = json.loads(farm("store", "list", "--json").stdout)
    return [entry for entry in listed["entries"] if entry["kind"] == "artifact"]


def program(farm: Farm) -> str:
    """sha256 of the only artifact's program."""
    (entry,) = artifacts(farm)
    return dict(entry["objects"])["model.pte"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A store that two processes filled at once, while a third one collected."""
    farm = Farm(tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("cwd"))
    maker = farm.start(*EXPORT)
    until(maker, "read 1/")
    # It can't end before the others have looked, however slow they are.
    paused = [psutil.Process(maker.pid), *psutil.Process(maker.pid).children(recursive=True)]
    for process in paused:
        process.suspend()
    waiter = farm.start(*EXPORT)
    told = until(waiter, "another process works on it: pid ")
    assert any(stage in told for stage in ("read", "quantise", "compose", "write")), told
    collected = json.loads(farm("store", "gc", "--keep-last", "0", "--yes", "--json").stdout)
    for process in paused:
        process.resume()
    assert collected["temporaries"] == 0, "the export is still being made"
    for command, result in ((maker, " exported "), (waiter, " cached ")):
        output, _ = command.communicate(timeout=300)
        assert command.returncode == 0, output
        assert result in output
    return farm


def test_two_that_want_one_key_export_once_and_a_collection_takes_nothing(first: Farm) -> None:
    (entry,) = artifacts(first)
    assert (entry["model"], entry["recipe"]) == ("tiny-llama", "portable-fp32")
    assert entry["used_by"] == []
    done = first("store", "verify")
    assert done.returncode == 0, done.stdout
    assert "0 damaged" in done.stdout


def test_killed_export_leaves_a_clean_store_and_the_next_one_makes_the_same_bytes(
    first: Farm, tmp_path: Path
) -> None:
    farm = Farm(tmp_path / "home", tmp_path)
    killed = farm.start(*EXPORT)
    until(killed, "compose")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    verified = farm("store", "verify")
    assert verified.returncode == 0, verified.stdout
    assert artifacts(farm) == []
    collected = json.loads(farm("store", "gc", "--yes", "--json").stdout)
    assert collected["temporaries"] == 1, "what the killed export left"
    assert not list((farm.home / "store" / "tmp").iterdir())
    done = farm(*EXPORT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert program(farm) == program(first), "one key, two stores, equal bytes"


def test_damaged_object_is_exit_1_and_made_again(first: Farm) -> None:
    sha256 = program(first)
    path = first.home / "store" / "objects" / sha256[:2] / sha256
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    for words, says in (((), "verify --remove"), (("--remove",), "removed"), ((), "0 damaged")):
        done = first("store", "verify", *words)
        assert done.returncode == (0 if says == "0 damaged" else 1)
        assert says in done.stdout
    assert "Traceback" not in done.stderr


def test_edit_of_lowering_source_changes_the_key(tmp_path: Path) -> None:
    for package in ("farm", "models"):
        shutil.copytree(
            SOURCES / package, tmp_path / package, ignore=shutil.ignore_patterns("*.pyc")
        )

    def key() -> str:
        return subprocess.run(
            [sys.executable, "-c", KEYS, tmp_path / "cache"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        ).stdout

    before = key()
    assert key() == before
    source = tmp_path / "models" / "lowering" / "compose.py"
    text = source.read_text()
    source.write_text(text + "# edited\n")
    assert key() != before
    source.write_text(text)
    assert key() == before
    recipes = tmp_path / "models" / "recipes" / "builtin.py"
    text = recipes.read_text()
    assert 'name="portable-fp32", backend="portable"' in text
    recipes.write_text(text.replace('backend="portable"', 'backend="portable", max_seq=256'))
    assert key() != before
