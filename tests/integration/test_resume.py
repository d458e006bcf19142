"""Runs that were ended in the middle: killed, interrupted, cut off from disk or reader."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.command import Farm
from tests.integration.test_run import ONLY_LOCAL, TINY, cell
from tests.pace import slack

pytestmark = pytest.mark.export

NONE = ("--cluster", "none", "--live", "off")
#: As many launches as keep a device busy until the test ends it.
LONG = ("--set", "workload.launches=100", "--set", "workload.budget_s=600")


def journal(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(folder / "journal.db", timeout=5)) as db:
        return db.execute(query).fetchall()


def wait_for(running: subprocess.Popen[str], word: str) -> None:
    assert running.stdout is not None
    for line in running.stdout:
        if word in line:
            return
    raise AssertionError(f"{word!r} never came")


def latest(farm: Farm) -> Path:
    return (farm.cwd / "runs" / "latest").resolve()


@pytest.fixture(scope="module")
def done(warm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Farm:
    farm = Farm(warm_home, tmp_path_factory.mktemp("done"))
    run = farm("run", TINY, "--quick", *ONLY_LOCAL, "--cluster", "none")
    assert run.returncode == 0, run.stdout + run.stderr
    return farm


def copy(done: Farm, tmp_path: Path) -> Farm:
    """The finished run in a folder of its own, as if its compare had never come."""
    farm = Farm(done.home, tmp_path)
    subprocess.run(["cp", "-a", str(done.cwd / "runs"), str(tmp_path)], check=True)
    return farm


def unjudge(farm: Farm, *, measured: list[tuple[Any, ...]]) -> None:
    with contextlib.closing(sqlite3.connect(latest(farm) / "journal.db")) as db:
        db.execute("DELETE FROM cells")
        db.execute("DELETE FROM meta WHERE key = 'reported'")
        db.executemany("INSERT INTO measured VALUES (?, ?, ?)", measured)
        db.commit()


def test_killed_run_is_reported_and_goes_on_without_its_config(farm: Farm) -> None:
    running = farm.start("run", TINY, *ONLY_LOCAL, "--cluster", "none", "--quick", *LONG)
    wait_for(running, "measure")
    running.kill()
    running.communicate()
    folder = latest(farm)
    assert not (folder / "report.json").exists()

    shown = farm("report", "latest")
    assert shown.returncode == 0, shown.stderr
    assert "1 errored" in shown.stdout
    report = farm.report()
    assert report["exit_code"] == 3
    assert cell(report)["flags"] == ["not_ended"]
    assert "farm run --resume" in cell(report)["reason"]
    assert report["exports"][0]["artifact"]["sha256"]
    assert any("rebuilt from the journal" in alarm for alarm in report["alarms"])
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert "leased" in {event["kind"] for event in events}
    assert (folder / "junit.xml").exists()

    refused = farm("run", "--resume", "latest", "--select", "transport=adb", *NONE)
    assert refused.returncode == 2
    assert "--select" in refused.stderr
    again = farm("run", "--resume", "latest", *NONE)
    assert again.returncode == 0, again.stdout + again.stderr
    assert cell(farm.report())["outcome"] == "passed"
    assert farm.report()["exports"][0]["artifact"]["sha256"]


def test_device_that_is_gone_is_missing_and_no_cell_vanishes(done: Farm, tmp_path: Path) -> None:
    farm = copy(done, tmp_path)
    with contextlib.closing(sqlite3.connect(latest(farm) / "journal.db")) as db:
        from farm.run.journal import _checksum

        (plan,) = db.execute("SELECT value FROM meta WHERE key = 'plan'").fetchone()
        elsewhere = plan.replace('"site":""', '"site":"rack2"')
        assert elsewhere != plan
        db.execute(
            "UPDATE meta SET value = ?, checksum = ? WHERE key = 'plan'",
            (elsewhere, _checksum("meta", "plan", elsewhere)),
        )
        db.commit()
    unjudge(farm, measured=[])
    again = farm("run", "--resume", "latest", *NONE)
    assert again.returncode == 3, again.stdout + again.stderr
    result = cell(farm.report())
    assert (result["outcome"], result["flags"]) == ("errored", ["device_missing"])
    assert "rack2" in result["reason"]


@pytest.fixture(scope="module")
def measured(done: Farm, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The device's result of a run that was killed before its compare."""
    farm = copy(done, tmp_path_factory.mktemp("measured"))
    unjudge(farm, measured=[])
    keep = (
        "from farm.run import journal\njournal.JUDGED = ()\n"
        "import sys\nfrom farm.cli import main\nsys.argv[0] = 'farm'\nmain()"
    )
    run = subprocess.run(
        [_python(), "-c", keep, "run", "--resume", "latest", *NONE],
        cwd=farm.cwd,
        env=farm.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return journal(latest(farm), "SELECT * FROM measured")


def test_what_a_device_measured_is_only_compared(
    done: Farm, tmp_path: Path, measured: list[tuple[Any, ...]]
) -> None:
    farm = copy(done, tmp_path)
    (row,) = measured
    unjudge(farm, measured=measured)
    before = journal(latest(farm), "SELECT count(*) FROM events WHERE kind = 'leased'")
    assert "measured, not compared yet" in str(
        json.loads(farm("report", "latest", "--format", "json").stdout)["alarms"]
    )
    again = farm("run", "--resume", "latest", *NONE)
    assert again.returncode == 0, again.stdout + again.stderr
    result = cell(farm.report())
    assert result["outcome"] == "passed"
    value = json.loads(row[1])
    durations = {
        s["duration_s"] for launch in value["result"]["launches"] for s in launch["samples"]
    }
    tg = next(p for p in result["performance"] if p["metric"].startswith("tg"))
    assert tg["samples"]
    assert durations, "nothing to compare with"
    after = journal(latest(farm), "SELECT count(*) FROM events WHERE kind = 'leased'")
    assert after == before, "the device was asked again"
    assert journal(latest(farm), "SELECT * FROM measured") == []


def test_a_damaged_result_is_named_and_its_cell_runs_again(
    done: Farm, tmp_path: Path, measured: list[tuple[Any, ...]]
) -> None:
    farm = copy(done, tmp_path)
    (key, value, checksum) = measured[0]
    flipped = value.replace('"duration_s": 0', '"duration_s": 9')
    assert flipped != value
    unjudge(farm, measured=[(key, flipped, checksum)])
    again = farm("run", "--resume", "latest", *NONE)
    assert again.returncode == 0, again.stdout + again.stderr
    assert any("of measured is damaged" in alarm for alarm in farm.report()["alarms"])
    leased = journal(latest(farm), "SELECT count(*) FROM events WHERE kind = 'leased'")
    assert leased == [(2,)]


def test_two_controllers_of_one_run_are_refused(farm: Farm) -> None:
    running = farm.start("run", TINY, *ONLY_LOCAL, "--cluster", "none", *LONG)
    wait_for(running, "measure")
    second = farm("run", "--resume", "latest", *NONE)
    assert second.returncode == 3
    assert f"process {running.pid} on" in second.stderr
    assert "1 errored" in farm("report", "latest").stdout
    assert not (latest(farm) / "report.json").exists(), "a living run's folder is its own"
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_end_a_run_as_ctrl_c_does(farm: Farm, name: str) -> None:
    running = farm.start("run", TINY, *ONLY_LOCAL, "--cluster", "none", *LONG)
    wait_for(running, "measure")
    sent = time.monotonic()
    running.send_signal(getattr(signal, name))
    rest, _ = running.communicate(timeout=60)
    assert running.returncode == 130, rest
    assert time.monotonic() - sent < 4 * slack()
    assert cell(farm.report())["flags"] == ["interrupted"]


def test_a_run_outlives_the_reader_of_its_output(farm: Farm) -> None:
    running = farm.start("run", TINY, "--quick", *ONLY_LOCAL, "--cluster", "none")
    assert running.stdout is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.wait(timeout=120) == 0
    assert cell(farm.report())["outcome"] == "passed"


def test_an_unwritable_history_is_an_alarm(warm_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("store", "native"):
        (home / name).symlink_to(warm_home / name)
    (home / "history.db").mkdir()
    farm = Farm(home, tmp_path)
    run = farm("run", TINY, "--quick", *ONLY_LOCAL, "--cluster", "none")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "history.db" in run.stderr
    assert any("history.db" in alarm for alarm in farm.report()["alarms"])


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_of_the_run_folder_is_said(farm: Farm) -> None:
    runs = farm.cwd / "runs"
    runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "t", str(runs)], check=True)
    try:
        running = farm.start("run", TINY, *ONLY_LOCAL, "--cluster", "none", *LONG)
        wait_for(running, "measure")
        with contextlib.suppress(OSError), (runs / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=60)
        assert running.returncode in (3, 130), rest
        assert "Traceback" not in rest
        assert "disk" in rest or "No space left" in rest
    finally:
        subprocess.run(["umount", "-l", str(runs)], check=True)


def _python() -> str:
    import sys

    return sys.executable
