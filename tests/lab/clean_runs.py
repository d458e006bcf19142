"""Clean runs over lab devices, none of which may alarm: `python -m tests.lab.clean_runs` (as root).

An x86-64 phone over adb and an arm64 board over ssh (emulated) run the tiny model by three recipes,
run after run, each with another text and number of threads. Every cell has to pass, and `farm
diagnose` may blame nothing: all cells of the first run, and one of each later run. Prints a line a
run and, last, one JSON document; ends with 1 where anything was alarmed, blamed or not judged.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.command import CONFIGS, SOURCES, Farm
from tests.lab.board import make_board
from tests.lab.machine import Machine
from tests.lab.phone import AdbServer, make_phone
from tests.lab.up import lab_of

RECIPES = ("xnnpack-8da4w", "xnnpack-4w", "xnnpack-fp32")
TEXTS = sorted((SOURCES / "models" / "data" / "corpus").glob("*.txt"))
THREADS = (1, 2, 3, 4)
#: Speeds of an emulated board say nothing; what is computed does.
SETTINGS = (
    "--cluster", "none", "--live", "off",
    "--set", f"matrix.recipe=[{', '.join(RECIPES)}]",
    "--set", "workload={prefill: [16], decode: [16], launches: 1, max_launches: 1, repetitions: 2}",
    "--set", "gates={perplexity: '<= 1.02x host'}",
)  # fmt: skip


def one_run(farm: Farm, number: int) -> list[dict[str, Any]]:
    """The cells of one run."""
    text, threads = TEXTS[number % len(TEXTS)], THREADS[number // len(TEXTS) % len(THREADS)]
    words = ("--set", f"correctness.text={text}", "--set", f"matrix.threads=[{threads}]")
    done = farm(
        "run", str(CONFIGS / "tiny.yaml"), "-i", "lab.yaml", *SETTINGS, *words, limit_s=1800
    )
    if done.returncode not in (0, 1, 3):
        raise SystemExit(done.stdout + done.stderr)
    cells: list[dict[str, Any]] = farm.report()["results"]
    return cells


def faults_of(cell: dict[str, Any]) -> list[str]:
    """What was alarmed in a cell: gates that failed or could not decide, or another outcome."""
    gates = (cell["correctness"] or {}).get("gates") or []
    found = [f"{gate['metric']}: {gate['text']}" for gate in gates if gate["passed"] is not True]
    if cell["outcome"] != "passed" or not gates:
        found.append(f"{cell['outcome']}: {cell['reason']}")
    return [f"{cell['cell_id']}: {fault}" for fault in found]


def blame(farm: Farm, cell: str) -> str:
    """What `farm diagnose` blames in a clean cell; empty as it should be."""
    done = farm("diagnose", "latest", cell, "--json", "--live", "off", limit_s=1800)
    if done.returncode == 0 and json.loads(done.stdout)["blame"] is None:
        return ""
    return f"{cell}: exit {done.returncode}: {done.stdout[-600:]}{done.stderr[-600:]}"


def machines(server: AdbServer) -> Iterator[Machine]:
    """One of either ABI and kind of connection."""
    yield make_phone(server, "cleanphone")
    yield make_board("cleanboard", arch="arm64")


def main() -> int:
    """Run all; return 1 where anything was alarmed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    alarms: list[str] = []
    blamed: list[str] = []
    looks = 0
    with lab_of(machines) as (farm, made):
        wanted = options.runs * len(RECIPES) * len(made)
        for number in range(options.runs):
            began = time.monotonic()
            cells = one_run(farm, number)
            outcomes.update(cell["outcome"] for cell in cells)
            alarms += (found := [fault for cell in cells for fault in faults_of(cell)])
            looked = cells if number == 0 else [cells[number % len(cells)]]
            said = [said for cell in looked if (said := blame(farm, cell["cell_id"]))]
            looks += len(looked)
            blamed += said
            took = time.monotonic() - began
            print(
                f"run {number + 1}: {len(cells)} cells, {len(found)} alarms, {len(said)} of"
                f" {len(looked)} blamed, {took:.0f} s",
                *found, *said, sep="\n  ", flush=True,
            )  # fmt: skip
    cells_run = sum(outcomes.values())
    met = not alarms and not blamed and cells_run == wanted
    document = {
        "command": f"python -m tests.lab.clean_runs --runs {options.runs}",
        "recipes": RECIPES,
        "abis": ["x86_64", "arm64-v8a"],
        "cells": cells_run,
        "outcomes": outcomes,
        "alarms": alarms,
        "diagnosed": looks,
        "blamed": blamed,
        "met": met,
    }
    print(json.dumps(document))
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
