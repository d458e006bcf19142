"""An install tree of ExecuTorch: its version, its custom operators, and what is linked of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.build.compiler import Compiler
from runners.build.prefix import Prefix, installed_version
from runners.build.ways import other_version

VERSION_FILE = 'set(PACKAGE_VERSION "1.4.0")\nset(EXECUTORCH_BUILD_VERSION "1.4.0.dev3+cpu")\n'


def sdk(prefix: Path, version: str = "1.5.1") -> Prefix:
    compiler = Compiler(("c++",), (), (), "armv8-a", "")
    return Prefix(prefix, compiler, "NDK", version, android=True)


def install(prefix: Path, *libraries: str) -> None:
    (prefix / "lib").mkdir()
    for name in libraries:
        (prefix / "lib" / name).touch()


def test_a_prefix_says_its_version_in_its_cmake_package(tmp_path: Path) -> None:
    assert installed_version(tmp_path) == ""
    folder = tmp_path / "lib" / "cmake" / "ExecuTorch"
    folder.mkdir(parents=True)
    file = folder / "executorch-config-version.cmake"
    file.write_text(VERSION_FILE.splitlines()[0])
    assert installed_version(tmp_path) == "1.4.0"
    file.write_text(VERSION_FILE)
    assert installed_version(tmp_path) == "1.4.0.dev3+cpu", "a nightly is told from its release"


@pytest.mark.parametrize(("found", "wanted"), [("1.5.1", "1.5.1"), ("1.5.1+cpu", "1.5.1+xpu"),
                                               ("1.6.0a0 at abc", "1.6.0a0+123")])  # fmt: skip
def test_the_version_that_was_asked_for_needs_no_note(
    tmp_path: Path, found: str, wanted: str
) -> None:
    assert other_version(sdk(tmp_path, found), wanted) == ""


def test_another_version_or_none_is_noted_with_both(tmp_path: Path) -> None:
    assert other_version(sdk(tmp_path, "1.4.0 at abc"), "1.5.1") == (
        "NDK: it is ExecuTorch 1.4.0 at abc; 1.5.1 was asked for"
    )
    assert "doesn't say its version" in other_version(sdk(tmp_path, ""), "1.5.1")
    assert "1.5.1 was asked for" in other_version(sdk(tmp_path, ""), "1.5.1")


@pytest.mark.parametrize("library", ["libcustom_ops.a", "libexecutorch_custom_ops.so"])
def test_the_prefixs_custom_operators_are_linked_unless_ours_are(
    tmp_path: Path, library: str
) -> None:
    install(tmp_path, "libexecutorch.a", "libcpublas.a", "libcustom_ops_aot_lib.so", library)
    android = sdk(tmp_path)
    assert android.custom_ops
    words = android.link_flags(custom_ops=True)
    place = words.index(str(tmp_path / "lib" / library))
    if library.endswith(".a"):
        whole = words.index("-Wl,--whole-archive"), words.index("-Wl,--no-whole-archive")
        assert whole[0] < place < whole[1], "nothing refers to it: registering is its constructor's"
    assert str(tmp_path / "lib" / "libcpublas.a") in words
    left = android.link_flags(custom_ops=False)
    assert not any("custom_ops" in word for word in left)
    assert not any("_aot_" in word for word in words), "it needs torch"


def test_a_prefix_without_them_has_none(tmp_path: Path) -> None:
    install(tmp_path, "libexecutorch.a", "libcustom_ops_aot_lib.so")
    assert not sdk(tmp_path).custom_ops
