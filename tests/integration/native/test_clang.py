"""Our sources by clang: with GCC's library as on a desktop, with libc++ as in an NDK."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from farm.core.abi import ABIS
from runners.build.compiler import cross_variable, host_abi
from runners.build.native import build_helper, build_runner
from runners.build.sdk import installed_sdk
from tests.lab.roots import libcxx_root

from .conftest import CACHE, Start, starter

pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(shutil.which("clang++-19") is None, reason="needs clang-19"),
]

#: It says which of the linker's words a compilation didn't need.
QUIET = "-Wno-unused-command-line-argument"
LIBCXX = f"clang++-19 -stdlib=libc++ {QUIET}"
#: Clang, and a linker that fills the gaps: ExecuTorch's libraries speak of GCC's std::string, so
#: what would take or return libc++'s becomes an instruction that no CPU has. A greeting calls none.
SCRIPT = r"""#!/bin/bash
words=() objects=()
for word in "$@"; do
  case "$word" in
    -llog) ;; # only Android has it
    *.o) objects+=("$word"); words+=("$word") ;;
    *) words+=("$word") ;;
  esac
done
if [[ " $* " != *" -c "* && ${#objects[@]} -gt 1 ]]; then
  gaps=$(mktemp -d) && trap 'rm -rf "$gaps"' EXIT
  NM -u "${objects[@]}" | awk '/ _ZNK?10executorch.*(St3__1|method_namesEv)/ {print $2}' | sort -u |
    sed 's/.*/.globl &\n&:/' > "$gaps/gaps.s"
  printf '.long 0\n.section .note.GNU-stack,"",%%progbits\n' >> "$gaps/gaps.s"
  CLANG -c "$gaps/gaps.s" -o "$gaps/gaps.o" && CLANG "${words[@]}" "$gaps/gaps.o"
else
  CLANG "${words[@]}"
fi
"""
TOKENS = [5, 9, 3, 7, 1, 2, 8, 4]
REQUEST = {
    "protocol": 1,
    "threads": 1,
    "tokens": TOKENS,
    "logits": [{"name": "a", "chunks": [4, 4]}],
}


def script(path: Path, command: str, nm: str) -> Path:
    """A compiler that links against ExecuTorch's libraries in spite of libc++."""
    path.write_text(SCRIPT.replace("CLANG", command).replace("NM ", f"{nm} "))
    path.chmod(0o755)
    return path


def arm64_clang() -> str:
    """A command line of clang for arm64 with libc++. Skips the test where a part is missing."""
    if shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("needs g++-aarch64-linux-gnu and Debian's packages")
    llvm = libcxx_root() / "usr/lib/llvm-19"
    words = ["clang++-19", "--target=aarch64-linux-gnu", "-stdlib=libc++"]
    words += [f"-stdlib++-isystem{llvm}/include/c++/v1", f"-L{llvm}/lib"]
    return " ".join([*words, QUIET])


@pytest.mark.parametrize("tuned", [False, True], ids=["executorch", "executorch-tuned"])
def test_a_runner_by_clang_computes_what_gcc_s_does(
    start: Start, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned: bool
) -> None:
    monkeypatch.setenv("CXX", "clang++-19")
    clang = build_runner(host_abi(), installed_sdk(), CACHE, tuned=tuned)
    (tmp_path / "clang").mkdir()
    ours = starter(clang, tmp_path / "clang")(tiny / "last.pte", REQUEST)
    assert ours.code == 0, ours.out
    theirs = start(tiny / "last.pte", REQUEST)
    assert np.abs(ours.logits("a") - theirs.logits("a")).max() <= 1e-4


@pytest.mark.parametrize("abi", ["x86_64", "arm64-v8a"])
def test_the_helper_with_libcxx_runs(abi: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator: tuple[str, ...] = ()
    if abi == "arm64-v8a":
        qemu = shutil.which("qemu-aarch64-static")
        if qemu is None:
            pytest.skip("needs qemu-user-static")
        monkeypatch.setenv("CXX_AARCH64", arm64_clang())
        emulator = (qemu,)
    else:
        monkeypatch.setenv(cross_variable(ABIS[abi]), LIBCXX)
        if host_abi() == abi:
            monkeypatch.setenv("CXX", LIBCXX)
    helper = build_helper(abi, CACHE).file("farm-helper").path
    words = [*emulator, str(helper)]
    said = subprocess.run([*words, "version"], capture_output=True, text=True, check=True).stdout
    assert json.loads(said)["abi"] == abi
    said = subprocess.run(
        [*words, "hash", __file__], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(said)["size"] == Path(__file__).stat().st_size


def test_the_runner_with_libcxx_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of it compiles and greets. A model needs an ExecuTorch built with libc++: no wheel is."""
    if host_abi() != "x86_64":
        pytest.skip("arm64 is tested as an NDK lays it out")
    monkeypatch.setenv("CXX", str(script(tmp_path / "clang", LIBCXX, "nm")))
    # A cache of its own: to the builder the script is the compiler that it calls.
    build = build_runner("x86_64", installed_sdk(), tmp_path, tuned=True)
    folder = build.files[0].path.parent
    done = subprocess.run(
        ["./farm-runner", "--hello"],
        cwd=folder,
        env={"LD_LIBRARY_PATH": "./lib"},
        capture_output=True,
        text=True,
        check=True,
    )
    hello = json.loads(done.stdout)
    assert hello["backends"] == ["XnnpackBackend"]
    assert "llama::custom_sdpa.out=farm" in hello["kernels"]
