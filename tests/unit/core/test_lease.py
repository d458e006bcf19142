from __future__ import annotations

from farm.core.lease import HOLD_RUN, Waiting


def test_who_waits_is_told_with_what_for() -> None:
    assert Waiting("bob@desk", "r8", 180.0).text == "bob@desk waits since 3 min for run r8"
    assert Waiting("bob@desk", HOLD_RUN, 180.0).text == "bob@desk waits since 3 min to hold it"
