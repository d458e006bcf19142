from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.errors import ConfigError, StoreError
from farm.core.result import AttemptReport, Outcome, SecondSitting
from farm.run.journal import Journal, file_system_type
from farm.run.measured import Measured
from farm.run.run_lock import is_locked
from tests.unit.core import builders as b
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


def test_no_text_of_a_result_reads_as_its_outcome(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    text = ',"outcome":"passed","performance":['
    attempt = AttemptReport(1, text, None, None, "passed", None)
    odd = replace(
        cell_result("failed"),
        reason=text,
        conditions={"a": text},
        attempts=(attempt,),
        second=SecondSitting("passed", text, (), (attempt,), (), ()),
    )
    journal.finish_cell(odd)
    assert set(journal.cells().with_outcome("failed")) == {odd.cell_id}
    assert set(journal.cells().with_outcome("passed")) == set()


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.record([("task", {"task": "export"})])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("journal.db*")}
    journal.close()
    assert modes
    assert set(modes.values()) == {0o600}, modes


def test_a_cell_has_one_result_and_keeps_it_until_there_is_another(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    first = cell_result("errored")
    journal.finish_cell(first)
    with pytest.raises(StoreError, match="--resume"):
        journal.finish_cell(cell_result("failed"))
    journal.reopen([first.cell_id])
    assert journal.cells() == {first.cell_id: first}
    journal.finish_cell(cell_result("failed"))
    assert [r.outcome for r in journal.cells().values()] == ["failed"]
    with pytest.raises(StoreError):
        journal.finish_cell(cell_result("passed"))


def measured(cell_id: str) -> Measured:
    return Measured(cell_id, 1, b.device("a"), None, "2026-01-01", "0" * 64, b.run_result())


@pytest.mark.parametrize(("outcome", "left"), [("passed", 0), ("inconclusive", 0), ("skipped", 1)])
def test_what_was_measured_stays_until_it_is_judged(
    tmp_path: Path, outcome: Outcome, left: int
) -> None:
    journal = Journal(tmp_path / "journal.db")
    result = cell_result(outcome)
    journal.record([], [(result.cell_id, measured(result.cell_id))])
    assert journal.measured() == {result.cell_id: measured(result.cell_id)}
    journal.finish_cell(result)
    assert len(journal.measured()) == left


def damage(path: Path, sql: str) -> Journal:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(sql)
        db.commit()
    return Journal(path, resume=True)


def test_damaged_records_are_named_and_never_believed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.set("epoch", "1")
    journal.record([("leased", {"n": n}) for n in range(4)], [("c", measured("c"))])
    result = cell_result("failed")
    journal.finish_cell(result)
    journal.close()
    flips = {
        "UPDATE cells SET value = replace(value, 'failed', 'passed')": result.cell_id,
        "UPDATE measured SET value = replace(value, '2026', '2027')": "'c' of measured",
        "UPDATE events SET data = replace(data, '2', '3') WHERE seq = 3": "event 3 (leased)",
        "DELETE FROM events WHERE seq = 2": "event 2 is missing",
    }
    for sql, named in flips.items():
        journal = damage(path, sql)
        events, cells, results = list(journal.events()), journal.cells(), journal.measured()
        assert any(named in what for what in journal.damaged), (sql, journal.damaged)
        assert journal.get("absent") is None, "damage elsewhere says nothing of it"
        journal.close()
    assert [e["kind"] for e in events] == ["leased", "damaged", "damaged", "leased"]
    assert (dict(cells), results) == ({}, {})
    journal = damage(path, "UPDATE meta SET value = '9'")
    with pytest.raises(StoreError, match=r"'epoch' of meta is damaged.*start a new run"):
        journal.get("epoch")


def test_a_result_under_another_cells_name_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.finish_cell(cell_result("passed"))
    journal.close()
    journal = damage(path, "UPDATE cells SET key = 'another'")
    assert journal.cells() == {}
    assert journal.damaged == ["record 'another' of cells is damaged"]


def test_a_run_has_one_controller_and_the_error_names_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    code = (
        "import sys, pathlib\nfrom farm.run.journal import Journal\n"
        f"Journal(pathlib.Path({str(path)!r}))\nprint('held', flush=True)\nsys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match=rf"process {other.pid} on {socket.gethostname()}"):
        Journal(path, resume=True)
    assert is_locked(tmp_path)
    Journal(path, read_only=True).close()
    other.kill()
    other.communicate()
    assert not is_locked(tmp_path)
    Journal(path, resume=True).close()


def test_a_file_system_without_locks_is_refused_with_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_handle: int, _kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match=r"No locks available.* local folder with --out"):
        Journal(tmp_path / "journal.db")


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
