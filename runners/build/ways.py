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
from runners.build.android import NDK, PREFIX, build_android, find_android
from runners.build.cache import NativeBuild
from runners.build.compiler import cross_package, find_compiler
from runners.build.native import build_for_prefix, build_runner
from runners.build.prefix import Prefix
from runners.build.sdk import choose_sdk, installed_sdk, sdk_version
from runners.build.tree import Tree, build_tree, linux_target


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

    A toolchain's own checkout comes first, whatever the device. Else on Android that is the NDK
    with the user's ExecuTorch, then the NDK with a checkout of it, then the bundle with its own C
    library, which serves every device without a usable glibc.

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
    wanted = sdk.version or sdk_version(installed_sdk())
    if system == "android" and variant == PLAIN:
        android = _android(abi, sdk, places.native, say)
        if isinstance(android, Prefix):
            native = build_for_prefix(abi, android, places.native, tuned=tuned, progress=progress)
            return native, other_version(android, wanted)
        how = f"glibc bundle: {android}"
    if BUILT[abi].machine != platform.machine():
        _check_cross_compiler(abi, system)
    if sdk.source and not variant.profile:
        prefix = _linux(abi, _tree(sdk), how, places.native, say)
        native = build_for_prefix(
            abi, prefix, places.native, bundle_libc=bool(how), tuned=tuned, progress=progress
        )
        return native, other_version(prefix, wanted)
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
    if sdk.source:
        return build, f"profiled on the wheel of ExecuTorch {wanted}, not on {sdk.source}"
    return build, chosen.note


def _tree(sdk: Sdk) -> Tree:
    return Tree(Path(sdk.source), "the toolchain's source", sdk.preset)


def _android(abi: str, sdk: Sdk, cache: Path, say: Callable[[str], None]) -> Prefix | str:
    """What to build with by the NDK, or why there is nothing."""
    if not sdk.source:
        return find_android(abi, cache, os.environ, say)
    if not os.environ.get(NDK):
        return f"{NDK} is not set"
    how = f"NDK, built from {sdk.source}"
    return build_android(abi, Path(os.environ[NDK]), _tree(sdk), how, cache, say)


def _linux(abi: str, tree: Tree, how: str, cache: Path, say: Callable[[str], None]) -> Prefix:
    """Build a toolchain's checkout for Linux; `how` says why its C library comes along."""
    compiler = find_compiler(abi)
    folder, state = build_tree(tree, linux_target(abi, compiler), cache, say)
    words = (f"built from {tree.folder}", state.note, how)
    return Prefix(folder, compiler, "; ".join(word for word in words if word), state.name)


def other_version(prefix: Prefix, wanted: str) -> str:
    """Why what the user named isn't the ExecuTorch that was asked for; empty when it is."""
    if not prefix.version:
        return (
            f"{prefix.how}: its ExecuTorch doesn't say its version (no"
            f" executorch-config-version.cmake); {wanted} was asked for"
        )
    found = prefix.version.split()[0].partition("+")[0]
    if found == wanted.partition("+")[0]:
        return ""
    return f"{prefix.how}: it is ExecuTorch {prefix.version}; {wanted} was asked for"


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
