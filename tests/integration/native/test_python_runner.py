"""The Python runtime of the wheel, on the tiny model: it speaks farm-runner's protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from farm.core.artifact import LogitsPass
from farm.core.runner import RunnerSpec
from farm.core.runtime import LaunchRequest, Measure
from runners.executorch import request_json
from runners.executorch_python import ExecutorchPythonRunner

from .tiny_llama import CONTEXT, TOKENS

pytestmark = pytest.mark.export

SCRIPT = Path(__file__).parents[3] / "runners" / "python" / "farm_python_runner.py"


def test_it_gives_logits_and_windows_that_last(tiny: Path, tmp_path: Path) -> None:
    request = LaunchRequest(
        1,
        tokens=tuple(TOKENS),
        passes=(LogitsPass("decode", (1,) * CONTEXT),),
        measures=(Measure("pp32", 32, 0, 0, 2, 1, 50), Measure("tg8", 0, 8, 4, 2, 1, 50)),
        affinity="none",
    )
    (tmp_path / "request.json").write_bytes(request_json(request))
    words = ["--model", str(tiny / "last.pte"), "--request", str(tmp_path / "request.json")]
    done = subprocess.run(
        [sys.executable, "-B", SCRIPT, *words, "--out", tmp_path], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    result = ExecutorchPythonRunner(RunnerSpec("executorch_python")).parse(done.stdout, 0, request)
    assert result.hello.features == ()
    ((_name, logits),) = result.logits
    rows = np.fromfile(tmp_path / logits.object.name, np.float32).reshape(CONTEXT, -1)
    assert np.abs(rows - np.load(tiny / "reference.npy")).max() <= 1e-4
    _load, *windows = result.samples
    assert [s.metric for s in windows if not s.warmup] == ["pp32"] * 2 + ["tg8"] * 2
    for sample in windows:
        work = 32 if sample.metric == "pp32" else 8
        assert sample.tokens == sample.passes * work
        assert (sample.passes == 1) == (sample.warmup and sample.rep == 0)
