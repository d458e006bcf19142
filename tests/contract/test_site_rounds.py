"""Launches of a job: regimes, as many as are needed, and a baseline beside the candidate."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace

from farm.core.errors import RunnerCrashed
from farm.core.runner import DeployFile
from farm.core.runtime import (
    Arm,
    BaselineArm,
    DeviceJob,
    DeviceRunResult,
    LaunchPolicy,
    LaunchRequest,
    Measure,
)
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD, PROGRAM, ToyRunner

TIMED = LaunchRequest(1, measures=(Measure("tg64", 0, 64, 0, 1, 0),), timeout_s=60.0)
COLD = replace(TIMED, cold=True)
THEIRS = replace(TIMED, arm="baseline")
SLOW = 'printf \'{"sample": [64, 0.6]}\\n{"done": true}\\n\'\n'
#: Every other launch takes twice as long.
WILD = """
count=$(cat count 2>/dev/null || echo 1)
echo $((3 - count)) > count
printf '{"sample": [64, 0.%s]}\\n{"done": true}\\n' "$count"
"""
CRASH = 'printf \'{"error": "broken weights"}\\n\'; exit 1\n'


def policy(*block: LaunchRequest, **changes: object) -> LaunchPolicy:
    values: dict[str, object] = {
        "block": block or (TIMED,), "least": 2, "most": 6, "budget_s": 100.0,
        "precision": 0.05, "regress": 0.05,
    }  # fmt: skip
    return LaunchPolicy(**(values | changes))  # type: ignore[arg-type]


def paired(bench: SiteBench, theirs: str, ours: str = GOOD) -> DeviceJob:
    """A job of two arms whose baseline runs another model with the same runner."""
    job = bench.job(ours, launches=(TIMED, THEIRS), policy=policy(TIMED, THEIRS, THEIRS, TIMED))
    model = bench.store.put_bytes(theirs.encode(), "model.pte")
    bench.store.put_bytes(PROGRAM, "toy")
    toy = ToyRunner(bench.folder / "toy")
    facts = bench.agent._devices["here"].facts
    assert facts is not None
    build = toy.build(facts.abi, facts, bench.home, job.sdk)
    return replace(job, baseline=BaselineArm("old", (DeployFile(model, "model.pte"),), build))


async def result_of(bench: SiteBench, job: DeviceJob) -> DeviceRunResult:
    finished = await bench.run(job)
    assert finished.error is None, finished.error
    assert finished.result is not None
    assert bench.left_behind() == []
    return finished.result


def arms(result: DeviceRunResult) -> list[Arm]:
    return [launch.arm for launch in result.launches]


def test_regimes_of_launches(bench: SiteBench) -> None:
    """First-ever comes before cold when the job brought the files; warm follows a launch."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(bench.folder)], capture_output=True, text=True, check=True
    ).stdout.strip()
    cold = None if kind == "tmpfs" else "cold"

    async def scenario() -> None:
        job = bench.job(GOOD, launches=(COLD, TIMED), policy=policy(most=2))
        first = await result_of(bench, job)
        assert [launch.regime for launch in first.launches] == [
            "first_ever", cold, "warm", "warm", "warm",
        ]  # fmt: skip
        again = await result_of(bench, replace(job, job_id="cell:b"))
        assert [launch.regime for launch in again.launches] == [cold, "warm", "warm", "warm"]
        unknown = await result_of(bench, bench.job(GOOD, name="cell:c"))
        assert [launch.regime for launch in unknown.launches] == [None]
        await bench.agent.close()

    asyncio.run(scenario())


def test_launches_end_when_they_are_enough_or_the_most(bench: SiteBench) -> None:
    async def scenario() -> None:
        steady = await result_of(bench, bench.job(GOOD, launches=(), policy=policy()))
        assert len(steady.launches) == 2
        assert steady.stop is not None
        assert steady.stop.reason == "precise"
        wild = await result_of(bench, bench.job(WILD, name="b", launches=(), policy=policy()))
        assert wild.stop is not None
        assert wild.stop.reason == "most"
        assert len(wild.launches) == 6
        await bench.agent.close()

    asyncio.run(scenario())


def test_a_baseline_alternates_in_one_lease(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.run(bench.job(GOOD, name="warm-up"))
        result = await result_of(bench, paired(bench, SLOW))
        assert arms(result)[:2] == ["candidate", "baseline"]
        timed = arms(result)[2:]
        assert timed[:4] == ["candidate", "baseline", "baseline", "candidate"]
        assert timed == timed[:4] * (len(timed) // 4)
        seconds = {(s.arm, s.duration_s) for launch in result.launches for s in launch.samples}
        assert seconds == {("candidate", 0.5), ("baseline", 0.6)}
        assert not result.unpaired
        await bench.agent.close()

    asyncio.run(scenario())


def test_the_same_bytes_are_not_measured_against_themselves(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.run(bench.job(GOOD, name="warm-up"))
        result = await result_of(bench, paired(bench, GOOD))
        assert result.same_as_baseline
        assert set(arms(result)) == {"candidate"}
        await bench.agent.close()

    asyncio.run(scenario())


def test_a_baseline_that_fails_is_given_up_and_the_candidate_goes_on(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.run(bench.job(GOOD, name="warm-up"))
        result = await result_of(bench, paired(bench, CRASH))
        assert set(arms(result)) == {"candidate"}
        assert len(result.launches) >= 3
        assert "broken weights" in result.unpaired
        finished = await bench.run(replace(paired(bench, GOOD, ours=CRASH), job_id="cell:b"))
        assert isinstance(finished.error, RunnerCrashed)
        await bench.agent.close()

    asyncio.run(scenario())


def test_a_runner_of_another_abi_stays_alone(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.run(bench.job(GOOD, name="warm-up"))
        job = paired(bench, SLOW)
        assert job.baseline is not None
        foreign = replace(job.baseline, runner=replace(job.baseline.runner, abi="riscv64"))
        result = await result_of(bench, replace(job, baseline=foreign))
        assert result.unpaired == "the baseline's runner is for riscv64"
        assert set(arms(result)) == {"candidate"}
        await bench.agent.close()

    asyncio.run(scenario())
