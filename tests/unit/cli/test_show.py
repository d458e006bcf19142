from __future__ import annotations

from pathlib import Path

import pytest

from farm.cli import running, show
from farm.run.run import Finished
from farm.ui.tables import plain
from tests.unit.reports import builders


def widest(capsys: pytest.CaptureFixture[str]) -> int:
    show.print_table(plain(("a", "b"), [("x" * 50, "y" * 90)]))
    text = capsys.readouterr().out
    assert "\x1b" not in text
    return max(len(line.rstrip()) for line in text.splitlines())


def test_a_table_in_a_pipe_is_as_wide_as_columns_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert 100 < widest(capsys) <= 160
    monkeypatch.setenv("COLUMNS", "70")
    assert widest(capsys) <= 70


def test_what_a_command_did_is_json_or_text(capsys: pytest.CaptureFixture[str]) -> None:
    show.told({"device": "pi5"}, "pi5 is free", as_json=True)
    assert capsys.readouterr().out == '{\n "device": "pi5"\n}\n'
    show.told({"device": "pi5"}, "pi5 is free", as_json=False)
    assert capsys.readouterr().out == "pi5 is free\n"


def test_only_reports_that_could_be_written_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_text("{}")
    running._shown(Finished(builders.report(), tmp_path), as_json=False)
    assert f"\nReports: {tmp_path}/report.json\n" in capsys.readouterr().out
