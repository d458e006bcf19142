from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.errors import ConfigError
from farm.core.result import CellResult, Trust
from farm.state.history import History
from tests.unit.reports.builders import report, results


def night(
    median: float, *, trust: Trust = "ok", artifact: str = "a" * 64, os_build: str = "b1"
) -> CellResult:
    cell = results()[0]
    rows = tuple(
        replace(p, median=median, trust=trust) for p in cell.performance if p.metric == "tg32"
    )
    return replace(
        cell,
        performance=rows,
        artifact=replace(cell.artifact, sha256=artifact),
        device=replace(cell.device, os_build=os_build),
    )


@pytest.fixture
def history(tmp_path: Path) -> History:
    index = History(tmp_path / "history.db")
    for day, cell in enumerate(
        [
            night(80.0),
            night(82.0),
            night(40.0, trust="invalid"),
            night(60.0, artifact="c" * 64),
            night(50.0, os_build="b0"),
        ]
    ):
        made = replace(report((cell,)), run_id=f"r{day}", started_at=f"2026-01-0{day + 1}")
        index.add(made, tmp_path, {})
    return index


def test_only_trusted_numbers_of_the_same_bytes_on_the_same_build_count(history: History) -> None:
    cell = night(1.0)
    assert history.same_bytes({cell.cell_id: cell}) == {cell.cell_id: {"tg32": [82.0, 80.0]}}
    history.close()


def test_a_cell_whose_bytes_are_unknown_has_no_past(history: History) -> None:
    skipped = results()[-1]
    assert history.same_bytes({skipped.cell_id: skipped}) == {}
    history.close()


def test_a_run_added_again_counts_once(history: History, tmp_path: Path) -> None:
    cell = night(90.0)
    again = replace(report((cell,)), run_id="r1", started_at="2026-01-02")
    history.add(again, tmp_path, {})
    assert history.same_bytes({cell.cell_id: cell}) == {cell.cell_id: {"tg32": [90.0, 80.0]}}
    history.close()


def test_a_dump_carries_the_index_to_another_machine(history: History, tmp_path: Path) -> None:
    dump = tmp_path / "history.json"
    dump.write_text(json.dumps(history.dump()))
    elsewhere = History(tmp_path / "elsewhere" / "history.db")
    for _ in range(2):  # what is there already is replaced
        assert elsewhere.load(dump) == 5
        assert elsewhere.dump() == history.dump()
    cell = night(1.0)
    assert elsewhere.same_bytes({cell.cell_id: cell}) == history.same_bytes({cell.cell_id: cell})
    shrunk = replace(report((replace(cell, performance=()),)), run_id="r1", started_at="2026-01-02")
    history.add(shrunk, tmp_path, {})
    dump.write_text(json.dumps(history.dump()))
    elsewhere.load(dump)
    assert elsewhere.dump() == history.dump(), "a number that its own index dropped is gone"
    for index in (history, elsewhere):
        index.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no file of `farm history export`"),
        ("[]", "is no file of `farm history export`"),
        ('{"farm_history": 9, "tables": {}}', "has format 9, this farm reads 1"),
        ('{"farm_history": 1, "tables": {"runs": [{}]}}', "is no file of `farm history export`"),
    ],
)
def test_what_is_no_dump_is_refused_and_changes_nothing(
    history: History, tmp_path: Path, text: str, says: str
) -> None:
    before = history.dump()
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ConfigError, match=says):
        history.load(tmp_path / "bad.json")
    assert history.dump() == before
    history.close()
