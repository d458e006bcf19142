"""farm-runner against the stock ExecuTorch Python runtime with its custom operators.

The same .pte, thread pools of both sized to 1 and to 2, launches interleaved A B B A. Prints a
table and, as its last line, one JSON document. Without --pte the artifact of configs/llama_q4.yaml
is taken (exported when it isn't in the store).

    python benchmarks/runtime.py [--pte FILE] [--rounds 4]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PREFILL, DECODE, REPETITIONS = 128, 64, 3
THREADS = (1, 2)
TARGETS = {"decode": 1.10, "prefill": 1.05, "load": 1.0, "peak_rss": 1.0}


@dataclass
class Figures:
    """What the launches of one runtime with one pool size gave; a median per launch."""

    prefill: list[float] = field(default_factory=list)  # tok/s
    decode: list[float] = field(default_factory=list)  # tok/s
    load: list[float] = field(default_factory=list)  # seconds
    peak_rss: list[float] = field(default_factory=list)  # bytes

    def add(self, document: dict[str, float]) -> None:
        """Takes the medians of one more launch."""
        for name, value in document.items():
            getattr(self, name).append(value)


def run_ours(pte: Path, threads: int) -> dict[str, float]:
    """One launch of farm-runner."""
    from farm.home import farm_home, native_cache
    from runners.build import build_runner
    from runners.compiler import host_abi
    from runners.sdk import installed_sdk

    build = build_runner(host_abi(), installed_sdk(), native_cache(farm_home()), progress=note)
    runner = build.file("farm-runner").path
    shape = {"repetitions": REPETITIONS, "warmup": 1, "depth": 0}
    measure = [
        {"name": "prefill", "prefill": PREFILL, "decode": 0, **shape},
        {"name": "decode", "prefill": 0, "decode": DECODE, **shape},
    ]
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / "request.json"
        request.write_text(json.dumps({"protocol": 1, "threads": threads, "measure": measure}))
        words = ["--model", str(pte), "--request", str(request), "--out", folder]
        out = subprocess.run(
            [str(runner), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LD_LIBRARY_PATH": str(runner.parent / "lib")},
            check=True,
        ).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    rates: dict[str, list[float]] = {"prefill": [], "decode": []}
    for line in lines:
        if line["type"] == "sample" and not line["warmup"]:
            rates[line["metric"]].append(line["tokens"] / (line["end_ns"] - line["start_ns"]) * 1e9)
    loaded = next(line for line in lines if line["type"] == "loaded")
    return {
        **{name: statistics.median(values) for name, values in rates.items()},
        "load": loaded["load_ns"] / 1e9,
        "peak_rss": lines[-1]["peak_rss_bytes"],
    }


def run_stock(pte: Path, threads: int) -> dict[str, float]:
    """One launch of the Python runtime, in a process of its own."""
    words = [sys.executable, __file__, "--peer", str(threads), "--pte", str(pte)]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    document: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return document


def peer(pte: Path, threads: int) -> dict[str, float]:
    """The stock runtime's side: the same windows as farm-runner's."""
    import resource

    import torch
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
    from executorch.extension.pybindings import portable_lib
    from executorch.kernels import quantized  # noqa: F401

    portable_lib._unsafe_reset_threadpool(threads)
    # Torch's own pool, used for matrix products inside the custom operators, would fight with the
    # runtime's for the cores: one thread is the best case of this peer.
    torch.set_num_threads(1)
    before = time.monotonic()
    module = portable_lib._load_for_executorch(str(pte))
    one = (torch.tensor([[1]]), torch.tensor([0]))
    module.forward(one)
    first = time.monotonic()
    module.forward(one)
    # The method is only loaded by its first call, which costs one token besides.
    load = (first - before) - (time.monotonic() - first)
    ids = (torch.arange(PREFILL, dtype=torch.int64) * 7919 + 11) % 4096
    prompt = ids.view(1, PREFILL)

    def feed(tokens: torch.Tensor, position: int) -> torch.Tensor:
        logits: torch.Tensor = module.forward((tokens, torch.tensor([position])))[0]
        return logits.view(-1, logits.shape[-1])[-1].argmax().view(1, 1)

    def prefill() -> float:
        start = time.monotonic()
        feed(prompt, 0)
        return PREFILL / (time.monotonic() - start)

    def decode() -> float:
        token = feed(prompt[:, :1], 0)
        start = time.monotonic()
        for position in range(1, DECODE + 1):
            token = feed(token, position)
        return DECODE / (time.monotonic() - start)

    prefills = [prefill() for _ in range(REPETITIONS + 1)][1:]
    decodes = [decode() for _ in range(REPETITIONS + 1)][1:]
    return {
        "prefill": statistics.median(prefills),
        "decode": statistics.median(decodes),
        "load": load,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def note(line: str) -> None:
    print(line, file=sys.stderr)


def artifact() -> Path:
    """The .pte of configs/llama_q4.yaml, from the store or exported into it."""
    from farm.exports import export
    from farm.home import farm_home, store_root
    from farm.prepare import RunOptions
    from farm.site.store import ContentStore

    home = farm_home()
    options = RunOptions(config=ROOT / "configs" / "llama_q4.yaml", cluster="none")
    (made,) = export(options, home, lambda _event: None)
    if made.result is None:
        raise SystemExit(f"configs/llama_q4.yaml can't be exported: {made.report.error}")
    return ContentStore(store_root(home)).path(made.result.bundle.pte)


def compare(pte: Path, rounds: int) -> dict[str, object]:
    """Interleaves launches A B B A for every pool size and returns the last line's document."""
    figures: dict[str, object] = {}
    ratios: dict[str, float] = {}
    heads = ("pp128 tok/s", "tg64 tok/s", "load s", "RSS MB")
    print(f"{'threads':>7} {'runtime':>12}" + "".join(f" {head:>12}" for head in heads))
    for threads in THREADS:
        sides = {"farm": (run_ours, Figures()), "stock": (run_stock, Figures())}
        for round_number in range(rounds):
            order = ["farm", "stock"] if round_number % 2 == 0 else ["stock", "farm"]
            for name in order:
                launch, found = sides[name]
                found.add(launch(pte, threads))
        for name, (_launch, found) in sides.items():
            middle = {key: statistics.median(values) for key, values in vars(found).items()}
            figures[f"{name}@{threads}"] = middle
            print(
                f"{threads:>7} {name:>12} {middle['prefill']:>12.1f} {middle['decode']:>12.1f}"
                f" {middle['load']:>12.3f} {middle['peak_rss'] / 1e6:>12.1f}"
            )
        ours, theirs = sides["farm"][1], sides["stock"][1]
        for key in ("prefill", "decode"):
            pairs = zip(getattr(ours, key), getattr(theirs, key), strict=True)
            ratios[f"{key}@{threads}"] = statistics.median(a / b for a, b in pairs)
        for key in ("load", "peak_rss"):
            pairs = zip(getattr(theirs, key), getattr(ours, key), strict=True)
            ratios[f"{key}@{threads}"] = statistics.median(a / b for a, b in pairs)
    targets = {f"{key}@{n}": target for key, target in TARGETS.items() for n in THREADS}
    met = all(ratios[key] >= target for key, target in targets.items())
    return {
        "benchmark": "runtime",
        "figures": figures,
        "ratios": ratios,
        "targets": targets,
        "met": met,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pte", type=Path)
    parser.add_argument("--rounds", type=int, default=4, help="launches of each side and pool size")
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    pte = options.pte or artifact()
    if options.peer is not None:
        print(json.dumps(peer(pte, options.peer)))
        return
    document = compare(pte, options.rounds)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
