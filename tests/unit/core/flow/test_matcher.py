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


def test_a_busy_device_gets_nothing_until_it_is_idle() -> None:
    matcher = Matcher()
    matcher.add("j", frozenset({"a"}))
    matcher.idle("a")
    matcher.busy("a")
    assert matcher.assign() == []
    matcher.idle("a")
    assert matcher.assign() == [("j", "a")]


def test_jobs_without_a_live_device_are_named_once() -> None:
    matcher = Matcher()
    matcher.add("j", frozenset({"a"}))
    matcher.add("k", frozenset({"a", "b"}))
    assert matcher.stranded("a", lambda name: name == "b") == ["j"]
    assert matcher.stranded("a", lambda name: name == "b") == []
    assert matcher.queued == {"k"}


def test_a_job_that_was_removed_and_added_again_runs_once() -> None:
    matcher = Matcher()
    matcher.add("j", frozenset({"a"}))
    matcher.remove("j")
    matcher.add("j", frozenset({"a", "b"}))
    matcher.idle("a")
    matcher.idle("b")
    assert matcher.assign() == [("j", "a")]


def test_jobs_of_a_group_never_share_a_device_and_block_nobody() -> None:
    matcher = Matcher()
    both = frozenset({"a", "b"})
    for job in ("g1", "g2"):
        matcher.add(job, both, "g")
    matcher.add("other", both)
    matcher.idle("a")
    assert matcher.assign() == [("g1", "a")]
    matcher.idle("a")
    assert matcher.assign() == [("other", "a")]
    matcher.idle("a")
    assert matcher.assign() == []
    assert matcher.crowded_out("g", both.__contains__) == []
    matcher.idle("b")
    assert matcher.assign() == [("g2", "b")]


def test_siblings_that_have_every_device_left_crowd_a_job_out() -> None:
    matcher = Matcher()
    for job in ("g1", "g2"):
        matcher.add(job, frozenset({"a", "b"}), "g")
    matcher.idle("a")
    assert matcher.assign() == [("g1", "a")]
    assert matcher.stranded("b", lambda name: name == "a") == ["g2"]
    matcher.add("g2", frozenset({"a", "b"}), "g")
    assert matcher.crowded_out("g", lambda name: name == "a") == ["g2"]
    assert matcher.taken("g") == {"a": "g1"}


def test_what_an_event_looks_at_does_not_grow_with_the_queue() -> None:
    visits = []
    for jobs in (100, 10_000):
        matcher = Matcher()
        names = [f"d{number}" for number in range(50)]
        for number in range(jobs):
            matcher.add(f"{number}", frozenset({names[number % 50]}))
            matcher.add(f"p{number}", frozenset(names))
        for name in names:
            matcher.idle(name)
        assert len(matcher.assign()) == 50
        before = matcher.visited
        for name in names:
            matcher.idle(name)
            assert len(matcher.assign()) == 1
        visits.append(matcher.visited - before)
    assert visits[0] == visits[1] <= 50 * 3


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
