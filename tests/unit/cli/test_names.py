"""What a person types: help that ends its sentences, names that a shell completes, typos."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from farm import __version__
from farm.cli import names
from farm.cli.group import _summary


def farm(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import farm.cli; farm.cli.main()", *words]
    home = {"FARM_HOME": str(cwd / "home"), "PATH": "/usr/bin:/bin", "COLUMNS": "80"}
    root = str(Path(__file__).resolve().parents[3])
    return subprocess.run(
        command, cwd=cwd, env={**home, "PYTHONPATH": root, **env}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_help_and_version_and_a_typo(tmp_path: Path) -> None:
    assert farm("--version", cwd=tmp_path).stdout == f"farm {__version__}\n"
    help_ = farm("--help", cwd=tmp_path).stdout
    assert "..." not in help_.split("Commands:")[1]
    assert max(len(line) for line in help_.splitlines()) <= 80
    wrong = farm("rnu", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr == "farm: No such command 'rnu'. Did you mean 'run'? See `farm --help`.\n"


def test_settings_of_other_python_programs_are_not_for_farm(tmp_path: Path) -> None:
    usual = farm("plan", "--help", cwd=tmp_path)
    done = farm("plan", "--help", cwd=tmp_path, PYTHONOPTIMIZE="2", PYTHONWARNINGS="error")
    assert "Show what `farm run` would do" in done.stdout
    assert (done.returncode, done.stdout, done.stderr) == (0, usual.stdout, "")


def test_a_module_that_hides_ours_is_told_with_the_way_it_came(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('an old one')")
    root = str(Path(__file__).resolve().parents[3])
    done = farm("--help", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{root}")
    assert done.returncode == 70
    assert f"an old one. Modules in PYTHONPATH={tmp_path}:{root} may hide" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_of_no_width_is_shown_all_the_same(tmp_path: Path) -> None:
    assert "fp32" in farm("recipes", cwd=tmp_path, COLUMNS="0").stdout


def test_a_home_that_is_a_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = farm("doctor", cwd=tmp_path, FARM_HOME=str(tmp_path / "file" / "home"))
    assert done.returncode == 2
    assert done.stderr == (
        f"farm: FARM_HOME={tmp_path}/file/home: {tmp_path}/file is a file; give the path of a"
        " folder\n"
    )


def test_bash_completes_commands_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "20260102-030405-tiny-1f2e"
    folder.mkdir(parents=True)
    (folder / "journal.db").write_text("")

    def completed(line: str) -> list[str]:
        count = len(line.split()) - (not line.endswith(" "))
        done = farm(
            cwd=tmp_path, _FARM_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(count)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert completed("farm repo") == ["report"]
    assert completed("farm watch ") == ["latest", folder.name]
    assert completed("farm report --format op") == ["openmetrics"]


def test_names_come_from_the_newest_run_and_the_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert names.devices("") == names.cells("") == names.runs("") == []
    latest = tmp_path / "runs" / "latest"
    latest.mkdir(parents=True)
    report = {"results": [{"cell_id": "m:r:pi5"}], "devices": [{"name": "pi5"}]}
    (latest / "report.json").write_text(json.dumps(report))
    (tmp_path / "lab.yaml").write_text("devices: [{name: pixel8}, {name: pi5}]")
    monkeypatch.setenv("FARM_INVENTORY", "lab.yaml")
    assert names.cells("m") == ["m:r:pi5"]
    assert names.devices("pi") == ["pi5", "pixel8"]
    (tmp_path / "lab.yaml").write_text("{")
    assert names.devices("pi") == ["pi5"]


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("Do a thing. And more.", "Do a thing."),
        ("Print the report; of a killed run too.", "Print the report."),
        ("Show what `farm run` would do.\n\nLong.", "Show what `farm run` would do."),
        ("", "."),
    ],
)
def test_a_summary_is_one_whole_sentence(text: str, summary: str) -> None:
    assert _summary(text) == summary
