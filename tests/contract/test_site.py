"""What every site has to do, on the in-process agent with this machine as its device."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.core.artifact import ObjectRef
from farm.core.device import DeviceEntry
from farm.core.errors import (
    BadOutput,
    DeviceLost,
    DeviceUnfit,
    FarmError,
    Interrupted,
    LeaseError,
    PlanError,
    RunnerCrashed,
    RunnerTimeout,
    StorageFull,
    StoreError,
    TransferError,
)
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.runtime import DeployFile, LaunchRequest
from farm.home import store_root
from farm.site.connection import Connection
from farm.site.context import Limits
from farm.site.helper import LeaseOwner
from farm.site.store import ContentStore
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD, PROGRAM

FOREVER = 'echo \'{"progress": ["decode", 1, 9]}\'; sleep 1000 & sleep 1000'


@pytest.fixture
def bench(tmp_path: Path) -> SiteBench:
    return SiteBench(tmp_path)


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
        await bench.agent.cancel(["cell:a", "cell:b", "unknown"])
        events = await bench.events(until=2)
        assert time.monotonic() - started < 3.0
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
        assert time.monotonic() - started < 4.0
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
        while not (events := await bench.agent.poll(0, 0.5)) or not isinstance(
            events[-1].event, JobFinished
        ):
            pass
        assert [item.seq for item in events] == list(range(1, len(events) + 1))
        assert await bench.agent.poll(0, 0.0) == events
        assert await bench.agent.poll(events[2].seq, 0.0) == events[3:]
        started = time.monotonic()
        assert await bench.agent.poll(events[-1].seq, 0.3) == []
        assert 0.25 < time.monotonic() - started < 2.0
        await bench.agent.close()

    asyncio.run(scenario())


def test_poll_answers_as_soon_as_there_is_an_event(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.agent.inventory([bench.local], adb_auto=False)
        waiting = asyncio.create_task(bench.agent.poll(0, 30.0))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await bench.agent.submit([bench.job(GOOD)])
        assert await waiting
        assert time.monotonic() - started < 1.0
        await bench.events()
        await bench.agent.close()

    asyncio.run(scenario())


def test_device_of_somebody_else_is_left_alone(bench: SiteBench) -> None:
    async def scenario() -> None:
        connection = Connection(bench.local, bench.home)
        theirs = LeaseOwner("ann@desk", "run-9", 4)
        connection.helper.take_lease(theirs, 60.0)
        (device,) = await bench.agent.inventory([bench.local], adb_auto=False)
        assert (device.state, device.owner) == ("leased", "ann@desk")
        finished = await bench.run(bench.job(GOOD))
        assert isinstance(finished.error, LeaseError)
        assert finished.error.retryable
        assert "ann@desk" in finished.error.message
        assert connection.helper.show_lease().owner == "ann@desk"
        connection.helper.release_lease(theirs)
        assert (await bench.run(bench.job(GOOD))).error is None
        await bench.agent.close()

    asyncio.run(scenario())


async def still_ours(bench: SiteBench, entry: DeviceEntry) -> None:
    """Nobody else gets the device while the job runs, though its first lease is over."""
    await asyncio.sleep(1.5)
    connection = Connection(entry, bench.home)
    with pytest.raises(LeaseError, match="held by"):
        connection.helper.take_lease(LeaseOwner("ann@desk", "run-9", 1), 1.0)
    connection.close()


def test_lease_is_renewed_while_the_runner_works(
    bench: SiteBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.site.lease.TTL_S", 1.0)
    monkeypatch.setattr("farm.site.lease.RENEW_AFTER_S", 0.2)

    async def scenario() -> None:
        words = "for i in 1 2 3 4 5 6 7 8; do sleep 0.3; echo '{}'; done\n"
        await bench.start(bench.job(words + GOOD))
        await bench.until_stage("check")
        await still_ours(bench, bench.local)
        finished = (await bench.events())[-1]
        assert isinstance(finished, JobFinished)
        assert finished.error is None, finished.error
        await bench.agent.close()

    asyncio.run(scenario())


def test_lease_is_renewed_during_a_long_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.site.lease.TTL_S", 1.0)
    monkeypatch.setattr("farm.site.lease.RENEW_AFTER_S", 0.2)

    async def scenario() -> None:
        bench = sim_bench(tmp_path, bytes_per_s=str(4 << 20))
        await bench.start(bench.job(GOOD + "exit 0\n" + "#" * (10 << 20), device="sim"))
        await bench.until_stage("deploy")
        await still_ours(bench, bench.entries[0])
        finished = (await bench.events())[-1]
        assert isinstance(finished, JobFinished)
        assert finished.error is None, finished.error
        await bench.agent.close()

    asyncio.run(scenario())


def test_overtaken_epoch_is_refused(bench: SiteBench) -> None:
    async def scenario() -> None:
        assert (await bench.run(bench.job(GOOD, epoch=2))).error is None
        finished = await bench.run(bench.job(GOOD, name="cell:b"))
        assert isinstance(finished.error, LeaseError)
        assert "overtaken" in finished.error.message
        await bench.agent.close()

    asyncio.run(scenario())


def test_job_that_needs_more_memory_than_there_is(bench: SiteBench) -> None:
    async def scenario() -> None:
        finished = await bench.run(bench.job(GOOD, ram_need_bytes=1 << 50))
        assert isinstance(finished.error, DeviceUnfit)
        assert "needs 1048576.0 GiB of RAM, has " in finished.error.message
        await bench.agent.close()

    asyncio.run(scenario())


def test_artifact_that_changed_on_the_device_is_found_before_the_verdict(bench: SiteBench) -> None:
    """Same size, same times: only the content tells."""
    model = GOOD + 'object=$(readlink -f model.pte); touch -r "$object" stamp\n'
    model += 'tr 1 2 < model.pte > changed; cat changed > "$object"; touch -r stamp "$object"\n'

    async def scenario() -> None:
        job = bench.job(model)
        finished = await bench.run(job)
        assert isinstance(finished.error, TransferError)
        assert "not what was deployed" in finished.error.message
        assert bench.left_behind() == []
        repaired = await bench.run(bench.job(GOOD, name="cell:b", artifact=job.artifact))
        assert repaired.error is not None  # it damages itself again
        sha = job.artifact[0].object.sha256
        assert bench.store.path(sha).read_bytes() == model.encode()
        await bench.agent.close()

    asyncio.run(scenario())


def test_damaged_object_on_the_device_is_replaced(bench: SiteBench) -> None:
    async def scenario() -> None:
        job = bench.job(GOOD)
        await bench.run(job)
        on_device = bench.root / "objects" / job.artifact[0].object.sha256
        on_device.write_text(GOOD.replace("1", "2"))
        finished = await bench.run(bench.job(GOOD, name="cell:b"))
        assert finished.error is None
        assert finished.result is not None
        assert finished.result.deployed.pushed_bytes == len(GOOD)
        assert on_device.read_text() == GOOD
        await bench.agent.close()

    asyncio.run(scenario())


def test_broken_push_is_resumed_and_a_damaged_rest_sent_whole(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.run(bench.job(GOOD))
        for index, part in enumerate((GOOD[:20], "x" * 20, GOOD + "more")):
            job = bench.job(f"# {index}\n" + GOOD, name=f"cell:{index}")
            text = f"# {index}\n" + GOOD
            ref = job.artifact[0].object
            begun = text[:20] if part == GOOD[:20] else part
            (bench.root / "objects" / f"{ref.sha256}.part").write_text(begun)
            finished = await bench.run(job)
            assert finished.error is None, finished.error
            assert finished.result is not None
            if index == 0:
                assert finished.result.deployed.pushed_bytes == ref.size_bytes - 20
        await bench.agent.close()

    asyncio.run(scenario())


def sim_bench(folder: Path, **script: str) -> SiteBench:
    entry = DeviceEntry("sim", "sim", root=str(folder / "sim"), sim=tuple(script.items()))
    limits = Limits(stale_s=9.0, poll_s=1.0, reconnect_s=3.0, clean_s=3.0)
    return SiteBench(folder, entries=(entry,), limits=limits)


def test_push_that_breaks_again_and_again_sends_each_byte_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = sim_bench(tmp_path, drop_after_bytes=str(3 << 20))
        job = bench.job(GOOD + "exit 0\n" + "#" * (8 << 20), device="sim")
        finished = await bench.run(job)
        assert finished.error is None, finished.error
        assert finished.result is not None
        deployed = finished.result.deployed
        size = job.artifact[0].object.size_bytes + len(PROGRAM)
        assert (deployed.pushed_bytes, deployed.skipped_bytes) == (size, 0)
        text = (tmp_path / "sim" / "objects" / job.artifact[0].object.sha256).read_text()
        assert len(text) == job.artifact[0].object.size_bytes
        await bench.agent.close()

    asyncio.run(scenario())


def test_device_that_fills_up_in_the_middle_of_a_push(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = sim_bench(tmp_path, storage_bytes=str(6 << 20))
        finished = await bench.run(bench.job("#" * (8 << 20), device="sim"))
        assert isinstance(finished.error, StorageFull)
        assert list((tmp_path / "sim" / "work").glob("*")) == []
        await bench.agent.close()

    asyncio.run(scenario())


def test_device_that_falls_silent_is_lost_within_the_limits(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = sim_bench(tmp_path, hang_word="poll")
        started = time.monotonic()
        finished = await bench.run(bench.job(GOOD, device="sim"))
        assert isinstance(finished.error, DeviceLost), finished.error
        assert time.monotonic() - started < 30
        assert (await bench.changed("offline")).name == "sim"
        await bench.agent.close()

    asyncio.run(scenario())


def test_object_that_left_the_store_is_named(bench: SiteBench) -> None:
    async def scenario() -> None:
        job = bench.job(GOOD)
        bench.store.remove(job.artifact[0].object.sha256)
        finished = await bench.run(job)
        assert isinstance(finished.error, StoreError)
        assert "model.pte" in finished.error.message
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


def test_ensure_brings_objects_of_another_store(bench: SiteBench, tmp_path: Path) -> None:
    other = ContentStore(store_root(tmp_path / "other"))
    ref = other.put_bytes(b"weights", "model.pte")

    async def scenario() -> None:
        await bench.agent.ensure([ref], str(tmp_path / "other"))
        assert bench.store.path(ref).read_bytes() == b"weights"
        await bench.agent.ensure([ref], str(bench.home))
        missing = ObjectRef("0" * 64, 3, "lost.pte")
        with pytest.raises(StoreError, match=r"lost\.pte"):
            await bench.agent.ensure([missing], str(tmp_path / "other"))
        with pytest.raises(StoreError, match=r"lost\.pte"):
            await bench.agent.ensure([missing], str(bench.home))
        await bench.agent.close()

    asyncio.run(scenario())


def test_external_weights_are_deployed_beside_the_program(bench: SiteBench) -> None:
    async def scenario() -> None:
        data = bench.store.put_bytes(b"ptd", "weights.ptd")
        job = bench.job(GOOD + 'test "$(cat weights.ptd)" = ptd || exit 5\n')
        job = bench.job(
            GOOD
            + 'test "$(cat weights.ptd)" = ptd || exit 5\ntest "$TOY" = "yes it\'s" || exit 6\n',
            artifact=(job.artifact[0], DeployFile(data, "weights.ptd")),
        )
        assert (await bench.run(job)).error is None
        await bench.agent.close()

    asyncio.run(scenario())
