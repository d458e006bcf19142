"""Hosts of a small lab, on this machine: each has a network, a name, a machine-id and a home.

Their network is a bridge at the first one, which nothing outside is part of.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from tests.command import SOURCES, share_native
from tests.lab.host import sh
from tests.lab.network import Slot

T = TypeVar("T")

#: Network of the guide. Here each cluster has one of its own: Ray refuses a head whose address
#: another head of this machine has, in whichever namespace.
_GUIDES = "198.19.0."
_COMMAND = re.compile(r"^(\w+)\$ (.*)$")
#: Stands in for ssh between the hosts: `scp FILE HOST:FILE`, with the file's mode.
_SCP = """#!/bin/sh
exec install -m "$(stat -c %a "$1")" "$1" "{homes}/${{2%%:*}}/${{2#*:}}"
"""


class Host:
    """One of them."""

    def __init__(self, name: str, folder: Path, namespace: str, address: str) -> None:
        self.name, self.namespace, self.address = name, namespace, address
        #: Home and working directory of its user.
        self.folder = folder / name
        self.folder.mkdir()
        self._id = folder / f"{name}.machine-id"
        self._id.write_text(f"{secrets.token_hex(16)}\n")
        self.home = self.folder / ".local/share/farm"
        share_native(self.home)
        (self.folder / "configs").symlink_to(SOURCES / "configs")

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("FARM_", "RAY_", "XDG_", "LD_"))
        }
        bin_ = self.folder.parent / "bin"
        return {
            **kept,
            "HOME": str(self.folder),
            "PATH": f"{bin_}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "PYTHONPATH": str(SOURCES),
            # A node that is cut off is given up after some 15 s, not after a minute.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "3000",
            "RAY_health_check_failure_threshold": "5",
        }

    def start(self, command: str, stdin: int | None = None) -> subprocess.Popen[str]:
        """Start a line of shell on this host."""
        inside = (
            f'hostname {self.name} && mount --bind {self._id} /etc/machine-id && exec bash -c "$1"'
        )
        words = ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "--uts"]
        return subprocess.Popen(
            [*words, "bash", "-c", inside, "bash", command],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )

    def run(self, command: str, limit_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a line of shell on this host."""
        process = self.start(command)
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def processes(self) -> list[psutil.Process]:
        """What runs on this host, except zombies."""
        found = []
        for word in sh("ip", "netns", "pids", self.namespace, check=False).split():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(word))
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def listening(self) -> dict[tuple[str, int], str]:
        """Name of the process by address, of every socket of this host that takes connections."""
        found = {}
        for line in sh("ip", "netns", "exec", self.namespace, "ss", "-Hltnup").splitlines():
            ip, _, port = line.split()[4].rpartition(":")
            pid = re.search(r"pid=(\d+)", line)
            with contextlib.suppress(psutil.NoSuchProcess):
                name = psutil.Process(int(pid[1])).name() if pid else "nobody"
                found[ip.strip("[]").removeprefix("::ffff:"), int(port)] = name
        return found

    def inside(self, work: Callable[[], T]) -> T:
        """Call something in a thread whose sockets are this host's."""
        found: list[T] = []
        failed: list[BaseException] = []

        def enter() -> None:
            handle = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
            try:
                entered = ctypes.CDLL(None).setns(handle, 0)
                assert entered == 0, f"setns: {entered}"
                found.append(work())
            except BaseException as error:
                failed.append(error)
            finally:
                os.close(handle)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]


class Hosts:
    """Several hosts, the first of which is the head."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._slot = Slot()
        self.net = f"198.19.{self._slot.number}."
        self._prefix = f"farm-hosts-{self._slot.number}"
        bin_ = folder / "bin"
        bin_.mkdir()
        scripts = {
            "farm": f'#!/bin/sh\nexec {sys.executable} -m farm "$@"\n',
            "scp": _SCP.format(homes=folder),
        }
        for name, text in scripts.items():
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o755)
        #: Of the head.
        self.cluster = f"{self.net}1:6379"
        self._by_name: dict[str, Host] = {}
        for number, name in enumerate(names, 1):
            host = Host(name, folder, f"{self._prefix}-{name}", f"{self.net}{number}")
            self._by_name[name] = host
        self._connect()

    def __getitem__(self, name: str) -> Host:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._by_name.values())

    def _connect(self) -> None:
        self._clear()
        head, *others = self
        for host in self:
            sh("ip", "netns", "add", host.namespace)
            sh("ip", "-n", host.namespace, "link", "set", "lo", "up")
        at_head = ("ip", "-n", head.namespace)
        sh(*at_head, "link", "add", "eth0", "type", "bridge")
        for number, host in enumerate(others):
            pair = ("type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            sh(*at_head, "link", "add", f"port{number}", *pair)
            sh(*at_head, "link", "set", f"port{number}", "master", "eth0", "up")
        for host in self:
            at = ("ip", "-n", host.namespace)
            sh(*at, "addr", "add", f"{host.address}/24", "dev", "eth0")
            sh(*at, "link", "set", "eth0", "up")

    def unplug(self, name: str) -> None:
        """Pull a host's cable at the switch; not the head's."""
        self._port(name, "down")

    def plug(self, name: str) -> None:
        """Put it back."""
        self._port(name, "up")

    def _port(self, name: str, state: str) -> None:
        head, *others = self._by_name
        port = f"port{others.index(name)}"
        sh("ip", "-n", self._by_name[head].namespace, "link", "set", port, state)

    def close(self) -> None:
        """End everything on all hosts and take them down."""
        self._clear()
        self._slot.release()

    def _clear(self) -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end and (left := [p for host in self for p in host.processes()]):
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(left, timeout=1)
        for host in self:
            sh("ip", "netns", "del", host.namespace, check=False)


class Guide:
    """The commands of a guide, by the heading that they stand under."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self._sections: dict[str, list[tuple[str, str]]] = {}
        heading = ""
        for line in self.text.splitlines():
            if line.startswith("## "):
                heading = line.removeprefix("## ")
            elif command := _COMMAND.match(line):
                self._sections.setdefault(heading, []).append((command[1], command[2]))

    def run(self, section: str, hosts: Hosts) -> list[str]:
        """Run the commands of a section in order; return what each printed."""
        printed = []
        for name, command in self._sections[section]:
            done = hosts[name].run(command.replace(_GUIDES, hosts.net))
            assert done.returncode == 0, f"{name}$ {command}\n{done.stdout}{done.stderr}"
            printed.append(done.stdout)
        return printed

    def files(self) -> dict[str, str]:
        """Files whose text the guide shows, by the name in their first line."""
        blocks = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)
        return dict(blocks)
