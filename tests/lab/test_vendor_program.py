"""A program that farm has never seen, described in twelve lines of YAML, on adb and ssh."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.build.compiler import find_compiler, host_abi
from runners.build.sdk import installed_sdk, shipped_libraries
from tests.command import SOURCES as CHECKOUT
from tests.command import Farm
from tests.lab.host import sh
from tests.lab.machine import Machine
from tests.lab.up import write_inventory

pytestmark = [pytest.mark.lab, pytest.mark.export]

SOURCES = Path(__file__).parent / "vendor"
EXAMPLE = CHECKOUT / "examples" / "vendor" / "vendor.yaml"
Factory = Callable[..., Machine]


def build(folder: Path) -> None:
    """Compile the program as its vendor would, and put the libraries it needs beside it."""
    folder.mkdir()
    sdk = installed_sdk()
    include = sdk / "include"
    libraries = shipped_libraries(sdk)
    compiler = find_compiler(host_abi())
    sh(
        *compiler.command, "-std=c++17", "-O1", "-DC10_USING_CUSTOM_GENERATED_MACROS",
        f"-I{include}", f"-I{include}/executorch/runtime/core/portable_type/c10",
        SOURCES / "vendor_llm.cpp",
        f"-L{sdk / 'lib'}", f"-Wl,-rpath-link,{sdk / 'lib'}", "-Wl,--no-as-needed",
        *(f"-l{path.name[3:-3]}" for path in libraries), "-pthread",
        "-o", folder / "vendor_llm", timeout_s=300,
    )  # fmt: skip
    for library in libraries:
        shutil.copy(library, folder)


@pytest.mark.ray
def test_a_vendors_program_is_judged_like_ours(
    farm: Farm, adb_device: Factory, ssh_device: Factory
) -> None:
    build(farm.cwd / "program")
    config = shutil.copy(EXAMPLE, farm.cwd)
    assert len(EXAMPLE.read_text().splitlines()) == 12
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, [adb_device(), ssh_device()], local=False)
    done = farm("run", str(config), "--inventory", str(inventory), "--live", "off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2/2 judged: 2 passed, 0 failed; speed not gated -> exit 0" in done.stdout
    for result in farm.report()["results"]:
        assert result["runner"]["name"] == "vendor"
        stages = {(s["from"], s["to"]): s for s in result["correctness"]["stages"]}
        assert stages["host_pte", "device_pte"]["tokens"] == 64
        rates = {p["metric"]: p for p in result["performance"]}
        assert rates["tg16"]["median"] > 0
        assert rates["load"]["median"] > 0
        assert "as vendor reports it" in rates["tg16"]["definition"]


def test_a_program_of_another_architecture_is_refused_before_a_byte_is_pushed(
    farm: Farm, ssh_device: Factory
) -> None:
    (farm.cwd / "program").mkdir()
    (farm.cwd / "program/vendor_llm").write_bytes(b"\x7fELF" + bytes(14) + b"\xb7\x00" + bytes(9))
    config = shutil.copy(EXAMPLE, farm.cwd)
    inventory = farm.cwd / "lab.yaml"
    machine = ssh_device()
    write_inventory(inventory, [machine], local=False)
    recipe = ("--set", "matrix.recipe=[xnnpack-8da4w]")
    done = farm("run", str(config), "--inventory", str(inventory), "--live", "off", *recipe)
    assert done.returncode == 3, done.stdout + done.stderr
    (result,) = farm.report()["results"]
    assert result["outcome"] == "skipped"
    assert "runner vendor is built for arm64-v8a, the device is x86_64" in result["reason"]
