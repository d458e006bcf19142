"""Every public capture against the values that a person read off it: nothing is misread.

The captures themselves belong to others and aren't part of this repository. They are read where
their folder lies beside the checkout (`../shared/captures`) or $FARM_CAPTURES names it; the same
shapes with made values are read in tests/unit/site/parsers, always.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.captures.rows import Row
from tests.unit.captures.table import ROWS, TABLE, table

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("FARM_CAPTURES") or ROOT.parent / "shared/captures")

beside = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="no folder of public captures here: set FARM_CAPTURES to one"
)


@beside
def test_every_capture_has_a_row() -> None:
    found = {str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/*")}
    named = [row.path for row in ROWS]
    assert sorted(named) == sorted(found)


@beside
@pytest.mark.parametrize("row", [row for row in ROWS if row.read], ids=lambda row: row.path)
def test_a_capture_is_read_as_a_person_reads_it(row: Row) -> None:
    assert row.read is not None
    text = (FOLDER / row.path).read_bytes().decode("utf-8", "replace")
    assert row.read(text) == row.values


def test_a_row_says_what_reads_it_or_why_nothing_does() -> None:
    assert len({row.path for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert (row.read is None) == (row.parser is None), row.path
        assert row.read or row.note, row.path


def test_the_printed_table_is_the_one_that_is_tested() -> None:
    assert TABLE.read_text() == table(), "python -m tests.unit.captures.table writes it anew"
