"""Lab devices that are reached over adb: a real adbd with an Android-like userland."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from farm.core.device import DeviceEntry
from tests.lab.emulation import enable_arm64
from tests.lab.host import LabError, find, lab_dir, reap, sh, spawn
from tests.lab.machine import Machine, Userland, booted, minimal_path
from tests.lab.made_sys import SENSORS
from tests.lab.network import Network, Slot
from tests.lab.roots import ADBD, adb_root, adbd_command

_PORT = 5555
_ABIS = {"amd64": "x86_64", "arm64": "arm64-v8a"}
_BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  status: 2
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4211
  temperature: 312
  technology: Li-ion
"""


def thermal_text(status: int, *rows: tuple[str, int, float]) -> str:
    """What the thermal service prints: status; name, mType and value of each sensor now."""
    now = "".join(
        f"\tTemperature{{mValue={value}, mType={kind}, mName={name}, mStatus=0}}\n"
        for name, kind, value in rows
    )
    return f"""IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=38.2, mType=0, mName=CPU0, mStatus=0}}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
{now}"""


_ENV = "ANDROID_DATA=/data ANDROID_ROOT=/system HOME=/ SHELL=/system/bin/sh TMPDIR=/data/local/tmp"
_PATH = "/system/bin:/usr/bin:/usr/sbin:/sbin"


class AdbServer:
    """An adb server on a port of its own with a home of its own; it dies with this process."""

    def __init__(self) -> None:
        home = lab_dir() / "adb-home"
        home.mkdir(exist_ok=True)
        self._home = home
        self.port = _free_port()
        self._pid: int | None = None
        self.start()

    @property
    def address(self) -> str:
        """`host:port`, as an inventory names it."""
        return f"127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """Environment in which `adb` uses this server."""
        return {
            **os.environ,
            "HOME": str(self._home),
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            "ADB_MDNS": "0",
        }

    def start(self) -> None:
        """Start the server and wait until it listens."""
        argv = [find("adb") or "adb", "-P", str(self.port), "nodaemon", "server"]
        self._pid = spawn(argv, self._home / "log", env=self.env)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.02)
        raise LabError(f"adb server didn't start: {(self._home / 'log').read_text()}")

    def kill(self) -> None:
        """Kill the server; nothing listens on its port any more."""
        if self._pid is not None:
            reap(self._pid)
            self._pid = None
        # A transport may have started another one there.
        if find("adb") is not None:
            sh("adb", "-P", str(self.port), "kill-server", check=False)


def make_phone(
    server: AdbServer,
    name: str,
    *,
    disk_mb: int = 512,
    arch: str = "amd64",
    only: tuple[str, ...] = (),
    sensors: bool = False,
    sys: tuple[tuple[str, str], ...] = (),
    block_disk: bool = False,
) -> Machine:
    """Boot a phone.

    Args:
        server: The adb server that its entry names.
        name: Host name, model and serial number.
        disk_mb: Size of /data.
        arch: Debian's name of its architecture.
        only: The programs on its PATH; empty for all of Android's.
        sensors: Whether it shows clocks, a zone and a battery: see tests.lab.made_sys.
        sys: All of its /sys, path to text, as in tests.lab.trees; empty for the kernel's own.
        block_disk: Whether /data is a file system on a block device: see Machine.slow_disk.
    """
    if arch == "arm64":
        enable_arm64()
    slot = Slot()
    network = Network(slot)
    path = "/min" if only else _PATH
    userland = Userland(
        transport="adb",
        port=_PORT,
        lower=adb_root(arch),
        disk_at="/data",
        daemon=f"/usr/bin/toybox env -i PATH={path} {_ENV} {adbd_command(arch)}",
        daemon_path=ADBD,
        title="adbd",
        files=(("system/build.prop", _properties(name, arch), 0o644),),
        prepare=minimal_path([f"/system/bin/{program}" for program in only]) if only else "",
        folders=(("local", 0o755), ("local/tmp", 0o1777), ("sim", 0o777)),
        disk_files=(
            ("sim/battery", _BATTERY),
            ("sim/thermalservice", thermal_text(0, ("CPU0", 0, 36.4), ("skin", 3, 31.2))),
        ),
        sensors=sys or (SENSORS if sensors else ()),
        whole_sys=bool(sys),
        block_disk=block_disk,
    )
    entry = DeviceEntry(
        name=name,
        transport="adb",
        serial=f"{network.address}:{_PORT}",
        adb_server=server.address,
    )
    return booted(Machine(name, userland, disk_mb, entry, slot, network))


def _properties(name: str, arch: str) -> str:
    values = {
        "ro.product.name": f"farm_{name}",
        "ro.product.model": f"Farm-{name}",
        "ro.product.device": f"generic_{arch}",
        "ro.product.manufacturer": "Farm",
        "ro.product.cpu.abi": _ABIS[arch],
        "ro.product.cpu.abilist": _ABIS[arch],
        "ro.build.version.release": "14",
        "ro.build.version.sdk": "34",
        "ro.build.fingerprint": f"farm/farm_{name}/generic:14/LAB1/1:user/release-keys",
        "ro.soc.manufacturer": "Farm",
        "ro.soc.model": "LAB1",
        "ro.serialno": name,
        "service.adb.listen_addrs": f"tcp:{_PORT}",
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def adb(server: AdbServer, *words: str | Path) -> str:
    """Run the `adb` program against the lab's server."""
    return sh("env", *(f"{k}={v}" for k, v in _overrides(server).items()), "adb", *words)


def _overrides(server: AdbServer) -> dict[str, str]:
    return {key: value for key, value in server.env.items() if os.environ.get(key) != value}
