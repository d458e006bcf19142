"""The Android NDK and an ExecuTorch built with it: where they are.

Neither is part of any Python wheel, so both are the user's; without them farm uses a build that
brings its own C library. Nothing here compiles our own sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from farm.core.abi import BUILT
from farm.core.errors import RunnerError
from runners.build.compiler import Compiler, describe
from runners.build.prefix import Prefix, checked_prefix, installed_version
from runners.build.tree import Target, Tree, build_tree

PREFIX = "FARM_ANDROID_PREFIX"
NDK = "ANDROID_NDK_HOME"
SOURCE = "FARM_EXECUTORCH_SOURCE"
#: Oldest Android that is built for: 9, as ExecuTorch's own builds.
API = 28


def find_android(
    abi: str, cache: Path, environment: Mapping[str, str], progress: Callable[[str], None]
) -> Prefix | str:
    """Look for the user's ways to build for Android, in order.

    Args:
        abi: Android's name of the ABI.
        cache: Where an ExecuTorch that we build is kept.
        environment: `FARM_ANDROID_PREFIX` (an ExecuTorch installed by an NDK build),
            `ANDROID_NDK_HOME`, and `FARM_EXECUTORCH_SOURCE` (a checkout to build one from).
        progress: Called with one short line per step.

    Returns:
        What to build with, or why there is nothing: for the report of the build that is used
        in its place.

    Raises:
        RunnerError: What the user named is unusable; the message says why.
    """
    way, words = android_way(environment)
    if not way:
        return words
    ndk, named = Path(environment[NDK]), Path(environment[way])
    if way == PREFIX:
        compiler, folder = ndk_compiler(abi, ndk), checked_prefix(named, way)
        return Prefix(folder, compiler, words, installed_version(folder), android=True)
    return build_android(abi, ndk, Tree(named, way), words, cache, progress)


def build_android(
    abi: str, ndk: Path, tree: Tree, how: str, cache: Path, progress: Callable[[str], None]
) -> Prefix:
    """Build a checkout with the NDK, or find what was built of its state.

    Raises:
        RunnerError: As `build_tree`, or the NDK has no compiler for the ABI.
    """
    compiler = ndk_compiler(abi, ndk)
    options = (
        f"-DCMAKE_TOOLCHAIN_FILE={ndk}/build/cmake/android.toolchain.cmake",
        *(f"-DANDROID_ABI={abi}", f"-DANDROID_PLATFORM=android-{API}"),
    )
    target = Target(f"android-{abi}", options, _ndk_revision(ndk))
    folder, state = build_tree(tree, target, cache, progress)
    return Prefix(
        folder, compiler, f"{how} ({state.note})" if state.note else how, state.name, android=True
    )


def android_way(environment: Mapping[str, str]) -> tuple[str, str]:
    """Which of the user's ways there is: its variable and its name for reports, or "" and why not.

    Raises:
        RunnerError: The variables don't go together.
    """
    way = next((name for name in (PREFIX, SOURCE) if environment.get(name)), "")
    if not environment.get(NDK):
        if way:
            raise RunnerError(f"{way} is set, but {NDK} isn't: it names the compiler to use.")
        return "", f"{NDK} is not set"
    if not way:
        return "", f"{NDK} is set, but neither {PREFIX} nor {SOURCE}: an NDK holds no ExecuTorch"
    return way, f"NDK, prefix {PREFIX}" if way == PREFIX else f"NDK, built from {SOURCE}"


def ndk_compiler(abi: str, ndk: Path) -> Compiler:
    """The clang++ of an NDK for an ABI.

    Raises:
        RunnerError: There is none where NDKs have it.
    """
    machine = BUILT[abi].machine
    name = f"{machine}-linux-android{API}-clang++"
    found = sorted(ndk.glob(f"toolchains/llvm/prebuilt/*/bin/{name}"))
    if not found:
        raise RunnerError(f"{NDK}={ndk} has no toolchains/llvm/prebuilt/*/bin/{name}.")
    return describe((str(found[0]),), abi)


def _ndk_revision(ndk: Path) -> str:
    """An NDK replaced in place is another one."""
    properties = ndk / "source.properties"
    return f"{ndk.resolve()} " + (properties.read_text() if properties.is_file() else "")
