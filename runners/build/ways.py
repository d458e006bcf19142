"""Which of the ways to build farm-runner serves a device, tried in a fixed order.

It decides by facts of the device and by what the user has; runners.build.native compiles.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm.core.abi import BUILT
from farm.core.artifact import Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import DeviceUnfit, RunnerError
from farm.core.runner import PLAIN, BuildVariant
from runners.build.android import NDK, PREFIX, AndroidSdk, find_android
from runners.build.cache import NativeBuild
from runners.build.compiler import cross_package, find_compiler
from runners.build.native import build_for_android, build_runner
from runners.build.sdk import choose_sdk, installed_sdk, sdk_version


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of one host."""

    #: Builds and downloaded SDKs.
    native: Path
    toolchains: Path


def native_build(
    abi: str,
    facts: DeviceFacts,
    sdk: Sdk,
    places: Places,
    variant: BuildVariant = PLAIN,
    progress: Callable[[str], None] | None = None,
    *,
    tuned: bool = False,
) -> tuple[NativeBuild, str]:
    """Build farm-runner for a device by the first way there is.

    On Android that is the NDK with the user's ExecuTorch, then the NDK with a checkout of it, then
    the bundle with its own C library, which serves every device without a usable glibc.

    Returns:
        The build, and why it isn't against the ExecuTorch that was asked for; empty when it is.

    Raises:
        DeviceUnfit: There is no way here; the message has the next command.
        RunnerError: A way that the user named is broken, or this machine's own compiler is.
    """
    system = "android" if facts.libc == "bionic" or facts.sdk is not None else "linux"
    if abi not in BUILT:
        raise DeviceUnfit(
            f"no runner for {system}-{abi}: farm builds for {', '.join(sorted(BUILT))}", abi=abi
        )
    say = progress or (lambda _line: None)
    how = _reason_for_bundle(facts, own_libc=variant.own_libc)
    if system == "android" and variant.profile:
        how = how or "glibc bundle: profiles come from it alone"
    if system == "android" and variant == PLAIN:
        android = find_android(abi, places.native, os.environ, say)
        if isinstance(android, AndroidSdk):
            native = build_for_android(abi, android, places.native, tuned=tuned, progress=progress)
            return native, other_version(android, sdk.version or sdk_version(installed_sdk()))
        how = f"glibc bundle: {android}"
    if BUILT[abi].machine != platform.machine():
        _check_cross_compiler(abi, system)
    chosen = choose_sdk(abi, sdk, places.toolchains, places.native, say)
    build = build_runner(
        abi,
        chosen.folder,
        places.native,
        bundle_libc=bool(how),
        profile=variant.profile,
        tuned=tuned,
        progress=progress,
        how=how,
    )
    return build, chosen.note


def other_version(android: AndroidSdk, wanted: str) -> str:
    """Why what the user named isn't the ExecuTorch that was asked for; empty when it is."""
    if not android.version:
        return (
            f"{android.how}: its ExecuTorch doesn't say its version (no"
            f" executorch-config-version.cmake); {wanted} was asked for"
        )
    found = android.version.split()[0].partition("+")[0]
    if found == wanted.partition("+")[0]:
        return ""
    return f"{android.how}: it is ExecuTorch {android.version}; {wanted} was asked for"


def _reason_for_bundle(facts: DeviceFacts, *, own_libc: bool) -> str:
    """Why the device's own C library doesn't do; empty where it does."""
    if own_libc:
        return "glibc bundle: the runner didn't start with the device's own C library"
    if not facts.system_loader:
        return "glibc bundle: no loader for glibc at its usual place"
    if facts.cxx_runtime is False:
        return "glibc bundle: no C++ runtime at its usual place"
    return ""


def _check_cross_compiler(abi: str, system: str) -> None:
    """Without a compiler for another machine its devices are unfit, and nothing else is."""
    try:
        find_compiler(abi)
    except RunnerError as error:
        target = BUILT[abi]
        remedy = f"run `apt install {cross_package(target)}`"
        if system == "android":
            remedy += f", or set {NDK} and {PREFIX} to an ExecuTorch built with it"
        raise DeviceUnfit(
            f"no runner for {system}-{abi}: {target.triple}-g++ isn't installed here."
            f" Next: {remedy}, then `farm runners build {abi}`",
            abi=abi,
        ) from error
