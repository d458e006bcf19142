"""A device that answers: its transport, with farm-helper in place and checked.

The shell is used only until the helper runs: `getprop` or `uname` to know the ABI, `mkdir`,
and where the device has none of them, every helper is tried.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farm import transports
from farm.core.abi import BUILT, abi_of_machine
from farm.core.command import Command
from farm.core.device import DeviceEntry, DeviceFacts
from farm.core.errors import (
    BadOutput,
    DeviceUnfit,
    FarmError,
    RunnerError,
    TransferError,
    TransportTimeout,
)
from farm.paths import native_cache
from farm.protocols import OpenTransport
from farm.site.device.helper import DeviceHelper
from farm.site.look.facts import (
    CXX_RUNTIMES,
    LOADERS,
    RawFacts,
    capped,
    parse_facts,
    temperatures,
)
from farm.site.parsers.android import parse_getprop
from farm.site.parsers.start import diagnose
from farm.site.parsers.system import warmest
from runners.build.cache import NativeFile
from runners.build.native import build_helper

log = logging.getLogger(__name__)

#: Limit of one short command before the helper is there, seconds.
SHELL_S = 10.0
#: Limit of a system service that is asked for facts; two of them fit into a probe.
DUMPSYS_S = 4.0


#: Why a root folder may not be ours alone, as an exit code. `ls` may be missing: then a parent is
#: not looked at. A dot, since a parent may be a link.
_LOOK = """[ -L "$1" ] && exit 3; [ -O "$1" ] || exit 4
p=${1%/*}; while [ -n "$p" ]; do
l=$(ls -ld "$p/." 2>/dev/null) && case $l in ????????w[!tT]*) echo "$p"; exit 6;; esac
p=${p%/*}; done"""
_NOT_OURS = 5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Facts of a device at one moment, and its temperatures."""

    facts: DeviceFacts
    #: Degrees Celsius by sensor.
    temperatures: tuple[tuple[str, float], ...]
    #: Cooling devices that hold the processor back, and their step.
    capped: tuple[tuple[str, int], ...] = ()

    @property
    def hottest(self) -> tuple[str, float] | None:
        """Warmest sensor of the processor; of any kind where none is named as one of it."""
        return warmest(self.temperatures)


class Connection:
    """One open connection to a device, for one thread; `close` may come from any other.

    Args:
        entry: Device of the inventory.
        home: FARM_HOME of this host: where helpers are built.
        open_transport: Makes the transport of an entry.
    """

    def __init__(
        self, entry: DeviceEntry, home: Path, open_transport: OpenTransport = transports.open
    ) -> None:
        self.entry = entry
        self._home = home
        self._open = open_transport
        self.transport = open_transport(entry)
        self._helper: DeviceHelper | None = None
        self._getprop: str | None = None
        self._loaders: frozenset[str] | None = None
        #: True while a helper is compiled, and when that ended: not counted as the device's time.
        self.building = False
        self.built_at: float | None = None

    @property
    def helper(self) -> DeviceHelper:
        """The helper, put in place at the first use.

        Raises:
            TransportError: The device can't be reached.
            DeviceUnfit: No helper runs on it.
        """
        if self._helper is None:
            self._helper = self._bootstrap()
        return self._helper

    def reopen(self) -> Connection:
        """Return a fresh connection to the same device, trusting the helper in place."""
        fresh = Connection(self.entry, self._home, self._open)
        fresh._getprop, fresh._loaders = self._getprop, self._loaders
        if self._helper is not None:
            fresh._helper = DeviceHelper(
                fresh.transport, self.entry.name, self._helper.path, self._helper.root
            )
        return fresh

    def close(self) -> None:
        """End the connection and every call that waits on it."""
        self.transport.close()

    def answers(self) -> bool:
        """Tell whether the device still answers on a kept connection; close it otherwise.

        Raises:
            TransportTimeout: The connection stands, but nothing arrives: the device is frozen.
        """
        try:
            self.helper.version()
        except TransportTimeout:
            raise
        except FarmError as error:
            log.info("%s: connecting anew: %s", self.entry.name, error)
            self.close()
            return False
        return True

    def snapshot(self) -> Snapshot:
        """Probe the device.

        Raises:
            TransportError: It can't be reached.
            DeviceUnfit: No helper runs on it.
            BadOutput: What it says can't be understood.
        """
        raw = self.raw_facts()
        heat = tuple(sorted(temperatures(raw).items()))
        return Snapshot(parse_facts(raw), heat, capped(raw))

    def raw_facts(self) -> RawFacts:
        """Collect the texts that facts are made of."""
        helper = self.helper
        probe = helper.probe()
        android = self._getprop is not None
        if self._loaders is None:
            self._loaders = self._find_loaders()
        entry = self.entry
        return RawFacts(
            probe=probe,
            fallback_identity=entry.serial or entry.host or entry.name,
            root=helper.root,
            getprop=self._getprop,
            battery=self._dumpsys("battery") if android else None,
            thermal=self._dumpsys("thermalservice") if android else None,
            loaders=self._loaders,
            identity=f"sim:{entry.name}" if entry.transport == "sim" else None,
        )

    def _find_loaders(self) -> frozenset[str]:
        """Look for loaders, and for the C++ runtime until one is found."""
        stat = self.transport.stat
        loaders = sorted({path for table in LOADERS.values() for path in table.values()})
        found = {path for path in loaders if stat(path) is not None}
        for abi, table in LOADERS.items():
            if table["glibc"] in found:
                found |= set(next(([p] for p in CXX_RUNTIMES[abi] if stat(p) is not None), []))
        return frozenset(found)

    def _dumpsys(self, service: str) -> str | None:
        """Ask a system service; one that hangs leaves its facts unread, not the device."""
        try:
            return self._text("dumpsys", service, limit_s=DUMPSYS_S)
        except TransportTimeout as error:
            log.info("%s: no answer from %s: %s", self.entry.name, service, error)
            return None

    def _text(self, *argv: str, limit_s: float = SHELL_S) -> str | None:
        done = self.transport.run(Command(argv, timeout_s=limit_s))
        return done.text if done.ok else None

    def _bootstrap(self) -> DeviceHelper:
        root = self.transport.default_root()
        folder = self._folder(root)
        abi = self._abi()
        failures: list[str] = []
        for candidate in [name for name in BUILT if abi in (name, None)]:
            with _collected(failures, also_builds=abi is None):
                program = self._program(candidate)
                path = f"{folder}/farm-helper-{program.sha256}"
                helper = DeviceHelper(self.transport, self.entry.name, path, root)
                self._install(helper, program)
                return helper
        trouble = diagnose("\n".join(failures))
        remedy = "" if trouble is None else trouble.remedy
        raise DeviceUnfit(
            f"farm-helper doesn't run on {self.entry.name} ({abi or 'unknown ABI'}): "
            + ("; ".join(failures) or f"farm has helpers for {', '.join(BUILT)}")
            + (f". Remedy: {remedy}" if remedy else ""),
            device=self.entry.name,
            remedy=remedy,
        )

    def _program(self, abi: str) -> NativeFile:
        self.building = True
        try:
            return build_helper(abi, native_cache(self._home)).files[0]
        finally:
            self.built_at = time.monotonic()
            self.building = False

    def _install(self, helper: DeviceHelper, program: NativeFile) -> None:
        """Push the helper unless it is there; another content in its place is replaced."""
        if self._is_there(helper.path, program):
            with _collected([]):
                helper.version()
                return
        # Another connection to the device may look for it too: it appears whole, or not at all.
        fresh = f"{helper.path}.{secrets.token_hex(4)}"
        self.transport.push(program.path, fresh, mode=0o700)
        move = Command(("mv", "-f", fresh, helper.path), timeout_s=SHELL_S)
        if not self.transport.run(move).ok:
            log.info("%s has no working mv: farm-helper is written in place", self.entry.name)
            self.transport.push(program.path, helper.path, mode=0o700)
        helper.version()

    def _is_there(self, path: str, program: NativeFile) -> bool:
        """Whether a file of ours has the whole content: its name and size prove nothing."""
        found = self.transport.stat(path)
        if found is None or found.size_bytes != program.size:
            return False
        look = '[ -O "$1" ] && [ ! -L "$1" ] || exit 5; sha256sum < "$1" || exit 6'
        done = self.transport.run(Command(("sh", "-c", look, "sh", path), timeout_s=SHELL_S))
        if done.ok:
            return done.text.split(maxsplit=1)[:1] == [program.sha256]
        if done.exit_code == _NOT_OURS:
            return False
        # A device without sha256sum: what it has is read back.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "helper")
            self.transport.pull(path, copy, max_bytes=program.size)
            return hashlib.sha256(copy.read_bytes()).hexdigest() == program.sha256

    def _folder(self, root: str) -> str:
        """Return farm's folder, made if need be, or the nearest one above it that exists."""
        if self.transport.stat(f"{root}/objects") is not None:
            self._require_own(root)
            return root
        made = self.transport.run(Command(("mkdir", "-p", f"{root}/objects"), timeout_s=SHELL_S))
        if made.ok:
            self.transport.run(Command(("chmod", "700", root), timeout_s=SHELL_S))
            self._require_own(root)
            return root
        folder = root
        while self.transport.stat(folder) is None:
            folder, slash, _ = folder.rpartition("/")
            if not slash or not folder:
                local = self.entry.transport == "local"
                raise TransferError(
                    f"can't make {root} on {self.entry.name}: {made.error_text[:200]}",
                    device=self.entry.name,
                    remedy="set FARM_HOME to a folder that this user may write to"
                    if local
                    else f"let `root` of {self.entry.name} be a folder that its user may write to",
                )
        return folder

    def _require_own(self, root: str) -> None:
        """Refuse a folder into which somebody else may have put what we would run.

        Raises:
            DeviceUnfit: It is a link, another user's, or open to others.
        """
        if self.entry.transport not in ("adb", "ssh"):
            return  # a folder of this host, in our own FARM_HOME
        done = self.transport.run(Command(("sh", "-c", _LOOK, "sh", root), timeout_s=SHELL_S))
        found = self.transport.stat(root)
        why = {
            0: "may be written by others" if found is None or found.mode & 0o022 else "",
            3: "is a symbolic link",
            4: "belongs to another user",
            6: f"lies below {done.text.strip()}, which everybody may write",
        }.get(done.exit_code, f"can't be looked at ({done.error_text[:200]})")
        if why:
            remedy = f"remove {root} there, or set `root` of the device to a folder of its own"
            raise DeviceUnfit(
                f"{self.entry.name}: farm's folder {root} {why}: what lies in it may be somebody"
                f" else's program. {remedy}",
                device=self.entry.name,
                remedy=remedy,
            )

    def _abi(self) -> str | None:
        self._getprop = None
        properties = self._text("getprop")
        if properties and (values := parse_getprop(properties)):
            self._getprop = properties
            if values.get("ro.product.cpu.abi"):
                return values["ro.product.cpu.abi"]
        machine = self._text("uname", "-m")
        return None if machine is None else abi_of_machine(machine) or machine.strip()[:40]


@contextlib.contextmanager
def _collected(failures: list[str], *, also_builds: bool = False) -> Iterator[None]:
    """Note why a helper didn't start; a broken connection still ends everything.

    With `also_builds`, a helper that can't be built is a failure like others: for a device of
    unknown ABI another one may do.
    """
    try:
        yield
    except FarmError as error:
        build = isinstance(error, RunnerError) and not isinstance(error, BadOutput)
        if error.retryable or (build and not also_builds):
            raise
        log.debug("helper not usable: %s", error)
        failures.append(error.message)
