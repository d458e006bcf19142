"""turns: two jobs that work window by window, with the other one stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from farm.site.job.turns import ArmStart, complaint, output_of, plan_json
from farm.site.parsers.telemetry import parse_telemetry
from tests.pace import slack

from .conftest import Helper

#: Says which windows come, one after the other, and in each of them the state of both processes.
#: A window is METRIC:REP:WARMUP.
SCRIPT = """
echo '{"type":"loaded"}'
for window in %s; do
  IFS=: read -r metric rep warmup <<end
$window
end
  printf '{"type":"turn","metric":"%%s","rep":%%s,"warmup":%%s}\\n' $metric $rep $warmup
  read -r go || exit 9
  states=
  for pid in $(cat "$PIDS"); do states=$states$(cut -d' ' -f3 /proc/$pid/stat); done
  printf '{"type":"sample","window":"%%s","states":"%%s"}\\n' $window $states
done
echo '{"type":"done"}'
%s
"""
WARM, COUNTED = "tg:0:true", ("tg:0:false", "tg:1:false", "tg:2:false", "tg:3:false")

Arms = Callable[..., tuple[int, bytes]]


@pytest.fixture
def arms(helper: Helper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arms:
    monkeypatch.chdir(tmp_path)

    def run(
        candidate: Sequence[str], baseline: Sequence[str], last: tuple[str, str] = ("", "")
    ) -> tuple[int, bytes]:
        plan(tmp_path, candidate, baseline, last)
        done = helper("turns", "turns.json")
        return done.code, done.out

    return run


def plan(
    folder: Path,
    candidate: Sequence[str],
    baseline: Sequence[str],
    last: tuple[str, str] = ("", ""),
) -> None:
    env = (("PIDS", str(folder / "pids")),)
    both = zip((candidate, baseline), last, strict=True)
    script = [SCRIPT % (" ".join(windows), end) for windows, end in both]
    arms = [
        ArmStart("candidate", str(folder), ("/bin/sh", "-c", script[0]), env),
        ArmStart("baseline", "/tmp", ("/bin/sh", "-c", script[1]), env),
    ]
    (folder / "turns.json").write_bytes(plan_json(arms))


def windows(out: bytes) -> list[tuple[str, str]]:
    """Arm and window of each sample, in the order in which they were made."""
    found = []
    for line in out.splitlines():
        arm = "b" if line.startswith(b"baseline ") else "c"
        value = json.loads(line.removeprefix(b"baseline "))
        if value["type"] == "sample":
            found.append((arm, value["window"]))
    return found


def test_windows_alternate_and_the_other_arm_is_stopped(arms: Arms) -> None:
    code, out = arms((WARM, *COUNTED), (WARM, *COUNTED))
    assert code == 0, out
    order = "".join(arm for arm, window in windows(out) if window != WARM)
    assert order == "cbbccbbc"
    ours, theirs = output_of(out, "candidate"), output_of(out, "baseline")
    for own, running in ((ours, 0), (theirs, 1)):
        lines = [json.loads(line) for line in own.splitlines()]
        assert [line["type"] for line in lines] == ["loaded", *["sample"] * 5, "done"]
        # In the very last window the other one has ended.
        both = [line["states"] for line in lines[1:-1] if len(line["states"]) == 2]
        assert len(both) >= 4
        assert {states[1 - running] for states in both} == {"T"}
        assert "T" not in {states[running] for states in both}
    assert complaint(out) == ""


def test_windows_that_are_done_again_keep_the_arms_together(arms: Arms) -> None:
    """One arm sizes its windows twice: it has one warm-up more, and does a window again."""
    again = (WARM, "tg:1:true", "tg:0:false", *COUNTED, "pp:0:true", "pp:0:false")
    code, out = arms(again, (WARM, *COUNTED, "pp:0:true", "pp:0:false"))
    assert code == 0, out
    last = [w for w in windows(out) if w[1] in COUNTED]
    assert last[:3] == [("c", "tg:0:false"), ("c", "tg:0:false"), ("b", "tg:0:false")]
    assert "".join(arm for arm, _ in last[3:]) == "bccbbc"


@pytest.mark.parametrize(
    ("candidate", "baseline", "last", "message"),
    [
        (COUNTED, COUNTED[:2], ("", ""), "the arms have other windows to do"),
        (COUNTED, ("tg:0:false", "pp:0:false"), ("", ""), "the arms have other windows to do"),
        (COUNTED[:1], COUNTED[:1], ("", "exit 3"), "baseline ended with exit code 3"),
        (COUNTED[:1], COUNTED[:1], ("kill -9 $$", ""), "candidate was ended by signal 9"),
    ],
)
def test_arms_that_fail_or_differ(
    arms: Arms,
    candidate: Sequence[str],
    baseline: Sequence[str],
    last: tuple[str, str],
    message: str,
) -> None:
    code, out = arms(candidate, baseline, last)
    assert code == 1
    assert complaint(out) == message


def test_plans_that_are_none(helper: Helper, tmp_path: Path) -> None:
    assert helper("turns", tmp_path / "none").error == "no_plan"
    path = tmp_path / "plan"
    arm = {"name": "a", "folder": "/", "prefix": "", "argv": ["true"], "env": []}
    for text in (
        {}, {"arms": [arm]}, {"arms": [arm, {**arm, "argv": []}]}, {"arms": [arm, {"name": "b"}]},
        {"arms": [arm, {**arm, "env": ["novalue"]}]}, {"arms": [arm, {**arm, "argv": [1]}]},
    ):  # fmt: skip
        path.write_text(json.dumps(text))
        assert helper("turns", path).error == "bad_plan", text


def test_no_arm_outlives_its_job(helper: Helper, helper_path: Path, tmp_path: Path) -> None:
    """Killed while one arm works and the other one is stopped."""
    work = tmp_path / "work"
    work.mkdir()
    plan(work, COUNTED, COUNTED)
    text = (work / "turns.json").read_text().replace("read -r go", "sleep 1000")
    (work / "turns.json").write_text(text)
    words = ["--work", work, "--stale-s", 60, "--max-output-bytes", 1 << 20]
    assert helper("supervise", *words, "--", helper_path, "turns", "turns.json").code == 0
    try:
        deadline = time.monotonic() + 20 * slack()
        while not (work / "pids").exists() or len(pids_of(work)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pids = pids_of(work)
    finally:
        assert helper("kill", "--work", work).value["reason"] == "killed"
    assert not any(alive(pid) for pid in pids)


def test_the_sampler_learns_who_computes(helper: Helper, helper_path: Path, tmp_path: Path) -> None:
    plan(tmp_path, COUNTED, COUNTED)
    text = (tmp_path / "turns.json").read_text().replace("read -r go", "read -r go; sleep 0.1")
    (tmp_path / "turns.json").write_text(text)
    (tmp_path / "pids").write_text("1\n")  # of a launch before this one
    words = ["--work", tmp_path, "--stale-s", 60, "--max-output-bytes", 1 << 20]
    words += ["--telemetry-s", 0.05]
    assert helper("supervise", *words, "--", helper_path, "turns", "turns.json").code == 0
    offset, deadline = 0, time.monotonic() + 30 * slack()
    while True:
        asked = ("--stdout-offset", offset, "--wait-s", 1, "--max-bytes", 100_000)
        head, body = helper("poll", "--work", tmp_path, *asked).out.split(b"\n", 1)
        offset += len(body)
        if json.loads(head)["state"] != "running":
            break
        assert time.monotonic() < deadline
    recording = parse_telemetry((tmp_path / "telemetry.jsonl").read_bytes())
    seen = {path for one in recording.readings for path, text in one.texts.items() if text}
    assert {f"/proc/{pid}/stat" for pid in pids_of(tmp_path)} <= seen
    assert "/proc/1/stat" not in seen


def pids_of(work: Path) -> list[int]:
    return [int(pid) for pid in (work / "pids").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
