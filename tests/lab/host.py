"""What the lab needs of this machine: root, programs, a folder; commands with their errors."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs

#: Programs of every lab device; install.sh installs them.
PROGRAMS = (
    "adb", "sshd", "ip", "iptables", "unshare", "nsenter", "setpriv", "apt-get", "dpkg-deb", "g++",
    "patchelf", "aarch64-linux-gnu-g++", "qemu-aarch64-static",
)  # fmt: skip
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


class LabError(RuntimeError):
    """The lab itself is broken, not what is tested in it."""


def why_not() -> str | None:
    """Reason why no lab device can run here; None when they can."""
    if os.geteuid() != 0:
        return "the lab needs root: its devices live in namespaces"
    missing = [name for name in PROGRAMS if find(name) is None]
    if missing:
        return f"the lab misses {', '.join(missing)}: run tests/lab/install.sh"
    return None


def find(program: str) -> str | None:
    """Path of a program, also of one that only root's PATH would show."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")


def sh(*argv: str | Path, check: bool = True, stdin: str = "", timeout_s: float = 60) -> str:
    """Run a program of this machine and return what it printed.

    Raises:
        LabError: It failed, with what it said.
    """
    words = [str(word) for word in argv]
    words[0] = find(words[0]) or words[0]
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def spawn(argv: Sequence[str | Path], log: Path, env: dict[str, str] | None = None) -> int:
    """Start a program that dies with this process, and return its process id."""
    setpriv = find("setpriv") or "setpriv"
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [setpriv, "--pdeathsig", "KILL", *(str(word) for word in argv)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=env,
            start_new_session=True,
        )
    _children[process.pid] = process
    return process.pid


def reap(pid: int) -> None:
    """Kill a program started by `spawn` and wait for its end."""
    process = _children.pop(pid, None)
    if process is not None:
        process.kill()
        process.wait(timeout=20)


#: Popen objects of what runs, so that nobody is left a zombie.
_children: dict[int, subprocess.Popen[bytes]] = {}


def lab_dir() -> Path:
    """Folder of unpacked roots, kept between runs: $FARM_LAB_DIR or the user's cache."""
    value = os.environ.get("FARM_LAB_DIR")
    path = Path(value).resolve() if value else Path(platformdirs.user_cache_dir("farm")) / "lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock, so that two test runs don't unpack the same root."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
