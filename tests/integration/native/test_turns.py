"""The real farm-runner in turn with itself, and its work counters on a stand-in kernel."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.core.runtime import LaunchRequest, Measure
from farm.site.job.turns import ArmStart, output_of, plan_json
from runners.build.cache import NativeBuild
from runners.build.compiler import host_abi
from runners.build.native import build_helper
from runners.executorch import ExecutorchRunner, request_json

from .conftest import CACHE

pytestmark = pytest.mark.export

MEASURES = (Measure("pp8", 8, 0, 0, 4, 1, 20), Measure("tg8", 0, 8, 0, 4, 1, 20))
REQUEST = LaunchRequest(1, measures=MEASURES, turns=True)
STAND_IN = Path(__file__).with_name("counter_stand_in.c")


@pytest.fixture(scope="module")
def helper() -> Path:
    return build_helper(host_abi(), CACHE).file("farm-helper").path


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that answers perf_event_open in the kernel's format."""
    library = tmp_path_factory.mktemp("stand-in") / "counter.so"
    words = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(STAND_IN), "-ldl"]
    subprocess.run(words, check=True)
    return library


def in_turn(
    helper: Path, build: NativeBuild, tiny: Path, folder: Path, **env: dict[str, str]
) -> dict[str, bytes]:
    """Output of both arms; `env` adds to that of an arm."""
    starts = []
    for arm in ("candidate", "baseline"):
        own = folder / arm
        own.mkdir()
        (own / "request.json").write_bytes(request_json(REQUEST))
        words = ("--model", str(tiny / "last.pte"), "--request", "request.json", "--out", ".")
        argv = (str(build.file("farm-runner").path), *words)
        more = {"LD_LIBRARY_PATH": str(build.file("farm-runner").path.parent / "lib")}
        pairs = tuple((more | env.get(arm, {})).items())
        starts.append(ArmStart(arm, str(own), argv, pairs))
    (folder / "turns.json").write_bytes(plan_json(starts))
    done = subprocess.run(
        [str(helper), "turns", "turns.json"], cwd=folder, stdout=subprocess.PIPE, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return {arm: output_of(done.stdout, arm) for arm in ("candidate", "baseline")}


def windows(outputs: dict[str, bytes], *, warmups: bool) -> Iterator[tuple[int, int, str, str]]:
    """Start, end, metric and arm of each window."""
    for arm, out in outputs.items():
        for text in out.splitlines():
            line: dict[str, Any] = json.loads(text)
            if line["type"] == "sample" and (warmups or not line["warmup"]):
                yield line["start_ns"], line["end_ns"], line["metric"], arm


def test_real_windows_take_turns(
    helper: Path, build: NativeBuild, tiny: Path, tmp_path: Path
) -> None:
    outputs = in_turn(helper, build, tiny, tmp_path)
    every = sorted(windows(outputs, warmups=True))
    assert len(every) >= 20
    assert all(a[1] <= b[0] for a, b in zip(every, every[1:], strict=False))  # noqa: RUF007
    for metric in ("pp8", "tg8"):
        counted = [w for w in sorted(windows(outputs, warmups=False)) if w[2] == metric]
        assert "".join(arm[0] for *_, arm in counted) == "cbbccbbc"
    result = ExecutorchRunner().parse(outputs["baseline"], 3, REQUEST)
    assert result.hello.turns
    counts = {sample.instructions for sample in result.samples}
    # A count, or the reason why there is none: never both, never neither.
    assert (counts == {None}) == bool(result.uncounted), result.uncounted


def test_instructions_are_read_around_windows_or_their_absence_is_told(
    helper: Path, build: NativeBuild, tiny: Path, tmp_path: Path, stand_in: Path
) -> None:
    def counter(**how: str) -> dict[str, str]:
        return {"LD_PRELOAD": str(stand_in)} | {f"COUNTER_{k}": v for k, v in how.items()}

    outputs = in_turn(
        helper, build, tiny, tmp_path,
        candidate=counter(step="1010000"), baseline=counter(step="1000000"),
    )  # fmt: skip
    for arm, step in (("candidate", 1_010_000), ("baseline", 1_000_000)):
        result = ExecutorchRunner().parse(outputs[arm], 0, REQUEST)
        assert result.uncounted == ""
        timed = [s for s in result.samples if s.metric != "load"]
        assert {s.instructions for s in timed} == {step}
    refused = tmp_path / "refused"
    refused.mkdir()
    outputs = in_turn(
        helper, build, tiny, refused,
        candidate=counter(errno="13"), baseline=counter(step="1000", shared="1"),
    )  # fmt: skip
    ours, theirs = (
        ExecutorchRunner().parse(outputs[arm], 0, REQUEST) for arm in ("candidate", "baseline")
    )
    assert "the kernel doesn't let this user count (perf_event_paranoid" in ours.uncounted
    # The counter was there, and missed a part: no number.
    assert theirs.uncounted == ""
    assert {s.instructions for r in (ours, theirs) for s in r.samples} == {None}


def test_who_waits_for_turns_alone_is_told(build: NativeBuild, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_bytes(request_json(REQUEST))
    runner = build.file("farm-runner").path
    words = ["--model", str(tiny / "last.pte"), "--request", "request.json", "--out", "."]
    done = subprocess.run(
        [str(runner), *words], cwd=tmp_path, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env={**os.environ, "LD_LIBRARY_PATH": str(runner.parent / "lib")}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["code"] == "no_turn"
