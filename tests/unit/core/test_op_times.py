"""Adding up a trace."""

from __future__ import annotations

import pytest

from farm.core.op_times import TracedCall, TracedEvent, summarise


def test_time_is_inside_delegates_outside_them_or_in_neither() -> None:
    call = TracedCall(
        (
            TracedEvent("native_call_embedding.out", 0, None, 0.1),
            TracedEvent("OPERATOR_CALL", 0, None, 0.2),
            TracedEvent(None, 1, "Add (ND) #1", 0.25),
            TracedEvent(None, 1, "Add (ND) #2", 0.15),
            TracedEvent("DELEGATE_CALL", 1, None, 0.5),
            TracedEvent("OPERATOR_CALL", 2, None, 0.1),
            TracedEvent("Method::execute", -1, None, 1.0),
        )
    )
    found = summarise("tg2", 2, [call, call])
    assert (found.calls, found.tokens) == (2, 2)
    assert found.total_s == pytest.approx(2.0)
    assert found.delegates_s == pytest.approx(1.0)
    assert found.operators_s == pytest.approx(0.6)
    assert found.overhead_s == pytest.approx(0.4)
    assert found.outside_share == pytest.approx(0.5)
    assert [(o.name, o.calls) for o in found.outside] == [("embedding.out", 2), ("(unnamed)", 2)]
    assert [(o.name, o.calls) for o in found.inside] == [("Add (ND)", 4)]
    (delegate,) = found.delegates
    assert (delegate.instruction, delegate.calls) == (1, 2)


def test_an_empty_window_has_no_share() -> None:
    assert summarise("tg1", 1, []).outside_share is None
