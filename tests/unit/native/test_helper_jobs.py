"""supervise, poll, kill and clean on real processes: nothing outlives its bounds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pace import slack

from .conftest import Answer, Helper

Start = Callable[..., Answer]


@pytest.fixture
def work(tmp_path: Path, helper: Helper) -> Iterator[Path]:
    folder = tmp_path / "work" / "job"
    folder.mkdir(parents=True)
    yield folder
    if folder.exists():
        helper("kill", "--work", folder)


@pytest.fixture
def start(helper: Helper, work: Path) -> Start:
    def call(
        script: str, *options: object, stale: float = 60, limit: int = 1 << 20, stdin: str = ""
    ) -> Answer:
        words: list[object] = ["--work", work, "--stale-s", stale, "--max-output-bytes", limit]
        return helper("supervise", *words, *options, "--", "/bin/sh", "-c", script, stdin=stdin)

    return call


def _poll(helper: Helper, work: Path, offset: int = 0, wait: float = 0) -> tuple[Any, bytes]:
    words = ("--stdout-offset", offset, "--wait-s", wait, "--max-bytes", 1000)
    head, body = helper("poll", "--work", work, *words).out.split(b"\n", 1)
    header = json.loads(head)
    assert header["bytes"] == len(body)
    return header, body


def _until_done(helper: Helper, work: Path, within_s: float = 10) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    offset = 0
    while time.monotonic() < deadline:
        header, body = _poll(helper, work, offset, wait=1)
        offset += len(body)
        if header["state"] != "running" and offset == header["stdout_size"]:
            return dict(header)
    raise AssertionError("the job did not end in time")


def _wait_dead(pid: int, within_s: float = 5) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not _alive(pid):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} lives on")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _pid(path: Path) -> int:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.01)
    raise AssertionError(f"{path.name} was never written")


def test_a_job_runs_to_its_end(helper: Helper, work: Path, start: Start) -> None:
    started = start("echo $WORD; echo problem >&2; pwd; exit 7", "--env", stdin="WORD=a=b c\0")
    assert started.value["pid"] > 0
    header = _until_done(helper, work)
    assert (header["state"], header["exit_code"], header["signal"]) == ("exited", 7, None)
    assert header["reason"] is None
    assert (work / "stdout").read_text() == f"a=b c\n{work}\n"
    assert (work / "stderr").read_text() == "problem\n"
    status = json.loads((work / "status.json").read_text())
    assert 0 < status["started_boottime_ns"] < status["ended_boottime_ns"]


def test_supervise_returns_while_the_job_runs(helper: Helper, work: Path, start: Start) -> None:
    before = time.monotonic()
    start("sleep 30")
    assert time.monotonic() - before < 3 * slack()
    assert _poll(helper, work)[0]["state"] == "running"


def test_the_job_has_its_own_session(work: Path, start: Start) -> None:
    pid = start("sleep 30").value["pid"]
    assert os.getsid(pid) == pid
    assert os.getpgid(pid) == pid


def test_poll_hands_out_pieces_and_waits(helper: Helper, work: Path, start: Start) -> None:
    start("echo one; sleep 0.5; echo two; sleep 30")
    header, body = _poll(helper, work, 0, wait=5)
    assert body == b"one\n"
    before = time.monotonic()
    header, body = _poll(helper, work, 4, wait=5)
    assert body == b"two\n"
    assert 0.1 < time.monotonic() - before < 3 * slack()
    before = time.monotonic()
    header, body = _poll(helper, work, 8, wait=0.3)
    assert (header["state"], body) == ("running", b"")
    assert 0.25 < time.monotonic() - before < 2 * slack()


def test_poll_wakes_when_the_job_ends(helper: Helper, work: Path, start: Start) -> None:
    start("sleep 0.3")
    before = time.monotonic()
    assert _poll(helper, work, 0, wait=20)[0]["state"] == "exited"
    assert time.monotonic() - before < 3 * slack()


def test_poll_bounds_what_it_hands_out(helper: Helper, work: Path, start: Start) -> None:
    start("head -c 2500 /dev/zero")
    _until_done(helper, work)
    assert [len(_poll(helper, work, offset)[1]) for offset in (0, 1000, 2000, 2500, 9999)] == [
        1000,
        1000,
        500,
        0,
        0,
    ]


def test_a_stale_heartbeat_ends_everything(helper: Helper, work: Path, start: Start) -> None:
    script = (
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > far; while :; do sleep 1; done' & "
        "sleep 50 & echo $! > near; while :; do sleep 1; done"
    )
    pid = start(script, stale=1.0).value["pid"]
    others = [_pid(work / "far"), _pid(work / "near")]
    for process in (pid, *others):
        _wait_dead(process, within_s=6)
    status = _until_done(helper, work)
    assert (status["state"], status["reason"]) == ("killed", "stale_heartbeat")


def test_polls_keep_a_job_alive(helper: Helper, work: Path, start: Start) -> None:
    start("sleep 2.5", stale=1.0)
    header: dict[str, Any] = {}
    for _ in range(8):
        header, _body = _poll(helper, work, 0, wait=0.5)
    assert (header["state"], header["exit_code"]) == ("exited", 0)


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_output_beyond_the_limit_ends_the_job(
    helper: Helper, work: Path, start: Start, stream: str
) -> None:
    start(f"yes {stream}", limit=100_000)
    header = _until_done(helper, work, within_s=60)
    assert (header["state"], header["reason"]) == ("killed", "output_limit")
    assert max(header["stdout_size"], header["stderr_size"]) == 100_000


def test_a_double_fork_leaves_nothing(helper: Helper, work: Path, start: Start) -> None:
    start(
        "(setsid sh -c 'echo $$ > daemon; exec sleep 60' >/dev/null 2>&1 &)"
        "; while [ ! -s daemon ]; do sleep 0.05; done"
    )
    daemon = _pid(work / "daemon")
    header = _until_done(helper, work)
    assert header["state"] == "exited"
    _wait_dead(daemon)


def test_a_stopped_process_is_ended_too(helper: Helper, work: Path, start: Start) -> None:
    pid = start("sleep 60", stale=1.0).value["pid"]
    os.kill(pid, signal.SIGSTOP)
    _wait_dead(pid, within_s=5)


def test_kill_is_thorough_and_idempotent(helper: Helper, work: Path, start: Start) -> None:
    pid = start("trap '' TERM; setsid sleep 60 & echo $! > far; while :; do sleep 1; done").value
    far = _pid(work / "far")
    first = helper("kill", "--work", work).value
    assert (first["state"], first["reason"]) == ("killed", "killed")
    assert not _alive(pid["pid"])
    assert not _alive(far)
    assert helper("kill", "--work", work).value == first


def test_a_job_dies_with_its_supervisor(helper: Helper, work: Path, start: Start) -> None:
    started = start("setsid sleep 61 & echo $! > far; sleep 60").value
    far = _pid(work / "far")
    os.kill(started["supervisor_pid"], signal.SIGKILL)
    _wait_dead(started["pid"])
    header, _body = _poll(helper, work)
    assert (header["state"], header["reason"]) == ("killed", "supervisor_lost")
    assert not _alive(far), "poll sweeps what the dead supervisor left"


def test_a_signal_from_elsewhere_is_recorded(helper: Helper, work: Path, start: Start) -> None:
    start("kill -SEGV $$")
    header = _until_done(helper, work)
    assert (header["state"], header["signal"], header["reason"]) == ("exited", 11, "signal")


def test_a_command_that_can_not_start(helper: Helper, work: Path) -> None:
    words = ("--work", work, "--stale-s", 5, "--max-output-bytes", 100)
    answer = helper("supervise", *words, "--", "./nothing")
    assert answer.error == "cannot_start"
    assert "./nothing" in answer.value["error"]["message"]


def test_a_busy_folder_takes_no_second_job(start: Start) -> None:
    start("sleep 30")
    assert start("sleep 30").error == "busy"


def test_a_start_that_is_asked_for_again_is_not_made_again(
    helper: Helper, work: Path, start: Start
) -> None:
    """Whoever lost the answer on its way asks again, while it runs and once it has ended."""
    script = f"echo once >> {work}/made; sleep 30"
    first = start(script, "--start", "a1").value
    assert start(script, "--start", "a1").value == first
    assert start(script, "--start", "b2").error == "busy"
    helper("kill", "--work", work)
    assert start(script, "--start", "a1").value == first
    assert (work / "made").read_text() == "once\n"
    assert start(script, "--start", "b2").value["pid"] != first["pid"]


def test_starts_asked_for_at_once_are_one(
    helper: Helper, helper_path: Path, work: Path, start: Start
) -> None:
    """The caller is gone before its job is there, as where adb ends it: another one asks."""
    words = ("--work", work, "--stale-s", 60, "--max-output-bytes", 1000, "--telemetry-s", 1)
    script = f"echo once >> {work}/made; sleep 30"
    asked = [helper_path, "supervise", *words, "--start", "a1", "--", "/bin/sh", "-c", script]
    with subprocess.Popen([str(word) for word in asked], stdout=subprocess.PIPE) as caller:
        until = time.monotonic() + 10
        while not (work / "stdout").exists():
            assert time.monotonic() < until
        caller.kill()
    assert start(script, "--telemetry-s", 1, "--start", "a1").code == 0
    assert _poll(helper, work)[0]["state"] == "running"
    assert (work / "made").read_text() == "once\n"


def test_poll_without_a_job(helper: Helper, tmp_path: Path) -> None:
    words = ("--stdout-offset", 0, "--wait-s", 0, "--max-bytes", 1)
    assert helper("poll", "--work", tmp_path, *words).error == "no_job"
    assert helper("poll", "--work", tmp_path / "none", *words).error == "no_work"


def test_clean_kills_and_removes_without_following_links(
    helper: Helper, work: Path, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep")
    (work / "link").symlink_to(tmp_path / "precious")
    pid = start("sleep 60").value["pid"]
    assert helper("clean", tmp_path, "--work", "job").value["cleaned"] == ["job"]
    assert not _alive(pid)
    assert not work.exists()
    assert (tmp_path / "precious" / "file").read_text() == "keep"
    assert helper("clean", tmp_path, "--work", "job").value["cleaned"] == []


def test_clean_stale_spares_what_lives(
    helper: Helper, work: Path, start: Start, tmp_path: Path
) -> None:
    start("sleep 60")
    dead = tmp_path / "work" / "dead"
    dead.mkdir()
    (dead / "status.json").write_text(json.dumps({"state": "running", "supervisor_pid": 1}))
    (tmp_path / "work" / "unstarted").mkdir()
    assert helper("clean", tmp_path, "--stale").value["cleaned"] == ["dead", "unstarted"]
    assert work.exists()
    assert _poll(helper, work)[0]["state"] == "running"


def test_whoever_holds_the_lease_ends_what_still_runs(
    helper: Helper, work: Path, start: Start, tmp_path: Path
) -> None:
    """An attempt that was given up while its agent was away must not be measured along."""
    start("sleep 60")
    fence = ("--run", "r2", "--epoch", 1)
    assert helper("clean", tmp_path, "--stale", *fence).error == "not_held"
    pid = _poll(helper, work)[0]["pid"]
    helper("lease", tmp_path, "take", "--owner", "me@here", *fence, "--ttl-s", 60)
    assert helper("clean", tmp_path, "--stale", *fence).value["cleaned"] == ["job"]
    assert not _alive(pid)


def test_clean_stale_removes_helpers_of_other_versions(helper_path: Path, tmp_path: Path) -> None:
    ours = tmp_path / "farm-helper-new"
    shutil.copy(helper_path, ours)
    (tmp_path / "farm-helper-old").write_text("another version")
    (tmp_path / "farm-helper-new.1a2b3c4d").write_text("a copy on its way")
    (tmp_path / "farm-notes").write_text("not a helper")
    done = subprocess.run(
        [ours, "clean", tmp_path, "--stale"], capture_output=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == {"cleaned": [], "helpers": 1}
    left = {path.name for path in tmp_path.iterdir()}
    assert left >= {"farm-helper-new", "farm-helper-new.1a2b3c4d", "farm-notes"}
    assert not (tmp_path / "farm-helper-old").exists()


def test_values_of_the_environment_stand_in_no_command_line(
    helper: Helper, work: Path, start: Start
) -> None:
    answer = start('sleep 5 & echo "$TOKEN"; wait', "--env", stdin="TOKEN=hf_secret\0OTHER=\0")
    for pid in (answer.value["pid"], answer.value["supervisor_pid"]):
        assert b"hf_secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert _poll(helper, work, wait=5)[1] == b"hf_secret\n"
    assert start("true", "--env", stdin="=x\0").error == "usage"
