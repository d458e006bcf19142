"""Lab devices that are reached over SSH: a real sshd in a Linux userland."""

from __future__ import annotations

import hashlib
from pathlib import Path

from farm.core.device import DeviceEntry
from tests.lab.emulation import enable_arm64
from tests.lab.host import lab_dir, locked, sh
from tests.lab.machine import Machine, Userland, booted, minimal_path
from tests.lab.made_sys import SENSORS
from tests.lab.network import Network, Slot
from tests.lab.roots import ssh_root

_PORT = 22
_CONFIG = """HostKey /etc/ssh/farm_host_key
PidFile none
UsePAM no
UseDNS no
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
AuthorizedKeysFile /etc/ssh/farm_authorized_keys
Subsystem sftp {sftp}
MaxStartups 100
MaxSessions 100
{extra}
"""
_PASSWD = """root:x:0:0:root:/root:/bin/sh
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_SFTP = "/usr/lib/openssh/sftp-server"
_SSHD = "/usr/sbin/sshd -D -e -f /etc/ssh/farm_config"
#: No password, key of its own in its own form, errors to stderr.
_DROPBEAR = "/usr/sbin/dropbear -F -E -s -r /etc/ssh/farm_dropbear_key"
#: It reads keys from the user's home folder alone, and has its own form of a host key.
_DROPBEAR_FILES = (
    "mkdir -p root/.ssh && chmod 700 root root/.ssh",
    "cp etc/ssh/farm_authorized_keys root/.ssh/authorized_keys",
    "chroot . dropbearconvert openssh dropbear /etc/ssh/farm_host_key /etc/ssh/farm_dropbear_key",
)


def make_board(
    name: str,
    *,
    disk_mb: int = 512,
    arch: str = "amd64",
    only: tuple[str, ...] = (),
    sensors: bool = False,
    sys: tuple[tuple[str, str], ...] = (),
    sftp: bool = True,
    server: str = "sshd",
) -> Machine:
    """Boot a board.

    Args:
        name: Host name.
        disk_mb: Size of /root, its home folder.
        arch: Debian's name of its architecture; `amd64` has this machine's own userland.
        only: The programs on its PATH; empty for all.
        sensors: Whether it shows clocks, a zone and a battery: see tests.lab.made_sys.
        sys: All of its /sys, path to text, as in tests.lab.trees; empty for the kernel's own.
        sftp: Whether the SFTP subsystem works.
        server: `sshd`, or `dropbear` as routers and small images have it: without SFTP.
    """
    if arch == "arm64":
        enable_arm64()
    slot = Slot()
    network = Network(slot)
    extra = "SetEnv PATH=/min\n" if only else ""
    config = _CONFIG.format(extra=extra, sftp=_SFTP if sftp else "/nonexistent")
    public = user_key().with_suffix(".pub").read_text()
    userland = Userland(
        transport="ssh",
        port=_PORT,
        lower=Path("/") if arch == "amd64" else ssh_root(arch),
        disk_at="/root",
        daemon=_DROPBEAR if server == "dropbear" else _SSHD,
        daemon_path="/usr/sbin/dropbear" if server == "dropbear" else "/usr/sbin/sshd -D",
        title=server,
        files=(
            ("etc/ssh/farm_config", config, 0o600),
            ("etc/ssh/farm_authorized_keys", public, 0o600),
            ("etc/passwd", _PASSWD, 0o644),
            ("etc/machine-id", hashlib.md5(name.encode()).hexdigest() + "\n", 0o444),
        ),
        prepare="\n".join(
            [
                "mkdir -p run/sshd var/empty",
                "chmod 755 run/sshd",
                *(_DROPBEAR_FILES if server == "dropbear" else ()),
                *([minimal_path([f"/bin/{program}" for program in only])] if only else []),
            ]
        ),
        folders=((".cache", 0o755),),
        sensors=sys or (SENSORS if sensors else ()),
        whole_sys=bool(sys),
    )
    known = lab_dir() / "known" / str(slot.number)
    entry = DeviceEntry(
        name=name,
        transport="ssh",
        host=network.address,
        user="root",
        port=_PORT,
        identity=str(user_key()),
        known_hosts=str(known),
    )
    machine = booted(Machine(name, userland, disk_mb, entry, slot, network), new_host_key)
    trust(machine)
    return machine


def new_host_key(machine: Machine) -> None:
    """Give the board another host key, used from the next boot or restart of sshd on."""
    folder = machine.state / "files/etc/ssh"
    key = folder / "farm_host_key"
    for path in (key, key.with_suffix(".pub")):
        path.unlink(missing_ok=True)
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", machine.name, "-f", key)


def trust(machine: Machine) -> None:
    """Record the present host key where the machine's entry looks for it."""
    key = (machine.state / "files/etc/ssh/farm_host_key.pub").read_text().split()
    known = Path(machine.entry.known_hosts or "")
    known.parent.mkdir(exist_ok=True)
    known.write_text(f"{machine.address} {key[0]} {key[1]}\n")


def user_key() -> Path:
    """Private key with which the lab logs in everywhere."""
    key = lab_dir() / "user_key"
    with locked(lab_dir() / "user_key.lock"):
        if not key.exists():
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "farm-lab", "-f", key)
    return key
