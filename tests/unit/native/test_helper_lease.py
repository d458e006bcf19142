"""The helper's lease: exclusive, fenced by epoch, expiring in uptime."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Answer, Helper

SHA = "a" * 64


def _lease(
    helper: Helper, root: Path, action: str, owner: str = "ada@lab", epoch: int = 1, **more: Any
) -> Answer:
    words: list[object] = ["lease", root, action, "--owner", owner, "--run", more.pop("run", "r1")]
    words += ["--epoch", epoch, "--ttl-s", more.pop("ttl", 60)]
    for name, value in more.items():
        words += [f"--{name.rstrip('_')}", *([] if value is None else [value])]
    return helper(*words)


def test_a_free_device_is_taken_shown_and_released(helper: Helper, tmp_path: Path) -> None:
    assert helper("lease", tmp_path, "show").value == {"state": "free", "waiting": []}
    assert _lease(helper, tmp_path, "take").value["state"] == "held"
    shown = helper("lease", tmp_path, "show").value
    assert (shown["owner"], shown["run"], shown["epoch"]) == ("ada@lab", "r1", 1)
    assert 0 < shown["left_s"] <= 60
    assert _lease(helper, tmp_path, "release").value["state"] == "free"
    assert _lease(helper, tmp_path, "take", owner="bob@lab").code == 0


def test_another_live_owner_is_named(helper: Helper, tmp_path: Path) -> None:
    _lease(helper, tmp_path, "take")
    answer = _lease(helper, tmp_path, "take", owner="bob@lab")
    assert answer.error == "held"
    assert answer.value["error"]["owner"] == "ada@lab"
    assert "ada@lab" in answer.value["error"]["message"]


def test_two_runs_of_one_owner_exclude_each_other(helper: Helper, tmp_path: Path) -> None:
    _lease(helper, tmp_path, "take", run="r1")
    assert _lease(helper, tmp_path, "take", run="r2").error == "held"


def test_an_expired_lease_is_free_for_others(helper: Helper, tmp_path: Path) -> None:
    _lease(helper, tmp_path, "take", ttl=0.05)
    time.sleep(0.1)
    assert helper("lease", tmp_path, "show").value["state"] == "expired"
    assert _lease(helper, tmp_path, "take", owner="bob@lab").code == 0


def test_a_reboot_ends_a_lease(helper: Helper, tmp_path: Path) -> None:
    _lease(helper, tmp_path, "take")
    record = json.loads((tmp_path / "lease").read_text())
    (tmp_path / "lease").write_text(json.dumps({**record, "boot_id": "another"}))
    assert helper("lease", tmp_path, "show").value["state"] == "expired"


def _rebooted(root: Path, **changes: object) -> None:
    """What the file of a lease is to a device that was started anew."""
    record = json.loads((root / "lease").read_text())
    (root / "lease").write_text(json.dumps({**record, "boot_id": "another", **changes}))


def test_a_persons_hold_survives_a_reboot_until_its_own_end(helper: Helper, tmp_path: Path) -> None:
    def take(ttl: float) -> None:
        _lease(helper, tmp_path, "take", run="hold", ttl=ttl, reason="new fan", lasting=None)

    uptime = float(Path("/proc/uptime").read_text().split()[0])
    take(uptime + 7200)
    _rebooted(tmp_path)
    shown = helper("lease", tmp_path, "show").value
    assert (shown["state"], shown["reason"]) == ("held", "new fan")
    assert 7000 < shown["left_s"] <= 7200 + 60
    assert _lease(helper, tmp_path, "take", owner="bob@lab").error == "held"
    _rebooted(tmp_path, expires_unix=int(time.time()) - 1)  # its end passed while it was off
    assert helper("lease", tmp_path, "show").value["state"] == "expired"
    take(3600)
    # A clock without a battery that starts in 1970 at every boot: it can't last for ever.
    _rebooted(tmp_path, expires_unix=int(time.time()) + 9**9, ttl_s=uptime - 1)
    assert helper("lease", tmp_path, "show").value["state"] == "expired"


def test_who_asked_in_vain_is_shown_until_it_gets_the_device(
    helper: Helper, tmp_path: Path
) -> None:
    _lease(helper, tmp_path, "take")
    for run in ("r7", "r8", "r7"):
        assert _lease(helper, tmp_path, "take", owner="bob@lab", run=run).error == "held"
    waiting = helper("lease", tmp_path, "show").value["waiting"]
    assert sorted((w["owner"], w["run"]) for w in waiting) == [("bob@lab", "r7"), ("bob@lab", "r8")]
    assert all(0 <= w["waits_s"] < 20 for w in waiting)
    _lease(helper, tmp_path, "release")
    _lease(helper, tmp_path, "take", owner="bob@lab", run="r8")
    assert [w["run"] for w in helper("lease", tmp_path, "show").value["waiting"]] == ["r7"]
    _lease(helper, tmp_path, "release", owner="bob@lab", run="r8")
    waiting = helper("lease", tmp_path, "show").value["waiting"]
    assert [w["run"] for w in waiting] == ["r7"], "who had its turn would be let go first again"


def _slow(helper_path: Path, *words: object) -> subprocess.Popen[bytes]:
    """A call of the helper that the disk keeps waiting: the file is a gigabyte of holes."""
    return subprocess.Popen([str(helper_path), *map(str, words)], stdout=subprocess.PIPE)


@pytest.mark.parametrize("verb", ["have", "hash", "commit"])
def test_a_lease_outlasts_a_verb_that_hashes_longer(
    helper: Helper, helper_path: Path, tmp_path: Path, verb: str
) -> None:
    fence = ("--run", "r1", "--epoch", "1", "--ttl-s", "0.2")
    _lease(helper, tmp_path, "take", ttl=0.2)
    path = tmp_path / "objects" / (SHA + (".part" if verb == "commit" else ""))
    with path.open("wb") as file:
        file.truncate(1 << 30)
    words: dict[str, tuple[object, ...]] = {
        "have": ("have", tmp_path, SHA, "--rehash"),
        "hash": ("hash", path, "--root", tmp_path),
        "commit": ("commit", tmp_path, SHA, 1 << 30),
    }
    with _slow(helper_path, *words[verb], *fence) as hashing:
        time.sleep(0.6)
        assert hashing.poll() is None, "too fast to show anything"
        taken = _lease(helper, tmp_path, "take", owner="bob@lab")
        assert taken.error == "held"
        _lease(helper, tmp_path, "release", owner="bob@lab", from_="ada@lab", force=None)
        time.sleep(0.3)
        assert helper("lease", tmp_path, "show").value["state"] == "free", "it came back"
        hashing.kill()
    _lease(helper, tmp_path, "take", ttl=0.2)
    with _slow(helper_path, *words[verb], *fence) as hashing:
        time.sleep(0.3)
        hashing.kill()  # with its verb the renewal ends
    time.sleep(0.4)
    assert helper("lease", tmp_path, "show").value["state"] == "expired"


def test_renew_extends_only_the_holder(helper: Helper, tmp_path: Path) -> None:
    _lease(helper, tmp_path, "take", ttl=5)
    assert _lease(helper, tmp_path, "renew", ttl=90).value["left_s"] > 80
    assert _lease(helper, tmp_path, "renew", owner="bob@lab").error == "held"
    _lease(helper, tmp_path, "release")
    assert _lease(helper, tmp_path, "renew").error == "not_held"


def test_an_overtaken_epoch_never_comes_back(helper: Helper, tmp_path: Path) -> None:
    _lease(helper, tmp_path, "take", epoch=1)
    assert _lease(helper, tmp_path, "take", epoch=2).code == 0
    for action in ("take", "renew", "release"):
        assert _lease(helper, tmp_path, action, epoch=1).error == "stale_epoch"
    _lease(helper, tmp_path, "release", epoch=2)
    assert _lease(helper, tmp_path, "take", epoch=1).error == "stale_epoch"


def test_the_owner_ends_a_lease_by_name_others_only_by_force_and_it_is_recorded(
    helper: Helper, tmp_path: Path
) -> None:
    _lease(helper, tmp_path, "take")
    bob: dict[str, Any] = {"owner": "bob@lab", "run": "hold"}
    assert _lease(helper, tmp_path, "release", **bob).error == "held"
    assert _lease(helper, tmp_path, "release", **bob, from_="eve@lab", force=None).error == "held"
    assert _lease(helper, tmp_path, "release", **bob, from_="ada@lab").error == "held"
    answer = _lease(helper, tmp_path, "release", **bob, from_="ada@lab", force=None)
    assert (answer.value["state"], answer.value["ended_by"]) == ("free", "bob@lab")
    assert abs(answer.value["ended_unix"] - time.time()) < 60
    lost = _lease(helper, tmp_path, "renew")
    assert lost.error == "not_held"
    assert "ended by bob@lab" in lost.value["error"]["message"]
    _lease(helper, tmp_path, "take")
    answer = _lease(helper, tmp_path, "release", run="hold", from_="ada@lab")
    assert answer.value["state"] == "free"


def test_a_stale_epoch_writes_nothing(helper: Helper, tmp_path: Path) -> None:
    _lease(helper, tmp_path, "take", epoch=1)
    assert helper("assemble", tmp_path, "job-1", "--run", "r1", "--epoch", 1).code == 0
    _lease(helper, tmp_path, "take", epoch=2)
    fenced = helper("assemble", tmp_path, "job-2", "--run", "r1", "--epoch", 1)
    assert fenced.error == "stale_epoch"
    assert not (tmp_path / "work" / "job-2").exists()
    other = helper("clean", tmp_path, "--stale", "--run", "r9", "--epoch", 1)
    assert other.error == "held"


def test_of_many_processes_at_once_one_wins(helper_path: Path, tmp_path: Path) -> None:
    words = ("--run", "r", "--epoch", "1", "--ttl-s", "60")
    racers = [
        subprocess.Popen(
            [str(helper_path), "lease", str(tmp_path), "take", "--owner", f"owner{i}", *words],
            stdout=subprocess.PIPE,
        )
        for i in range(12)
    ]
    codes = []
    for racer in racers:
        racer.communicate(timeout=30)
        codes.append(racer.returncode)
    assert sorted(codes) == [0] + [1] * 11


def test_a_torn_lease_file_reads_as_free(helper: Helper, tmp_path: Path) -> None:
    (tmp_path / "lease").write_text('{"owner": "ada@l')
    assert _lease(helper, tmp_path, "take", owner="bob@lab").code == 0


def test_the_reason_of_a_hold_is_kept_shown_and_told_to_others(
    helper: Helper, tmp_path: Path
) -> None:
    _lease(helper, tmp_path, "take", run="hold", reason='new "battery"; $(reboot)')
    assert helper("lease", tmp_path, "show").value["reason"] == 'new "battery"; $(reboot)'
    answer = _lease(helper, tmp_path, "take", owner="bob@lab")
    assert answer.value["error"]["reason"] == 'new "battery"; $(reboot)'
    _lease(helper, tmp_path, "take", run="hold")
    assert helper("lease", tmp_path, "show").value["reason"] == ""
