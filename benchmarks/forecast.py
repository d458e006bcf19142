"""What `farm sim` says of a run against the run itself: six devices of the lab, adb and ssh.

The first run fills the history that the forecast is made of. Then each round asks for the forecast,
empties the content store, so that the run exports anew as the forecast assumes, and runs; a run's
time is that of the command. The
devices are namespaces of this machine and share its cores with everything else on it: the spread
of three runs is shown beside the median. Needs root. Prints a table and, as its last line, one JSON
document.

    python benchmarks/forecast.py [--rounds 3] [--phones 3] [--boards 3]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.command import CONFIGS, Farm  # noqa: E402
from tests.lab.board import make_board  # noqa: E402
from tests.lab.fixtures import destroy  # noqa: E402
from tests.lab.host import why_not  # noqa: E402
from tests.lab.machine import Machine  # noqa: E402
from tests.lab.phone import AdbServer, make_phone  # noqa: E402
from tests.lab.up import write_inventory  # noqa: E402

#: Largest distance of the median ratio of predicted to real time from 1.
TARGET = 0.25
TINY = str(CONFIGS / "tiny.yaml")
_LIMIT_S = 3600.0
_WORK = (
    "--set", "gates={}", "--set", "workload.launches=3", "--set", "workload.max_launches=3",
)  # fmt: skip


def run(farm: Farm, inventory: Path, cells: int) -> float:
    """Run, with every export made anew; returns seconds."""
    shutil.rmtree(farm.home / "store", ignore_errors=True)
    words = ("--inventory", str(inventory), "--live", "off", *_WORK)
    began = time.monotonic()
    done = farm("run", TINY, *words, limit_s=_LIMIT_S)
    took = time.monotonic() - began
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    report: dict[str, Any] = farm.report()
    if report["summary"]["passed"] != cells or report["exports"][0]["cache_hit"]:
        raise SystemExit(f"not the run that was forecast: {report['summary']}")
    return took


def predicted(farm: Farm, inventory: Path) -> float:
    """What the simulation says, seconds."""
    words = ("--inventory", str(inventory), "--nights", "5", "--json", *_WORK)
    done = farm("sim", TINY, *words, limit_s=_LIMIT_S)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    if found["assumed"]:
        raise SystemExit(f"the history does not tell {found['assumed']}")
    return float(found["case"]["night"]["wall_s"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--phones", type=int, default=3)
    parser.add_argument("--boards", type=int, default=3)
    arguments = parser.parse_args()
    if why := why_not():
        raise SystemExit(f"not run: {why}")
    machines: list[Machine] = []
    server = AdbServer()
    rows: list[dict[str, float]] = []
    try:
        machines += [make_phone(server, f"fc-phone{n}") for n in range(arguments.phones)]
        machines += [make_board(f"fc-board{n}") for n in range(arguments.boards)]
        with tempfile.TemporaryDirectory() as folder:
            farm = Farm(Path(folder) / "home", Path(folder))
            inventory = Path(folder) / "lab.yaml"
            write_inventory(inventory, machines, local=False)
            first = run(farm, inventory, len(machines))
            print(f"first run, for the history: {first:.1f} s, load {os.getloadavg()[0]:.1f}")
            print(f"{'predicted s':>12} {'real s':>9} {'ratio':>7} {'load':>6}")
            for _ in range(arguments.rounds):
                said = predicted(farm, inventory)
                real = run(farm, inventory, len(machines))
                load = os.getloadavg()[0]
                rows.append({"predicted_s": said, "real_s": real, "ratio": said / real})
                print(f"{said:12.1f} {real:9.1f} {said / real:7.2f} {load:6.1f}", flush=True)
    finally:
        destroy(machines)
        server.kill()
    median = statistics.median(row["ratio"] for row in rows)
    document = {
        "benchmark": "forecast",
        "figures": {"rounds": rows, "devices": arguments.phones + arguments.boards},
        "ratios": {"predicted_to_real": median},
        "targets": {"predicted_to_real": f"1 +- {TARGET}"},
        "met": abs(median - 1) <= TARGET,
    }
    print(json.dumps(document))
    return 0 if document["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
