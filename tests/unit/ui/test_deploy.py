"""How a deployment ended, in a line and an exit code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farm import codec
from farm.core.rules.deployable import Choice
from farm.core.rules.rollout import Finished, StepEvent
from farm.deploy.work import Ended, outcomes
from farm.ui.deploy import exit_code, last_line
from tests.unit.deploy.test_record import ok, saved

ALL = [ok(step, device) for step in ("prepare", "switch", "check") for device in ("a", "b")]
BEGAN = [StepEvent(1.0, 1, "began", "switch", device) for device in ("a", "b")]


def ended(finished: Finished, events: list[StepEvent], left_out: int = 0) -> Ended:
    choices = tuple(Choice(f"c{n}", reason="no cell of it passed") for n in range(left_out))
    plan = replace(saved(), left_out=choices)
    # What is gone on with is what was saved.
    return Ended(codec.from_json(type(plan), codec.to_json(plan)), finished, outcomes(plan, events))


@pytest.mark.parametrize(
    ("finished", "events", "left_out", "code", "words"),
    [
        (Finished("deployed"), BEGAN + ALL, 0, 0, "deployed: 2/2 have the new version"),
        (Finished("deployed"), BEGAN + ALL, 1, 3, "2/2 have the new version, 1 left out"),
        (Finished("rolled_back", 1, (("a", "slow"),)), [], 0, 1, "failed in stage 1 and rolled"),
        (Finished("stopped", 2, (("a", "slow"),)), [], 0, 1, "stopped in stage 2"),
        (Finished("rollback_incomplete", 1, (("a", "x"),)), BEGAN, 0, 3, "NOT everything"),
        (Finished("rolled_back"), [], 0, 0, "undone: 0/2"),
    ],
)
def test_the_exit_code_says_what_a_pipeline_needs(
    finished: Finished, events: list[StepEvent], left_out: int, code: int, words: str
) -> None:
    one = ended(finished, events, left_out)
    assert exit_code(one) == code
    assert words in last_line(one)


def test_devices_of_which_nobody_knows_are_counted() -> None:
    one = ended(Finished("rollback_incomplete", 1, (("a", "x"),)), BEGAN[:1])
    assert "1 unknown" in last_line(one)
    assert "--resume d1" in last_line(one)
