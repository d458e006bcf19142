"""The table of ABIs is consistent, and each place that reads it answers as its users expect."""

from __future__ import annotations

import ast
import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.commands import runners as runners_command
from farm.core.abi import (
    ABIS,
    BUILT,
    Abi,
    abi_of_elf,
    abi_of_machine,
    family_of_abi,
)
from farm.site.look.facts import CXX_RUNTIMES, LOADERS
from runners.build import compiler
from runners.build.compiler import cross_package, cross_variable, find_compiler, host_abi
from runners.build.elf import elf_machine

MACHINES = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "AMD64": "x86_64",
    "aarch64": "arm64-v8a",
    "arm64": "arm64-v8a",
    "armv8l": "armeabi-v7a",
    "armv7l": "armeabi-v7a",
    "i686": "x86",
    "i586": "x86",
    "riscv64": "riscv64",
}


@pytest.mark.parametrize(
    "names",
    [
        lambda abi: (abi.name,),
        lambda abi: abi.machines,
        lambda abi: (abi.elf_machine,),
        lambda abi: (abi.glibc_loader,) if abi.glibc_loader else (),
    ],
)
def test_no_name_stands_for_two_abis(names: Callable[[Abi], tuple[object, ...]]) -> None:
    found = [name for abi in ABIS.values() for name in names(abi)]
    assert sorted(map(str, set(found))) == sorted(map(str, found))


def test_what_is_built_has_all_that_building_needs() -> None:
    assert list(BUILT) == ["x86_64", "arm64-v8a"]
    for abi in BUILT.values():
        assert abi.machines
        assert abi.baseline
        assert abi.glibc_loader.startswith("/lib")
        assert abi == ABIS[abi.name]


def test_each_machine_is_one_abi() -> None:
    known = {machine for abi in ABIS.values() for machine in abi.machines}
    assert {machine.lower() for machine in MACHINES} == known
    assert {machine: abi_of_machine(machine) for machine in MACHINES} == MACHINES
    assert abi_of_machine("aarch64\n") == "arm64-v8a"
    assert abi_of_machine("s390x") is None
    assert abi_of_machine("") is None


@pytest.mark.parametrize(
    ("machine", "name"),
    [(3, "x86"), (40, "armeabi-v7a"), (62, "x86_64"), (183, "arm64-v8a"), (243, "riscv64")],
)
def test_elf_machines(machine: int, name: str, tmp_path: Path) -> None:
    found = abi_of_elf(machine)
    assert found is not None
    assert found.name == name
    file = tmp_path / "program"
    head = b"\x7fELF\x02\x01" + bytes(12) + machine.to_bytes(2, "little")
    file.write_bytes(head + bytes(64))
    assert elf_machine(file) == found.machine
    file.write_bytes(head)
    assert elf_machine(file) == "unknown"
    assert abi_of_elf(511) is None


def test_families() -> None:
    assert {name: family_of_abi(name) for name in (*ABIS, "mips")} == {
        "x86_64": "x86",
        "x86": "x86",
        "arm64-v8a": "arm",
        "armeabi-v7a": "arm",
        "riscv64": "riscv",
        "mips": None,
    }


def test_files_that_a_probe_looks_for() -> None:
    assert LOADERS["x86_64"] == {
        "glibc": "/lib64/ld-linux-x86-64.so.2",
        "musl": "/lib/ld-musl-x86_64.so.1",
        "bionic": "/system/bin/linker64",
    }
    assert LOADERS["arm64-v8a"] == {
        "glibc": "/lib/ld-linux-aarch64.so.1",
        "musl": "/lib/ld-musl-aarch64.so.1",
        "bionic": "/system/bin/linker64",
    }
    assert CXX_RUNTIMES["arm64-v8a"][:2] == (
        "/usr/lib/aarch64-linux-gnu/libstdc++.so.6",
        "/lib/aarch64-linux-gnu/libstdc++.so.6",
    )


def test_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(compiler, "describe", lambda command, abi: commands.append((command, abi)))
    for name in ("CXX", *map(cross_variable, BUILT.values())):
        monkeypatch.delenv(name, raising=False)
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert host_abi() == abi_of_machine(machine)
        for abi in BUILT:
            find_compiler(abi)
    assert commands == [
        (("g++",), "x86_64"),
        (("aarch64-linux-gnu-g++",), "arm64-v8a"),
        (("x86_64-linux-gnu-g++",), "x86_64"),
        (("g++",), "arm64-v8a"),
    ]
    assert [cross_package(abi) for abi in BUILT.values()] == [
        "g++-x86-64-linux-gnu",
        "g++-aarch64-linux-gnu",
    ]
    assert [cross_variable(abi) for abi in BUILT.values()] == ["CXX_X86_64", "CXX_AARCH64"]


def test_flags_of_an_abi() -> None:
    native = compiler.describe(("g++",), "x86_64")
    assert native.flags[-1] == "-march=x86-64-v2"
    assert native.link_flags == ()
    arm = compiler.describe(("g++",), "arm64-v8a")
    assert arm.flags[-1] == "-march=armv8-a"
    assert arm.link_flags == ("-Wl,-z,max-page-size=16384",)


def test_targets_of_the_runners_command() -> None:
    assert runners_command._KNOWN == (
        "x86_64",
        "arm64-v8a",
        "android-arm64-v8a",
        "android-x86_64",
    )


def test_the_script_that_goes_to_devices_agrees() -> None:
    """It is one file and can't import the table."""
    script = Path(compiler.__file__).parents[1] / "python" / "farm_python_runner.py"
    found = re.search(r"abi=(\{[^}]*\})\.get\(platform\.machine\(\)", script.read_text())
    assert found is not None
    names = ast.literal_eval(found[1])
    for abi in BUILT.values():
        assert names.get(abi.machine, abi.machine) == abi.name
