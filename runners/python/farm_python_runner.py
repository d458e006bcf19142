"""Runs a .pte with an installed ExecuTorch's Python runtime; speaks farm-runner's protocol.

Goes to the device as this one file and needs nothing of farm there: only an interpreter that has
executorch (any version) and torch. See runners/native/PROTOCOL.md for requests and lines.

    python farm_python_runner.py --model M.pte --request request.json --out DIR
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

PROTOCOL = 1
#: Context that decode starts with where the request gives none, as in farm-runner.
LEAST_CONTEXT = 1
#: How often the windows of a measurement are sized again.
MOST_RESIZED = 3


def say(kind: str, **members: Any) -> None:
    """Print one line of the protocol."""
    sys.stdout.write(json.dumps({"type": kind, **members}, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def fail(code: str, message: str) -> NoReturn:
    """Print the error line and end."""
    say("error", code=code, message=message, where=None, executorch_error=None)
    raise SystemExit(1)


class Model:
    """One loaded program. Every method works on token ids."""

    def __init__(self, path: str, threads: int) -> None:
        try:
            import torch
            from executorch.extension.pybindings import portable_lib
        except ImportError as error:
            fail("no_runtime", f"this interpreter ({sys.executable}) has no executorch: {error}")
        register_operators()
        self._torch = torch
        if threads:
            portable_lib._unsafe_reset_threadpool(threads)
        # Torch's own pool would fight with the runtime's for the cores.
        torch.set_num_threads(1)
        started = time.monotonic_ns()
        try:
            self._module = portable_lib._load_for_executorch(path)
            if "forward" not in self._module.method_names():
                fail(
                    "unsupported_model",
                    f"{path} has no method `forward`; the Python runtime gives several methods no"
                    " cache in common",
                )
            position = self._module.method_meta("forward").input_tensor_meta(1)
            self._every_position = position.sizes()[0] != 1
            self.values = {
                name: self._module.run_method(name, [])[0]
                for name in self._module.method_names()
                if name != "forward"
            }
            # The method is loaded by its first call.
            self.feed([0], 0)
        except RuntimeError as error:
            fail("load_failed", f"{path}: {error}")
        self.load_ns = time.monotonic_ns() - started
        self.threads = threads or portable_lib._threadpool_get_thread_count()

    @property
    def max_context(self) -> int:
        """Length of the cache in tokens."""
        return int(self.values.get("get_max_context_len", 128))

    @property
    def max_seq(self) -> int:
        """Longest single forward in tokens."""
        return int(self.values.get("get_max_seq_len", self.max_context))

    def feed(self, ids: list[int], position: int) -> Any:
        """Run ids from a position; return the last token's logits, a tensor of [vocabulary]."""
        torch, row = self._torch, None
        for start in range(0, len(ids), self.max_seq):
            piece = torch.tensor([ids[start : start + self.max_seq]], dtype=torch.int64)
            first = position + start
            count = piece.shape[1] if self._every_position else 1
            out = self._module.forward((piece, torch.arange(first, first + count)))
            row = out[0].reshape(-1, out[0].shape[-1])[-1]
        return row


def register_operators() -> None:
    """Load the kernels that llama programs use; each release keeps them somewhere else."""
    for module in (
        "executorch.kernels.quantized",
        "executorch.extension.llm.custom_ops.custom_ops",
        "executorch.extension.llm.custom_ops.sdpa_with_kv_cache",
    ):
        try:
            __import__(module)
        except (ImportError, OSError, RuntimeError) as error:
            sys.stderr.write(f"{module}: {error}\n")


def give_logits(model: Model, request: dict[str, Any], out: Path) -> None:
    """Teacher-forced passes: a file of rows each."""
    for one in request.get("logits", []):
        ids, position, rows = request["tokens"], 0, []
        for done, length in enumerate(one["chunks"]):
            rows.append(model.feed(ids[position : position + length], position).float().numpy())
            position += length
            if done % 16 == 0:
                phase = f"logits-{one['name']}"
                say("progress", phase=phase, done=done, total=len(one["chunks"]))
        raw = b"".join(row.astype("<f4").tobytes() for row in rows)
        file = f"{one['name']}.f32"
        (out / file).write_bytes(raw)
        say(
            "logits",
            name=one["name"],
            file=file,
            rows=len(rows),
            cols=len(rows[0]),
            dtype="f32",
            sha256=hashlib.sha256(raw).hexdigest(),
        )


def generate(model: Model, order: dict[str, Any]) -> None:
    """Greedy continuation of a prompt."""
    ids = list(order["prompt"])
    row, made, stopped = model.feed(ids, 0), [], "length"
    for position in range(len(ids), len(ids) + order["max_new_tokens"]):
        token = int(row.argmax())
        if token in order.get("stop", []):
            stopped = "stop"
            break
        made.append(token)
        if position >= model.max_context:
            stopped = "context"
            break
        row = model.feed([token], position)
    say("generated", ids=made, stopped_by=stopped)


def measure(model: Model, one: dict[str, Any], tokens: list[int]) -> None:
    """One timed workload with its repetitions; the windows are those of farm-runner."""
    prefill, decode = one["prefill"], one["decode"]
    depth = one["depth"] or (0 if prefill else LEAST_CONTEXT)
    ids = [tokens[index % len(tokens)] for index in range(depth + prefill)]
    passes, rep = 1, 0
    warmups = one["warmup"]
    # A request is answered once: where a window both prefills and decodes it stays one.
    window_ms = 0 if prefill and decode else one.get("window_ms", 0)
    while rep < warmups + one["repetitions"]:
        first = int(model.feed(ids[:depth], 0).argmax()) if depth else 0
        ttft: int | None = None
        token_ns: list[int] = []
        start = before = time.monotonic_ns()
        for _ in range(passes):
            token = first
            if prefill:
                token = int(model.feed(ids[depth:], depth).argmax())
                before = time.monotonic_ns()
                ttft = before - start if ttft is None else ttft
            for position in range(depth + prefill, depth + prefill + decode):
                token = int(model.feed([token], position).argmax())
                now = time.monotonic_ns()
                token_ns.append(now - before)
                before = now
        # Windows that count are all alike, so only warm-ups size them; one that comes out too short
        # becomes another warm-up.
        needed = passes_for((before - start) / passes, window_ms)
        short = (before - start) < 0.9 * window_ms * 1_000_000 and passes < needed
        if one["warmup"] and rep == warmups < one["warmup"] + MOST_RESIZED and short:
            warmups += 1
        say(
            "sample",
            metric=one["name"],
            rep=rep if rep < warmups else rep - warmups,
            warmup=rep < warmups,
            tokens=passes * (prefill + decode),
            passes=passes,
            prefill=prefill,
            decode=decode,
            depth=one["depth"],
            start_ns=start,
            end_ns=before,
            ttft_ns=ttft,
            token_ns=token_ns,
        )
        rep += 1
        if rep == warmups:
            passes = needed


def passes_for(took_ns: float, window_ms: int) -> int:
    """How often a window does its work to last what was asked for, at most 1000 times."""
    return min(max(1, math.ceil(window_ms * 1_000_000 / max(took_ns, 1))), 1000)


def peak_rss_bytes() -> int:
    """VmHWM of this process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    """Do one request."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--request", required=True)
    parser.add_argument("--out", required=True)
    words = parser.parse_args()
    request = json.loads(Path(words.request).read_text())
    if request.get("protocol") != PROTOCOL:
        fail("unsupported_protocol", f"protocol {request.get('protocol')}, not {PROTOCOL}")
    if request.get("sdpa_order"):
        fail("bad_request", "this runtime has one order of accumulation only")
    started = time.monotonic_ns()
    model = Model(words.model, request.get("threads", 0))
    version = importlib.metadata.version("executorch")
    say(
        "hello",
        protocol=PROTOCOL,
        version=f"ExecuTorch {version} (Python {platform.python_version()})",
        abi={"aarch64": "arm64-v8a"}.get(platform.machine(), platform.machine()),
        isa="unknown",
        features=[],
        backends=[],
        kernels=["llama::custom_sdpa.out=executorch"],
    )
    say(
        "loaded",
        load_ns=model.load_ns,
        threads=model.threads,
        affinity="none",
        max_context=model.max_context,
        max_seq=model.max_seq,
        backends=[],
        peak_rss_bytes=peak_rss_bytes(),
    )
    give_logits(model, request, Path(words.out))
    if request.get("generate"):
        generate(model, request["generate"])
    for one in request.get("measure", []):
        measure(model, one, request.get("tokens") or [1])
    say("done", peak_rss_bytes=peak_rss_bytes(), wall_ns=time.monotonic_ns() - started)


if __name__ == "__main__":
    main()
