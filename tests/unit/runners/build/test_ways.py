"""Which way of building is taken, and what is said where there is none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from farm.core.abi import BUILT
from farm.core.artifact import Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import DeviceUnfit, RunnerError
from runners.build.android import NDK, PREFIX, SOURCE, android_way, find_android
from runners.build.compiler import cross_package, cross_variable, host_abi
from runners.build.elf import check_alignment, load_alignments
from runners.build.ways import Places, native_build

OTHER = next(abi for abi in BUILT if abi != host_abi())


def test_the_users_prefix_comes_before_a_checkout() -> None:
    assert android_way({NDK: "/n", PREFIX: "/p", SOURCE: "/s"})[0] == PREFIX
    assert android_way({NDK: "/n", SOURCE: "/s"})[0] == SOURCE


def test_why_neither_serves_is_told() -> None:
    assert android_way({}) == ("", f"{NDK} is not set")
    way, words = android_way({NDK: "/n"})
    assert way == ""
    assert PREFIX in words
    assert SOURCE in words


@pytest.mark.parametrize("name", [PREFIX, SOURCE])
def test_a_named_way_without_compiler_is_an_error(name: str) -> None:
    with pytest.raises(RunnerError, match=f"{name} is set, but {NDK} isn't"):
        android_way({name: "/somewhere"})


def test_a_folder_that_is_no_ndk_is_named(tmp_path: Path) -> None:
    environment = {NDK: str(tmp_path), PREFIX: str(tmp_path)}
    with pytest.raises(RunnerError, match=r"toolchains/llvm.*android28-clang\+\+"):
        find_android("arm64-v8a", tmp_path, environment, lambda _line: None)


@pytest.mark.parametrize(("sdk", "system"), [(None, "linux"), (35, "android")])
def test_without_a_compiler_the_device_is_unfit_and_the_next_command_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sdk: int | None, system: str
) -> None:
    monkeypatch.setenv(cross_variable(BUILT[OTHER]), "no-such-compiler")
    monkeypatch.delenv(NDK, raising=False)
    facts = DeviceFacts(identity="x", abi=OTHER, sdk=sdk, system_loader=False)
    with pytest.raises(DeviceUnfit) as error:
        native_build(OTHER, facts, Sdk(), Places(tmp_path, tmp_path))
    assert f"no runner for {system}-" in error.value.message
    assert cross_package(BUILT[OTHER]) in error.value.message
    assert f"farm runners build {OTHER}" in error.value.message
    assert (NDK in error.value.message) == (system == "android")


def elf(*alignments: int) -> bytes:
    """A 64-bit ELF header and a program header for each LOAD segment, after one of another kind."""
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, len(alignments) + 1)
    table = bytearray(struct.pack("<I", 6).ljust(48, b"\0") + struct.pack("<Q", 8))
    for alignment in alignments:
        table += struct.pack("<I", 1).ljust(48, b"\0") + struct.pack("<Q", alignment)
    return bytes(head + table)


def test_small_segments_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "libsmall.so"
    file.write_bytes(elf(16384, 4096))
    assert load_alignments(file) == (16384, 4096)
    with pytest.raises(RunnerError, match=r"libsmall\.so.*4096.*max-page-size=16384"):
        check_alignment(file)
    file.write_bytes(elf(65536, 16384))
    check_alignment(file)


def test_what_is_no_elf_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "libodd.so"
    file.write_bytes(elf(16384)[:100])
    with pytest.raises(RunnerError, match="cut"):
        load_alignments(file)
    file.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(RunnerError, match="no 64-bit ELF"):
        load_alignments(file)
