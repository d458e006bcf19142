"""`farm runners`: what native runners there are, and building one ahead of its first use."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import runners
from farm.core.abi import BUILT, abi_of_machine
from farm.core.artifact import Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import DeviceUnfit, RunnerError, UnknownName
from farm.core.names import meant
from farm.core.runner import OWN_KINDS, TUNED, RunnerBuild
from farm.paths import native_cache
from runners.build.android import android_way
from runners.build.cache import cached_builds
from runners.build.compiler import find_compiler
from runners.build.native import program_name

_ANDROID = "android-"
#: Where the other kinds come from.
_GIVEN = "yours: described under `runners` of a config"
_KNOWN = (*BUILT, *(f"{_ANDROID}{abi}" for abi in sorted(BUILT)))


def build(target: str, home: Path, say: Callable[[str], None]) -> RunnerBuild:
    """Build the native runner for an ABI, unless it is there already.

    Args:
        target: An ABI (Linux with glibc), or `android-` and an ABI; empty is this machine's.
        home: FARM_HOME.
        say: Called with a line per step.

    Raises:
        UnknownName: Nobody builds for that ABI.
        RunnerError: It failed; says what is missing and how to get it.
    """
    wanted = target or abi_of_machine(platform.machine()) or platform.machine()
    if wanted not in _KNOWN:
        raise UnknownName(
            f"no runner for ABI {wanted!r}; there are {', '.join(_KNOWN)}{meant(wanted, _KNOWN)}",
            known=_KNOWN,
        )
    abi = wanted.removeprefix(_ANDROID)
    android = abi != wanted
    facts = DeviceFacts(
        identity="build",
        abi=abi,
        libc="bionic" if android else "glibc",
        system_loader=not android,
    )
    try:
        return runners.find().build(abi, facts, home, Sdk(), _news(say))
    except DeviceUnfit as error:
        raise RunnerError(error.message) from error


def _news(say: Callable[[str], None]) -> Callable[[str], None]:
    """Pass on a line only when it is another one than before."""
    last = [""]

    def report(line: str) -> None:
        if line != last[0]:
            last[0] = line
            say(line)

    return report


def listing(home: Path) -> list[tuple[str, str, str, str]]:
    """Return each runner; native ones with every target, how it is built, and what is built."""
    native = [
        (kind, target, _how(target), ", ".join(_built(kind, target, home)) or "not built yet")
        for kind in OWN_KINDS
        for target in _KNOWN
    ]
    given = (name for name in runners.RUNNERS.names() if name not in OWN_KINDS)
    return native + [(name, "any", _GIVEN, "") for name in given]


def _how(target: str) -> str:
    abi = target.removeprefix(_ANDROID)
    try:
        way, words = android_way(os.environ) if abi != target else ("", "")
        compiler = "" if way else " ".join(find_compiler(abi).command)
    except RunnerError as error:
        return f"can't be built: {error.message}"
    return words if way else f"glibc bundle with {compiler}: {words}" if words else compiler


def _built(kind: str, target: str, home: Path) -> list[str]:
    """Versions in the cache that fit a target; Android takes bundles too."""
    abi = target.removeprefix(_ANDROID)
    fitting = ("bionic", "glibc-bundle") if abi != target else ("glibc", "glibc-bundle")
    return [
        f"{build.version} ({build.libc}, ExecuTorch {build.toolchain})"
        for build in cached_builds(native_cache(home), abi)
        if build.libc in fitting and build.name == program_name(tuned=kind == TUNED)
    ]
