from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farm.core.flow.matcher import Matcher


def test_oldest_job_goes_first_and_a_device_gets_one() -> None:
    matcher = Matcher()
    for job in ("j1", "j2"):
        matcher.add(job, frozenset({"a", "b"}))
    matcher.idle("a")
    assert matcher.assign() == [("j1", "a")]
    assert matcher.assign() == []
    matcher.idle("b")
    assert matcher.assign() == [("j2", "b")]


def test_a_job_that_must_avoid_a_device_does_not_block_it() -> None:
    matcher = Matcher()
    matcher.add("picky", frozenset({"b"}))
    matcher.add("easy", frozenset({"a", "b"}))
    matcher.idle("a")
    assert matcher.assign() == [("easy", "a")]


def test_devices_that_are_not_allowed_stay_idle() -> None:
    matcher = Matcher()
    matcher.add("j", frozenset({"a"}))
    matcher.idle("a")
    assert matcher.assign(frozenset()) == []
    assert matcher.assign(frozenset({"a"})) == [("j", "a")]


def test_jobs_without_a_live_device_are_named_once() -> None:
    matcher = Matcher()
    matcher.add("j", frozenset({"a"}))
    matcher.add("k", frozenset({"a", "b"}))
    assert matcher.unschedulable(frozenset({"b"})) == ["j"]
    assert matcher.unschedulable(frozenset({"b"})) == []


@given(
    st.lists(st.frozensets(st.sampled_from("abcd"), min_size=1), max_size=30),
    st.randoms(use_true_random=False),
)
def test_every_job_runs_once_on_a_device_it_may_use(
    jobs: list[frozenset[str]], order: object
) -> None:
    matcher = Matcher()
    for number, devices in enumerate(jobs):
        matcher.add(str(number), devices)
    ran: dict[str, str] = {}
    for _ in range(len(jobs) + 1):
        for device in "abcd":
            matcher.idle(device)
        for job, device in matcher.assign():
            assert job not in ran
            assert device in jobs[int(job)]
            ran[job] = device
    assert len(ran) == len(jobs)
