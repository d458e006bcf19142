"""The Android NDK and an ExecuTorch built with it: where they are, and what to link.

Neither is part of any Python wheel, so both are the user's; without them farm uses a build that
brings its own C library. Nothing here compiles our own sources.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from farm.core.abi import BUILT
from farm.core.errors import RunnerError
from runners.build.checkout import Checkout, read_checkout
from runners.build.compiler import Compiler, describe

PREFIX = "FARM_ANDROID_PREFIX"
NDK = "ANDROID_NDK_HOME"
SOURCE = "FARM_EXECUTORCH_SOURCE"
#: Oldest Android that is built for: 9, as ExecuTorch's own builds.
API = 28

_BUILD_TIMEOUT_S = 3600
#: What a checkout is built with. The last has attention and cache updates for LLMs.
_PARTS = (
    *("XNNPACK", "PTHREADPOOL", "CPUINFO", "KERNELS_OPTIMIZED", "KERNELS_QUANTIZED"),
    *("EXTENSION_MODULE", "EXTENSION_TENSOR", "EXTENSION_DATA_LOADER"),
    *("EXTENSION_FLAT_TENSOR", "EXTENSION_NAMED_DATA_MAP", "EXTENSION_RUNNER_UTIL"),
    "KERNELS_LLM",
)
#: Archives whose static constructors register kernels and backends: linked whole.
_WHOLE = (
    *("xnnpack_backend", "optimized_native_cpu_ops_lib", "quantized_ops_lib"),
    *("executorch_backend_xnnpack", "executorch_kernels_optimized", "executorch_kernels_quantized"),
    "custom_ops",
)
#: Archives that register what another one registers already.
_LEFT_OUT = re.compile(r"portable_ops_lib|optimized_ops_lib|_aot_|selective|_jni|etdump")
#: llama::custom_sdpa and its like. Registered twice they would end the process.
_CUSTOM_OPS = "custom_ops"
#: What the CMake package of an ExecuTorch calls its version, the exact one first.
_VERSIONS = ("EXECUTORCH_BUILD_VERSION", "PACKAGE_VERSION")


@dataclass(frozen=True, slots=True)
class AndroidSdk:
    """An ExecuTorch for Android and the compiler it was built with."""

    prefix: Path
    """Has `include/executorch` and `lib`."""
    compiler: Compiler
    how: str
    """For reports."""
    version: str
    """As it calls itself, with the state of its checkout; empty when it doesn't tell."""

    @property
    def custom_ops(self) -> bool:
        """Whether it has attention and cache updates of its own."""
        files = (*self.shared(), *self.archives())
        return any(_CUSTOM_OPS in path.stem for path in files)

    def shared(self, *, custom_ops: bool = True) -> list[Path]:
        """Shared libraries that go to the device."""
        return self._libraries("*.so", custom_ops=custom_ops)

    def archives(self, *, custom_ops: bool = True) -> list[Path]:
        """Static libraries that are linked in."""
        return self._libraries("*.a", custom_ops=custom_ops)

    def _libraries(self, pattern: str, *, custom_ops: bool) -> list[Path]:
        return [
            path
            for path in sorted((self.prefix / "lib").glob(pattern))
            if not _LEFT_OUT.search(path.stem) and (custom_ops or _CUSTOM_OPS not in path.stem)
        ]

    def link_flags(self, *, custom_ops: bool = True) -> list[str]:
        """Words for the linker, in order."""
        archives = self.archives(custom_ops=custom_ops)
        names = {path: path.stem.removeprefix("lib") for path in archives}
        whole = [str(path) for path, name in names.items() if name in _WHOLE]
        rest = [str(path) for path, name in names.items() if name not in _WHOLE]
        return [
            *("-Wl,--whole-archive", *whole, "-Wl,--no-whole-archive"),
            *("-Wl,--start-group", *rest, "-Wl,--end-group"),
            # They register themselves when loaded: nothing in our objects refers to them.
            *("-Wl,--no-as-needed", *(str(path) for path in self.shared(custom_ops=custom_ops))),
            "-static-libstdc++",
            "-llog",
        ]


def find_android(
    abi: str, cache: Path, environment: Mapping[str, str], progress: Callable[[str], None]
) -> AndroidSdk | str:
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
    compiler = ndk_compiler(abi, ndk)
    if way == PREFIX:
        prefix = _checked(named, way)
        return AndroidSdk(prefix, compiler, words, installed_version(prefix))
    checkout = read_checkout(named, way)
    prefix = _checked(_build_prefix(abi, ndk, named, checkout, cache, progress), way)
    how = f"{words} ({checkout.note})" if checkout.note else words
    return AndroidSdk(prefix, compiler, how, checkout.name)


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


def _checked(prefix: Path, variable: str) -> Path:
    if not (prefix / "include" / "executorch").is_dir():
        raise RunnerError(f"{variable}: {prefix} has no include/executorch; it is no install tree.")
    libraries = list((prefix / "lib").glob("libexecutorch*"))
    if not libraries:
        raise RunnerError(f"{variable}: {prefix}/lib has no libexecutorch.")
    return prefix


def installed_version(prefix: Path) -> str:
    """The version that an install tree's CMake package names; empty when it names none."""
    found: dict[str, str] = {}
    for file in sorted(prefix.glob("**/executorch-config-version.cmake")):
        text = file.read_text(errors="replace")
        found |= dict(re.findall(r'set\((\w+)\s+"([^"]+)"\)', text))
    return next((found[name] for name in _VERSIONS if name in found), "")


def _build_prefix(
    abi: str,
    ndk: Path,
    source: Path,
    checkout: Checkout,
    cache: Path,
    progress: Callable[[str], None],
) -> Path:
    """Configure, build and install a checkout of ExecuTorch with the NDK, once for each state."""
    options = [
        f"-DCMAKE_TOOLCHAIN_FILE={ndk}/build/cmake/android.toolchain.cmake",
        *(f"-DANDROID_ABI={abi}", f"-DANDROID_PLATFORM=android-{API}"),
        "-DCMAKE_BUILD_TYPE=Release",
        *(f"-DEXECUTORCH_BUILD_{part}=ON" for part in _PARTS),
    ]
    inputs = [str(source.resolve()), checkout.commit, checkout.changes, _ndk_revision(ndk), options]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    final = cache / "sdk" / f"executorch-android-{abi}-{key}"
    if (final / "lib").is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".android-", dir=final.parent))
    install, build = scratch / "install", scratch / "build"
    try:
        progress(f"configuring ExecuTorch {checkout.name} for android {abi}")
        _cmake(
            *("-S", str(source), "-B", str(build), *options, f"-DCMAKE_INSTALL_PREFIX={install}")
        )
        progress(f"building ExecuTorch {checkout.name} for android {abi}")
        _cmake("--build", str(build), "--target", "install", "-j", str(os.cpu_count() or 1))
        if read_checkout(source, SOURCE) != checkout:
            raise RunnerError(f"{SOURCE}: {source} changed while it was built; run it again.")
        install.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return final


def _ndk_revision(ndk: Path) -> str:
    """An NDK replaced in place is another one."""
    properties = ndk / "source.properties"
    return f"{ndk.resolve()} " + (properties.read_text() if properties.is_file() else "")


def _cmake(*words: str) -> None:
    try:
        done = subprocess.run(
            ["cmake", *words], capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunnerError(f"cmake can't be run: {error}.") from error
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).strip()[-2000:]
        raise RunnerError(f"cmake {words[0]} failed with exit code {done.returncode}: {tail}")
