"""How often does `farm history` show a change of level where there is none, and where there is one?

Simulated metrics of so many nights, through farm.core.rules.changes: steady nights with normal and
with heavy-tailed scatter, nights that depend on the one before, and a step of 2 to 5 scatters.
Prints a table and, as its last line, one JSON document.

    python benchmarks/changes.py [--tries 2000]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from farm.core.rules.changes import changes  # noqa: E402

#: Scatter of a night.
SCATTER = 0.05
LENGTHS = (6, 8, 12, 20, 30, 60)
#: Largest share of steady metrics that may show a change.
TARGETS = {"false_normal": 0.012, "found_step_of_5": 0.95}

Nights = Callable[[random.Random, int], list[float]]


def normal(draw: random.Random, nights: int) -> list[float]:
    return [draw.gauss(0, SCATTER) for _ in range(nights)]


def heavy(draw: random.Random, nights: int) -> list[float]:
    """One night of ten scatters three times as much."""
    return [draw.gauss(0, SCATTER * (3 if draw.random() < 0.1 else 1)) for _ in range(nights)]


def dependent(draw: random.Random, nights: int) -> list[float]:
    """Half of what a night is off by stays for the next."""
    found, off = [], 0.0
    for _ in range(nights):
        off = 0.5 * off + draw.gauss(0, SCATTER * math.sqrt(0.75))
        found.append(off)
    return found


def step(scatters: float) -> Nights:
    """A loss of so many scatters for the last third of the nights."""

    def made(draw: random.Random, nights: int) -> list[float]:
        cut = nights * 2 // 3
        return [
            v - (SCATTER * scatters if n >= cut else 0) for n, v in enumerate(normal(draw, nights))
        ]

    return made


def share(kind: Nights, nights: int, tries: int) -> float:
    """Share of metrics that show any change."""
    draw = random.Random(nights)
    seen = sum(bool(changes([math.exp(v) for v in kind(draw, nights)])) for _ in range(tries))
    return seen / tries


def main() -> int:
    parser = argparse.ArgumentParser(description="Changes of level, false and found.")
    parser.add_argument("--tries", type=int, default=2000)
    tries = parser.parse_args().tries
    kinds: dict[str, Nights] = {"normal": normal, "heavy": heavy, "dependent": dependent}
    kinds |= {f"step of {size}": step(size) for size in (2, 3, 4, 5)}
    figures: dict[str, dict[str, float]] = {}
    print("| nights | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    for nights in LENGTHS:
        row = {name: share(kind, nights, tries) for name, kind in kinds.items()}
        figures[str(nights)] = row
        print(f"| {nights} | " + " | ".join(f"{v:.1%}" for v in row.values()) + " |", flush=True)
    ratios = {
        "false_normal": max(row["normal"] for row in figures.values()),
        "found_step_of_5": min(figures[n]["step of 5"] for n in ("20", "30", "60")),
    }
    met = (
        ratios["false_normal"] <= TARGETS["false_normal"]
        and ratios["found_step_of_5"] >= TARGETS["found_step_of_5"]
    )
    document = {
        "benchmark": "changes", "figures": figures, "ratios": ratios, "targets": TARGETS,
        "met": met,
    }  # fmt: skip
    print(json.dumps(document))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
