"""Progress is thinned, but what is counted next is always heard of."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.core.events import JobProgress, Speeds
from farm.core.runner import RunnerSpec
from farm.core.runtime import DeviceJob, LaunchRequest
from farm.site.job.progress import PROGRESS_S, Progress
from tests.contract.toy_runner import ToyRunner

JOB = DeviceJob("job", 1, 1, "run", "cell", "device", RunnerSpec("toy"), (), (LaunchRequest(1),))
TOKENS = b'{"progress": ["decode", 1, 2]}'
RATE = b'{"sample": [64, 0.5]}'


class Heard:
    """Progress of one job by a made clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.now = 100.0
        self.events: list[JobProgress] = []
        self.progress = Progress(JOB, self.events.append)
        self.runner = ToyRunner(folder)
        monkeypatch.setattr("farm.site.job.progress.time.monotonic", lambda: self.now)

    def line(self, line: bytes) -> None:
        self.progress.line(self.runner, "measure", line)

    @property
    def units(self) -> list[str]:
        return [event.unit for event in self.events]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Heard:
    return Heard(monkeypatch, tmp_path)


def test_a_line_at_once_after_the_launch_is_heard(heard: Heard) -> None:
    heard.progress.say("measure", 0, 1, "launches", force=True)
    heard.line(TOKENS)
    assert heard.units == ["launches", "tokens"]


def test_the_same_count_is_thinned(heard: Heard) -> None:
    for _ in range(10):
        heard.line(TOKENS)
        heard.now += PROGRESS_S / 4
    assert heard.units == ["tokens"] * 3


def test_rates_between_counts_thin_them_no_less(heard: Heard) -> None:
    for _ in range(4):
        heard.line(TOKENS)
        heard.line(RATE)
    counted = [event for event in heard.events if event.rate is None]
    assert len(counted) == 1
    assert len(heard.events) == 5


def test_every_event_says_what_the_launches_tell_and_how_warm_the_device_is(heard: Heard) -> None:
    class Launches:
        speeds: Speeds = (("tg64", 80.0, 0.02),)
        budget = (10.0, 60.0)

    heard.progress.say("measure", 0, 3, "launches", force=True)
    heard.progress.launches, heard.progress.heat = Launches(), (36.0, 45.0)
    heard.line(RATE)
    before, after = heard.events
    assert (before.speeds, before.budget, before.heat) == ((), None, None)
    assert (after.speeds, after.budget) == (Launches.speeds, Launches.budget)
    assert after.heat == (36.0, 45.0)
