"""The network of one lab device: a namespace, a link 198.18.N.0/30, and how to break it.

A slot N belongs to the process that holds its lock, so test runs side by side don't meet, and
what a killed run left in a slot is cleared by whoever takes it next.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.lab.host import LabError, lab_dir, reap, sh, spawn

_LOCKS = Path("/run/farm-lab")
_SLOTS = range(1, 255)


#: The order in which this process takes slots. The one given back last comes last again: an adb
#: server goes on with a silent address for minutes, and would be in the way of a new device there.
_order = random.sample(_SLOTS, len(_SLOTS))


class Slot:
    """A number of its own among all lab devices of this machine."""

    def __init__(self) -> None:
        _LOCKS.mkdir(exist_ok=True)
        for number in list(_order):
            lock = os.open(_LOCKS / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self.number = number
            self._lock = lock
            return
        raise LabError("no free lab slot: 254 devices are up")

    def release(self) -> None:
        """Let others take the number."""
        _order.remove(self.number)
        _order.append(self.number)
        os.close(self._lock)


class Network:
    """Namespace and link of a slot. The device is `address`, this machine is `host_address`."""

    def __init__(self, slot: Slot) -> None:
        self.namespace = f"farm-lab-{slot.number}"
        self.link = f"flab{slot.number}"
        self.address = f"198.18.{slot.number}.2"
        self.host_address = f"198.18.{slot.number}.1"
        self._delay: int | None = None

    def create(self) -> None:
        """Bring namespace and link up, clearing what a killed run left under the same name."""
        self.remove()
        sh("ip", "netns", "add", self.namespace)
        host = (
            f"link add {self.link} type veth peer name eth0 netns {self.namespace}\n"
            f"addr add {self.host_address}/30 dev {self.link}\n"
            f"link set {self.link} up\n"
        )
        sh("ip", "-batch", "-", stdin=host)
        device = f"addr add {self.address}/30 dev eth0\nlink set eth0 up\nlink set lo up\n"
        sh("ip", "-n", self.namespace, "-batch", "-", stdin=device)

    def remove(self) -> None:
        """Take everything down; also when only parts of it exist."""
        self.undelay()
        for pid in self.pids():
            _kill(pid)
        deadline = time.monotonic() + 5
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.02)
        sh("ip", "link", "del", self.link, check=False)
        sh("ip", "netns", "del", self.namespace, check=False)

    def pids(self) -> list[int]:
        """Processes inside the namespace, as this machine numbers them."""
        found = sh("ip", "netns", "pids", self.namespace, check=False)
        return [int(word) for word in found.split()]

    def partition(self) -> None:
        """Lose every packet silently, both ways."""
        for chain in ("INPUT", "OUTPUT"):
            self._iptables("-I", chain, "1", "-j", "DROP")

    def lose(self, share: float) -> None:
        """Lose a share (0 to 1) of the packets to the device."""
        self._iptables(
            "-A", "INPUT", "-m", "statistic", "--mode", "random",
            "--probability", str(share), "-j", "DROP",
        )  # fmt: skip

    def unplug(self) -> None:
        """Take the device's end of the link down."""
        sh("ip", "-n", self.namespace, "link", "set", "eth0", "down")

    def heal(self) -> None:
        """End partition, loss and unplugging."""
        self._iptables("-F")
        sh("ip", "-n", self.namespace, "link", "set", "eth0", "up")

    def limit(self, bytes_per_s: float | None) -> None:
        """Limit the rate in each direction; None lifts it."""
        for prefix, link in ((("-n", self.namespace), "eth0"), ((), self.link)):
            sh("tc", *prefix, "qdisc", "del", "dev", link, "root", check=False)
            if bytes_per_s is not None:
                sh(
                    "tc", *prefix, "qdisc", "add", "dev", link, "root", "tbf",
                    "rate", f"{int(bytes_per_s * 8)}bit", "burst", "64kb", "latency", "200ms",
                )  # fmt: skip

    def delay(self, delay_s: float, jitter_s: float = 0.0) -> None:
        """Hold every packet back for so long, each way. Connections that exist go on."""
        self.undelay()
        log = lab_dir() / f"delay-{self.link}"
        log.unlink(missing_ok=True)
        numbers = (f"{delay_s * 1e3:g}", f"{jitter_s * 1e3:g}")
        program = (sys.executable, "-m", "tests.lab.delay", self.namespace, self.link)
        self._delay = spawn(
            [*program, self.host_address, self.address, *numbers],
            log,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        deadline = time.monotonic() + 20
        while "ready" not in log.read_text():
            if time.monotonic() > deadline:
                raise LabError(f"the delayed link didn't come up: {log.read_text()}")
            time.sleep(0.02)

    def undelay(self) -> None:
        """End the delay."""
        if self._delay is not None:
            reap(self._delay)
            self._delay = None
            (lab_dir() / f"delay-{self.link}").unlink(missing_ok=True)

    def _iptables(self, *rule: str) -> None:
        sh("ip", "netns", "exec", self.namespace, "iptables", "-w", *rule)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
