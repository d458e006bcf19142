"""The speed that farm reports against the same runner, started by hand.

One .pte, one binary, one request; pairs in alternating order. Both numbers are medians of one
launch's windows, so their ratio is what farm's own doing (supervision, polls, hashing, other
processes) costs the measured program. Without --pte the artifact of configs/llama_q4.yaml is taken.

    python benchmarks/overhead.py [--pte FILE] [--pairs 30] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
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


def compare(pte: Path, pairs: int, threads: int) -> dict[str, object]:
    """Interleave the pairs and return the last line's document."""
    sides = {"farm": partial(run_bench, pte), "by hand": partial(run_farm, pte)}
    found: dict[str, list[Figures]] = {name: [] for name in sides}
    for run in sides.values():
        run(threads)  # builds, pushes and warms the page cache; not counted
    for pair in range(pairs):
        for name in sorted(sides, reverse=bool(pair % 2)):
            found[name].append(sides[name](threads))
    ratios, figures = {}, {}
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
        "figures": figures,
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
