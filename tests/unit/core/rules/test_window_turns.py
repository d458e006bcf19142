"""When arms work in turn, and what their pairs are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.core.rules.interval import pair_logs
from farm.core.rules.stopping import rates_by_launch
from farm.core.rules.window_turns import obstacle
from farm.core.runner import OWN
from farm.core.runtime import DeviceJob, LaunchRequest, LaunchResult, Measure, Sample
from tests.unit.core.builders import HELLO
from tests.unit.core.rules.test_stopping import OURS, THEIRS, launched, policy

MEBI = 1 << 20


def job(*block: LaunchRequest) -> DeviceJob:
    rule = policy(block=block or (OURS, THEIRS, THEIRS, OURS))
    return DeviceJob("job", 1, 1, "run", "cell", "device", OWN, (), (), policy=rule)


def seen(*, turns: bool = True, peak: int | None = 100 * MEBI) -> list[LaunchResult]:
    hello = replace(HELLO, turns=turns)
    both = (launched(100.0), launched(100.0, "baseline"))
    return [replace(one, hello=hello, peak_rss_bytes=peak) for one in both]


def test_arms_that_fit_work_in_turn() -> None:
    assert obstacle(job(), seen(), 251 * MEBI) == ""


@pytest.mark.parametrize(
    ("done", "free_mebi", "why"),
    [
        (seen(), 249, "both arms need 200 MiB of memory, 249 MiB are free"),
        (seen(), None, "the device doesn't tell how much memory is free"),
        (seen(peak=None), 900, "how much memory the candidate needs isn't known"),
        (seen(turns=False), 900, "the candidate's runner can't wait for its turn"),
        ([*seen()[:1], *seen(turns=False)[1:]], 900, "the baseline's runner can't wait"),
        (seen()[:1], 900, "the baseline's runner can't wait"),
    ],
)
def test_what_stands_against_turns_is_told(
    done: list[LaunchResult], free_mebi: int | None, why: str
) -> None:
    free = None if free_mebi is None else free_mebi * MEBI
    assert obstacle(job(), done, free).startswith(why)


def test_runners_of_one_prompt_a_launch_stay_with_launches() -> None:
    other = replace(OURS, measures=(Measure("pp8", 8, 0, 0, 1, 0),))
    theirs = replace(other, arm="baseline")
    assert obstacle(job(OURS, other, THEIRS, theirs, THEIRS, theirs, OURS, other), seen(), 1 << 40)


@given(
    st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=12),
    st.floats(0.8, 1.2),
    st.lists(st.floats(0.5, 2.0), min_size=4, max_size=8),
)
def test_what_both_arms_shared_cancels_window_by_window(
    drift: list[float], ratio: float, speeds: list[float]
) -> None:
    """However fast launches were, and however their windows drifted: only the ratio is left."""
    theirs = {n: [speed * math.exp(d) for d in drift] for n, speed in enumerate(speeds)}
    ours = {n: [ratio * rate for rate in rates] for n, rates in theirs.items()}
    assert pair_logs(ours, theirs) == pytest.approx([math.log(ratio)] * len(speeds))


def test_one_disturbed_window_moves_no_pair_though_the_device_got_faster() -> None:
    """Medians of either arm would lie on different sides of the step."""
    theirs = {3: [100.0, 100.0, 100.0, 200.0, 200.0, 200.0]}
    ours = {3: [100.0, 100.0, 100.0, 200.0, 200.0, 50.0]}
    assert pair_logs(ours, theirs) == [0.0]
    with pytest.raises(ValueError, match="positive"):
        pair_logs({3: [0.0]}, {3: [1.0]})


def test_launches_in_turn_are_known_by_their_number() -> None:
    def turned(number: int, rate: float, arm: str) -> LaunchResult:
        one = launched(rate, "candidate" if arm == "c" else "baseline")
        samples: tuple[Sample, ...] = tuple(replace(s, launch=number) for s in one.samples)
        return replace(one, samples=samples, in_turn=True)

    done = [turned(7, 90.0, "c"), turned(7, 100.0, "b"), turned(8, 50.0, "b"), turned(8, 45.0, "c")]
    ours, theirs = (rates_by_launch(done, "tg64", arm) for arm in ("candidate", "baseline"))
    assert list(ours) == list(theirs) == [7, 8]
    assert pair_logs(ours, theirs) == pytest.approx([math.log(0.9)] * 2)
