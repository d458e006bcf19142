"""Our transports against `adb push` and `scp`: 256 MiB of random bytes to real adbd and sshd.

Interleaved, connection included. Then what the deployment of an artifact that is there already
costs, what is sent again after a break at 60 %, and how much memory a push takes. The devices
are the lab's (namespaces of this machine), so it needs root. Prints tables and, as its last
line, one JSON document.

    python benchmarks/transfer.py [--size-mib 256] [--rounds 5]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method.lab import no_lab  # noqa: E402
from farm.core.errors import TransportError  # noqa: E402
from farm.core.lease import LeaseOwner  # noqa: E402
from farm.core.runner import DeployFile  # noqa: E402
from farm.protocols import Transport  # noqa: E402
from farm.site.device.connection import Connection  # noqa: E402
from farm.site.device.deploy import deploy  # noqa: E402
from farm.store.objects import ContentStore  # noqa: E402
from farm.transports import open as open_transport  # noqa: E402
from tests.lab.board import make_board  # noqa: E402
from tests.lab.host import find  # noqa: E402
from tests.lab.machine import Machine  # noqa: E402
from tests.lab.phone import AdbServer, make_phone  # noqa: E402

#: Upper bounds.
TARGETS = {
    "adb_push": 1.10,
    "ssh_push": 0.85,
    "unchanged_bytes": 0,
    "unchanged_s": 0.150,
    "resent_share": 0.05,
    "memory_growth_mib": 16.0,
}
MIB = 1 << 20
BREAK_AT = 0.6


def place(machine: Machine) -> str:
    folder = machine.userland.disk_at  # a board's disk is its home folder
    return "/data/local/tmp/file" if machine.entry.transport == "adb" else f"{folder}/file"


def peer_command(machine: Machine, source: Path) -> list[str]:
    """What people type instead."""
    entry = machine.entry
    if entry.transport == "adb":
        return [find("adb") or "adb", "-s", str(entry.serial), "push", str(source), place(machine)]
    options = ["-q", "-i", str(entry.identity), "-o", f"UserKnownHostsFile={entry.known_hosts}"]
    return ["scp", *options, str(source), f"{entry.user}@{entry.host}:{place(machine)}"]


def compare(machine: Machine, server: AdbServer, source: Path, rounds: int) -> list[list[float]]:
    """Seconds of ours and of the peer, in turns; the first round warms up and doesn't count."""

    def ours() -> None:
        transport = open_transport(machine.entry)
        transport.push(source, place(machine))
        transport.close()

    def peer() -> None:
        command = peer_command(machine, source)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=server.env)

    arms: tuple[Callable[[], None], ...] = (ours, peer)
    times: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for index in (0, 1) if number % 2 else (1, 0):
            machine.host_path(place(machine)).unlink(missing_ok=True)
            started = time.monotonic()
            arms[index]()
            if number:
                times[index].append(time.monotonic() - started)
    return times


@contextlib.contextmanager
def deployed(machine: Machine, source: Path, home: Path) -> Iterator[dict[str, float]]:
    """Deploy an artifact, then twenty times again unchanged; median seconds, bytes pushed."""
    connection = Connection(machine.entry, home)
    store = ContentStore(home / "store")
    lease = LeaseOwner("benchmark", "transfer", 1, 600.0)
    file = DeployFile(store.put_file(source), "model.pte")
    helper = connection.helper
    helper.take_lease(lease)

    def once() -> tuple[int, float]:
        started = time.monotonic()
        done = deploy(helper, [file], store, lease, free_bytes=None, progress=lambda *_: None)
        return done.pushed_bytes, time.monotonic() - started

    first_bytes, first_s = once()
    again = [once() for _ in range(20)]
    yield {
        "first_bytes": first_bytes,
        "first_s": first_s,
        "unchanged_bytes": max(count for count, _ in again),
        "unchanged_s": statistics.median(seconds for _, seconds in again),
    }
    helper.release_lease(lease)
    connection.transport.close()


def broken(machine: Machine, server: AdbServer, source: Path) -> float:
    """Break a push at 60 %, resume it; the share of the file that was sent twice."""
    size = source.stat().st_size
    machine.network.limit(60e6)
    transport = open_transport(machine.entry)
    sent: list[int] = []

    def cut(done: int) -> None:
        sent.append(done)
        if done >= BREAK_AT * size and done < size:
            if machine.entry.transport == "adb":
                server.kill()
            else:
                machine.restart_daemon()

    with contextlib.suppress(TransportError):
        transport.push(source, place(machine), progress=cut)
        raise SystemExit("the push didn't break")
    machine.network.limit(None)
    arrived = settled(machine, transport)
    transport.push(source, place(machine), offset=arrived)
    transport.close()
    if machine.host_path(place(machine)).read_bytes() != source.read_bytes():
        raise SystemExit("the resumed file isn't the one that was sent")
    return (sent[-1] + size - arrived - size) / size


def settled(machine: Machine, transport: Transport) -> int:
    """Size of what arrived, once it is in its place."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = transport.stat(place(machine))
        time.sleep(0.3)
        if found is not None and found == transport.stat(place(machine)):
            return found.size_bytes
    raise SystemExit("nothing is left of the broken push")


def growth(machine: Machine, source: Path) -> float:
    """MiB by which a push raised this process's peak memory."""
    transport = open_transport(machine.entry)
    transport.stat(place(machine))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    transport.push(source, place(machine))
    transport.close()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measure(
    machine: Machine, server: AdbServer, source: Path, home: Path, rounds: int
) -> dict[str, float]:
    """All figures of one device."""
    figures = {"memory_growth_mib": round(growth(machine, source), 1)}
    ours, peer = compare(machine, server, source, rounds)
    pairs = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    figures["ours_s"] = round(statistics.median(ours), 3)
    figures["peer_s"] = round(statistics.median(peer), 3)
    figures["push"] = round(statistics.median(pairs), 3)
    machine.host_path(place(machine)).unlink()
    with deployed(machine, source, home) as costs:
        figures |= {key: round(value, 4) for key, value in costs.items()}
    for path in machine.disk.glob("**/farm/objects/*"):
        path.unlink()
    figures["resent_share"] = round(broken(machine, server, source), 4)
    return figures


def verdict(figures: dict[str, dict[str, float]]) -> bool:
    """Print each target beside what was measured."""
    met = True
    for transport, values in figures.items():
        for name, bound in TARGETS.items():
            key = "push" if name == f"{transport}_push" else name
            if name.endswith("_push") and key != "push":
                continue
            good = values[key] <= bound
            word = "ok" if good else "MISSED"
            met = met and good
            print(f"{transport:4} {name:18} {values[key]:9.3f} <= {bound:<7} {word}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size-mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    document: dict[str, object] = {"benchmark": "transfer", "targets": TARGETS}
    if reason := no_lab():
        print(json.dumps({**document, "figures": {}, "ratios": {}, "met": False, "reason": reason}))
        return 1
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="farm-transfer-") as name:
        folder = Path(name)
        os.environ["FARM_HOME"] = str(folder / "home")
        source = folder / "file"
        with source.open("wb") as file:
            for _ in range(options.size_mib):
                file.write(os.urandom(MIB))
        server = AdbServer()
        disk_mb = 2 * options.size_mib + 160
        try:
            for kind in ("adb", "ssh"):
                machine = (
                    make_phone(server, "transfer-phone", disk_mb=disk_mb)
                    if kind == "adb"
                    else make_board("transfer-board", disk_mb=disk_mb)
                )
                try:
                    transport = machine.entry.transport
                    figures[transport] = measure(
                        machine, server, source, folder / "home", options.rounds
                    )
                    print(transport, json.dumps(figures[transport]), file=sys.stderr, flush=True)
                finally:
                    machine.destroy()
        finally:
            server.kill()
    met = verdict(figures)
    ratios = {f"{transport}_push": values["push"] for transport, values in figures.items()}
    print(json.dumps({**document, "figures": figures, "ratios": ratios, "met": met}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
