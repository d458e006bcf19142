"""Bring lab devices up by hand: `python -m tests.lab.up --adb 3 --ssh 2`, Ctrl-C takes them down.

Writes an inventory of them for `farm run --inventory FILE`.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

from tests.command import Farm
from tests.lab.board import make_board
from tests.lab.fixtures import destroy
from tests.lab.host import lab_dir, why_not
from tests.lab.machine import Machine
from tests.lab.phone import AdbServer, make_phone

_FIELDS = ("name", "transport", "serial", "adb_server", "host", "user", "port", "identity")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until interrupted; return the exit code."""
    parser = argparse.ArgumentParser(description="Bring up devices of the lab until Ctrl-C.")
    parser.add_argument("--adb", type=int, default=0, metavar="N", help="x86-64 phones")
    parser.add_argument("--ssh", type=int, default=0, metavar="N", help="x86-64 boards")
    parser.add_argument("--adb-arm64", type=int, default=0, metavar="N", help="arm64 phones")
    parser.add_argument("--ssh-arm64", type=int, default=0, metavar="N", help="arm64 boards")
    parser.add_argument("--disk-mb", type=int, default=1024, metavar="MB", help="disk of each")
    parser.add_argument("--prefix", default="", help="put before the names of the devices")
    parser.add_argument("--local", action="store_true", help="this machine is a device too")
    parser.add_argument("--inventory", type=Path, default=lab_dir() / "inventory.yaml")
    options = parser.parse_args(arguments)
    reason = why_not()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    made: list[Machine] = []
    server = AdbServer()
    try:
        for machine in _make(options, server):
            made.append(machine)
            print(f"{machine.name:14} {machine.address:15} pid {machine.pid}", flush=True)
        write_inventory(options.inventory, made, local=options.local)
        print(f"adb server at {server.address} (ANDROID_ADB_SERVER_PORT={server.port})")
        print(f"inventory: {options.inventory}\nready; Ctrl-C ends it", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("taking all down", flush=True)
    finally:
        destroy(made)
        server.kill()
    return 0


def _make(options: argparse.Namespace, server: AdbServer) -> Iterator[Machine]:
    kinds = (
        ("phone", options.adb, "amd64", True),
        ("board", options.ssh, "amd64", False),
        ("armphone", options.adb_arm64, "arm64", True),
        ("armboard", options.ssh_arm64, "arm64", False),
    )
    for kind, number, arch, is_phone in kinds:
        for index in range(1, number + 1):
            name = f"{options.prefix}{kind}{index}"
            if is_phone:
                yield make_phone(server, name, arch=arch, disk_mb=options.disk_mb)
            else:
                yield make_board(name, arch=arch, disk_mb=options.disk_mb)


@contextlib.contextmanager
def lab_of(
    make: Callable[[AdbServer], Iterator[Machine]],
) -> Iterator[tuple[Farm, list[Machine]]]:
    """Machines, and the farm command in a folder whose lab.yaml lists them.

    Raises:
        SystemExit: 2 where no lab can be; the reason is on standard error.
    """
    reason = why_not()
    if reason is not None:
        sys.stderr.write(f"{reason}\n")
        raise SystemExit(2)
    made: list[Machine] = []
    server = AdbServer()
    try:
        with tempfile.TemporaryDirectory(prefix="farm-lab-") as name:
            for machine in make(server):  # those before one that fails are taken down too
                made.append(machine)
            (folder := Path(name) / "cwd").mkdir()
            write_inventory(folder / "lab.yaml", made, local=False)
            yield Farm(Path(name) / "home", folder), made
    finally:
        destroy(made)
        server.kill()


def write_inventory(
    path: Path, machines: Sequence[Machine], *, local: bool, virtual: bool = False
) -> None:
    """Write an inventory of these machines, and of this one when `local`.

    Args:
        virtual: Say that they are virtual: what disturbs one is a neighbour of this machine, which
            is no reason to rest it.
    """
    rows = []
    for machine in machines:
        row = {key: getattr(machine.entry, key) for key in (*_FIELDS, "known_hosts")}
        rows.append({key: value for key, value in row.items() if value is not None})
        if virtual:
            rows[-1]["labels"] = {"class": "vm"}
    inventory = {"devices": rows, "defaults": {"adb": "none", "local": local}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(inventory, sort_keys=False))


if __name__ == "__main__":
    sys.exit(main())
