"""The control socket: what those who watch a run are told, and how it is ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import get_args

import pytest

from farm.core.errors import ConfigError, DeviceLost, FarmError, StoreError
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.view import (
    CellDone,
    DeviceNote,
    Preparing,
    RunEnded,
    RunStarted,
    SecondSittings,
    TaskFinished,
    TaskProgress,
    TaskStarted,
    ViewEvent,
)
from farm.run import control
from farm.run.control import SOCKET, ControlServer, EventLog, from_line, to_line
from tests.unit.core.builders import attempt_id
from tests.unit.reports.builders import results

JOB = attempt_id("cell:a")
EVENTS: list[ViewEvent] = [
    Preparing("starting Ray"),
    RunStarted("run", "tiny", (("cell:a", "phone"),), "runs/run"),
    TaskStarted("export", "m/r", 12.0),
    TaskProgress("export", "m/r", "lower", 2, 6, 1.5, "x", 10, 20),
    TaskFinished("export", "m/r", 3.0, cache_hit=False, error="no"),
    JobStarted(JOB, "phone", "now"),
    JobProgress(
        JOB,
        "phone",
        "measure",
        1,
        4,
        "launches",
        rate=("tg128", 12.5),
        heat=(30.0, None),
        speeds=(("tg128", 12.4, 0.02), ("pp64", 90.0, None)),
        budget=(10.0, 60.0),
    ),
    JobFinished(JOB, "phone", "later", None, DeviceLost("gone", device="phone")),
    DeviceNote("phone", "is back"),
    *(CellDone(result) for result in results()),
    SecondSittings(("cell:a",)),
    RunEnded("1/1 judged -> exit 0", 0),
]


def test_every_kind_of_event_is_tried() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(ViewEvent))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_the_wire(event: ViewEvent) -> None:
    seq, read = from_line(to_line(7, event))
    assert seq == 7
    if isinstance(event, JobFinished):
        assert isinstance(read, JobFinished)
        assert str(read.error) == str(event.error)
    else:
        assert read == event


@pytest.mark.parametrize("line", [b"{}", b"x", b'{"seq":1,"kind":"Other","event":{}}', b"[1]"])
def test_what_no_farm_wrote_is_an_error(line: bytes) -> None:
    with pytest.raises(FarmError, match="another version"):
        from_line(line)


def test_the_log_grows_with_the_plan_and_not_with_the_time() -> None:
    log = EventLog()
    for n in range(1000):
        log.add(JobProgress(JOB, "phone", "measure", n, 1000))
        log.add(TaskProgress("export", "m/r", "lower", n, 6, float(n)))
        log.add(DeviceNote("phone", f"note {n}"))
    kept = log.after(0)
    assert [seq for seq, _ in kept] == [2998, 2999, 3000]
    log.add(JobFinished(JOB, "phone", "later", None, None))
    log.add(TaskFinished("export", "m/r", 3.0, cache_hit=False))
    assert not any(isinstance(e, JobProgress | TaskProgress) for _, e in log.after(0))
    assert [seq for seq, _ in log.after(3001)] == [3002]


def serve(folder: Path, late: list[ViewEvent]) -> list[list[ViewEvent]]:
    """Two watchers of one run: one from the start, one that comes near the end."""

    async def run() -> list[list[ViewEvent]]:
        server = ControlServer(folder)
        async with server.serving():
            early = asyncio.create_task(asyncio.to_thread(lambda: list(control.watch(folder))))
            for event in EVENTS[:5]:
                server.emit(event)
            await asyncio.sleep(0.05)
            assert (folder / SOCKET).stat().st_mode & 0o777 == 0o600
            second = asyncio.create_task(asyncio.to_thread(lambda: list(control.watch(folder))))
            await asyncio.sleep(0.05)
            for event in late:
                server.emit(event)
            found = [await early, await second]
        assert not (folder / SOCKET).exists()
        return found

    return asyncio.run(run())


def test_all_who_watch_see_the_run_to_its_end(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)  # longer than a socket's address may be
    deep.mkdir()
    (deep / SOCKET).touch()  # of a run that was killed
    for seen in serve(deep, EVENTS[5:]):
        assert [type(event) for event in seen][-1] is RunEnded
        assert sum(isinstance(event, CellDone) for event in seen) == len(results())
        assert [type(event) for event in seen[:2]] == [Preparing, RunStarted]


def test_cancel_is_ctrl_c(tmp_path: Path) -> None:
    async def run() -> None:
        interrupted = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
        try:
            async with ControlServer(tmp_path).serving():
                await asyncio.to_thread(control.cancel, tmp_path)
                await asyncio.wait_for(interrupted.wait(), 5)
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    asyncio.run(run())


def test_one_cell_is_cancelled_by_name(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def cancels(cell_id: str, by: str) -> str:
        asked.append((cell_id, by))
        return "" if cell_id == "cell:a" else f"this run has no cell {cell_id!r}"

    async def run() -> None:
        server = ControlServer(tmp_path)
        async with server.serving():
            with pytest.raises(ConfigError, match="has not begun"):
                await asyncio.to_thread(control.cancel, tmp_path, "cell:a", "ann@desk")
            server.cancels(cancels)
            await asyncio.to_thread(control.cancel, tmp_path, "cell:a", "ann@desk")
            with pytest.raises(ConfigError, match="no cell 'cell:b'"):
                await asyncio.to_thread(control.cancel, tmp_path, "cell:b", "ann@desk")

    asyncio.run(run())
    assert asked == [("cell:a", "ann@desk"), ("cell:b", "ann@desk")]


def test_a_request_from_elsewhere_gets_the_events_there_are(tmp_path: Path) -> None:
    async def run() -> None:
        server = ControlServer(tmp_path)
        for event in EVENTS[:2]:
            server.emit(event)
        first = await server.answer({"events": 0})
        assert [from_line(line) for line in first] == [(1, EVENTS[0]), (2, EVENTS[1])]
        later = asyncio.create_task(server.answer({"events": 2}))
        await asyncio.sleep(0)
        server.emit(EVENTS[-1])
        assert [from_line(line)[1] for line in await later] == [EVENTS[-1]]
        assert json.loads((await server.answer({"x": 1}))[0]) == {
            "error": "ask for events or cancel"
        }

    asyncio.run(run())


def test_strange_requests_end_nothing(tmp_path: Path) -> None:
    def ask(text: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / SOCKET))
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            return client.makefile("rb").read()

    async def run() -> list[bytes]:
        async with ControlServer(tmp_path).serving():
            return [
                await asyncio.to_thread(ask, text)
                for text in (b"", b"GET / HTTP/1.1\n", b'{"cancel": "all"}\n', b'{"cancel": 1}\n')
            ]

    answers = asyncio.run(run())
    assert answers[:2] == [b"", b""]
    assert all(b"error" in answer for answer in answers[2:3])
    assert json.loads(answers[2]) == {"error": "ask for events or cancel"}


def test_nobody_serves(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run is going on"):
        list(control.watch(tmp_path))
    with pytest.raises(StoreError, match="no run is going on"):
        control.cancel(tmp_path)


def test_a_folder_that_takes_no_socket_stops_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with ControlServer(tmp_path / "gone").serving():
            pass

    asyncio.run(run())
    assert "can't reach this run" in caplog.text
    assert os.listdir(tmp_path) == []
