"""Whose code ran: what a result says of it, and which host run a runner is held against."""

from __future__ import annotations

from dataclasses import replace

from farm.core.events import JobFinished
from farm.core.result import CellResult
from farm.core.runner import TUNED, RunnerSpec
from farm.core.runtime import LaunchResult
from farm.core.tasks import CompareTask, HostRunTask
from tests.unit.core import builders as b
from tests.unit.core.flow.player import Player

ATTENTION = ("llama::custom_sdpa.out=farm", "llama::update_cache.out=farm")


def launched(*kernels: str) -> LaunchResult:
    hello = replace(b.HELLO, kernels=kernels)
    return LaunchResult(hello, (), (), None, None, None, None, 1, "none")


def result_of(*launches: LaunchResult) -> CellResult:
    play = Player(b.run_spec(), b.device("a"))
    (job,) = play.until_jobs()
    play.open_jobs.clear()
    build = replace(b.BUILD, files=b.files("farm-runner", "lib/libexecutorch.so"))
    run = replace(b.run_result(), runner=build, launches=launches)
    play.feed(JobFinished(job.attempt_id, "a", "t", run, None))
    while play.open_tasks:
        play.end_task(play.open_tasks[0])
    (result,) = play.flow.results.values()
    return result


def test_a_row_says_that_attention_is_ours_and_what_the_runner_ships() -> None:
    result = result_of(launched(*ATTENTION))
    assert "own_attention" in result.flags
    assert result.runner.own_code == ("llama::custom_sdpa.out", "llama::update_cache.out")
    assert [file.path for file in result.runner.files] == ["farm-runner", "lib/libexecutorch.so"]
    assert all(file.sha256 and file.size_bytes for file in result.runner.files)


def test_executorchs_own_operators_are_no_code_of_ours() -> None:
    result = result_of(launched("llama::custom_sdpa.out=executorch"))
    assert "own_attention" not in result.flags
    assert result.runner.own_code == ()


def test_the_baseline_arms_code_is_not_the_candidates() -> None:
    other = replace(launched(*ATTENTION, "xnnpack::qd8_f32_qb4w=farm"), arm="baseline")
    result = result_of(launched("llama::custom_sdpa.out=executorch"), other)
    assert result.runner.own_code == ()


def test_without_a_launch_nothing_is_known() -> None:
    assert result_of().runner.own_code is None


def test_the_tuned_runner_is_held_against_itself_and_every_other_against_executorch() -> None:
    spec = b.run_spec()
    spec = replace(spec, matrix=replace(spec.matrix, runner=("executorch", TUNED, "vendor")))
    catalog = b.catalog(spec)
    tuned = RunnerSpec(TUNED, TUNED)
    vendor = RunnerSpec("vendor", "command")
    runners = {**catalog.runners, TUNED: tuned, "vendor": vendor}
    play = Player(spec, b.device("a"), catalog=replace(catalog, runners=runners))
    play.until_jobs()
    asked = {task.runner.name: task for task in play.tasks_of(HostRunTask)
             if isinstance(task, HostRunTask)}  # fmt: skip
    assert set(asked) == {"executorch", TUNED}, "one host run for each build, however many cells"
    assert len({task.task_id for task in asked.values()}) == 2
    for job in list(play.open_jobs):
        play.end_job(job)
    while play.open_jobs or not play.tasks_of(CompareTask):
        for job in list(play.open_jobs):
            play.end_job(job)
        if play.tasks_of(HostRunTask):
            play.end_task(play.tasks_of(HostRunTask)[0])
    assert len(play.play()) == 3
