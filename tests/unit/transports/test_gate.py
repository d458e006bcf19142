from __future__ import annotations

import pytest

from farm.core.errors import ConnectError, DeviceLost, TransportError, TransportTimeout
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


@pytest.mark.parametrize("kind", [ConnectError, DeviceLost])
def test_an_error_that_close_caused_is_named_so(kind: type[TransportError]) -> None:
    gate = Gate("pixel8")
    with pytest.raises(kind, match="broke"), gate.explaining():
        raise kind("the stream broke")
    gate.close()
    with pytest.raises(DeviceLost, match="pixel8 was closed") as caught, gate.explaining():
        raise kind("the stream broke")
    assert isinstance(caught.value.__cause__, kind)


def test_a_late_answer_stays_a_timeout_after_close() -> None:
    gate = Gate("pixel8")
    gate.close()
    with pytest.raises(TransportTimeout), gate.explaining():
        raise TransportTimeout("no answer")
