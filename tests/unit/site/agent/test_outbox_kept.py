"""What an agent keeps on its disk: unacknowledged events are not lost, others never come again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.core.errors import PlanError, StorageFull, StoreError
from farm.core.events import JobFinished, JobProgress, JobStarted, SiteEvent
from farm.core.runtime import AttemptId
from farm.site.agent import outbox_file
from farm.site.agent.agent import SiteAgent
from farm.site.agent.outbox import Outbox
from tests.unit.core import builders as b

RUNS = ("one", "two")


def finished(run: str, name: str, *, epoch: int = 1) -> JobFinished:
    error = StorageFull("gone", device="d")
    return JobFinished(AttemptId(run, epoch, name, 1), "d", "now", None, error)


def measured(name: str, *, epoch: int = 1) -> JobFinished:
    return JobFinished(AttemptId("one", epoch, name, 1), "d", "now", b.run_result(), None)


def names(events: list[SiteEvent]) -> list[str]:
    return [e.job_id for e in events if isinstance(e, JobFinished)]


@dataclass
class Controller:
    """One run's controller, and what must come of its events."""

    run: str
    after: int = 0
    boot_id: str = ""
    #: Delivered by the last answer that came, not acknowledged yet.
    pending: list[str] = field(default_factory=list)
    unacknowledged: list[str] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)

    async def poll(self, agent: SiteAgent, *, answer_comes: bool) -> None:
        polled = await agent.poll(self.run, self.after, 0.0, self.boot_id)
        if self.boot_id not in ("", polled.boot_id):
            assert polled.events == ()
            self.after, self.boot_id, self.pending = 0, polled.boot_id, []
            return
        self.acknowledged |= set(self.pending)
        self.unacknowledged = [n for n in self.unacknowledged if n not in self.acknowledged]
        came = names([item.event for item in polled.events])
        assert came == self.unacknowledged
        assert not self.acknowledged & set(came)
        if answer_comes and polled.events:
            self.after, self.boot_id = polled.events[-1].seq, polled.boot_id
            self.pending = came


class Host:
    """An agent, its disk, and those who use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.turn = 0
        self.controllers = {run: Controller(run) for run in RUNS}
        self.agent = self._start()

    def _start(self) -> SiteAgent:
        return SiteAgent(self.folder / "home", outboxes=self.folder / str(self.turn))

    def emit(self, run: str) -> None:
        controller = self.controllers[run]
        name = f"{run}-{len(controller.unacknowledged) + len(controller.acknowledged)}"
        controller.unacknowledged.append(name)
        self.agent._runs.open(run)
        self.agent._emit(finished(run, name))

    def crash(self) -> None:
        """The next agent finds the files as they are at this moment."""
        old = self.agent
        self.turn += 1
        if (self.folder / str(self.turn - 1)).exists():
            shutil.copytree(self.folder / str(self.turn - 1), self.folder / str(self.turn))
        self.agent = self._start()
        old._runs.close()

    async def restart(self) -> None:
        await self.agent.close()
        self.agent = self._start()


ACTS = st.sampled_from(["emit", "emit", "progress", "poll", "poll", "unheard", "crash", "restart"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ACTS, st.sampled_from(RUNS)), min_size=2, max_size=24))
def test_any_order_of_events_polls_and_crashes(acts: list[tuple[str, str]]) -> None:
    async def scenario(folder: Path) -> None:
        host = Host(folder)
        for act, run in [*acts, *[("poll", run) for run in RUNS] * 2]:
            match act:
                case "emit":
                    host.emit(run)
                case "progress":
                    host.agent._emit(JobProgress(AttemptId(run, 1, "j", 1), "d", "deploy", 1))
                case "poll" | "unheard":
                    await host.controllers[run].poll(host.agent, answer_comes=act == "poll")
                case "crash":
                    host.crash()
                case "restart":
                    await host.restart()
        host.agent._runs.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


def test_started_and_finished_are_kept_and_progress_is_not(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "x.db", "one")
    attempt = AttemptId("one", 1, "j", 1)
    box.append(JobStarted(attempt, "d", "now"))
    box.append(JobProgress(attempt, "d", "deploy"))
    box.append(finished("one", "j"), "work")
    box.close()
    again = Outbox(tmp_path / "x.db", "one")
    kept = again.after(0)
    assert [type(item.event) for item in kept] == [JobStarted, JobFinished]
    error = kept[1].event.error  # type: ignore[union-attr]
    assert isinstance(error, StorageFull)
    assert error.device == "d"
    again.append(finished("one", "k"))
    assert [item.seq for item in again.after(0)] == [1, 3, 4]
    again.close(forget=True)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_named_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    box = Outbox(path, "one")
    for name in "abc":
        box.append(finished("one", name))
    box.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        (data,) = db.execute("SELECT data FROM events WHERE seq = 2").fetchone()
        db.execute("UPDATE events SET data = ? WHERE seq = 2", (data[:-9] + b"x" + data[-8:],))
        db.commit()
    again = Outbox(path, "one")
    assert names([item.event for item in again.after(0)]) == ["a", "c"]
    assert again.damaged == ("event 2 is damaged",)
    again.append(finished("one", "d"))
    assert [item.seq for item in again.after(0)] == [1, 3, 4]
    again.close()


def test_events_of_another_farm_are_named_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Outbox(tmp_path / "x.db", "one")
    box.append(finished("one", "a"))
    box.close()
    monkeypatch.setattr(outbox_file, "tree_sha256", lambda: "another")
    again = Outbox(tmp_path / "x.db", "one")
    assert again.after(0) == []
    assert again.damaged == ("event 1 is of another version of farm",)
    again.append(finished("one", "b"))
    again.close()
    third = Outbox(tmp_path / "x.db", "one")
    assert names([item.event for item in third.after(0)]) == ["b"]
    third.close()


def test_two_agents_and_two_runs_never_share_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_file, "_LOCK_S", 0.05)
    box = Outbox(tmp_path / "x.db", "one")
    with pytest.raises(StoreError, match="locked"):
        Outbox(tmp_path / "x.db", "one")
    box.close()
    with pytest.raises(StoreError, match="is of run one, not of two"):
        Outbox(tmp_path / "x.db", "two")


def test_a_full_disk_keeps_events_in_memory_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Outbox(tmp_path / "x.db", "one")
    assert box._file is not None
    box._file._db.execute("PRAGMA max_page_count = 1")
    big = replace(finished("one", "a"), at="x" * 100_000)
    box.append(big)
    assert names([item.event for item in box.after(0)]) == ["a"]
    assert "full" in box.damaged[0]
    assert "full" in caplog.text
    box.close()


def test_a_resumed_run_gets_results_for_the_same_work_only(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "x.db", "one")
    box.append(JobStarted(AttemptId("one", 1, "a", 1), "d", "now"))
    box.append(measured("a"), "work-a")
    box.append(measured("b"), "work-b")
    box.append(finished("one", "c"), "work-c")
    box.supersede(2)
    assert box.after(0) == []  # nothing of an earlier epoch is delivered by itself
    assert not box.adopt(AttemptId("one", 2, "a", 1), "other work")
    assert not box.adopt(AttemptId("one", 2, "c", 1), "work-c")  # it had no result
    assert box.adopt(AttemptId("one", 2, "a", 1), "work-a")
    assert not box.adopt(AttemptId("one", 2, "a", 2), "work-a")  # once
    box.close()
    again = Outbox(tmp_path / "x.db", "one")
    again.supersede(2)
    started, ended = (item.event for item in again.after(0))
    assert isinstance(started, JobStarted)
    assert isinstance(ended, JobFinished)
    assert ended.attempt_id == AttemptId("one", 2, "a", 1)
    assert ended.result == b.run_result()
    assert again.adopt(AttemptId("one", 2, "b", 1), "work-b")  # kept through the restart
    again.close()


def test_an_earlier_controller_of_a_run_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        agent = SiteAgent(tmp_path / "home", outboxes=tmp_path / "outboxes")
        await agent.attach("one", 2)
        with pytest.raises(PlanError, match="was resumed"):
            await agent.attach("one", 1)
        await agent.close()

    asyncio.run(scenario())


def test_what_happened_to_devices_before_a_run_is_told_to_it(tmp_path: Path) -> None:
    from farm.core.events import DeviceRecovery

    async def scenario() -> None:
        agent = SiteAgent(tmp_path / "home")
        event = DeviceRecovery("d", "reboot", "now", True, "")
        agent._emit(event)
        assert [item.event for item in (await agent.poll("one", 0, 0.0)).events] == [event]
        agent._emit(event)
        assert len((await agent.poll("one", 0, 0.0)).events) == 2
        assert (await agent.poll("two", 0, 0.0)).events == ()
        agent._emit(event)  # both listen now
        assert len((await agent.poll("two", 0, 0.0)).events) == 1
        await agent.close()

    asyncio.run(scenario())
