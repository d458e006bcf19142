"""What this host lacks for running farm: one check per subject, each with a remedy.

Looks, and changes nothing but one file in FARM_HOME that it removes again. It imports neither
torch nor Ray, contacts no device (a running adb server is asked for its list), and renders
nothing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from farm.clock import Deadline
from farm.cluster.start_failure import LOOKED_AT, likely_causes
from farm.core.abi import BUILT
from farm.core.errors import ConfigError, ConnectError, FarmError
from farm.host.limits import Limits, read_limits
from farm.host.ssh_agent import agent_keys
from farm.paths import model_cache, native_cache, store_root, unwritable
from farm.run.journal import NETWORK_FILE_SYSTEMS, file_system_type
from farm.store.objects import ContentStore
from runners.build.compiler import cross_package, cross_variable, find_compiler, host_abi

log = logging.getLogger(__name__)

Status = Literal["ok", "warn", "error"]

#: Later ones may lack wheels of the pinned packages; scripts/install.sh refuses them.
NEWEST_PYTHON = (3, 14)

GIB = 1 << 30
#: One 135M model with its export, references and logits takes about this much.
HOME_ERROR_BYTES = 1 * GIB
HOME_WARN_BYTES = 5 * GIB
#: Exporting a 135M model peaks at about 3 GiB.
RAM_WARN_BYTES = 4 * GIB
#: Below this Ray keeps its objects on a disk instead.
SHM_WARN_BYTES = GIB // 2
#: A single program that is asked something answers in this time or counts as broken.
PROGRAM_TIMEOUT_S = 8.0

_CXX17 = "#include <optional>\nint main() { return std::optional<int>(0).value(); }\n"


@dataclass(frozen=True, slots=True)
class Check:
    """One subject: `error` keeps farm from running here, `warn` limits what it can do."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    """What to do about it; empty when all is well."""


def checks(home: Path, *, deadline_s: float = 10.0) -> list[Check]:
    """Look at everything at once and return the checks in a fixed order.

    A probe that doesn't answer in time (a hanging network mount, a stuck adb server) becomes an
    error of its own and keeps no other from reporting.
    """
    answers: dict[str, Check] = {}

    def look(name: str, probe: Probe) -> None:
        try:
            answers[name] = probe(home)
        except Exception as error:  # the fence between probes: the outcome is recorded
            log.debug("the probe of %s failed", name, exc_info=True)
            answers[name] = Check(
                name, "error", f"the check itself failed: {error!r}", "please report this line"
            )

    # Daemons: a thread stuck in the kernel must not keep the process from ending.
    threads = [
        threading.Thread(target=look, args=item, name=f"doctor-{item[0]}", daemon=True)
        for item in PROBES.items()
    ]
    deadline = Deadline(deadline_s)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline.remaining_s)
    late = f"no answer within {deadline_s:g} s"
    remedy = "look for a hanging mount, server or program; then repeat `farm doctor`"
    return [answers.get(name) or Check(name, "error", late, remedy) for name in PROBES]


def python(_home: Path) -> Check:
    """The interpreter."""
    detail = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] > NEWEST_PYTHON:
        known = "{}.{}".format(*NEWEST_PYTHON)
        remedy = f"prefer Python 3.11 to {known}: PYTHON=... make run"
        return Check("python", "warn", f"{detail}: newer than the pinned packages", remedy)
    return Check("python", "ok", detail)


def packages(_home: Path) -> Check:
    """The heavy packages, by their metadata."""
    found, missing = [], []
    for name in ("torch", "executorch", "torchao", "ray"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check(
            "packages",
            "error",
            f"missing: {', '.join(missing)}; found: {', '.join(found) or 'none'}",
            "install them as pinned: make run, or pip install -c constraints.txt -e .",
        )
    return Check("packages", "ok", ", ".join(found))


def compiler(_home: Path) -> Check:
    """The C++ compiler that builds the native runner: it has to compile and link C++17."""
    remedy = "apt-get install g++, dnf install gcc-c++ or xcode-select --install; or set CXX"
    try:
        found = find_compiler(host_abi())
    except FarmError as error:
        return Check("compiler", "error", str(error), remedy)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch, "probe.cpp")
            source.write_text(_CXX17)
            words = [*found.command, "-std=c++17", str(source), "-o", str(source.with_suffix(""))]
            done = _ask(words)
    except OSError as error:
        detail = f"{found.identity} can't be tried: {error}"
        return Check("compiler", "error", detail, "set TMPDIR to a folder that can be written")
    if done.returncode != 0:
        why = (done.stderr.strip() or "no output").splitlines()[0]
        detail = f"{found.identity} can't build a C++17 program: {why}"
        return Check("compiler", "error", detail, remedy)
    return Check("compiler", "ok", f"{found.identity} builds C++17")


def cross_compiler(_home: Path) -> Check:
    """Compilers for devices of another instruction set."""
    name = "cross compiler"
    mine = platform.machine()
    others = [abi for abi, target in BUILT.items() if target.machine != mine]
    found, missing = [], []
    for abi in others:
        try:
            found.append(f"{abi}: {find_compiler(abi).identity}")
        except FarmError:
            missing.append(abi)
    if missing:
        commands = ", ".join(f"apt-get install {cross_package(BUILT[abi])}" for abi in missing)
        detail = f"none for {', '.join(missing)}: such devices can't be served from here"
        return Check(
            name, "warn", detail, f"{commands}, or set {cross_variable(BUILT[missing[0]])}"
        )
    return Check(name, "ok", "; ".join(found))


def adb(_home: Path) -> Check:
    """The adb program, its server and what that has attached. Starts no server."""
    # adbutils costs a quarter of a second, and tables import this module for Check alone.
    from farm.transports import adb_devices

    program: str | None = None
    with contextlib.suppress(ConnectError):  # machines without Android devices need none
        program = adb_devices.adb_program()
    try:
        address = adb_devices.server_address(None)
    except ConfigError as error:
        return Check("adb", "error", str(error), "unset the variable, or correct it")
    if not adb_devices.listens(address):
        if variable := adb_devices.named_by():
            where = adb_devices.spelled(address)
            detail = f"no adb server answers at {where}, which {variable} names"
            return Check("adb", "error", detail, f"start it there, or unset {variable}")
        if program is None:
            detail = "neither an adb program nor a server: Android devices can't be used"
            remedy = "apt-get install adb, or install Android's platform-tools"
            return Check("adb", "warn", detail, remedy)
        return Check("adb", "ok", f"{program}; no server yet, farm starts it when needed")
    try:
        devices = adb_devices.attached(start=False)
    except ConnectError as error:
        return Check("adb", "error", str(error), "adb kill-server, then repeat")
    listed = ", ".join(f"{item.serial} ({item.state})" for item in devices) or "none attached"
    detail = f"{program or 'a server'}; devices: {listed}"
    if bad := [item for item in devices if item.remedy]:
        remedy = "; ".join(f"{item.serial}: {item.remedy}" for item in bad)
        return Check("adb", "warn", detail, remedy)
    return Check("adb", "ok", detail)


def ssh(_home: Path) -> Check:
    """The ssh agent and key files that an ssh device can be reached with."""
    folder = Path(os.path.expanduser("~/.ssh"))  # without a home folder there is none of that name
    keys = sorted(path.stem for path in folder.glob("id_*.pub"))
    files = f"keys in ~/.ssh: {', '.join(keys) or 'none'}"
    try:
        held = agent_keys(os.environ.get("SSH_AUTH_SOCK"))
    except OSError as error:
        return Check(
            "ssh",
            "warn",
            f"the agent of SSH_AUTH_SOCK doesn't answer ({error}); {files}",
            "start it again (eval $(ssh-agent); ssh-add) or unset SSH_AUTH_SOCK",
        )
    agent = "no agent" if held is None else f"agent with {held} keys"
    if not held and not keys:
        remedy = "ssh-keygen -t ed25519, or name an identity in the inventory"
        return Check("ssh", "warn", f"{agent}; {files}: only named identities work", remedy)
    return Check("ssh", "ok", f"{agent}; {files}")


def farm_home(home: Path) -> Check:
    """FARM_HOME: local, writable and with room."""
    name = "FARM_HOME"
    kind = file_system_type(home)
    if kind in NETWORK_FILE_SYSTEMS:
        remedy = "set FARM_HOME to a folder on a local disk"
        return Check(name, "error", f"{home} is on a network file system ({kind})", remedy)
    parts = ("*", "store/*", "store/objects/*", "device/*")
    for path in (home, *(found for part in parts for found in home.glob(part))):
        if why := unwritable(path):
            return Check(name, "error", f"{path} can't be written", why)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"\0" * 4096)
            file.flush()
        free = shutil.disk_usage(home).free
    except OSError as error:
        remedy = "free some space, mend its permissions, or set FARM_HOME to another folder"
        return Check(name, "error", f"{home} can't be written: {error.strerror}", remedy)
    detail = f"{home} ({kind or 'unknown file system'}), {_size(free)} free"
    if os.statvfs(home).f_flag & os.ST_NOEXEC:
        remedy = "set FARM_HOME to a folder on a file system without noexec"
        return Check(name, "warn", f"{detail}, mounted noexec: no local device", remedy)
    if free < HOME_WARN_BYTES:
        status: Status = "error" if free < HOME_ERROR_BYTES else "warn"
        remedy = "farm store gc, free some space, or set FARM_HOME to a larger disk"
        return Check(name, status, detail, remedy)
    return Check(name, "ok", detail)


def store(home: Path) -> Check:
    """What the caches hold: objects, models, native builds."""
    objects = [ref.size_bytes for ref in ContentStore(store_root(home)).listing()]
    # `hashes` remembers what was hashed, it is no model.
    models = sorted(path.name for path in _entries(model_cache(home)) if path.name != "hashes")
    builds = sorted({path.parent.name for path in native_cache(home).rglob("farm-*-*")})
    parts = [
        f"{len(objects)} objects ({_size(sum(objects))})",
        f"models: {', '.join(models) or 'none yet'}",
        f"native builds: {', '.join(builds) or 'none yet, made on first use'}",
    ]
    return Check("store", "ok", "; ".join(parts))


def memory(_home: Path) -> Check:
    """RAM, and what a control group leaves of it."""
    present = psutil.virtual_memory()
    limit = read_limits().memory_bytes
    usable = present.total if limit is None else min(limit, present.total)
    detail = f"{_size(usable)}, {_size(min(usable, present.available))} available"
    if limit is not None and limit < present.total:
        detail += f" (control group; the machine has {_size(present.total)})"
    if usable < RAM_WARN_BYTES:
        return Check("memory", "warn", detail, "export on a larger host; devices can stay here")
    return Check("memory", "ok", detail)


def cores(_home: Path) -> Check:
    """Processors this process may use, and a control group's quota."""
    return judge_cores(_usable_cores(), os.cpu_count() or 1, read_limits())


def judge_cores(usable: int, present: int, limits: Limits) -> Check:
    """Judge processor counts: a quota below the cores throttles in bursts and spoils timing."""
    detail = f"{usable} of {present} cores"
    if limits.cpus is not None and limits.cpus < usable:
        return Check(
            "cores",
            "warn",
            f"{detail}, but a control group's quota of {limits.cpus:g}: rates of the local device"
            " are throttled in bursts",
            "pin cores (cpuset) instead of a quota, or don't measure on this host",
        )
    return Check("cores", "ok", detail)


def shared_memory(_home: Path) -> Check:
    """/dev/shm, where Ray keeps its objects."""
    name, path = "shared memory", "/dev/shm"
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        return Check(name, "ok", f"no {path} on this system; Ray uses a folder")
    if not os.access(path, os.W_OK | os.X_OK):
        remedy = "mount it so that this user can write there"
        return Check(name, "warn", f"{path} can't be written", remedy)
    if free < SHM_WARN_BYTES:
        remedy = "in a container: docker run --shm-size 2g; else enlarge the mount"
        return Check(name, "warn", f"{path}: {_size(free)} free; Ray falls back to disk", remedy)
    return Check(name, "ok", f"{path}: {_size(free)} free")


def ray(_home: Path) -> Check:
    """What keeps Ray from starting here; nothing is started."""
    if causes := list(likely_causes()):
        remedy = "mend that, or use `--cluster none`, which works without Ray"
        return Check("Ray", "warn", f"may not start: {'; '.join(causes)}", remedy)
    return Check("Ray", "ok", f"{LOOKED_AT} suffice")


def clock(_home: Path) -> Check:
    """The system clock: not before our own files, and synchronised where that can be read."""
    written = max(path.stat().st_mtime for path in Path(__file__).parents[1].glob("*.py"))
    behind_s = written - time.time()
    remedy = "timedatectl set-ntp true, or set the clock"
    if behind_s > 60:
        detail = f"the clock is {behind_s:.0f} s behind farm's own files"
        return Check("clock", "error", detail, remedy)
    synchronised = ""
    if shutil.which("timedatectl"):
        done = _ask(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
        synchronised = done.stdout.strip() if done.returncode == 0 else ""
    if synchronised == "no":
        detail = "not synchronised: times of several hosts can't be compared"
        return Check("clock", "warn", detail, remedy)
    return Check("clock", "ok", "synchronised" if synchronised else "plausible")


Probe = Callable[[Path], Check]

PROBES: dict[str, Probe] = {
    "python": python,
    "packages": packages,
    "compiler": compiler,
    "cross compiler": cross_compiler,
    "adb": adb,
    "ssh": ssh,
    "FARM_HOME": farm_home,
    "store": store,
    "memory": memory,
    "cores": cores,
    "shared memory": shared_memory,
    "Ray": ray,
    "clock": clock,
}


def _ask(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=PROGRAM_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _entries(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def _usable_cores() -> int:
    return (
        len(psutil.Process().cpu_affinity())
        if platform.system() == "Linux"
        else os.cpu_count() or 1
    )


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.1f} MiB"
