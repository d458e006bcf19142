"""Writes CAPTURES.md: every public capture, what reads it, and what farm takes from it."""

from __future__ import annotations

from pathlib import Path

from tests.unit.captures.devices import DEVICE_ROWS
from tests.unit.captures.programs import PROGRAM_ROWS
from tests.unit.captures.rows import Row

TABLE = Path(__file__).with_name("CAPTURES.md")
ROWS = tuple(sorted((*DEVICE_ROWS, *PROGRAM_ROWS), key=lambda row: row.path))

_HEAD = """# Public captures, and what farm makes of them

`test_captures.py` reads each text and compares all that farm takes from it with what a person read
off. Of {all} captures {read} have a parser: none is misread. {blind} have none, each with the
reason. The texts belong to others and aren't here: with a folder of them, run
`FARM_CAPTURES=FOLDER make unit ARGS='-k captures'`. `python -m tests.unit.captures.table` writes
this file.

| capture | read by | values | remark |
|---|---|---|---|
"""


def table() -> str:
    """Text of CAPTURES.md."""
    blind = sum(row.read is None for row in ROWS)
    head = _HEAD.format(all=len(ROWS), read=len(ROWS) - blind, blind=blind)
    return head + "".join(map(_line, ROWS))


def _line(row: Row) -> str:
    values = "; ".join(f"{key} = {value}" for key, value in row.values.items()) or "nothing"
    cells = (row.path, row.parser or "**none**", values if row.read else "-", row.note)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    TABLE.write_text(table())
