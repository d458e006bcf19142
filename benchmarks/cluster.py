"""One object between the stores of two nodes, against a plain TCP copy that is hashed too.

Two Ray nodes of this machine with a FARM_HOME each; 1 GiB of random bytes, in turns. Extra memory
is what all processes of both nodes hold more than before, shared pages counted once (PSS), at its
peak. Prints a table and, as its last line, one JSON document.

    python benchmarks/cluster.py [--size-mib 1024] [--rounds 3]
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

from farm.cluster import start  # noqa: E402
from farm.core.artifact import ObjectRef  # noqa: E402
from farm.paths import store_root  # noqa: E402
from farm.store.objects import ContentStore  # noqa: E402
from tests.ray_nodes import RayNodes, ray_nodes  # noqa: E402

MIB = 1 << 20
#: Rate at least, memory at most.
TARGETS = {"mb_s": 150.0, "extra_mib": 256.0}
#: What the issue also asks for and this machine's benchmark doesn't measure.
NOT_RUN = ("four sites over links of 200 Mbit/s each", "lease acquisition under two controllers")


class Memory:
    """Peak of what the processes of a cluster hold together, while the block runs."""

    def __init__(self, cluster: RayNodes) -> None:
        self._cluster = cluster
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def held(self) -> int:
        """Bytes that they hold now."""
        total = 0
        for node in self._cluster.nodes.values():
            for process in psutil.Process(node.process.pid).children(recursive=True):
                with contextlib.suppress(OSError, psutil.Error):
                    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                    total += int(text.partition("\nPss:")[2].split()[0]) * 1024
        return total

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.peak = max(self.peak, self.held())


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
        "ratio": round(statistics.median(pairs), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ray_nodes() as cluster:
        homes = {name: Path(folder) / name for name in ("head", "far")}
        source = Path(folder) / "source"
        with source.open("wb") as file:
            for _ in range(arguments.size_mib):
                file.write(os.urandom(MIB))
        ref = ContentStore(store_root(homes["head"])).put_file(source, "weights.ptd")
        cluster.add("head", homes["head"], cpus=1)
        cluster.add("far", homes["far"], cpus=0, site="far")
        os.environ.update(cluster.environment(homes["head"]))
        start.launch(cluster.address)
        figures = asyncio.run(measure(cluster, homes, ref, arguments.rounds))
        import ray

        ray.shutdown()
    print(f"{arguments.size_mib} MiB, median of {arguments.rounds}, load {os.getloadavg()[0]:.1f}")
    for name, value in figures.items():
        print(f"{name:10} {value:9.2f}")
    for name in NOT_RUN:
        print(f"not run: {name}")
    fast, small = figures["mb_s"] >= TARGETS["mb_s"], figures["extra_mib"] <= TARGETS["extra_mib"]
    document = {
        "benchmark": "cluster",
        "figures": figures,
        "ratios": {"seconds_to_plain_tcp": figures["ratio"]},
        "targets": TARGETS,
        "not_run": NOT_RUN,
        "met": fast and small and not NOT_RUN,
    }
    print(json.dumps(document))
    return 0 if document["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
