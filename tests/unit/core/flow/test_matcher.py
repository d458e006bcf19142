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


def test_longest_goes_first_and_alike_ones_in_the_order_they_came() -> None:
    matcher = Matcher()
    for job, seconds in (("short", 10), ("long", 100), ("about as long", 101), ("longest", 300)):
        matcher.add(job, frozenset("a"), seconds=seconds)
    assert order_on(matcher, "a") == ["longest", "long", "about as long", "short"]


def test_of_equal_jobs_that_goes_first_whose_artifact_is_near() -> None:
    matcher = Matcher({"a": "rack", "b": "rack", "c": "desk"})
    matcher.has("b", "at the site")
    matcher.has("a", "here")
    for job, artifact, seconds in (
        ("far", "elsewhere", 100), ("near", "at the site", 100), ("there", "here", 100),
        ("longer", "elsewhere", 200),
    ):  # fmt: skip
        matcher.add(job, frozenset("abc"), artifact=artifact, seconds=seconds)
    assert order_on(matcher, "a") == ["longer", "there", "near", "far"]


def test_a_job_goes_to_the_device_that_has_its_artifact_then_to_its_site() -> None:
    for has, expected in (("c", "c"), ("d", "b"), ("", "a")):
        matcher = Matcher({"a": "desk", "b": "rack", "c": "rack", "d": "rack"})
        if has:
            matcher.has(has, "m")
        for device in "abc":
            matcher.idle(device)
        matcher.assign()
        matcher.add("job", frozenset("abcd"), artifact="m")
        assert matcher.assign() == [("job", expected)]


def test_classes_that_nobody_waits_in_are_dropped() -> None:
    matcher = Matcher()
    names = [f"d{number}" for number in range(300)]
    for device in names:  # as a job that each of them failed in turn
        matcher.add("job", frozenset(names) - {device})
    assert matcher.classes <= 2 * 64
    matcher.idle("d5")
    assert matcher.assign() == [("job", "d5")]


def order_on(matcher: Matcher, device: str) -> list[str]:
    """What a device takes, one after the other."""
    found: list[str] = []
    while True:
        matcher.idle(device)
        if not (pairs := matcher.assign()):
            return found
        found += [job for job, _ in pairs]


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
    st.lists(st.floats(0, 1e5), min_size=30, max_size=30),
    st.lists(st.sampled_from("xyz"), min_size=30, max_size=30),
)
def test_every_job_runs_once_on_a_device_it_may_use(
    jobs: list[frozenset[str]], seconds: list[float], artifacts: list[str]
) -> None:
    matcher = Matcher({"a": "rack", "b": "rack"})
    for number, devices in enumerate(jobs):
        length, artifact = seconds[number], artifacts[number]
        matcher.add(str(number), devices, seconds=length, artifact=artifact)
    ran: dict[str, str] = {}
    for _ in range(len(jobs) + 1):
        for device in "abcd":
            matcher.idle(device)
        for job, device in matcher.assign():
            assert job not in ran
            assert device in jobs[int(job)]
            left = [seconds[n] for n, d in enumerate(jobs) if device in d and str(n) not in ran]
            assert max(1.0, seconds[int(job)]) * 1.25 >= max(left), "a much longer one waits"
            ran[job] = device
            matcher.has(device, artifacts[int(job)])
    assert len(ran) == len(jobs)
