"""Sites of a cluster in network namespaces, each behind a link of its own rate.

The hosts are those of the guide's test. Ran as a program it is the driver on the head: brings one
object to some sites at once and prints seconds and what left the head, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from farm.cluster import start
from farm.core.artifact import ObjectRef
from farm.paths import farm_home, store_root
from farm.store.objects import ContentStore
from tests.integration.hosts import Hosts
from tests.lab.host import sh

SITES = ("site1", "site2", "site3", "site4")


@contextmanager
def shaped_hosts(folder: Path, mbit: int) -> Iterator[Hosts]:
    """Provide a head and four sites that have joined it; every link has the rate, each way."""
    hosts = Hosts(folder, ("head", *SITES))
    try:
        shape = ("root", "tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "200ms")
        head = hosts["head"].namespace
        for number, name in enumerate(SITES):
            sh("tc", "-n", hosts[name].namespace, "qdisc", "add", "dev", "eth0", *shape)
            sh("tc", "-n", head, "qdisc", "add", "dev", f"port{number}", *shape)
        # What the head itself sends goes through its own end of the bridge.
        sh("tc", "-n", head, "qdisc", "add", "dev", "eth0", *shape)
        _run(hosts, "head", "farm cluster up --interface eth0")
        for name in SITES:
            _run(hosts, "head", f"scp ~/.local/share/farm/cluster/token {name}:farm-token")
            _run(hosts, name, f"farm site join {hosts.cluster} --token farm-token")
        yield hosts
    finally:
        hosts.close()


def _run(hosts: Hosts, name: str, command: str) -> str:
    done = hosts[name].run(command)
    if done.returncode != 0:
        raise SystemExit(f"{name}$ {command}\n{done.stdout}{done.stderr}")
    return done.stdout


def measure(size: int, mbit: int, rounds: int, block: bytes) -> dict[str, float]:
    """Seconds to one site and to all four, in turns, and what left the source meanwhile."""
    with tempfile.TemporaryDirectory() as folder, shaped_hosts(Path(folder), mbit) as hosts:
        source = Path(folder) / "source"
        with source.open("wb") as file:
            for number in range(size // len(block)):
                file.write(number.to_bytes(8, "big") + block[8:])
        ref = ContentStore(store_root(hosts["head"].home)).put_file(source, "weights.ptd")
        stores = {name: ContentStore(store_root(hosts[name].home)) for name in SITES}
        one, four, sent = list[float](), list[float](), list[float]()
        for _ in range(rounds):
            for names, found in ((SITES[:1], one), (SITES, four)):
                for store in stores.values():
                    if store.has(ref.sha256):
                        store.remove(ref.sha256)
                words = f"{hosts.cluster} {ref.sha256} {ref.size_bytes} {' '.join(names)}"
                printed = _run(
                    hosts, "head", f"{sys.executable} -m benchmarks.method.links {words}"
                )
                answer = json.loads(printed.splitlines()[-1])
                found.append(answer["seconds"])
                if names == SITES:
                    sent.append(answer["sent_bytes"] / ref.size_bytes)
                for name in names:
                    if not stores[name].verify(ref.sha256, force=True):
                        raise SystemExit(f"{name}: it did not come as it was")
    pairs = [many / few for few, many in zip(one, four, strict=True)]
    return {
        "link_mbit_s": mbit,
        "size_mib": size >> 20,
        "one_s": round(statistics.median(one), 2),
        "wire_s": round(size * 8 / mbit / 1e6, 2),
        "four_s": round(statistics.median(four), 2),
        "four_to_one": round(statistics.median(pairs), 2),
        "source_egress": round(max(sent), 2),
    }


async def _bring(ref: ObjectRef, sites: list[str]) -> dict[str, float]:
    import ray

    from farm.cluster.ray_stores import RayStores

    home = farm_home()
    stores = RayStores(home)
    nodes = {
        site: node["NodeID"]
        for node in ray.nodes()
        for site in sites
        if f"site:{site}" in node["Resources"]
    }
    small = ContentStore(store_root(home)).put_bytes(b"warm", "warm")
    for site in sites:
        await stores.bring([small], nodes[site])  # their depots are up
    before = psutil.net_io_counters(pernic=True)["eth0"].bytes_sent
    started = time.monotonic()
    remarks = await asyncio.gather(*(stores.bring([ref], nodes[site]) for site in sites))
    seconds = time.monotonic() - started
    if any(remarks):
        raise SystemExit(f"damaged on the way: {remarks}")
    sent = psutil.net_io_counters(pernic=True)["eth0"].bytes_sent - before
    return {"seconds": seconds, "sent_bytes": float(sent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cluster")
    parser.add_argument("sha256")
    parser.add_argument("size", type=int)
    parser.add_argument("sites", nargs="+")
    options = parser.parse_args()
    start.enter(options.cluster, None, farm_home())
    start.launch(options.cluster)
    ref = ObjectRef(options.sha256, options.size, "weights.ptd")
    print(json.dumps(asyncio.run(_bring(ref, options.sites))))


if __name__ == "__main__":
    main()
