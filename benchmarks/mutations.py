"""Faults of a model that farm has to catch, and to blame on the right stage and gate.

Each fault of `benchmarks/mutation/faults.py` is put in where it would arise; judging is farm's own.
Prints a row a fault and the smallest size caught of each class, and as its last line one JSON
document, which `--out` also writes to a file. Healthy cells are judged too: none may fail.

    python benchmarks/mutations.py [--model smollm2-135m] [--recipe xnnpack-8da4w] [--only WORD]
        [--cheap] [--compact] [--tokens 256] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--recipe", default="xnnpack-8da4w")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--only", default="", help="faults whose name or class has this word")
    parser.add_argument("--cheap", action="store_true", help="the share that `make test` runs")
    parser.add_argument(
        "--compact", action="store_true", help="the device's logits come as over a slow link"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # torch and transformers about themselves
    from benchmarks.mutation.faults import FAULTS
    from benchmarks.mutation.table import clean, smallest, tried
    from benchmarks.mutation.workbench import Workbench
    from farm.paths import farm_home

    faults = [
        fault
        for fault in FAULTS
        if options.only in f"{fault.name} {fault.kind} {fault.where}"
        and (fault.cheap or not options.cheap)
    ]
    bench = Workbench(
        farm_home(), options.model, options.recipe, options.tokens, compact=options.compact
    )
    try:
        healthy = clean(bench)
        for row in healthy:
            print(f"healthy: {row['cell']:<40} {row['outcome']:<12} {row['reason']}", flush=True)
        rows: list[dict[str, Any]] = []
        for fault in faults:
            started = time.monotonic()
            row = tried(bench, fault)
            row["seconds"] = round(time.monotonic() - started, 1)
            rows.append(row)
            said = "; ".join(row["failed"][:3]) or row["outcome"]
            _write(options.out, {"rows": rows, "healthy": healthy})
            print(f"{row['verdict']:<9} {fault.where:<9} {fault.name:<52} {said}", flush=True)
    finally:
        bench.close()
    print()
    for line in smallest(rows):
        print(line)
    missed = [row["name"] for row in rows if row["verdict"] != "caught" and row["must"]]
    alarms = [row["cell"] for row in healthy if row["outcome"] == "failed"]
    document = {
        "benchmark": "mutations",
        "model": options.model,
        "recipe": options.recipe,
        "tokens": options.tokens,
        "compact": options.compact,
        "figures": {
            "faults": len(rows),
            "caught": sum(row["verdict"] == "caught" for row in rows),
            "false_alarms": len(alarms),
            "clean": len(healthy),
        },
        "ratios": {},
        "targets": {"missed": 0, "false_alarms": 0},
        "missed": missed,
        "healthy": healthy,
        "rows": rows,
        "met": not missed and not alarms and not options.only and not options.cheap,
    }
    _write(options.out, document)
    print(json.dumps(document))


def _write(path: Path | None, document: dict[str, Any]) -> None:
    """Keep what there is so far: the whole takes an hour."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
