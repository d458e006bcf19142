"""Whose hold a command keeps, and which it takes over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from farm.commands.hold import TTL_S, kept_hold
from farm.core.lease import Hold

ME = "ann@desk"


class Device:
    """A device with a hold, and a connection to it."""

    def __init__(self, left_s: float) -> None:
        self.held: Hold | None = Hold(ME, "test x", left_s)
        self.helper = SimpleNamespace(
            show_lease=lambda: self.held, take_hold=self._take, release_hold=self._release
        )
        self.entry = SimpleNamespace(name="a")

    def _take(self, hold: Hold) -> None:
        self.held = hold

    def _release(self, person: str) -> None:
        assert person == ME
        self.held = None

    def reopen(self) -> Device:
        return self

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("left_s", "over_left", "taken"),
    [(TTL_S - 20, True, True), (TTL_S - 20, False, False), (3600.0, True, False)],
)
def test_a_hold_that_nobody_renews_any_more_is_taken_over(
    left_s: float, over_left: bool, taken: bool
) -> None:
    device: Any = Device(left_s)
    before = device.held
    with kept_hold(device, "test y", ME, over_left=over_left):
        assert device.held == (Hold(ME, "test y", TTL_S) if taken else before)
    assert device.held == (None if taken else before)
