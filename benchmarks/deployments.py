"""A deployment to 20 simulated devices in stages, against the time that its plan says.

The tiny model is run on this machine, then deployed to folders behind simulated links: 1, 10 %, all
of them, every step for real but the devices. All of them share this machine's cores. Then the same
again, of which no byte is to be pushed. Prints a table and, as its last line, one JSON document.

    python benchmarks/deployments.py [--devices 20] [--latency-ms 20]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from farm.core.deployment import parse_stages  # noqa: E402
from farm.core.device import DeviceEntry  # noqa: E402
from farm.core.rules.rollout import RolloutPlan, Target  # noqa: E402
from farm.deploy import begin, work  # noqa: E402
from farm.deploy.record import SavedDeployment  # noqa: E402

STAGES = "1,10%,100%"


def validated(home: Path, folder: Path) -> begin.Planned:
    """Run the tiny model here, and plan its deployment to this machine."""
    words = (
        "run", str(ROOT / "configs" / "tiny.yaml"), "--cluster", "none", "--live", "off", "--quick",
        "--select", "transport=local", "--set", "gates={}",
    )  # fmt: skip
    environment = {**os.environ, "FARM_HOME": str(home), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "farm", *words], cwd=folder, env=environment, check=True)
    request = begin.DeployRequest(
        run="latest", to="transport=local", out=folder / "runs", name="kiosk"
    )
    return begin.plan(request, home)


def to_many(
    planned: begin.Planned, names: list[str], folder: Path, latency_s: float
) -> begin.Planned:
    """The same deployment to simulated devices, as the plan would have them."""
    (one,) = planned.saved.assigned
    script = (("latency_s", str(latency_s)),)
    entries = [DeviceEntry(name, "sim", root=str(folder / name), sim=script) for name in names]
    rollout = RolloutPlan(
        tuple(Target(name, one.manifest.version) for name in names),
        parse_stages(STAGES).ends(len(names)),
    )
    assigned = tuple(replace(one, entry=entry) for entry in entries)
    saved = replace(planned.saved, rollout=rollout, assigned=assigned)
    return replace(planned, saved=saved, forecast_s=begin.forecast(saved, planned.took_s))


def carried_out(saved: SavedDeployment, home: Path) -> tuple[float, int]:
    """Seconds that it took, and bytes that it pushed."""
    started = time.monotonic()
    ended = work.begin(
        saved, home, lambda device, text: print(f"{device}: {text}", file=sys.stderr)
    )
    took_s = time.monotonic() - started
    assert ended.finished.outcome == "deployed", ended.finished
    return took_s, sum(one.pushed_bytes for one in ended.devices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "home"
        os.environ["FARM_HOME"] = str(home)
        names = [f"sim{number:02d}" for number in range(1, options.devices + 1)]
        planned = to_many(validated(home, folder), names, folder, options.latency_ms / 1e3)
        took_s, pushed = carried_out(planned.saved, home)
        again = replace(planned.saved, deployment_id=f"{planned.saved.deployment_id}-again")
        again_s, again_pushed = carried_out(again, home)
    figures = {
        "devices": options.devices,
        "planned_s": round(planned.forecast_s, 1),
        "took_s": round(took_s, 1),
        "pushed_bytes": pushed,
        "again_s": round(again_s, 1),
        "again_pushed_bytes": again_pushed,
    }
    for key, value in figures.items():
        print(f"{key:>20} {value}")
    document = {
        "benchmark": "deployments",
        "figures": figures,
        "ratios": {"took/planned": round(took_s / planned.forecast_s, 3)},
        "targets": {"took/planned": "<= 1", "again_pushed_bytes": 0},
        "met": took_s <= planned.forecast_s and again_pushed == 0,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
