"""The speed that farm reports against the same runner, started by hand: `executorch`, as always.

One .pte, one binary, one request; pairs in alternating order. Both numbers are medians of one
launch's windows, so their ratio is what farm's own doing (supervision, polls, hashing, other
processes) costs the measured program. Before a launch farm leaves the device alone for some
seconds, after which a core's clock and the cache that it shares with others aren't what they were
in the middle of work; by hand the same pause is made, and not counted. Without --pte the artifact
of configs/llama_q4.yaml is taken.

    python benchmarks/overhead.py [--pte FILE] [--pairs 30] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method.paired import DECODE, PREFILL, Figures, artifact, median_ratio, run_farm  # noqa: E402

#: Largest relative difference of the median pair.
TARGET = 0.02


def run_bench(pte: Path, threads: int) -> Figures:
    """One launch through `farm bench`."""
    words = ["bench", str(pte), "-p", str(PREFILL), "-n", str(DECODE), "-t", str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", "farm", *words, "-l", "1", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        check=True,
    )
    found = {item["metric"]: item["median"] for item in json.loads(done.stdout)["performance"]}
    return {"prefill": found[f"pp{PREFILL}"], "decode": found[f"tg{DECODE}"]}


def seconds_of(run: Callable[[int], Figures], threads: int) -> float:
    """How long a side takes, its start and end included."""
    started = time.monotonic()
    run(threads)
    return time.monotonic() - started


def by_hand(pte: Path, pause_s: float, threads: int) -> Figures:
    """One launch of the runner alone, after a pause."""
    time.sleep(pause_s)
    return run_farm(pte, threads)


def compare(pte: Path, pairs: int, threads: int) -> dict[str, object]:
    """Interleave the pairs and return the last line's document."""
    sides = {"farm": partial(run_bench, pte), "by hand": partial(by_hand, pte, 0.0)}
    found: dict[str, list[Figures]] = {name: [] for name in sides}
    for run in sides.values():
        run(threads)  # builds, pushes and warms the page cache; not counted
    took_s = {name: seconds_of(run, threads) for name, run in sides.items()}
    pause_s = max(0.0, took_s["farm"] - took_s["by hand"])
    sides["by hand"] = partial(by_hand, pte, pause_s)
    print(f"pause before a launch by hand: {pause_s:.1f} s")
    for pair in range(pairs):
        for name in sorted(sides, reverse=bool(pair % 2)):
            found[name].append(sides[name](threads))
    ratios: dict[str, float] = {}
    figures: dict[str, object] = {}
    print(f"{'metric':>8} {'farm':>12} {'by hand':>12} {'median ratio':>13} {'95 % interval':>14}")
    for metric in ("prefill", "decode"):
        ours, hand = ([one[metric] for one in found[name]] for name in sides)
        each = sorted(a / b for a, b in zip(ours, hand, strict=True))
        middle = median_ratio(each)
        ratios[metric] = middle.median
        figures[metric] = {
            "farm": statistics.median(ours),
            "by_hand": statistics.median(hand),
            "interval": [middle.low, middle.high],
            "ratios": each,
        }
        print(
            f"{metric:>8} {statistics.median(ours):>12.1f} {statistics.median(hand):>12.1f}"
            f" {middle.median:>13.4f} {middle.low:>8.3f}..{middle.high:.3f}"
        )
    return {
        "benchmark": "overhead",
        "figures": {**figures, "pause_s": pause_s},
        "ratios": ratios,
        "targets": dict.fromkeys(ratios, f"1 +- {TARGET}"),
        "met": all(abs(ratio - 1) <= TARGET for ratio in ratios.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pte", type=Path)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    pte = options.pte or artifact(ROOT)
    print(json.dumps(compare(pte, options.pairs, options.threads)))


if __name__ == "__main__":
    main()
