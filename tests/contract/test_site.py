"""What every site has to do, on the in-process agent with this machine as its device."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.core.device import DeviceEntry
from farm.core.errors import (
    BadOutput,
    DeviceLost,
    DeviceUnfit,
    FarmError,
    Interrupted,
    PlanError,
    RunnerCrashed,
    RunnerTimeout,
    TransferError,
)
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.runtime import LaunchRequest
from farm.protocols import Transport
from farm.transports import open as open_transport
from tests.contract.site_bench import SiteBench, sim_bench
from tests.contract.toy_runner import GOOD
from tests.pace import slack

FOREVER = 'echo \'{"progress": ["decode", 1, 9]}\'; sleep 1000 & sleep 1000'


def test_job_gives_a_result_with_logits_and_leaves_nothing(bench: SiteBench) -> None:
    async def scenario() -> None:
        launches = (LaunchRequest(1), LaunchRequest(2))
        job = bench.job(GOOD, launches=launches)
        await bench.start(job)
        events = await bench.events()
        assert isinstance(events[0], JobStarted)
        stages = [event.stage for event in events if isinstance(event, JobProgress)]
        assert list(dict.fromkeys(stages)) == ["lease", "deploy", "check", "collect", "clean"]
        rates = [event.rate for event in events if isinstance(event, JobProgress) and event.rate]
        assert rates == [("tg64", 128.0), ("tg64", 128.0)]
        finished = events[-1]
        assert isinstance(finished, JobFinished)
        assert finished.error is None
        result = finished.result
        assert result is not None
        assert len(result.launches) == 2
        (name, ref) = result.launches[1].logits[0]
        assert (name, ref.rows, ref.cols) == ("decode", 2, 3)
        assert bench.store.path(ref.object).read_bytes() == bytes(24)
        assert [log.name for log in finished.logs] == [
            "launch-0.stdout", "launch-0.stderr", "launch-1.stdout", "launch-1.stderr",
        ]  # fmt: skip
        assert bench.store.path(finished.logs[1]).read_bytes() == b"a word on stderr\n"
        assert dict(result.conditions)["emulated"] == "false"
        assert result.deployed.pushed_bytes > 0
        assert bench.left_behind() == []

        again = await bench.run(bench.job(GOOD, name="cell:b"))
        assert again.result is not None
        assert again.result.deployed.pushed_bytes == 0
        assert again.result.deployed.skipped_bytes == result.deployed.pushed_bytes
        await bench.agent.close()

    asyncio.run(scenario())


def crashed(code: int | None, signal: int | None, *words: str) -> Callable[[FarmError], bool]:
    def check(error: FarmError) -> bool:
        text = error.message + str(error.context["stderr_tail"])
        return (
            isinstance(error, RunnerCrashed)
            and error.context["code"] == code
            and error.context["signal"] == signal
            and all(word in text for word in words)
        )

    return check


@pytest.mark.parametrize(
    ("model", "check"),
    [
        (
            "echo first >&2; echo no such file >&2; exit 3",
            crashed(3, None, "no such file", "first"),
        ),
        ("kill -9 $$", crashed(None, 9, "SIGKILL", "memory")),
        ("kill -11 $$", crashed(None, 11, "SIGSEGV")),
        ('echo \'{"error": "operator missing"}\'; exit 1', crashed(1, None, "operator missing")),
        ("printf '\\033[31mred\\033[0m\\007\\n' >&2; exit 4", crashed(4, None, "red")),
        ("exec ./nowhere", crashed(127, None, "nowhere")),
        ("echo hello", lambda e: isinstance(e, BadOutput) and e.context["raw"] == "hello\n"),
        ("head -c 5000 /dev/urandom", lambda e: isinstance(e, BadOutput)),
        ("yes", lambda e: isinstance(e, BadOutput) and "without end" in e.message),
        ("", lambda e: isinstance(e, BadOutput)),
        (
            GOOD.replace('"decode.f32"', '"../../../secret"', 1).replace(
                '"decode", "decode.f32"', '"decode", "../secret"'
            ),
            lambda e: isinstance(e, BadOutput) and "secret" in e.message,
        ),
        (
            GOOD.replace("sha=${sha%% *}", "sha=" + "0" * 64),
            lambda e: isinstance(e, TransferError) and "damaged" in e.message,
        ),
        (
            GOOD.replace("/dev/zero >", "/dev/zero | head -c 20 >"),
            lambda e: isinstance(e, TransferError),
        ),
    ],
)
def test_failure_of_a_runner_is_named_and_cleaned(
    bench: SiteBench, model: str, check: Callable[[FarmError], bool]
) -> None:
    async def scenario() -> None:
        finished = await bench.run(bench.job(model))
        assert finished.result is None
        assert finished.error is not None
        assert check(finished.error), repr(finished.error.context) + finished.error.message
        assert "\x1b" not in finished.error.message + str(finished.error.context)
        assert bench.left_behind() == []
        # The session is as good as new.
        assert (await bench.run(bench.job(GOOD, name="cell:b"))).error is None
        await bench.agent.close()

    asyncio.run(scenario())


def test_runner_that_never_ends_is_stopped_in_time(bench: SiteBench) -> None:
    async def scenario() -> None:
        model = "echo so far >&2\n" + FOREVER
        finished = await bench.run(bench.job(model, launches=(LaunchRequest(1, timeout_s=1.0),)))
        assert isinstance(finished.error, RunnerTimeout)
        assert finished.error.context["stderr_tail"] == "so far"
        assert [log.name for log in finished.logs] == ["launch-0.stdout", "launch-0.stderr"]
        assert bench.left_behind() == []
        await bench.agent.close()

    asyncio.run(scenario())


def test_job_has_a_limit_for_all_its_launches(bench: SiteBench) -> None:
    async def scenario() -> None:
        launches = (LaunchRequest(1, timeout_s=60.0),) * 2
        finished = await bench.run(
            bench.job("sleep 1\n" + GOOD, launches=launches, timeout_s=1.6), limit_s=10
        )
        assert isinstance(finished.error, RunnerTimeout)
        assert bench.left_behind() == []
        await bench.agent.close()

    asyncio.run(scenario())


def test_cancel_ends_running_and_queued_jobs_within_three_seconds(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.start(bench.job(FOREVER), bench.job(GOOD, name="cell:b"))
        await bench.until_stage("check")
        await asyncio.sleep(0.3)
        started = time.monotonic()
        await bench.agent.cancel("run-1", ["cell:a", "cell:b", "unknown"])
        events = await bench.events(until=2)
        assert time.monotonic() - started < 3.0 * slack()
        finished = [event for event in events if isinstance(event, JobFinished)]
        assert {event.job_id for event in finished} == {"cell:a", "cell:b"}
        assert all(isinstance(event.error, Interrupted) for event in finished)
        assert bench.left_behind() == []
        assert (await bench.run(bench.job(GOOD, name="cell:c"))).error is None
        await bench.agent.close()

    asyncio.run(scenario())


def test_close_ends_everything_within_four_seconds(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.start(bench.job(FOREVER), bench.job(FOREVER, name="cell:b"))
        await bench.until_stage("check")
        await asyncio.sleep(0.3)
        started = time.monotonic()
        await bench.agent.close()
        assert time.monotonic() - started < 4.0 * slack()
        assert bench.left_behind() == []
        events = await bench.events(until=2)
        assert all(isinstance(e.error, Interrupted) for e in events if isinstance(e, JobFinished))

    asyncio.run(scenario())


def test_jobs_of_a_controller_that_is_gone_are_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, orphan_grace_s=1.0)
        await bench.start(bench.job(FOREVER))
        await bench.until_stage("check")
        await asyncio.sleep(4.0)
        assert bench.left_behind() == []
        events = await bench.events()
        finished = events[-1]
        assert isinstance(finished, JobFinished)
        assert isinstance(finished.error, Interrupted)
        await bench.agent.close()

    asyncio.run(scenario())


def test_events_are_kept_until_they_are_acknowledged(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.start(bench.job(GOOD))
        while not (events := await bench.polled(0.5, 0)) or not isinstance(
            events[-1].event, JobFinished
        ):
            pass
        assert [item.seq for item in events] == list(range(1, len(events) + 1))
        assert await bench.polled(0.0, 0) == events
        assert await bench.polled(0.0, events[2].seq) == events[3:]
        started = time.monotonic()
        assert await bench.polled(0.3, events[-1].seq) == ()
        assert 0.25 < time.monotonic() - started < 2.0 * slack()
        await bench.agent.close()

    asyncio.run(scenario())


def test_poll_answers_as_soon_as_there_is_an_event(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.agent.inventory([bench.local], adb_auto=False)
        waiting = asyncio.create_task(bench.polled(30.0, 0))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await bench.agent.submit([bench.job(GOOD)])
        assert await waiting
        assert time.monotonic() - started < 1.0 * slack()
        await bench.events()
        await bench.agent.close()

    asyncio.run(scenario())


def test_job_that_needs_more_memory_than_there_is(bench: SiteBench) -> None:
    async def scenario() -> None:
        finished = await bench.run(bench.job(GOOD, ram_need_bytes=1 << 50))
        assert isinstance(finished.error, DeviceUnfit)
        assert "needs 1048576.0 GiB of RAM, has " in finished.error.message
        await bench.agent.close()

    asyncio.run(scenario())


def test_device_that_falls_silent_is_lost_within_the_limits(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = sim_bench(tmp_path, hang_word="poll")
        started = time.monotonic()
        finished = await bench.run(bench.job(GOOD, device="sim"))
        assert isinstance(finished.error, DeviceLost), finished.error
        assert time.monotonic() - started < 30
        assert (await bench.changed("recovering")).name == "sim"
        await bench.agent.close()

    asyncio.run(scenario())


def test_device_of_no_inventory_is_refused(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.agent.inventory([bench.local], adb_auto=False)
        with pytest.raises(PlanError, match=r"no device nowhere.*here"):
            await bench.agent.submit([bench.job(GOOD, device="nowhere")])
        await bench.agent.close()

    asyncio.run(scenario())


def test_inventory_keeps_every_entry_whatever_its_state(bench: SiteBench) -> None:
    async def scenario() -> None:
        entries = [
            bench.local,
            DeviceEntry("twin", "local", root=str(bench.folder / "twin")),
            DeviceEntry("odd", "carrier-pigeon"),
            DeviceEntry("old", "local", root=str(bench.folder / "old"), expect=(("os", "Beta 1"),)),
        ]
        here, twin, odd, old = await bench.agent.inventory(entries, adb_auto=False)
        assert here.facts is not None
        assert here.facts.kernel == platform.release()
        assert here.facts.cores == len(os.sched_getaffinity(0))
        assert (here.state, twin.state) == ("unfit", "unfit")
        assert "twin" in here.reason
        assert "here" in twin.reason
        assert odd.facts is None
        assert "carrier-pigeon" in odd.reason
        assert old.state == "unfit"
        (alone,) = await bench.agent.inventory([bench.local], adb_auto=False)
        assert (alone.state, alone.reason) == ("ready", "")
        await bench.agent.close()

    asyncio.run(scenario())


def test_handshake_names_the_tree_and_python(bench: SiteBench) -> None:
    first = asyncio.run(bench.agent.handshake())
    assert len(first.farm_tree_sha256) == 64
    assert first.python == platform.python_version()
    assert asyncio.run(bench.agent.handshake()) == first


def test_jobs_of_a_device_share_one_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path)
        opened: list[DeviceEntry] = []

        def counting(entry: DeviceEntry) -> Transport:
            opened.append(entry)
            return open_transport(entry)

        context = bench.agent._context
        bench.agent._context = dataclasses.replace(context, open_transport=counting)
        for name in ("cell:a", "cell:b"):
            assert (await bench.run(bench.job(GOOD, name=name))).error is None
        assert len(opened) == 2, "one for the inventory, one for both jobs"
        assert (await bench.run(bench.job("exit 1", name="cell:c"))).error is not None
        before = len(opened)
        assert (await bench.run(bench.job(GOOD, name="cell:d"))).error is None
        assert len(opened) == before + 1, "none is kept after a failure"
        started = time.monotonic()
        await bench.agent.close()
        assert time.monotonic() - started < 2.0 * slack()

    asyncio.run(scenario())


def test_kept_connection_that_broke_costs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path)
        opened: list[Transport] = []

        def keeping(entry: DeviceEntry) -> Transport:
            opened.append(open_transport(entry))
            return opened[-1]

        context = bench.agent._context
        bench.agent._context = dataclasses.replace(context, open_transport=keeping)
        assert (await bench.run(bench.job(GOOD))).error is None
        opened[-1].close()
        assert (await bench.run(bench.job(GOOD, name="cell:b"))).error is None
        await bench.agent.close()

    asyncio.run(scenario())
