"""Drives a program by ExecuTorch's Python runtime, in a process of its own, and says who parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from farm.core.diagnosis import DriverRow
from farm.core.printable import one_line
from farm.judge.drivers import TEXT_RUNNER, by_ids, by_logits
from farm.judge.logits import Logits, Matrix, every_position
from farm.judge.rules import HOST_KL, HOST_KL_FP32
from farm.tasks.kept_worker import worker_environment
from farm.tasks.observe import Subject
from models.drivers import CHUNK

#: Ids that are continued with, and most seconds of all drivers.
_COUNT, _LONGEST_S = 32, 600.0


def drive(program: Path, subject: Subject, own: Matrix, folder: Path) -> tuple[DriverRow, ...]:
    """Compare drivers of one program on this host.

    Args:
        program: The .pte.
        subject: Its model, and what farm-runner was fed.
        own: Rows that farm-runner gave, one a token.
        folder: For what they give.
    """
    tokens, bundle = subject.tokens, subject.export.bundle
    most_kl = HOST_KL_FP32 if subject.recipe.linear == "none" else HOST_KL
    meta, count = bundle.metadata, min(_COUNT, bundle.metadata.max_context - len(tokens))
    if bundle.data is not None or count < 1:
        why = "external weights" if bundle.data is not None else "a context that the text fills"
        return (DriverRow("all", None, f"the Python runtime is not asked about {why}"),)
    order = {
        "program": str(program),
        "tokens": list(tokens),
        "prompt": list(tokens[: meta.max_seq]),
        "count": count,
        "stop": list(meta.stop_ids),
        "vocab": meta.vocab_size,
        "out": str(folder),
    }
    (folder / "drivers.json").write_text(json.dumps(order), encoding="utf-8")
    said = _run(folder / "drivers.json")
    try:
        shape = (-1, own.shape[1])
        single = np.fromfile(folder / "single.f32", "<f4").reshape(shape)
        chunks = np.fromfile(folder / "chunks.f32", "<f4").reshape(shape)
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        ours = found["ours"]
    except (OSError, ValueError, KeyError):
        return (DriverRow("all", None, f"the Python runtime didn't run it: {said}"),)
    ends = [min(at + CHUNK, len(tokens)) - 1 for at in range(0, len(tokens), CHUNK)]
    pieces = Logits(chunks, tuple(ends))
    rows = [
        by_logits(f"chunks of {CHUNK}", single, pieces, tokens, most_kl),
        by_logits("farm-runner", single, every_position(own), tokens, most_kl),
    ]
    if "theirs" not in found:
        return (*rows, DriverRow(TEXT_RUNNER, None, said))
    return (*rows, by_ids(ours, found["theirs"], count))


def _run(order: Path) -> str:
    """Run the drivers; say how their process ended."""
    words = [sys.executable, "-m", "models.drivers", str(order)]
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=_LONGEST_S, check=False, cwd=order.parent,
            env=worker_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it took more than {_LONGEST_S:.0f} s"
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return one_line(f"its process ended with {done.returncode}: {lines[-1] if lines else ''}", 300)
