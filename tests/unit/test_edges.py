"""EDGES.md names a test for each edge of real devices; each of them is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_edge_has_its_test() -> None:
    rows = [
        line
        for line in (ROOT / "tests/lab/EDGES.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| edge")
    ]
    assert rows
    for row in rows:
        found = re.search(r"`(tests/\S+\.py)::(test_\w+)` \|$", row)
        assert found is not None, row
        assert f"def {found[2]}(" in (ROOT / found[1]).read_text(), row
