"""telemetry: raw lines of sensors, fixed work, and a sampler that lives as long as its job."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from farm.site.job.telemetry import summarise
from farm.site.parsers.telemetry import parse_telemetry

from .conftest import Helper


def tree(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        target = root / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def test_a_made_tree_is_read_and_named(helper: Helper, tmp_path: Path) -> None:
    cpu = "/sys/devices/system/cpu"
    tree(
        tmp_path,
        {
            f"{cpu}/cpufreq/policy4/scaling_max_freq": "2400000\n",
            # Where there are policies the cores' own files are the same ones.
            f"{cpu}/cpu4/cpufreq/scaling_max_freq": "2400000\n",
            "/sys/class/thermal/thermal_zone3/type": "skin\n",
            "/sys/class/thermal/thermal_zone3/temp": "31000\n",
            "/proc/self/cgroup": "4:cpu,cpuacct:/a/b\n0::/a/b\n1:name=x:/../../etc\n",
            "/sys/fs/cgroup/cpu,cpuacct/a/cpu.stat": "nr_throttled 1\n",
            "/sys/fs/cgroup/a/b/cpu.stat": "nr_throttled 2\n",
            "/proc/stat": "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n" + "x" * 9000,
        },
    )
    described, first = helper("telemetry", "--root", tmp_path).lines
    texts = {described["paths"][int(i)]: text for i, text in first["texts"].items()}
    assert texts == {
        f"{cpu}/cpufreq/policy4/scaling_max_freq": "2400000",
        "/sys/class/thermal/thermal_zone3/temp": "31000",
        "/sys/fs/cgroup/cpu,cpuacct/a/cpu.stat": "nr_throttled 1",
        "/sys/fs/cgroup/a/b/cpu.stat": "nr_throttled 2",
        "/proc/stat": "cpu  1 2 3 4 5 6 7 8 9 10",
    }
    assert described["names"] == {"/sys/class/thermal/thermal_zone3/type": "skin"}


def test_a_device_with_many_sensors_leaves_none_out(helper: Helper, tmp_path: Path) -> None:
    files = {f"/sys/class/thermal/thermal_zone{i}/temp": "31000\n" for i in range(400)}
    files |= {"/sys/class/power_supply/battery/status": "Full\n",
              "/etc/nvpmodel.conf": "# long\n< POWER_MODEL ID=1 NAME=25W >\nCPU 0\n"}  # fmt: skip
    tree(tmp_path, files)
    described, first = helper("telemetry", "--root", tmp_path).lines
    assert len(first["texts"]) == 401
    assert "/sys/class/power_supply/battery/status" in described["paths"]
    assert described["names"] == {"/etc/nvpmodel.conf": "< POWER_MODEL ID=1 NAME=25W >\n"}


def test_slow_sensors_are_read_in_every_tenth_sample(helper: Helper, tmp_path: Path) -> None:
    zone = "/sys/class/thermal/thermal_zone0/temp"
    tree(tmp_path, {zone: "31000\n", "/proc/stat": "cpu  1 2 3 4 5 6 7 8 9 10\n"})
    lines = helper("telemetry", "--root", tmp_path, "--count", 11, "--interval-s", 0.001).lines
    index = str(lines[0]["paths"].index(zone))
    assert [n for n, line in enumerate(lines[1:]) if index in line["texts"]] == [0, 10]


def test_fixed_work_on_every_core(helper: Helper) -> None:
    line = helper("telemetry", "--calibrate").lines[0]
    assert line["memory_ns"] > 0
    assert [core["cpu"] for core in line["cores"]] == sorted(os.sched_getaffinity(0))
    for core in line["cores"]:
        assert core["units"] >= 3
        assert core["unit_ns"] > 0
        assert core["wide_ns"] > 0
        assert core["unit_ns"] <= core["unit_mean_ns"]
        assert core["wide_ns"] <= core["wide_mean_ns"]
        both_ns = core["unit_mean_ns"] + core["wide_mean_ns"]
        assert (both_ns - 2) * core["units"] <= core["cpu_ns"] <= core["wall_ns"] * 1.01


@pytest.mark.parametrize("words", [("--interval-s", "soon"), ("--count", "-1"), ("x",)])
def test_odd_arguments_are_refused(helper: Helper, words: tuple[str, ...]) -> None:
    assert helper("telemetry", *words).code == 2


def supervised(helper: Helper, work: Path, script: str) -> dict[str, Any]:
    """Run a job with telemetry to its end and return its status."""
    words = ["--work", work, "--stale-s", 60, "--max-output-bytes", 1000, "--telemetry-s", 0.1]
    assert helper("supervise", *words, "--", "/bin/sh", "-c", script).code == 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        poll = ("--stdout-offset", 0, "--wait-s", 1, "--max-bytes", 1000)
        status = json.loads(helper("poll", "--work", work, *poll).out.split(b"\n", 1)[0])
        if status["state"] != "running":
            return dict(status)
    raise AssertionError("the job didn't end")


def test_a_job_is_sampled_between_two_points_of_fixed_work(helper: Helper, tmp_path: Path) -> None:
    status = supervised(helper, tmp_path, "sleep 0.7")
    assert (status["state"], status["exit_code"]) == ("exited", 0)
    recording = parse_telemetry((tmp_path / "telemetry.jsonl").read_bytes())
    assert len(recording.calibrations) == 2
    assert len(recording.readings) >= 3
    assert any(path.startswith("/proc/") and path.endswith("/stat") for path in
               recording.readings[0].texts)  # fmt: skip
    found = summarise(recording, 0, ())
    assert found.idle is not None
    assert found.others is not None


def test_a_job_that_fails_leaves_no_sampler(helper: Helper, tmp_path: Path) -> None:
    status = supervised(helper, tmp_path, "sleep 0.3; kill -SEGV $$")
    assert status["signal"] == 11
    recording = parse_telemetry((tmp_path / "telemetry.jsonl").read_bytes())
    assert len(recording.calibrations) == 1
    size = (tmp_path / "telemetry.jsonl").stat().st_size
    time.sleep(0.4)
    assert (tmp_path / "telemetry.jsonl").stat().st_size == size


def test_telemetry_that_cannot_be_written_is_told_at_the_start(
    helper: Helper, tmp_path: Path
) -> None:
    (tmp_path / "telemetry.jsonl").mkdir()
    words = ["--work", tmp_path, "--stale-s", 9, "--max-output-bytes", 9, "--telemetry-s", 0.1]
    assert helper("supervise", *words, "--", "/bin/true").error == "cannot_open"
