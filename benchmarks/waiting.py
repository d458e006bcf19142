"""How long people wait for farm itself: its help, its first line, a run whose exports are cached.

Each figure is the median of some processes; the share of the live view is CPU time of drawing four
frames a second of a thousand simulated devices with some hundred events a second. Targets hold on
a quiet machine. The cached run is the one of `make run`, after one that isn't counted.

    python benchmarks/waiting.py [--times 5] [--config configs/llama_q4.yaml] [--without-run]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: Largest accepted figures: seconds, and shares of a core.
TARGETS = {"help_s": 0.2, "first_line_s": 0.5, "cached_run_s": 40.0, "live_view_share": 0.05}
#: Of the live view.
DEVICES, EVENTS_HZ, SECONDS = 1000, 300, 10


def help_s() -> float:
    """`farm --help`, from start to end."""
    started = time.monotonic()
    farm("--help")
    return time.monotonic() - started


def first_line_s(config: Path) -> float:
    """From the start of `farm run` on a terminal to its first character."""
    ours, theirs = pty.openpty()
    with tempfile.TemporaryDirectory() as out:
        started = time.monotonic()
        words = [sys.executable, "-m", "farm", "run", str(config), "--cluster", "none"]
        run = subprocess.Popen(
            [*words, "--out", out], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        try:
            seen = b""
            while b"config" not in seen:
                if not select.select([ours], [], [], 60)[0]:
                    raise SystemExit(f"farm run printed nothing in a minute, only {seen!r}")
                seen += os.read(ours, 4096)
            return time.monotonic() - started
        finally:
            run.kill()
            run.wait()
            os.close(ours)
            os.close(theirs)


def cached_run_s(config: Path) -> float:
    """A whole run whose exports and references are in the content store."""
    with tempfile.TemporaryDirectory() as out:
        started = time.monotonic()
        farm("run", str(config), "--live", "off", "--out", out, codes=(0, 1, 3))
        return time.monotonic() - started


def live_view_share() -> float:
    """CPU time of the live view as a share of one core."""
    from farm.core.events import JobProgress
    from farm.core.runtime import AttemptId
    from farm.core.view import RunStarted
    from farm.ui.live import REFRESH_HZ, LiveView

    names = [f"sim{n:04d}" for n in range(DEVICES)]
    view = LiveView(io.StringIO())
    view._console.width, view._console.height = 200, 60
    cells = tuple((f"m/r/default:executorch:auto:{name}", name) for name in names)
    view.emit(RunStarted("20260102-x", "sim", cells, "runs/x"))

    def event(n: int) -> JobProgress:
        cell, name = cells[n % DEVICES]
        rate = ("tg64", 80.0 + n % 9)
        return JobProgress(
            AttemptId("20260102-x", 1, cell, 1), name, "measure", n % 34, 34, "launches", "", rate
        )

    for n in range(DEVICES):
        view.emit(event(n))
    began = time.process_time()
    for frame in range(SECONDS * REFRESH_HZ):
        for n in range(EVENTS_HZ // REFRESH_HZ):
            view.emit(event(frame * 75 + n))
        view._console.print(view._draw())
    return (time.process_time() - began) / SECONDS


def farm(*words: str, codes: tuple[int, ...] = (0,)) -> None:
    """Run a command of this tree."""
    done = subprocess.run(
        [sys.executable, "-m", "farm", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in codes:
        raise SystemExit(f"farm {' '.join(words)}: exit {done.returncode}: {done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "llama_q4.yaml")
    parser.add_argument("--without-run", action="store_true")
    options = parser.parse_args()
    parts: dict[str, Callable[[], float]] = {
        "help_s": help_s,
        "first_line_s": lambda: first_line_s(options.config),
        "live_view_share": live_view_share,
    }
    if not options.without_run:
        cached_run_s(options.config)
        parts["cached_run_s"] = lambda: cached_run_s(options.config)
    figures = {}
    for name, measure in parts.items():
        measure()  # compiles what it imports; not counted
        figures[name] = statistics.median(measure() for _ in range(options.times))
        print(f"{name:>16} {figures[name]:8.3f}   at most {TARGETS[name]:g}")
    ratios = {name: value / TARGETS[name] for name, value in figures.items()}
    print(
        json.dumps(
            {
                "benchmark": "waiting",
                "figures": figures,
                "ratios": ratios,
                "targets": dict.fromkeys(ratios, "<= 1"),
                "met": all(ratio <= 1 for ratio in ratios.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
