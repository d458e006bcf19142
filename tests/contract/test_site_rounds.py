"""Launches of a job: regimes, as many as are needed, and a baseline beside the candidate."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace

from farm.core.errors import RunnerCrashed
from farm.core.rules.window_turns import IN_TURN
from farm.core.runner import DeployFile
from farm.core.runtime import (
    Arm,
    BaselineArm,
    DeviceJob,
    DeviceRunResult,
    LaunchPolicy,
    LaunchRequest,
    Measure,
    SustainedLaunch,
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
#: Takes turns: two windows, of which it says that they are so long.
TURNS = """
printf '{"takes_turns": true, "peak": %d}\\n'
test "$3" = turns && %s
for rep in 0 1; do
  test "$3" = turns && printf '{"type":"turn","metric":"tg64","rep":%%d,"warmup":false}\\n' $rep
  test "$3" = turns && read -r go
  printf '{"sample": [64, 0.%d]}\\n'
done
printf '{"done": true}\\n'
"""
MEBI = 1 << 20
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


def few(job: DeviceJob) -> DeviceJob:
    """The job with one block of launches."""
    assert job.policy is not None
    return replace(job, policy=replace(job.policy, most=2))


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


def test_arms_that_can_work_in_turn_do(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.run(bench.job(GOOD, name="warm-up"))
        ours, theirs = TURNS % (MEBI, "true", 5), TURNS % (MEBI, "true", 6)
        result = await result_of(bench, paired(bench, theirs, ours))
        assert dict(result.conditions)["turns"] == IN_TURN
        alone, timed = result.launches[:2], result.launches[2:]
        assert not any(launch.in_turn for launch in alone)
        assert all(launch.in_turn and launch.regime == "warm" for launch in timed)
        # Pairs share a launch; who leads changes from one to the next.
        order = ["candidate", "baseline", "baseline", "candidate"]
        assert [launch.arm for launch in timed] == order * (len(timed) // 4)
        numbers = [launch.samples[0].launch for launch in timed]
        assert numbers == [2 + n // 2 for n in range(len(timed))]
        seconds = {(s.arm, s.duration_s) for launch in timed for s in launch.samples}
        assert seconds == {("candidate", 0.5), ("baseline", 0.6)}
        assert [one.launch for one in result.telemetry] == [0, 1, *dict.fromkeys(numbers)]
        await bench.agent.close()

    asyncio.run(scenario())


def test_arms_go_launch_by_launch_where_turns_fail_or_memory_holds_one(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.run(bench.job(GOOD, name="warm-up"))
        small, huge = TURNS % (MEBI, "true", 5), TURNS % (MEBI << 30, "true", 6)
        large = await result_of(bench, few(paired(bench, huge, small)))
        assert "MiB are free" in dict(large.conditions)["turns"]
        assert not any(launch.in_turn for launch in large.launches)
        broken = TURNS % (MEBI, "exit 7", 6)
        job = replace(few(paired(bench, broken, small)), job_id="cell:b")
        given_up = await result_of(bench, job)
        told = dict(given_up.conditions)["turns"]
        assert "launch by launch: turns were given up" in told
        assert "baseline ended with exit code 7" in told
        assert arms(given_up)[2:6] == ["candidate", "baseline", "baseline", "candidate"]
        assert not any(launch.in_turn for launch in given_up.launches)
        assert not given_up.unpaired
        await bench.agent.close()

    asyncio.run(scenario())


def test_the_same_bytes_are_not_measured_against_themselves(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.run(bench.job(GOOD, name="warm-up"))
        job = paired(bench, GOOD)
        result = await result_of(bench, job)
        assert result.same_as_baseline
        assert set(arms(result)) == {"candidate"}
        # But for where it is the gate that is tried.
        assert job.baseline is not None
        itself = replace(job.baseline, even_if_same=True)
        tried = await result_of(bench, replace(job, job_id="cell:b", baseline=itself))
        assert not tried.same_as_baseline
        assert set(arms(tried)) == {"candidate", "baseline"}
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


def test_decoding_without_a_pause_comes_last_and_its_telemetry_is_its_own(bench: SiteBench) -> None:
    long = SustainedLaunch(replace(TIMED, timeout_s=60.0), 2.0)

    async def scenario() -> None:
        job = bench.job(GOOD, launches=(TIMED,), policy=policy(most=2, least=2))
        plain = await result_of(bench, job)
        assert plain.sustained is None
        found = await result_of(bench, replace(job, job_id="cell:b", sustained=long))
        assert len(found.launches) == len(plain.launches)
        assert len(found.telemetry) == len(found.starts) == len(plain.telemetry)
        assert found.sustained is not None
        assert found.sustained.launch is not None
        assert found.sustained.telemetry is not None
        assert found.sustained.telemetry not in found.telemetry
        unlike = replace(long, request=replace(TIMED, measures=(Measure("tg9", 0, 9, 0, 1, 0),)))
        none = await result_of(bench, replace(job, job_id="cell:c", sustained=unlike))
        assert none.sustained is not None
        assert none.sustained.launch is None
        assert "no launch before gave a rate of tg9" in none.sustained.reason
        await bench.agent.close()

    asyncio.run(scenario())
