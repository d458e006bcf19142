"""What a diagnosis may not take for the cell's own, and the script that shows a layer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from farm.cluster.start import Runtime
from farm.commands import repro
from farm.commands.diagnose import Found, _Jobs, _sentence, _unexplained
from farm.core.diagnosis import DEVICE, HOST, Blame, Diagnosis
from farm.core.errors import DeviceUnfit, FarmError, Interrupted
from farm.core.result import CorrectnessReport, GateResult
from farm.core.runner import OWN
from farm.core.runtime import DeviceJob
from farm.site.agent.threads import in_thread
from farm.store.objects import ContentStore
from farm.tasks.observe import Looked, request
from tests.unit.core import builders as b
from tests.unit.fakes import FakePool, FakeSite
from tests.unit.reports.builders import results

JOB = DeviceJob("c", 1, 1, "diagnose", "c", "", OWN, (), ())


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("equal", 0),
        ("the observed program differs: by up to 3", 3),
        ("not compared: the logits of the run aren't in the store any more", 3),
    ],
)
def test_what_is_not_the_cells_own_is_no_clean_bill(said: str, code: int) -> None:
    observed = ((HOST, "equal"), (DEVICE, said), (f"{DEVICE}, layer 1", "mul: differs"))
    sentence = _sentence(Looked(None, (), observed, (), ()), (), "")
    assert (said in sentence) is (code != 0)
    assert "layer 1" not in sentence
    diagnosis = Diagnosis(1, "run", "c", None, sentence, observed, (), (), 64, 1.0)
    runs = {HOST: b.run_result(), DEVICE: b.run_result()}
    found = Found(diagnosis, (), runs, b.device("a"), b.export_result())
    assert found.exit_code == code
    blamed = replace(diagnosis, blame=Blame(DEVICE, 0, "attention", "off"))
    assert replace(found, diagnosis=blamed).exit_code == 1


def test_another_device_in_the_cells_place_is_not_looked_at(tmp_path: Path) -> None:
    facts = b.device("a").facts
    assert facts is not None
    planned = replace(b.device("a"), facts=replace(facts, identity="another"))
    site = FakeSite(lambda _: FarmError("no job may come here", device="a"))

    async def scenario() -> None:
        jobs = _Jobs(
            Runtime(FakePool(), {"": site}, lambda: None),
            asyncio.get_running_loop(), tmp_path, ContentStore(tmp_path / "store"),
            lambda _event: None, b.export_result(), JOB, planned,
        )  # fmt: skip
        run = lambda: jobs.run(DEVICE, planned.entry, OWN, None, request((1,), 0))  # noqa: E731
        with pytest.raises(DeviceUnfit, match=r"another device \(id-a\) answers"):
            await in_thread(run)
        jobs.stopped.set()
        with pytest.raises(Interrupted):
            await in_thread(run)

    asyncio.run(scenario())
    assert not site.jobs


def test_a_thread_that_outlives_its_loop_ends_quietly() -> None:
    gone = threading.Event()
    odd: list[Any] = []

    def work() -> None:
        gone.wait(20)

    async def scenario() -> None:
        waiting = asyncio.create_task(in_thread(work))
        await asyncio.sleep(0)
        waiting.cancel()

    before, hook = set(threading.enumerate()), threading.excepthook
    threading.excepthook = odd.append
    try:
        asyncio.run(scenario())
        left = [one for one in threading.enumerate() if one not in before]
        gone.set()
        for one in left:
            one.join(20)
    finally:
        threading.excepthook = hook
    assert left
    assert not odd


def _folder(tmp_path: Path, argv: str) -> Path:
    """A folder whose runner writes its variable out; nothing is compared."""
    build = replace(b.BUILD, env=(("TOKEN", "s3cret"), ("FARM_XNNPACK", "1")), argv=(argv,))
    shown = [name for name, value in build.env if repro._is_shown(name, value)]
    assert shown == ["FARM_XNNPACK"]
    inside = cast("Any", type("Inside", (), {"request": request((1,), 0)}))
    command, files = repro._command(inside, build)
    assert "s3cret" not in command
    text = repro._filled(
        "repro.sh",
        {
            "TRANSPORT": "local", "SERIAL": "''", "HOST": "''", "PORT": "",
            "COMMAND": command, "GIVEN": repro._given("TOKEN"),
        },
    )  # fmt: skip
    (tmp_path / "runner").mkdir()
    runner = tmp_path / "runner" / "run"
    runner.write_text(
        '#!/bin/sh\nprintf "%s %s" "$TOKEN" "$FARM_XNNPACK" > out/logits-decode.f32\n'
    )
    runner.chmod(0o755)
    for name, content in {**files, "layer.pte": b"", "compare.py": b""}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "repro.sh").write_text(text)
    return tmp_path


def test_a_folder_asks_for_the_runners_variables_and_leaves_nothing_behind(tmp_path: Path) -> None:
    shown, scratch = tmp_path / "shown", tmp_path / "scratch"
    shown.mkdir()
    scratch.mkdir()
    folder = _folder(shown, "./run")
    kept = "".join(one.read_text() for one in folder.rglob("*") if one.is_file())
    assert "s3cret" not in kept
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(scratch)}
    words = ["sh", str(folder / "repro.sh")]
    without = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert without.returncode != 0
    assert "TOKEN" in without.stderr
    value = "it's $HOME"
    done = subprocess.run(
        words, env={**env, "TOKEN": value}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "output.f32").read_text() == f"{value} 1"
    assert not list(scratch.iterdir()), "the copy of the runner is gone"


def test_what_the_run_failed_on_and_nothing_shows_now_is_no_clean_bill() -> None:
    looked = Looked(None, (), (("host_pte", "equal"), ("device_pte", "equal")), (), ())
    failed = GateResult("bit_equal", "==", 1.0, 0.0, False, "host_pte -> device_pte (decode)")
    result = replace(results()[0], correctness=CorrectnessReport((), None, None, (failed,)))
    assert _unexplained(result, looked) == failed.text
    assert f"({failed.text}) is not seen now" in _sentence(looked, (), failed.text)
    passed = replace(failed, passed=True)
    result = replace(result, correctness=CorrectnessReport((), None, None, (passed,)))
    assert _unexplained(result, looked) == ""
