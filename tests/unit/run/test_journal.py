from __future__ import annotations

from pathlib import Path

import pytest

from farm.core.errors import ConfigError, StoreError
from farm.run.journal import Journal, file_system_type
from tests.unit.core.rules.test_verdict import cell_result


def test_what_was_recorded_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.set("run_id", "r1")
    journal.record([("task", {"task": "export", "seconds": 1.5}), ("leased", {"job": "j"})])
    result = cell_result("passed", "retried")
    journal.finish_cell(result)
    journal.close()
    again = Journal(path, resume=True)
    assert again.get("run_id") == "r1"
    assert [(e["kind"], e["seq"]) for e in again.events()] == [("task", 1), ("leased", 2)]
    assert again.cells() == {result.cell_id: result}


def test_a_cell_has_one_result(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.finish_cell(cell_result("passed"))
    with pytest.raises(StoreError, match="--resume"):
        journal.finish_cell(cell_result("failed"))
    journal.reopen_cell(cell_result("failed").cell_id)
    journal.finish_cell(cell_result("failed"))
    assert [r.outcome for r in journal.cells().values()] == ["failed"]


def test_resume_needs_a_journal(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run that can be resumed"):
        Journal(tmp_path / "journal.db", resume=True)


def test_file_system_of_a_path(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/x / ext4 rw 0 0\nserver:/e {tmp_path}/net\\040disk nfs4 rw 0 0\n")
    (tmp_path / "net disk" / "runs").mkdir(parents=True)
    assert file_system_type(tmp_path / "net disk" / "runs", mounts) == "nfs4"
    assert file_system_type(tmp_path, mounts) == "ext4"
    assert file_system_type(tmp_path, tmp_path / "absent") is None
