"""`executorch`, farm's default runner, against ExecuTorch's own Python runtime: an app's speed.

The same .pte, 1 and 2 threads, launches of all sides in turn (A B C D, D C B A). `executorch-tuned`
and, where npm has it, llama.cpp with the same weights stand beside them. Prefill, decode and load
of the first two should be within 5 % of each other. Attention can't be one and the same: no wheel
has ExecuTorch's without torch, so farm's stands in, as each row of a report says too. Prints a
table and, as its last line, one JSON document.

    python benchmarks/as_shipped.py [--pte FILE] [--pairs 6] [--threads 1 2]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import llama_cpp, runtime  # noqa: E402
from benchmarks.method.paired import (  # noqa: E402
    Duel,
    Figures,
    Launch,
    Ratio,
    artifact,
    note,
    run_child,
    run_farm,
)

THREADS = (1, 2)
#: How far the medians may lie apart.
CLOSE = 0.05
FIGURES = ("prefill", "decode", "load")
#: The same for each CPU second: what other programs of a busy machine take away isn't in them.
CPU_FIGURES = tuple(f"{key}_cpu" for key in FIGURES)
OURS, PEER, TUNED = "executorch", "python", "executorch-tuned"
#: Why a figure of theirs differs though both run ExecuTorch's code.
CAUSES = {
    "prefill": "attention is farm's here, and libcustom_ops_aot_lib's with torch there",
    "decode": "as prefill, and each token passes through Python there",
    "load": "the Python runtime locks the mapped file in memory (mlock)",
}


def llama_side() -> tuple[Launch | None, str]:
    """llama.cpp, or why it can't be had."""
    from farm.paths import farm_home

    try:
        library = llama_cpp.fetch(farm_home() / "peers" / "llama.cpp")
    except llama_cpp.Missing as error:
        return None, str(error)
    model = llama_cpp.weights()

    def launch(threads: int) -> Figures:
        script = str(Path(llama_cpp.__file__))
        paths = ["--library", str(library), "--model", str(model)]
        return run_child([script, "--peer", str(threads), *paths])

    return launch, ""


def rounds(sides: Mapping[str, Launch], threads: int, pairs: int) -> dict[str, list[Figures]]:
    """So many launches of every side, each after one of its own that isn't counted."""
    found: dict[str, list[Figures]] = {name: [] for name in sides}
    for number in range(pairs):
        note(f"threads {threads}: round {number + 1} of {pairs}")
        for name in sides if number % 2 == 0 else reversed(list(sides)):
            sides[name](threads)
            found[name].append(sides[name](threads))
            # A sitting that is cut short has what it measured so far.
            note(json.dumps({"threads": threads, "runtime": name, **found[name][-1]}))
    return found


def table(found: Mapping[int, Mapping[str, list[Figures]]]) -> dict[str, Figures]:
    """Print and return the medians."""
    figures: dict[str, Figures] = {}
    heads = ("pp128", "tg64", "load s", "RSS MB")
    print(f"{'threads':>7} {'runtime':>17}" + "".join(f" {head:>10}" for head in heads))
    for threads, sides in found.items():
        for name, launches in sides.items():
            middle, _ = Duel(launches, launches).medians()
            figures[f"{name}@{threads}"] = middle
            cells = (*(middle[key] for key in FIGURES), middle["peak_rss"] / 1e6)
            print(f"{threads:>7} {name:>17}" + "".join(f" {cell:>10.3f}" for cell in cells))
    return figures


def compared(found: Mapping[int, Mapping[str, list[Figures]]]) -> dict[str, Ratio]:
    """Print and return the ratios of both of farm's runners to each peer; above 1 is better."""
    ratios: dict[str, Ratio] = {}
    print(f"\n{'figure':>13} {'ratio':>29} {'median':>8} {'95 % interval':>18}")
    for threads, sides in found.items():
        peers = [name for name in sides if name not in (OURS, TUNED)]
        for ours, peer in ((ours, peer) for ours in (OURS, TUNED) for peer in peers):
            for key in (*FIGURES, *CPU_FIGURES):
                if key not in sides[peer][0]:
                    continue
                ratio = Duel(sides[ours], sides[peer]).ratio(key)
                ratios[f"{ours}/{peer}:{key}@{threads}"] = ratio
                pair = f"{ours} / {peer}"
                span = f"{ratio.low:.3f}..{ratio.high:.3f}"
                print(f"{f'{key}@{threads}':>13} {pair:>29} {ratio.median:>8.3f} {span:>18}")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pte", type=Path)
    parser.add_argument("--pairs", type=int, default=6, help="launches of each side and threads")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=THREADS, help="pool sizes (default: 1 2)"
    )
    options = parser.parse_args()
    pte = options.pte or artifact(ROOT)
    python = [runtime.__file__, "--pte", str(pte), "--peer"]
    sides: dict[str, Launch] = {
        OURS: partial(run_farm, pte),
        PEER: lambda threads: run_child([*python, str(threads)]),
        TUNED: partial(run_farm, pte, tuned=True),
    }
    launch, missing = llama_side()
    if launch is not None:
        sides["llama.cpp"] = launch
    else:
        note(f"llama.cpp is not run: {missing}")
    found = {threads: rounds(sides, threads, options.pairs) for threads in options.threads}
    figures, ratios = table(found), compared(found)
    targets = {f"{key}@{n}": [1 - CLOSE, 1 + CLOSE] for n in options.threads for key in FIGURES}
    apart = {
        key: ratios[f"{OURS}/{PEER}:{key}"].median
        for key, (low, high) in targets.items()
        if not low <= ratios[f"{OURS}/{PEER}:{key}"].median <= high
    }
    for key, ratio in apart.items():
        print(f"{key}: {ratio:.3f} is not within {CLOSE:.0%}; known cause: {CAUSES[key[:-2]]}")
    document = {
        "benchmark": "as_shipped",
        "figures": figures,
        "ratios": {key: ratio._asdict() for key, ratio in ratios.items()},
        "targets": targets,
        "apart": {key: CAUSES[key[:-2]] for key in apart},
        "not_run": {"llama.cpp": missing} if missing else {},
        "met": not apart,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
