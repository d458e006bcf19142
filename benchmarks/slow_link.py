"""Logits of 256 tokens over a link of 5 MB/s: whole rows, and what a job takes of them.

Rows of a vocabulary of 49,152 (SmolLM2's) lie on a real adbd and a real sshd of the lab, whose link
is limited; both forms are fetched in turns, connection included in neither. The rows are random:
what is timed is the device's work and the link. It needs root. Prints a table and, as its last
line, one JSON document.

    python benchmarks/slow_link.py [--rounds 3] [--rate-mb-s 5]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method.lab import no_lab  # noqa: E402
from benchmarks.method.link import BareLink  # noqa: E402
from farm.core.artifact import LogitsForm, LogitsPass, LogitsRef, ObjectRef  # noqa: E402
from farm.core.lease import LeaseOwner  # noqa: E402
from farm.core.runtime import Hello, LaunchRequest, LaunchResult  # noqa: E402
from farm.site.device.connection import Connection  # noqa: E402
from farm.site.job.logits import fetch_logits  # noqa: E402
from farm.store.objects import ContentStore  # noqa: E402
from tests.lab.board import make_board  # noqa: E402
from tests.lab.machine import Machine  # noqa: E402
from tests.lab.phone import AdbServer, make_phone  # noqa: E402
from tests.lab.up import lab_of  # noqa: E402

#: Upper bound of what 256 tokens take, seconds.
TARGET_S = 2.0
TOKENS, VOCABULARY = 256, 49_152
PASS = LogitsPass("decode", (1,) * TOKENS)


def measure(machine: Machine, home: Path, rate: float, rounds: int) -> dict[str, list[float]]:
    """Seconds of each form, and bytes that came."""
    content = np.random.default_rng(0).normal(0, 3, (TOKENS, VOCABULARY)).astype("<f4").tobytes()
    local = home / "rows"
    local.write_bytes(content)
    owner = LeaseOwner("benchmark", "slow-link", 1, 600.0)
    link = BareLink(Connection(machine.entry, home), owner)
    link.helper.take_lease(link.owner)
    folder = link.helper.root
    link.helper.transport.push(local, f"{folder}/rows.f32")
    file = ObjectRef(hashlib.sha256(content).hexdigest(), len(content), "rows.f32")
    logits = (("decode", LogitsRef(file, TOKENS, VOCABULARY)),)
    hello = Hello(1, "1", "any", "any", (), ())
    told = LaunchResult(hello, (), logits, None, None, None, None, threads=1, affinity="")
    machine.network.limit(rate)
    forms: tuple[LogitsForm, ...] = ("whole", "auto")
    found: dict[str, list[float]] = {f"{form}_{of}": [] for form in forms for of in ("s", "bytes")}
    for number in range(rounds):
        for form in forms if number % 2 else forms[::-1]:
            store = ContentStore(home / f"store-{machine.name}-{number}-{form}")
            request = LaunchRequest(1, tokens=tuple(range(TOKENS)), passes=(PASS,), logits=form)
            began = time.monotonic()
            result = fetch_logits(link, folder, request, told, store)
            found[f"{form}_s"].append(round(time.monotonic() - began, 3))
            ((_, ref),) = result.logits
            found[f"{form}_bytes"].append(ref.object.size_bytes)
    machine.network.limit(None)
    link.helper.release_lease(link.owner)
    link.connection.close()
    return found


def devices(server: AdbServer) -> Iterator[Machine]:
    """One of either kind of connection."""
    yield make_phone(server, "slow-phone", disk_mb=400)
    yield make_board("slow-board", disk_mb=400)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate-mb-s", type=float, default=5.0)
    options = parser.parse_args()
    document: dict[str, object] = {"benchmark": "slow_link", "target_s": TARGET_S}
    if reason := no_lab():
        print(json.dumps({**document, "figures": {}, "met": False, "reason": reason}))
        return 1
    figures: dict[str, dict[str, list[float]]] = {}
    with lab_of(devices) as (farm, machines):
        farm.home.mkdir(exist_ok=True)
        for machine in machines:
            found = measure(machine, farm.home, options.rate_mb_s * 1e6, options.rounds)
            figures[machine.entry.transport] = found
    met = True
    for kind, values in figures.items():
        auto, whole = (statistics.median(values[f"{form}_s"]) for form in ("auto", "whole"))
        megabytes = values["auto_bytes"][0] / 1e6
        good = auto <= TARGET_S
        met = met and good
        print(
            f"{kind:4} {auto:6.2f} s for {megabytes:.1f} MB (whole rows: {whole:.2f} s)"
            f" <= {TARGET_S:g} s {'ok' if good else 'MISSED'}; each: {values['auto_s']}"
        )
    print(json.dumps({**document, "figures": figures, "met": met}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
