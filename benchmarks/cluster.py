"""Objects between stores of a cluster's hosts, and leases under two controllers.

transfer: one object between two Ray nodes of this machine with a FARM_HOME each, against a plain
TCP copy that is hashed too, in turns. Extra memory is what all processes of both nodes hold more
than before, shared pages counted once (PSS), at its peak.
leases: two controllers take turns at one device of one site; from a job's start to its lease.
links (as root): four sites in network namespaces, each behind a link of 200 Mbit/s, fetch one
object from the head, whose link has the same rate; against one site alone.

Prints a table and, as its last line, one JSON document.

    python benchmarks/cluster.py [--size-mib 1024] [--rounds 3] [--part transfer|leases|links]...
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method import leases, links  # noqa: E402
from farm.cluster import start  # noqa: E402
from farm.cluster.bound import LOOPBACK, restarted_bound  # noqa: E402
from farm.core.artifact import ObjectRef  # noqa: E402
from farm.paths import store_root  # noqa: E402
from farm.store.objects import ContentStore  # noqa: E402
from tests.command import share_native  # noqa: E402
from tests.lab.host import why_not  # noqa: E402
from tests.ray_nodes import RayNodes, ray_nodes  # noqa: E402

MIB = 1 << 20
PARTS = ("transfer", "leases", "links")
#: Rate at least; memory, time of four sites in times of one, and bytes that leave the source in
#: sizes of the object at most. Leases have no bound: their figures are for docs/scale.md.
AT_LEAST = {"mb_s": 150.0}
AT_MOST = {"extra_mib": 256.0, "four_to_one": 2.5, "source_egress": 2.0}
LINK_MBIT = 200


class Memory:
    """Peak of what the processes of a cluster hold together, while the block runs."""

    def __init__(self, cluster: RayNodes) -> None:
        self._cluster = cluster
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def held(self) -> int:
        """Bytes that they hold now."""
        return sum(
            _pss(process)
            for node in self._cluster.nodes.values()
            for process in psutil.Process(node.process.pid).children(recursive=True)
        )

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.peak = max(self.peak, self.held())


def _pss(process: psutil.Process) -> int:
    """Bytes that a process holds, its part of shared ones; 0 once it has ended."""
    with contextlib.suppress(OSError, psutil.Error):
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        return int(text.partition("\nPss:")[2].split()[0]) * 1024
    return 0


def plain_tcp(source: Path, target: Path, sha256: str) -> float:
    """Seconds for sendfile to a socket, and on the other side hash, write and sync."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            with socket.create_connection(server.getsockname()) as out, source.open("rb") as file:
                out.sendfile(file)

        sender = threading.Thread(target=send)
        started = time.monotonic()
        sender.start()
        digest = hashlib.sha256()
        taken, _ = server.accept()
        with taken, target.open("wb") as file:
            while data := taken.recv(MIB):
                digest.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        took = time.monotonic() - started
        sender.join()
    if digest.hexdigest() != sha256:
        raise SystemExit("the plain copy is another file")
    target.unlink()
    return took


async def measure(
    cluster: RayNodes, homes: dict[str, Path], ref: ObjectRef, rounds: int
) -> dict[str, float]:
    """All figures."""
    import ray

    from farm.cluster.ray_stores import RayStores

    stores = RayStores(homes["head"])
    far = ContentStore(store_root(homes["far"]))
    source = ContentStore(store_root(homes["head"])).path(ref)
    (node,) = [n["NodeID"] for n in ray.nodes() if "site:far" in n["Resources"]]
    small = ContentStore(store_root(homes["head"])).put_bytes(b"warm", "warm")
    await stores.bring([small], node)  # both depots are up
    depots = [_pss(process) / MIB for process in cluster.nodes["far"].workers("Depot")]
    ours, peer, extra = list[float](), list[float](), list[float]()
    for number in range(rounds):
        for turn in ("ours", "peer") if number % 2 else ("peer", "ours"):
            if turn == "peer":
                copy = homes["far"] / "copy"
                peer.append(await asyncio.to_thread(plain_tcp, source, copy, ref.sha256))
                continue
            far.remove(ref.sha256)
            memory = Memory(cluster)
            before = memory.held()
            with memory:
                started = time.monotonic()
                remarks = await stores.bring([ref], node)
                ours.append(time.monotonic() - started)
            if remarks or not far.verify(ref.sha256, force=True):
                raise SystemExit(f"it did not come as it was: {remarks}")
            extra.append((memory.peak - before) / MIB)
    pairs = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    return {
        "ours_s": round(statistics.median(ours), 2),
        "peer_s": round(statistics.median(peer), 2),
        "mb_s": round(ref.size_bytes / 1e6 / statistics.median(ours), 1),
        "extra_mib": round(max(extra), 1),
        "depot_mib": round(max(depots), 1),
        "ratio": round(statistics.median(pairs), 2),
    }


def transfer(size_mib: int, rounds: int) -> dict[str, float]:
    """One object between two nodes."""
    with tempfile.TemporaryDirectory() as folder, ray_nodes() as cluster:
        homes = {name: Path(folder) / name for name in ("head", "far")}
        source = Path(folder) / "source"
        with source.open("wb") as file:
            for _ in range(size_mib):
                file.write(os.urandom(MIB))
        ref = ContentStore(store_root(homes["head"])).put_file(source, "weights.ptd")
        cluster.add("head", homes["head"], cpus=1)
        cluster.add("far", homes["far"], cpus=0, site="far")
        os.environ.update(cluster.environment(homes["head"]))
        start.launch(cluster.address)
        try:
            return asyncio.run(measure(cluster, homes, ref, rounds))
        finally:
            import ray

            ray.shutdown()


def lease_times(jobs: int) -> dict[str, float]:
    """Two controllers at one device."""
    with tempfile.TemporaryDirectory() as folder, ray_nodes() as cluster:
        home, toy = Path(folder) / "head", Path(folder) / "toy"
        toy.mkdir()
        share_native(home)
        cluster.add("head", home, cpus=1, site="far")
        return leases.measure(cluster, home, toy, jobs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lease-jobs", type=int, default=150, help="of each controller")
    parser.add_argument("--link-mib", type=int, default=256, help="object that goes over links")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; default: all")
    arguments = parser.parse_args()
    # A driver's sockets are kept on the cluster's address: it is started again with that.
    native = ROOT / "build" / "benchmarks"
    share_native(native)
    restarted_bound(LOOPBACK, native)
    figures: dict[str, float] = {}
    not_run: list[str] = []
    for part in PARTS:
        if arguments.part and part not in arguments.part:
            not_run.append(f"{part}: not asked for")
        elif part == "links" and (why := why_not()):
            not_run.append(f"{part}: {why}")
        elif part == "links":
            block = os.urandom(MIB)
            size = arguments.link_mib * MIB
            figures |= links.measure(size, LINK_MBIT, arguments.rounds, block)
        elif part == "leases":
            figures |= lease_times(arguments.lease_jobs)
        else:
            figures |= transfer(arguments.size_mib, arguments.rounds)
    print(f"medians of {arguments.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for name, value in figures.items():
        print(f"{name:13} {value:9.2f}")
    for name in not_run:
        print(f"not run: {name}")
    missed = [name for name, least in AT_LEAST.items() if figures.get(name, least) < least]
    missed += [name for name, most in AT_MOST.items() if figures.get(name, most) > most]
    document = {
        "benchmark": "cluster",
        "figures": figures,
        "ratios": {"seconds_to_plain_tcp": figures.get("ratio")},
        "targets": {"at least": AT_LEAST, "at most": AT_MOST},
        "missed": missed,
        "not_run": not_run,
        "met": not missed and not not_run,
    }
    print(json.dumps(document))
    return 0 if document["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
