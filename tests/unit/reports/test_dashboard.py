from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.commands import history as command
from farm.core.errors import StoreError
from farm.core.nights import SelfChecked
from farm.core.result import Outcome
from farm.state.history import EVERY, History
from tests.unit.commands.test_history import cell
from tests.unit.reports.builders import EVIL, report

HOSTILE = EVIL.replace("\ud800", "")
#: Medians of ten nights: a new level from the sixth on.
MEDIANS = (80.0, 80.5, 79.8, 80.2, 80.1, 60.2, 60.0, 60.3, 59.9, 60.1)


@pytest.fixture
def index(tmp_path: Path) -> History:
    made = History(tmp_path / "history.db")
    for day, median in enumerate(MEDIANS):
        outcome: Outcome = "passed" if day < 7 else "failed"
        night = replace(
            report((cell(median, outcome),)),
            run_id=f"r{day}",
            name="nightly",
            started_at=f"2026-01-{day + 1:02d}T02:30:00.000Z",
            exit_code=0 if day < 7 else 1,
            verdict_line=f"night {day} {HOSTILE if day == 3 else ''}",
        )
        made.add(night, tmp_path, {})
    checks = (SelfChecked("slower", "x", "c", "PASS", right=False),)
    made.add_self_checks(replace(report(()), run_id="r9", name="nightly"), checks)
    return made


def data(page: str) -> Any:
    (block,) = re.findall(r'id="data">([^<]+)<', page)
    return json.loads(gzip.decompress(base64.b64decode(block)))


def test_every_night_is_drawn_and_what_moved_is_said(index: History, tmp_path: Path) -> None:
    path = command.write_page(index, None, EVERY, tmp_path / "public")
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "public" / "index.html"
    assert "<h1>10 nights</h1>" in page
    drawn = {one["metric"]: one for one in data(page)["nights"]}
    assert [point[1] for point in drawn["tg32"]["points"]] == list(MEDIANS)
    assert len(drawn["tg32"]["moved"]) == 1
    assert drawn["tg32"]["moved"][0] == drawn["tg32"]["points"][5][0]
    assert re.search(r"-25\.\d % since r5", page)
    assert "fails since run r7" in page
    assert page.count('class="badge failed">exit 1<') == 3
    assert "1 of 1 planted slowdowns were not found" in page
    assert "<script>alert" not in page


def test_a_night_without_a_number_is_counted_not_drawn(index: History, tmp_path: Path) -> None:
    found = cell(60.0, "inconclusive")
    rows = tuple(replace(p, median=None, ci95=None, trust="invalid") for p in found.performance)
    last = replace(found, performance=rows)
    night = replace(report((last,)), run_id="r99", name="nightly", started_at="2026-02-01")
    index.add(night, tmp_path, {})
    page = command.write_page(index, None, EVERY, tmp_path).read_text()
    drawn = next(one for one in data(page)["nights"] if one["metric"] == "tg32")
    assert (len(drawn["points"]), drawn["missing"]) == (10, 1)
    assert '<td class="n">- <span class="quiet">invalid</span></td>' in page


def test_a_cell_without_a_number_never_wears_the_badge_of_an_older_night(
    index: History, tmp_path: Path
) -> None:
    good = cell(60.0, "passed")
    never = replace(good, cell_id="m/never:x:y", outcome="skipped", performance=())
    for run_id, cells in (
        ("r8", (good,)),
        ("r9", (replace(good, outcome="errored", performance=()), never)),
    ):
        night = replace(
            report(cells), run_id=run_id, name="nightly", started_at=f"2026-02-0{run_id[1:]}"
        )
        index.add(night, tmp_path, {})
    page = command.write_page(index, None, EVERY, tmp_path).read_text()
    heads = dict(re.findall(r"<h3[^>]*>(\S+) <span class=\"badge (\w+)", page))
    assert heads == {good.cell_id: "errored", "m/never:x:y": "skipped"}
    assert page.count("no number since r8") == 2, "each metric says so"
    assert page.count("no number in any of these nights") == 1


def test_cells_that_fail_now_stand_before_those_that_pass(index: History, tmp_path: Path) -> None:
    ended: dict[str, Outcome] = {"a": "passed", "b": "inconclusive", "c": "failed"}
    cells = [replace(cell(80.0, outcome), cell_id=f"m/{name}") for name, outcome in ended.items()]
    night = replace(
        report((*cells, replace(cells[0], cell_id="m/lost", outcome="errored", performance=()))),
        run_id="r10", name="nightly", started_at="2026-02-01",
    )  # fmt: skip
    index.add(night, tmp_path, {})
    page = command.write_page(index, None, EVERY, tmp_path).read_text()
    heads = re.findall(r"<h3[^>]*>m/(\w+) <span class=\"badge", page)
    assert heads == ["lost", "c", "b", "a"]
    # A chart belongs to its own cell wherever that stands.
    numbers = re.findall(r'data-trend="(\d+)"', page)
    assert numbers == [str(n) for n in range(len(numbers))]


def test_an_empty_history_says_what_to_do(tmp_path: Path) -> None:
    page = command.write_page(History(tmp_path / "h.db"), None, EVERY, tmp_path).read_text()
    assert "farm nightly CONFIG" in page


def test_a_folder_that_cant_be_made_is_named(index: History, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"can't make .*file/public"):
        command.write_page(index, None, EVERY, tmp_path / "file" / "public")
