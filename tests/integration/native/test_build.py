"""The builder: cached by content, safe for two at once, honest about what is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from farm.core.errors import RunnerError, UnknownName
from runners.build import native
from runners.build.cache import NativeBuild
from runners.build.compiler import find_compiler, host_abi
from runners.build.elf import elf_machine
from runners.build.native import build_helper, build_runner
from runners.build.sdk import installed_sdk, sdk_version
from tests.command import start

from .conftest import CACHE

CROSS = "arm64-v8a"


@pytest.fixture(scope="module")
def bundle() -> NativeBuild:
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("needs g++-aarch64-linux-gnu")
    return build_runner(CROSS, installed_sdk(), CACHE, bundle_libc=True)


def test_a_second_build_is_the_first(build: NativeBuild) -> None:
    lines: list[str] = []
    again = build_runner(host_abi(), installed_sdk(), CACHE, progress=lines.append)
    assert again == build
    assert lines == []
    assert build.toolchain == sdk_version(installed_sdk())
    assert build.argv == ("./farm-runner",)
    assert dict(build.env) == {"LD_LIBRARY_PATH": "./lib"}
    assert [file.name for file in build.files if file.mode == 0o700] == ["farm-runner"]


def test_a_changed_source_changes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build_helper(host_abi(), CACHE)
    sources = tmp_path / "native"
    shutil.copytree(native.SOURCES, sources)
    with (sources / "helper" / "args.cpp").open("a") as stream:
        stream.write("// another comment\n")
    monkeypatch.setattr(native, "SOURCES", sources)
    after = build_helper(host_abi(), tmp_path / "cache")
    assert after.key != before.key
    assert after.version != before.version


def test_two_processes_build_once(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from runners.build.native import build_helper; "
        "build_helper(sys.argv[1], pathlib.Path(sys.argv[2]), progress=print)"
    )
    words = [sys.executable, "-c", script, host_abi(), str(tmp_path)]
    both = [start(words, cwd=native.SOURCES.parents[1]) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    # Who waits says what for; that one builds, tests/unit/runners/build/test_cache.py counts.
    assert any("building" in text for text in said)
    assert not list(tmp_path.rglob(".farm-helper-*")), "no half-built folder stays"


def test_a_damaged_build_is_built_again(tmp_path: Path) -> None:
    first = build_helper(host_abi(), CACHE)
    home = first.files[0].path.parent
    shutil.copytree(home, tmp_path / host_abi() / home.name)
    (tmp_path / host_abi() / home.name / "farm-helper").write_bytes(b"short")
    again = build_helper(host_abi(), tmp_path)
    assert again.files[0].path.stat().st_size == first.files[0].size


def test_without_a_compiler_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RunnerError, match=r"no-such-compiler.*apt install g\+\+.*CXX"):
        build_helper(host_abi(), tmp_path)


def test_an_unknown_abi_names_the_known() -> None:
    with pytest.raises(UnknownName, match="arm64-v8a, x86_64"):
        find_compiler("mips")


def test_an_executorch_without_sdk(tmp_path: Path) -> None:
    (tmp_path / "version.py").write_text('__version__ = "1.4.1+cpu"\n')
    with pytest.raises(RunnerError, match=r"1\.4\.1 has no C\+\+ SDK.*1\.5\.0"):
        build_runner(host_abi(), tmp_path, tmp_path / "cache")


def test_a_compiler_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "SOURCES", tmp_path)
    for name in ("common", "helper"):
        (tmp_path / name).mkdir()
    (tmp_path / "helper" / "broken.cpp").write_text("this is no C++\n")
    with pytest.raises(RunnerError, match="exit code 1"):
        build_helper(host_abi(), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.o")), "nothing half-written stays"


def test_the_bundle_runs_without_the_systems_loader(bundle: NativeBuild, tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("needs qemu-user-static")
    for file in bundle.files:
        target = tmp_path / file.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file.path, target)
        target.chmod(file.mode)
    assert bundle.argv[:3] == ("./lib/ld-linux-aarch64.so.1", "--library-path", "./lib")
    words = [emulator, "-L", "/nonexistent", *bundle.argv, "--hello"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    hello = json.loads(done.stdout)
    assert (hello["abi"], hello["isa"]) == (CROSS, "neon")
    assert hello["backends"] == ["XnnpackBackend"]


def test_arm64_segments_fit_large_pages(bundle: NativeBuild) -> None:
    for file in [*bundle.files, *build_helper(CROSS, CACHE).files]:
        assert elf_machine(file.path) == "aarch64"
        done = subprocess.run(
            ["readelf", "-lW", str(file.path)], capture_output=True, text=True, check=True
        )
        loads = [
            line.split() for line in done.stdout.splitlines() if line.strip().startswith("LOAD")
        ]
        assert loads
        assert all(int(words[-1], 16) >= 16384 for words in loads), file.name


def test_executorch_as_it_ships_holds_none_of_our_code_for_xnnpack_and_memory(
    build: NativeBuild, tuned_build: NativeBuild
) -> None:
    """Programs are stripped: what betrays the code are names it prints and functions it needs."""

    def betrayed(native_build: NativeBuild) -> set[str]:
        program = native_build.file("farm-runner").path
        needed = subprocess.run(
            ["nm", "-D", "--undefined-only", str(program)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        content = program.read_bytes()
        functions = ("mallopt", "madvise", "dlsym", "dl_iterate_phdr")
        names = ("qb4w", "xnn_", "large_pages")
        return {name for name in functions if f" {name}" in needed} | {
            name for name in names if name.encode() in content
        }

    # `dlsym` is for a control on the host alone, never in what is timed: see test_runner.
    assert betrayed(build) == {"dlsym"}
    assert betrayed(tuned_build) == {
        "mallopt", "madvise", "dlsym", "dl_iterate_phdr", "qb4w", "xnn_", "large_pages",
    }  # fmt: skip
    assert build.key != tuned_build.key
