from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from farm.core.telemetry import Calibration, CoreSpeed, LaunchTelemetry, Usual
from farm.site.look.speeds import usual_speeds


def launch(
    *cores: CoreSpeed, after: tuple[CoreSpeed, ...] = (), memory_ns: int | None = None
) -> LaunchTelemetry:
    return LaunchTelemetry(
        1,
        samples=1,
        seconds=1.0,
        cost=0.0,
        before=Calibration(cores, 1.0, 0.0, memory_ns),
        after=Calibration(after, 1.0, 0.0) if after else None,
    )


def test_what_is_usual_is_the_median_of_earlier_jobs(tmp_path: Path) -> None:
    for unit_ns in (210, 200, 300, 220, 205):
        assert (
            usual_speeds(tmp_path, "pi", [launch(CoreSpeed(0, unit_ns, unit_ns // 2))]) == Usual()
        )
    slow = launch(CoreSpeed(0, 400, 200))
    assert usual_speeds(tmp_path, "pi", [slow]) == Usual((CoreSpeed(0, 210, 105),))
    # The slow job counts from now on, as one of six.
    assert usual_speeds(tmp_path, "pi", [slow]) == Usual((CoreSpeed(0, 220, 110),))
    assert usual_speeds(tmp_path, "another", [slow]) == Usual()


def test_a_job_counts_with_its_fastest_units(tmp_path: Path) -> None:
    said = [
        launch(
            CoreSpeed(0, 300, 90), CoreSpeed(1, 310), after=(CoreSpeed(0, 250, 120),), memory_ns=80
        ),
        launch(CoreSpeed(0, 280, 100), CoreSpeed(1, 305)),
    ]
    for _ in range(5):
        usual_speeds(tmp_path, "pi", said)
    cores = (CoreSpeed(0, 250, 90), CoreSpeed(1, 305, None))
    assert usual_speeds(tmp_path, "pi", said) == Usual(cores, memory_ns=80)


def test_a_job_without_fixed_work_says_nothing(tmp_path: Path) -> None:
    nothing = LaunchTelemetry(1, samples=0, seconds=0.0, cost=0.0)
    assert usual_speeds(tmp_path, "pi", [nothing]) == Usual()
    assert list(tmp_path.iterdir()) == []


def test_old_jobs_are_forgotten_and_other_work_is_not_compared(tmp_path: Path) -> None:
    for unit_ns in range(100, 150):
        usual_speeds(tmp_path, "pi", [launch(CoreSpeed(0, unit_ns))])
    path = tmp_path / "speeds.json"
    data = json.loads(path.read_text())
    assert [job["chained 0"] for job in data["pi"]["jobs"]] == list(range(129, 150))
    data["pi"]["work"] = "something else"
    path.write_text(json.dumps(data))
    assert usual_speeds(tmp_path, "pi", [launch(CoreSpeed(0, 100))]) == Usual()
    assert len(json.loads(path.read_text())["pi"]["jobs"]) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"pi": 3}', '{"pi": {"work": 1}}'])
def test_a_damaged_file_costs_the_comparison_not_the_job(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "speeds.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert usual_speeds(tmp_path, "pi", [launch(CoreSpeed(0, 100))]) == Usual()
