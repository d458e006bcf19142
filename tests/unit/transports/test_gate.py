from __future__ import annotations

import pytest

from farm.core.errors import DeviceLost
from farm.transports.gate import Gate


def test_close_ends_what_waits_once_and_admits_nothing_more() -> None:
    gate = Gate("phone")
    said: list[str] = []

    def end() -> None:
        said.append("ended")

    gate.admit(end)
    gate.check()
    gate.close(lambda: said.append("before"))
    assert said == ["before", "ended"]
    with pytest.raises(DeviceLost, match="connection to phone was closed"):
        gate.admit(end)
    with pytest.raises(DeviceLost):
        gate.check()


def test_what_ended_by_itself_is_left_alone() -> None:
    gate = Gate("phone")
    said: list[str] = []

    def end() -> None:
        said.append("ended")

    gate.admit(end)
    gate.release(end, lambda: said.append("freed"))
    gate.close()
    assert said == ["freed"]


def test_tidying_up_may_begin_late_and_a_second_close_ends_it() -> None:
    gate = Gate("phone")
    gate.close()
    said: list[str] = []

    def end() -> None:
        said.append("ended")

    gate.admit(end, late=True)
    gate.close(lambda: said.append("before"))
    assert said == ["ended"]
