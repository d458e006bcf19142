"""Damaged requests and programs, handed to farm-runner past every hash: what becomes of each.

    python -m tests.integration.native.fuzz [--count 1000] [--seed 5]

Each start has limits of memory and time. The host reads each as a finished run or as an error of
its own kind; anything else is a finding and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from farm.core.errors import FarmError, RunnerCrashed, RunnerTimeout
from farm.core.runtime import LaunchRequest, LaunchResult
from farm.site.device.helper import Polled
from farm.site.job.launch import read_launch, timed_out
from runners.build.cache import NativeBuild
from runners.build.compiler import host_abi
from runners.build.native import build_runner
from runners.build.sdk import installed_sdk
from runners.executorch import ExecutorchRunner

MEMORY_BYTES = 1 << 30
LIMIT_S = 60.0
#: The part of a .pte that holds its structure; the rest are mostly weights.
HEAD_BYTES = 8192


@dataclass(frozen=True)
class Target:
    """The runner, a good program and a good request."""

    build: NativeBuild
    program: bytes
    request: bytes


def good_request() -> bytes:
    """Logits, an answer and timed windows of the tiny model."""
    document = {
        "protocol": 1,
        "threads": 1,
        "tokens": [5, 9, 3, 7, 1, 2, 8, 4],
        "logits": [{"name": "decode", "chunks": [1, 1, 4, 2]}],
        "generate": {"prompt": [5, 9], "max_new_tokens": 4, "stop": [0]},
        "measure": [{"name": "tg4", "decode": 4, "prefill": 4, "repetitions": 2, "warmup": 1}],
    }
    return json.dumps(document).encode()


def damaged(content: bytes, draw: random.Random, *, head: int | None = None) -> bytes:
    """A truncated or bit-flipped copy; half of the flips fall into the first `head` bytes."""
    if draw.random() < 0.4:
        return content[: draw.randrange(len(content))]
    raw = bytearray(content)
    reach = head if head is not None and draw.random() < 0.5 else len(raw)
    for _ in range(draw.choice((1, 1, 2, 8, 32))):
        raw[draw.randrange(min(reach, len(raw)))] ^= 1 << draw.randrange(8)
    return bytes(raw)


def outcome(target: Target, program: Path, request: bytes, folder: Path) -> str:
    """Start the runner once, and say how the host reads what it left.

    Raises:
        AssertionError: It hung on, left a process, or was read as something else.
    """
    (folder / "request.json").write_bytes(request)
    runner = target.build.file("farm-runner").path
    words = ["--model", str(program), "--request", "request.json", "--out", "."]
    process = subprocess.Popen(
        [str(runner), *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"LD_LIBRARY_PATH": str(runner.parent / "lib"), "FARM_FUZZ": str(folder)},
        preexec_fn=_limit,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, stderr = process.communicate()
        return type(timed_out(LIMIT_S, stderr, "fuzz")).__name__
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 0)
        raise AssertionError("a process of the runner is left")
    return _read(process.returncode, stdout, stderr)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY_BYTES, MEMORY_BYTES))


def _read(code: int, stdout: bytes, stderr: bytes) -> str:
    status = Polled(
        "exited", None if code < 0 else code, -code if code < 0 else None, None, len(stdout),
        len(stderr), b"",
    )  # fmt: skip
    try:
        request = LaunchRequest(threads=1)
        result = read_launch(ExecutorchRunner(), request, status, stdout, stderr, 0, "fuzz")
    except RunnerCrashed as error:
        reason = error.context.get("reason")
        return "error line" if reason else f"RunnerCrashed {error.context['signal'] or code}"
    except RunnerTimeout as error:
        return type(error).__name__
    except FarmError as error:
        raise AssertionError(f"read as {type(error).__name__}: {error}") from error
    _check_finished(result)
    return "finished"


def _check_finished(result: LaunchResult) -> None:
    """A run that counts has a real duration for real tokens in each window."""
    for sample in result.samples:
        assert sample.duration_s > 0
        assert sample.metric == "load" or sample.tokens > 0
        assert sum(sample.token_s) <= sample.duration_s


def fuzz(target: Target, count: int, seed: int, folder: Path) -> Counter[str]:
    """Damage request and program in turn, `count` times.

    Raises:
        AssertionError: As `outcome`; names the case, which is left in the folder.
    """
    draw = random.Random(seed)
    program = folder / "model.pte"
    program.write_bytes(target.program)
    whole = outcome(target, program, target.request, folder)
    assert whole == "finished", f"the undamaged run: {whole}"
    found: Counter[str] = Counter()
    for number in range(count):
        at_request = number % 2 == 0
        request = damaged(target.request, draw) if at_request else target.request
        program.write_bytes(
            target.program if at_request else damaged(target.program, draw, head=HEAD_BYTES)
        )
        try:
            said = outcome(target, program, request, folder)
        except AssertionError as error:
            raise AssertionError(f"case {number} of seed {seed} in {folder}: {error}") from error
        found[f"{'request' if at_request else 'program'}: {said}"] += 1
    return found


def main() -> None:
    """The command."""
    from tests.lab.tiny_model import tiny_model

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    cache = Path(__file__).parents[3] / "build" / "native-tests"
    build = build_runner(host_abi(), installed_sdk(), cache)
    target = Target(build, (tiny_model() / "last.pte").read_bytes(), good_request())
    folder = Path(tempfile.mkdtemp(prefix="farm-fuzz-"))
    for kind, times in sorted(fuzz(target, options.count, options.seed, folder).items()):
        sys.stdout.write(f"{times:6} {kind}\n")


if __name__ == "__main__":
    main()
