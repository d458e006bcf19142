"""Drivers of one program: whose logits or ids part from those of a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from farm.judge.drivers import by_ids, by_logits
from farm.judge.logits import Logits, every_position
from tests.unit.judge.builders import disturbed, language

ROWS, TOKENS = language()


@pytest.mark.parametrize(
    ("theirs", "parts", "words"),
    [
        ([5, 6, 7], False, "the same 3 ids"),
        ([5, 6, 7, 8], False, "the same 3 ids"),
        ([5, 9, 7], True, "after 1 of 3 ids it gives id 9, a plain loop id 6"),
        ([5, 6], True, "after 2 of 3 ids it gives nothing, a plain loop id 7"),
        ([], True, "after 0 of 3 ids it gives nothing"),
    ],
)
def test_equal_kernels_choose_equal_ids(theirs: list[int], parts: bool, words: str) -> None:
    row = by_ids([5, 6, 7], theirs, 3)
    assert row.parts is parts
    assert words in row.reason


def test_a_stop_id_may_be_left_out_and_nothing_else() -> None:
    assert by_ids([5, 6, 2], [5, 6], 32).parts is False
    assert by_ids([5, 6, 2], [5, 6, 2], 32).parts is False
    assert by_ids([5, 6, 2], [5], 32).parts is True


def test_a_driver_that_feeds_other_positions_parts() -> None:
    ends = tuple(range(15, len(TOKENS), 16))
    good = Logits(disturbed(ROWS, 0.05)[list(ends)], ends)
    assert by_logits("chunks", ROWS, good, TOKENS, 0.1).parts is False
    late = Logits(np.roll(ROWS, 1, axis=0)[list(ends)], ends)
    assert by_logits("chunks", ROWS, late, TOKENS, 0.1).parts is True
    assert by_logits("chunks", ROWS, every_position(ROWS[:, :7]), TOKENS, 0.1).parts is True
    broken = ROWS.copy()
    broken[3] = np.nan
    assert by_logits("chunks", ROWS, every_position(broken), TOKENS, 0.1).parts is True
