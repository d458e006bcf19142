"""A toolchain with a checkout of ExecuTorch: built by CMake, linked, and run on a real model.

The checkout is a small one: CMake compiles a library of operators for it, and installs the
libraries of the wheel beside it. ExecuTorch's own sources, with their submodules, are not here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farm.core.artifact import Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import RunnerError
from runners.build.cache import NativeBuild
from runners.build.compiler import find_compiler, host_abi
from runners.build.sdk import installed_sdk, sdk_version
from runners.build.tree import Tree, build_tree, linux_target
from runners.build.ways import Places, native_build
from tests.unit.runners.build.test_checkout import commit, git

from .conftest import starter
from .test_ndk import CUSTOM_OPS
from .tiny_llama import CONTEXT, TOKENS

pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake"),
]

PRESET = "llm-release"
FACTS = DeviceFacts(identity="x", abi=host_abi(), system_loader=True)
CMAKE = """cmake_minimum_required(VERSION 3.18)
project(executorch CXX)
if(NOT OF_THE_PRESET OR NOT CMAKE_BUILD_TYPE STREQUAL Release)
  message(FATAL_ERROR "not configured by the preset, or not for release")
endif()
add_library(quantized_ops_lib STATIC operators.cpp)
target_compile_features(quantized_ops_lib PRIVATE cxx_std_17)
target_include_directories(quantized_ops_lib SYSTEM PRIVATE
  SDK/include SDK/include/executorch/runtime/core/portable_type/c10)
target_compile_definitions(quantized_ops_lib PRIVATE C10_USING_CUSTOM_GENERATED_MACROS)
install(TARGETS quantized_ops_lib DESTINATION lib)
install(DIRECTORY SDK/include/ DESTINATION include)
file(GLOB libraries SDK/lib/libexecutorch*.so)
list(FILTER libraries EXCLUDE REGEX etdump)
install(FILES ${libraries} DESTINATION lib)
install(FILES executorch-config-version.cmake DESTINATION lib/cmake/ExecuTorch)
"""


def operators(name: str) -> str:
    """A library with an operator that says which state of the sources it is of."""
    return CUSTOM_OPS.replace("custom_sdpa", name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "executorch"
    folder.mkdir()
    git(folder, "init", "-q")
    version = sdk_version(installed_sdk())
    (folder / "version.txt").write_text(f"{version}\n")
    (folder / "executorch-config-version.cmake").write_text(f'set(PACKAGE_VERSION "{version}")\n')
    preset: dict[str, Any] = {"name": PRESET, "cacheVariables": {"OF_THE_PRESET": "ON"}}
    preset |= {"generator": "Unix Makefiles", "binaryDir": "${sourceDir}/cmake-out"}
    (folder / "CMakePresets.json").write_text(
        json.dumps({"version": 3, "configurePresets": [preset]})
    )
    (folder / "operators.cpp").write_text(operators("first_state"))
    commit(folder, CMAKE.replace("SDK", str(installed_sdk())))
    return folder


def _commit(folder: Path) -> str:
    reference = (folder / ".git" / "HEAD").read_text().removeprefix("ref: ").strip()
    return (folder / ".git" / reference).read_text()[:12]


def built(source: Path, places: Path, said: list[str], **more: str) -> tuple[NativeBuild, str]:
    sdk = Sdk(source=str(source), preset=more.get("preset", PRESET))
    return native_build(host_abi(), FACTS, sdk, Places(places, places), progress=said.append)


def test_a_checkout_runs_models_and_is_built_again_after_a_commit(
    source: Path, tiny: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    build, note = built(source, tmp_path, said)
    version, first = sdk_version(installed_sdk()), _commit(source)
    assert (note, build.how) == ("", f"built from {source}")
    assert build.toolchain == f"{version} at {first}", "what a report shows as its ExecuTorch"
    assert [line.split()[0] for line in said[:2]] == ["configuring", "building"]
    request: dict[str, Any] = {"protocol": 1, "threads": 1, "tokens": TOKENS}
    request |= {"logits": [{"name": "decode", "chunks": [1] * CONTEXT}]}
    run = starter(build, tmp_path)(tiny / "last.pte", request)
    assert run.code == 0, run.err
    assert np.abs(run.logits("decode") - np.load(tiny / "reference.npy")).max() <= 1e-4
    assert any("first_state" in kernel for kernel in run.one("hello")["kernels"])
    # The same state: nothing is built. Another commit: everything is.
    said.clear()
    assert built(source, tmp_path, said) == (build, "")
    assert said == []
    (source / "operators.cpp").write_text(operators("second_state"))
    commit(source, (source / "CMakeLists.txt").read_text())
    tree = Tree(source, "source", PRESET)
    target = linux_target(host_abi(), find_compiler(host_abi()))
    folder, state = build_tree(tree, target, tmp_path, said.append)
    assert [line.split()[0] for line in said] == ["configuring", "building"]
    assert state.name == f"{version} at {_commit(source)}"
    assert _commit(source) != first
    assert b"second_state" in (folder / "lib" / "libquantized_ops_lib.a").read_bytes()


def test_what_does_not_fit_is_refused_with_both_versions(source: Path, tmp_path: Path) -> None:
    (source / "version.txt").write_text("7.8.9a0\n")
    with pytest.raises(RunnerError, match=r"version\.txt says 7\.8\.9a0, and .* says 1\."):
        built(source, tmp_path, [])
    assert not list(tmp_path.glob("sdk/*/lib")), "nothing of it is kept"
    with pytest.raises(RunnerError, match="No such preset"):
        built(source, tmp_path, [], preset="no-such")
