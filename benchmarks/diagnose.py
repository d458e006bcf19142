"""`farm diagnose` at seeded faults: does it name the layer, the operator and the stage?

The faults are those of `benchmarks/mutations.py` that have a place, and healthy cells, which none
may be blamed for. Prints a row each, and as its last line one JSON document, also written to --out.

    python benchmarks/diagnose.py [--model tiny-llama-deep] [--recipe xnnpack-8da4w] [--only WORD]
        [--clean 3] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from benchmarks.mutation.faults import Fault
    from benchmarks.mutation.workbench import Workbench
    from farm.core.diagnosis import Blame

#: Faults of a layer, and of an operator, that have to be named rightly.
_LAYERS, _OPERATORS = 10, 5


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny-llama-deep")
    parser.add_argument("--recipe", default="xnnpack-8da4w")
    parser.add_argument("--only", default="", help="faults whose name or class has this word")
    parser.add_argument("--clean", type=int, default=3, help="healthy looks, each another order")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # torch and transformers about themselves
    from benchmarks.mutation.faults import FAULTS
    from benchmarks.mutation.sides import PLACES
    from benchmarks.mutation.workbench import Workbench
    from farm.paths import farm_home

    faults = [
        one for one in FAULTS if one.kind in PLACES and options.only in f"{one.name} {one.kind}"
    ]
    bench = Workbench(farm_home(), options.model, options.recipe, 256)
    rows: list[dict[str, Any]] = []
    try:
        clean = [_clean(bench, number) for number in range(options.clean)]
        for fault in faults:
            rows.append(_diagnosed(bench, fault))
            document = _document(rows, clean, options, len(faults))
            if options.out is not None:
                options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    finally:
        bench.close()
    print(json.dumps(_document(rows, clean, options, len(faults))))


def _document(
    rows: list[dict[str, Any]],
    clean: list[dict[str, Any]],
    options: argparse.Namespace,
    faults: int,
) -> dict[str, Any]:
    layered = [row for row in rows if row["expected"][1] is not None]
    figures = {
        "faults": len(rows),
        "faults_with_a_layer": len(layered),
        "right_stage": sum(row["right"][0] for row in rows),
        "right_layer": sum(row["right"][1] for row in layered),
        "right_operator": sum(row["right"][2] for row in rows),
        "clean": len(clean),
        "false_blame": sum(row["blame"] is not None for row in clean),
    }
    enough = figures["right_layer"] >= _LAYERS and figures["right_operator"] >= _OPERATORS
    return {
        "benchmark": "diagnose",
        "model": options.model,
        "recipe": options.recipe,
        "figures": figures,
        "ratios": {},
        "targets": {"right_layer": _LAYERS, "right_operator": _OPERATORS, "false_blame": 0},
        "whole": not options.only and len(rows) == faults,
        "clean": clean,
        "rows": rows,
        "met": bool(enough and clean and not figures["false_blame"]),
    }


def _clean(bench: Workbench, order: int) -> dict[str, Any]:
    """A healthy cell; orders above 0 are those in which the noise floor sums."""
    from benchmarks.mutation.sides import looked

    started = time.monotonic()
    found = looked(bench, bench.healthy, order=order)
    worst = max((row.error or 0.0) for row in found.rows)
    blame = None if found.blame is None else found.blame.reason
    seconds = round(time.monotonic() - started, 1)
    print(f"healthy, order {order}: blame {blame}, worst {worst:.3g} x, {seconds} s", flush=True)
    return {
        "order": order,
        "blame": blame,
        "worst": worst,
        "observed": found.observed,
        "seconds": seconds,
    }


def _diagnosed(bench: Workbench, fault: Fault) -> dict[str, Any]:
    from benchmarks.mutation.sides import PLACES, looked
    from farm.core.errors import FarmError

    expected = PLACES[fault.kind]
    row: dict[str, Any] = {"name": fault.name, "class": fault.kind, "expected": expected}
    blame: Blame | None = None
    text = "nothing parts"
    observed: tuple[tuple[str, str], ...] = ()
    started = time.monotonic()
    try:
        stages = fault.inject(bench, fault.size)
        injected = time.monotonic()
        found = looked(bench, stages)
        blame, observed = found.blame, found.observed
    except FarmError as error:
        injected, text = time.monotonic(), f"{type(error).__name__}: {error}"
    named = (None, None, None) if blame is None else (blame.stage, blame.layer, blame.operator)
    right = [blame is not None and one == other for one, other in zip(named, expected, strict=True)]
    if blame is not None:
        text = blame.reason
    mark = "right" if all(right) else "WRONG"
    print(f"{mark} {fault.name:<52} {named} {text[:90]}", flush=True)
    return row | {
        "named": named,
        "right": right,
        "reason": text,
        "observed": observed,
        "seconds": round(time.monotonic() - injected, 1),
        "injecting_s": round(injected - started, 1),
    }


if __name__ == "__main__":
    main()
