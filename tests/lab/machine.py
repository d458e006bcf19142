"""A device of the lab: namespaces around a root file system, a disk that survives reboots.

Everything that can go wrong with a device in a rack has a method here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farm.core.device import DeviceEntry
from farm.transports.adb_devices import forget, server_address
from tests.lab.bounds import Bounds
from tests.lab.host import LabError, find, lab_dir, reap, sh, spawn
from tests.lab.made_sys import MadeSys
from tests.lab.network import Network, Slot
from tests.lab.roots import ADBD

_INIT = """
mount --make-rprivate /
hostname {name}
mount -t tmpfs -o size=256m,mode=755 none {boot}
mkdir {boot}/upper {boot}/work {boot}/root
mount -t overlay overlay -o lowerdir={lower},upperdir={boot}/upper,workdir={boot}/work {boot}/root
cd {boot}/root
mkdir -p proc sys dev .{disk_at}
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
{sensors}
mount --rbind /dev dev
mount --bind {disk} .{disk_at}
mount --bind {state}/boot_id proc/sys/kernel/random/boot_id
cp -a {state}/files/. .
{prepare}
while :; do
    cp -a {state}/files/. .
    chroot . {daemon} || :
    sleep 0.05
done
"""


@dataclass(frozen=True, slots=True)
class Userland:
    """What makes a machine an Android phone or a board."""

    transport: str
    port: int
    #: Read-only root file system below the machine's own.
    lower: Path
    #: Where the disk that survives reboots is mounted.
    disk_at: str
    #: Command line of the daemon, started again whenever it ends.
    daemon: str
    #: The daemon itself, and the word before the colon in its workers' titles.
    daemon_path: str
    title: str
    #: Files put over the root at every boot: path to text and mode.
    files: tuple[tuple[str, str, int], ...] = ()
    #: Shell lines run in the root before the daemon.
    prepare: str = ""
    #: Folders of the disk, and whether everyone may write there.
    folders: tuple[tuple[str, int], ...] = ()
    #: Files of a new disk.
    disk_files: tuple[tuple[str, str], ...] = ()
    #: Files of a made /sys, shown over the kernel's own: path to text.
    sensors: tuple[tuple[str, str], ...] = ()
    #: Whether these are all of its /sys.
    whole_sys: bool = False
    #: Whether the disk is a block device with a file system, which can be slow; else memory.
    block_disk: bool = False


@dataclass
class Machine:
    """One device. Made by the factories of `tests.lab.phone` and `tests.lab.board`."""

    name: str
    userland: Userland
    disk_mb: int
    entry: DeviceEntry
    slot: Slot
    network: Network
    _pid: int | None = field(default=None, init=False)
    _bounds: Bounds = field(init=False)
    _made_sys: MadeSys = field(init=False)

    def __post_init__(self) -> None:
        self._bounds = Bounds(self.network.namespace)
        self._made_sys = MadeSys(self.state / "sys", whole=self.userland.whole_sys)

    @property
    def address(self) -> str:
        """IP address of the device."""
        return self.network.address

    @property
    def pid(self) -> int | None:
        """Process on this machine whose end is a power cut; None while the device is off."""
        return self._pid

    @property
    def state(self) -> Path:
        """Folder of this machine on the host."""
        return lab_dir() / "machines" / str(self.slot.number)

    @property
    def disk(self) -> Path:
        """The device's disk as the host sees it: /data of a phone, the home of a board."""
        return self.state / "disk"

    @property
    def log(self) -> str:
        """The last of what init and the daemon said."""
        path = self.state / "log"
        text = path.read_text("utf-8", "replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-20:])

    def host_path(self, remote: str) -> Path:
        """Where a file of the device's disk is on the host."""
        return self.disk / Path(remote).relative_to(self.userland.disk_at)

    def create(self) -> None:
        """Make disk and network; the device is still off."""
        self._clear()
        self.network.create()
        (self.state / "boot").mkdir(parents=True)
        self.disk.mkdir()
        self._mount_disk()
        for path, mode in self.userland.folders:
            (self.disk / path).mkdir(parents=True)
            (self.disk / path).chmod(mode)
        for path, text in self.userland.disk_files:
            (self.disk / path).write_text(text)
        if self.userland.sensors:
            self._made_sys.make(self.userland.sensors)
        files = self.state / "files"
        files.mkdir()
        for path, text, mode in self.userland.files:
            self.set_file(path, text, mode)

    def _mount_disk(self) -> None:
        if not self.userland.block_disk:
            options = f"size={self.disk_mb}m,mode=771"
            sh("mount", "-t", "tmpfs", "-o", options, "farm-lab", self.disk)
            return
        image = self.state / "disk.img"
        with image.open("wb") as file:
            file.truncate(self.disk_mb << 20)
        sh("mkfs.ext4", "-q", "-m", "0", image)
        # The loop device goes with its mount.
        sh("mount", "-o", "loop", image, self.disk)
        self.disk.chmod(0o771)

    def set_file(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file over the root at the next boot."""
        target = self.state / "files" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def start(self, timeout_s: float = 20.0) -> None:
        """Boot, and wait until the daemon listens."""
        self.network.heal()
        (self.state / "boot_id").write_text(f"{uuid.uuid4()}\n")
        init = _INIT.format(
            name=self.name,
            boot=self.state / "boot",
            state=self.state,
            lower=self.userland.lower,
            disk=self.disk,
            disk_at=self.userland.disk_at,
            prepare=self.userland.prepare,
            sensors=self._made_sys.mounts() if self.userland.sensors else "",
            daemon=self.userland.daemon,
        )
        (self.state / "init").write_text("set -e\n" + init)
        self._pid = spawn(
            [
                find("nsenter") or "nsenter", f"--net=/run/netns/{self.network.namespace}",
                find("unshare") or "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork",
                "--kill-child", "bash", self.state / "init",
            ],
            self.state / "log",
        )  # fmt: skip
        self.wait_listening(timeout_s)

    def wait_listening(self, timeout_s: float = 20.0) -> None:
        """Wait until the daemon accepts connections."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.network.pids() and time.monotonic() > deadline - timeout_s + 2:
                break
            try:
                with socket.create_connection((self.address, self.userland.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.02)
        raise LabError(f"lab device {self.name} didn't come up:\n{self.log}")

    def kill(self) -> None:
        """Cut the power: no packet says goodbye, the disk keeps what was written."""
        self.network.unplug()
        self._reap()

    def restart(self) -> None:
        """Cut the power and boot again: same disk, everything else is new."""
        self.kill()
        self.start()

    def restart_daemon(self) -> None:
        """Kill adbd or sshd with all that serve a connection; init starts a new one."""
        for pid, words in self.processes().items():
            line = " ".join(words)
            if self.userland.daemon_path in line or line.startswith(f"{self.userland.title}:"):
                _kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        self.wait_listening()

    def freeze(self) -> None:
        """Stop every process; the kernel still answers for their connections."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the processes go on."""
        self._signal(signal.SIGCONT)

    def limit_memory(self, size_bytes: int) -> None:
        """Let all processes of the device have so much memory; who asks for more is killed."""
        self._bounds.memory(size_bytes, self.network.pids())

    def limit_processes(self, more: int) -> None:
        """Let the device start so many processes or threads more than it has."""
        pids = self.network.pids()
        tasks = sum(len(list(Path(f"/proc/{pid}/task").glob("*"))) for pid in pids)
        self._bounds.processes(tasks + more, pids)

    def limit_cpu(self, cores: float) -> None:
        """Let the device have so much CPU time, as a quota that no clock shows."""
        self._bounds.cpu(cores, self.network.pids())

    def slow_disk(self, rate_bytes_s: int, cache_bytes: int) -> None:
        """Let the device read its block disk so slowly, and keep so little of it in memory."""
        pids = self.network.pids()
        self._bounds.memory(cache_bytes, pids)
        self._bounds.reads(rate_bytes_s, self.disk, pids)

    def unlimit(self) -> None:
        """End the limits of memory, processes, CPU time and the disk."""
        self._bounds.remove()

    def set_sensor(self, path: str, text: str) -> None:
        """Change what a file of the made /sys says, at once."""
        self._made_sys.set(path, text)

    def become(self, files: tuple[tuple[str, str], ...]) -> None:
        """Show another /sys, at once; for devices whose /sys is made as a whole."""
        self._made_sys.become(files)

    def fill(self, leave_bytes: int) -> None:
        """Fill the disk, leaving so many bytes."""
        with (self.disk / "filler").open("wb") as file:
            while True:
                usage = os.statvfs(self.disk)
                size = usage.f_bavail * usage.f_frsize - leave_bytes
                try:
                    return os.posix_fallocate(file.fileno(), 0, max(1, size))
                except OSError as error:
                    # Somebody wrote meanwhile.
                    if error.errno != errno.ENOSPC:
                        raise

    def unfill(self) -> None:
        """Undo `fill`."""
        (self.disk / "filler").unlink(missing_ok=True)

    def slow_shell(self, delay_s: float) -> None:
        """Let every shell of the phone start so much later; a boot ends it."""
        daemon = next(pid for pid, words in self.processes().items() if words[-1] == ADBD)
        for path in ("system/bin/sh", "usr/bin/sh"):
            shell = Path(f"/proc/{daemon}/root", path)
            target = os.readlink(shell)
            shell.unlink()
            shell.write_text(f'#!{target}\nsleep {delay_s}\nexec {target} "$@"\n')
            shell.chmod(0o755)

    def processes(self) -> dict[int, list[str]]:
        """Command lines of the device's processes, by process id of this machine."""
        found = {}
        for pid in self.network.pids():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            words = line.decode("utf-8", "replace").rstrip("\0").split("\0")
            if words != [""]:
                found[pid] = words
        return found

    def work_folders(self) -> list[str]:
        """Work folders of jobs, wherever farm's folder is."""
        folders = (root / "work" for root in self.disk.glob("**/farm"))
        return [str(path) for folder in folders for path in folder.glob("*")]

    def runs(self, text: str) -> bool:
        """Whether some process has this text among its words."""
        return any(text in " ".join(words) for words in self.processes().values())

    def destroy(self) -> None:
        """Remove every trace of the device."""
        if self.entry.adb_server is not None:
            forget(server_address(self.entry.adb_server), self.entry.serial or "")
        self._reap()
        self._clear()
        self.slot.release()

    def _signal(self, number: int) -> None:
        """Signal all processes; again as long as new ones appear."""
        seen: set[int] = set()
        while new := set(self.network.pids()) - seen:
            for pid in new:
                _kill(pid, number)
            seen |= new

    def _reap(self) -> None:
        if self._pid is not None:
            reap(self._pid)
            self._pid = None
        for pid in self.network.pids():
            _kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while self.network.pids() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _clear(self) -> None:
        self.network.remove()
        self._bounds.remove()
        mounted = Path("/proc/self/mounts").read_text()
        while f" {self.disk} " in mounted:
            sh("umount", "-l", self.disk)
            mounted = Path("/proc/self/mounts").read_text()
        shutil.rmtree(self.state, ignore_errors=True)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def booted(machine: Machine, before: Callable[[Machine], None] | None = None) -> Machine:
    """Boot a new machine, after a last preparation; nothing is left when that fails."""
    try:
        machine.create()
        if before is not None:
            before(machine)
        machine.start()
    except BaseException:
        machine.destroy()
        raise
    return machine


def minimal_path(programs: Sequence[str]) -> str:
    """Shell lines that make /min, a folder with these programs and no other."""
    lines = ["mkdir -p min"]
    lines += [f"ln -sf {target} min/{Path(target).name}" for target in programs]
    return "\n".join(lines)
