"""Builds with an NDK: clang 19 with libc++ for arm64, laid out as an NDK lays it out.

It shows that our sources and flags suit what phones use; it says nothing about a phone. The
libraries are those of a wheel, which speak of GCC's std::string, so no model runs here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from runners.build.android import API, NDK, PREFIX, SOURCE, find_android
from runners.build.compiler import describe
from runners.build.native import build_for_prefix
from runners.build.prefix import Prefix
from runners.build.sdk import installed_sdk, sdk_for
from tests.unit.runners.build.test_checkout import commit, git

from .conftest import CACHE
from .test_clang import arm64_clang, script

pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(shutil.which("clang++-19") is None, reason="needs clang-19"),
]

ABI = "arm64-v8a"
_LIBRARIES = ("", "_backend_xnnpack", "_kernels_optimized", "_kernels_quantized", "_threadpool")
#: A library of operators as an NDK build has one, with a kernel that only has its name.
CUSTOM_OPS = """
#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>
using executorch::aten::Tensor;
static Tensor& nothing(executorch::runtime::KernelRuntimeContext&, const Tensor&, Tensor& out) {
  return out;
}
EXECUTORCH_LIBRARY(llama, "custom_sdpa.out", nothing);
"""


@pytest.fixture
def ndk(tmp_path: Path) -> Path:
    folder = tmp_path / "ndk" / "toolchains" / "llvm" / "prebuilt" / "linux-x86_64" / "bin"
    folder.mkdir(parents=True)
    clang = folder / f"aarch64-linux-android{API}-clang++"
    script(clang, arm64_clang(), "aarch64-linux-gnu-nm")
    return tmp_path / "ndk"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An install tree of ExecuTorch."""
    sdk = sdk_for(ABI, installed_sdk(), CACHE, lambda _line: None)
    folder = tmp_path / "prefix"
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(sdk / "include")
    for name in _LIBRARIES:
        library = f"libexecutorch{name}.so"
        (folder / "lib" / library).symlink_to(sdk / "lib" / library)
    return folder


def found(ndk: Path, folder: Path, way: str, cache: Path, said: list[str]) -> Prefix:
    android = find_android(ABI, cache, {NDK: str(ndk), way: str(folder)}, said.append)
    assert isinstance(android, Prefix)
    return android


def kernels(ndk: Path, prefix: Path, cache: Path, *, tuned: bool = False) -> list[str]:
    """What the runner built so says in its hello, under emulation."""
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("needs qemu-user-static")
    android = found(ndk, prefix, PREFIX, cache, [])
    build = build_for_prefix(ABI, android, cache, tuned=tuned)
    assert (build.libc, build.how) == ("bionic", f"NDK, prefix {PREFIX}")
    words = [emulator, "-L", "/usr/aarch64-linux-gnu", "-E", "LD_LIBRARY_PATH=./lib"]
    done = subprocess.run(
        [*words, "./farm-runner", "--hello"],
        cwd=build.files[0].path.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    hello = json.loads(done.stdout)
    assert (hello["abi"], hello["isa"], hello["backends"]) == (ABI, "neon", ["XnnpackBackend"])
    return [str(name) for name in hello["kernels"]]


def test_a_prefix_without_custom_operators_gets_ours(
    ndk: Path, prefix: Path, tmp_path: Path
) -> None:
    assert "llama::custom_sdpa.out=farm" in kernels(ndk, prefix, tmp_path)


def test_a_prefixs_own_custom_operators_are_used_and_ours_stay_out(
    ndk: Path, prefix: Path, tmp_path: Path
) -> None:
    source, object_file = tmp_path / "ops.cpp", tmp_path / "ops.o"
    source.write_text(CUSTOM_OPS)
    (clang,) = ndk.glob("toolchains/llvm/prebuilt/*/bin/*clang++")
    include = prefix / "include"
    portable = include / "executorch" / "runtime" / "core" / "portable_type" / "c10"
    words = [*describe((str(clang),), ABI).command, "-std=c++17", f"-isystem{include}"]
    words += [f"-isystem{portable}", "-DC10_USING_CUSTOM_GENERATED_MACROS", "-c", str(source)]
    subprocess.run([*words, "-o", str(object_file)], check=True)
    archive = prefix / "lib" / "libcustom_ops.a"
    subprocess.run(["aarch64-linux-gnu-ar", "rcs", str(archive), str(object_file)], check=True)
    assert kernels(ndk, prefix, tmp_path) == ["llama::custom_sdpa.out=executorch"]
    tuned = kernels(ndk, prefix, tmp_path, tuned=True)
    assert "llama::custom_sdpa.out=farm" in tuned
    assert not any(name.endswith("=executorch") for name in tuned)


def test_a_checkout_is_built_once_for_each_state(ndk: Path, prefix: Path, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    toolchain = ndk / "build" / "cmake" / "android.toolchain.cmake"
    toolchain.parent.mkdir(parents=True)
    toolchain.write_text("set(CMAKE_SYSTEM_NAME Linux)\n")
    text = (
        "cmake_minimum_required(VERSION 3.18)\nproject(tree NONE)\n"
        "if(NOT EXECUTORCH_BUILD_KERNELS_LLM OR NOT ANDROID_ABI STREQUAL arm64-v8a)\n"
        '  message(FATAL_ERROR "options are missing")\nendif()\n'
        f"install(DIRECTORY {prefix}/ DESTINATION . USE_SOURCE_PERMISSIONS)\n"
    )
    source = tmp_path / "checkout"
    source.mkdir()
    git(source, "init", "-q")
    (source / "version.txt").write_text("1.6.0a0\n")
    commit(source, text)
    said: list[str] = []
    first = found(ndk, source, SOURCE, tmp_path, said)
    assert found(ndk, source, SOURCE, tmp_path, said) == first
    assert [line.split()[0] for line in said] == ["configuring", "building"]
    commit(source, text + "# another\n")
    second = found(ndk, source, SOURCE, tmp_path, said)
    assert len(said) == 4, "after a commit it is built again"
    assert second.folder != first.folder
    assert first.version.startswith("1.6.0a0 at ")
    assert first.version != second.version
    (source / "CMakeLists.txt").write_text(text + "# not committed\n")
    third = found(ndk, source, SOURCE, tmp_path, said)
    assert "with changes" in third.version
    (source / "more.cpp").write_text("")
    assert "1 untracked files not looked at" in found(ndk, source, SOURCE, tmp_path, said).how
