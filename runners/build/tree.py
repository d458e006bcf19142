"""Builds a git checkout of ExecuTorch with CMake: once for each state, preset and compiler.

It knows CMake and git; which machine it is for, and with what, are options that it is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm.core.abi import BUILT
from farm.core.errors import RunnerError
from farm.files import locked
from runners.build.checkout import Checkout, read_checkout
from runners.build.compiler import Compiler
from runners.build.prefix import checked_prefix, installed_version

_BUILD_TIMEOUT_S = 3600
#: What a checkout is built with where no preset is named. The last has attention and cache updates
#: for LLMs.
_PARTS = (
    *("XNNPACK", "PTHREADPOOL", "CPUINFO", "KERNELS_OPTIMIZED", "KERNELS_QUANTIZED"),
    *("EXTENSION_MODULE", "EXTENSION_TENSOR", "EXTENSION_DATA_LOADER"),
    *("EXTENSION_FLAT_TENSOR", "EXTENSION_NAMED_DATA_MAP", "EXTENSION_RUNNER_UTIL"),
    "KERNELS_LLM",
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A checkout, as somebody named it."""

    folder: Path
    #: Variable or key that names it, for errors.
    named_by: str
    #: One of its CMake presets; empty is farm's own choice of parts.
    preset: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What it is built for, and with what."""

    #: For example `android-arm64-v8a`.
    name: str
    options: tuple[str, ...]
    #: Says which compiler it is; part of the key.
    tools: str


def linux_target(abi: str, compiler: Compiler) -> Target:
    """Options for Linux with a C++ compiler and the C compiler that stands beside it."""
    words, machine = compiler.command, BUILT[abi].machine
    c_compiler = re.sub(r"g\+\+(?=[^/]*$)", "gcc", words[0])
    c_compiler = re.sub(r"clang\+\+(?=[^/]*$)", "clang", c_compiler)
    options = [f"-DCMAKE_CXX_COMPILER={words[0]}", f"-DCMAKE_C_COMPILER={c_compiler}"]
    if machine != platform.machine():
        options += ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={machine}"]
    if words[1:]:
        options.append(f"-DCMAKE_CXX_FLAGS={' '.join(words[1:])}")
    return Target(f"linux-{abi}", tuple(options), compiler.identity)


def build_tree(
    tree: Tree, target: Target, cache: Path, progress: Callable[[str], None]
) -> tuple[Path, Checkout]:
    """Configure, build and install a checkout, or find what was built of this state before.

    Returns:
        The install tree, and the state that it was built from.

    Raises:
        RunnerError: It is no checkout of ExecuTorch, CMake fails (the message quotes it), or what
            it installed calls itself by another version than its sources.
    """
    state = read_checkout(tree.folder, tree.named_by)
    parts = [f"-DEXECUTORCH_BUILD_{part}=ON" for part in _PARTS]
    options = [f"--preset={tree.preset}"] if tree.preset else parts
    options = [*options, "-DCMAKE_BUILD_TYPE=Release", *target.options]
    inputs = [str(tree.folder.resolve()), state.commit, state.changes, target.tools, options]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    final = cache / "sdk" / f"executorch-{target.name}-{key}"
    final.parent.mkdir(parents=True, exist_ok=True)
    # Several devices may want it at once: who waited finds it built.
    with locked(final.with_suffix(".lock")):
        if not (final / "lib").is_dir():
            progress(f"configuring ExecuTorch {state.name} for {target.name}")
            _build(tree, state, options, final, progress)
    return final, state


def _build(
    tree: Tree, state: Checkout, options: list[str], final: Path, progress: Callable[[str], None]
) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=".tree-", dir=final.parent))
    install, build = scratch / "install", scratch / "build"
    source = str(tree.folder.resolve())
    try:
        _cmake("-S", source, "-B", str(build), *options, f"-DCMAKE_INSTALL_PREFIX={install}")
        progress(f"building ExecuTorch {state.name}")
        _cmake("--build", str(build), "--target", "install", "-j", str(os.cpu_count() or 1))
        if read_checkout(tree.folder, tree.named_by) != state:
            raise RunnerError(
                f"{tree.named_by}: {tree.folder} changed while it was built; run it again."
            )
        _check_version(checked_prefix(install, tree.named_by), state, tree.named_by)
        install.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_version(folder: Path, state: Checkout, named_by: str) -> None:
    """Refuse libraries that aren't of the sources: an install step can pick up older ones."""
    found = installed_version(folder)
    if found and _release(found) != _release(state.version):
        raise RunnerError(
            f"{named_by}: version.txt says {state.version}, and what was installed says {found}:"
            " these are not the libraries of this checkout."
        )


def _release(version: str) -> list[str]:
    """Its numbers, without what says how far before or after the release it is."""
    return re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0])[:3]


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
