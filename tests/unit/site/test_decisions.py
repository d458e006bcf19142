"""Pure decisions of the site: facts, fit, how a launch ended, which devices are one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farm.core.artifact import ObjectRef
from farm.core.device import CoreCluster, Device, DeviceEntry, DeviceFacts, unmet_expectations
from farm.core.errors import (
    BadOutput,
    DeviceLost,
    DeviceUnfit,
    FarmError,
    RunnerCrashed,
    RunnerTimeout,
    StorageFull,
)
from farm.core.runner import DeployFile, RunnerSpec
from farm.core.runtime import DeviceJob, LaunchRequest
from farm.site.agent.inventory import merge
from farm.site.device.connection import Snapshot
from farm.site.device.deploy import work_name
from farm.site.device.helper import Polled
from farm.site.job.conditions import conditions
from farm.site.job.fit import check_fit
from farm.site.job.launch import read_launch
from farm.site.look.facts import RawFacts, capped, parse_facts, temperatures
from farm.site.parsers.text import clean_text
from tests.contract.toy_runner import ToyRunner
from tests.unit.site.parsers.test_android import BATTERY, GETPROP, THERMAL
from tests.unit.site.parsers.test_linux import PI, X86

BOOT = "0e1e4f3c-0000-4000-8000-000000000001"
OS_RELEASE = 'NAME="Debian GNU/Linux"\nVERSION_ID="12"\nPRETTY_NAME="Debian"\n'


def probe(machine: str = "aarch64", nproc: int = 4, **files: str) -> bytes:
    document = {
        "uname": {"machine": machine, "release": "6.6.1-v8", "version": "#1 SMP"},
        "boot_id": BOOT,
        "nproc": nproc,
        "cpu_features": ["asimd", "asimddp"],
        "filesystems": {"/root/farm": {"total_bytes": 100, "free_bytes": 60}},
        "files": {key.replace("__", "/"): value for key, value in files.items()},
    }
    return json.dumps(document).encode()


PI_FILES = {
    "/proc/cpuinfo": PI,
    "/proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n",
    "/etc/os-release": OS_RELEASE,
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "/proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
    "/sys/devices/system/cpu/online": "0-3\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "/sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "/sys/class/thermal/thermal_zone0/temp": "51200\n",
    "/sys/class/thermal/thermal_zone1/temp": "0\n",
}


def raw(document: bytes, **changes: Any) -> RawFacts:
    return RawFacts(document, fallback_identity="pi.lab", root="/root/farm", **changes)


def with_files(files: dict[str, str], **changes: Any) -> bytes:
    document = json.loads(probe(**changes))
    document["files"] = files
    return json.dumps(document).encode()


def test_facts_of_a_board() -> None:
    facts = parse_facts(
        raw(with_files(PI_FILES), loaders=frozenset({"/lib/ld-linux-aarch64.so.1"}))
    )
    assert (facts.identity, facts.abi) == ("0123456789abcdef0123456789abcdef", "arm64-v8a")
    assert (facts.model, facts.soc) == ("Raspberry Pi 5 Model B", "brcm bcm2712")
    assert (facts.os, facts.os_build, facts.kernel) == ("Debian GNU/Linux 12", "#1 SMP", "6.6.1-v8")
    assert (facts.ram_bytes, facts.ram_available_bytes) == (8_192_000_000, 6_144_000_000)
    assert (facts.storage_free_bytes, facts.cores, facts.boot_id) == (60, 4, BOOT)
    assert (facts.libc, facts.system_loader, facts.governor) == ("glibc", True, "ondemand")
    assert facts.cxx_runtime is False
    both = frozenset({"/lib/ld-linux-aarch64.so.1", "/usr/lib/libstdc++.so.6"})
    assert parse_facts(raw(with_files(PI_FILES), loaders=both)).cxx_runtime
    assert facts.clusters == (
        CoreCluster((1, 2, 3), None, None, "Cortex-A76"),
        CoreCluster((0,), 2_400_000, None, "Cortex-A76"),
    )
    assert (facts.emulated, facts.virtualised) == (False, False)
    assert facts.battery_c is None
    assert any(line.startswith("battery_c:") for line in facts.unread)
    assert temperatures(raw(with_files(PI_FILES))) == {"cpu-thermal": 51.2}


def test_facts_of_a_phone() -> None:
    getprop = GETPROP + (
        "[ro.serialno]: [R5CX000000A]\n[ro.soc.model]: [SM0000]\n"
        "[ro.build.version.release]: [15]\n[ro.build.version.sdk]: [35]\n"
        "[ro.build.fingerprint]: [maker/phone/phone:15/AB1/1:user/release-keys]\n"
    )
    battery = BATTERY.format(status=2, present="true", level=87, scale=100, temperature=312)
    document = with_files({"/proc/cpuinfo": PI})
    found = raw(document, getprop=getprop, battery=battery, thermal=THERMAL)
    facts = parse_facts(found)
    assert (facts.identity, facts.model, facts.soc) == ("R5CX000000A", "Test Phone 5", "SM0000")
    assert (facts.os, facts.sdk) == ("Android 15", 35)
    assert facts.os_build == "maker/phone/phone:15/AB1/1:user/release-keys"
    assert (facts.battery_c, facts.battery_level, facts.thermal_status) == (31.2, 87, 2)
    assert facts.system_loader is False
    assert temperatures(found)["big"] == 44.3


def test_the_reason_of_an_unread_thermal_status_is_named() -> None:
    unready = THERMAL.replace("HAL Ready: true", "HAL Ready: false")
    facts = parse_facts(raw(with_files({}), getprop=GETPROP, thermal=unready))
    assert facts.thermal_status is None
    assert "thermal_status: the thermal HAL isn't ready" in facts.unread


@pytest.mark.parametrize(
    ("machine", "compatible", "soc"),
    [
        ("SM8550\n", "", "SM8550"),
        ("QCS6490", "some,board\0", "QCS6490"),
        ("Board Kit", "maker,board\0qcom,xy123\0", "Board Kit"),
        ("Maker X EVK board", "maker,x-evk\0fsl,imx8mp\0", "fsl imx8mp"),
        ("Maker X EVK board", "", None),
    ],
)
def test_the_socs_name_is_the_machines_only_of_qualcomm(
    machine: str, compatible: str, soc: str | None
) -> None:
    files = {"/sys/devices/soc0/machine": machine, "/proc/device-tree/compatible": compatible}
    assert parse_facts(raw(with_files(files))).soc == soc


def test_zones_of_one_name_differences_and_caps() -> None:
    thermal = "/sys/class/thermal"
    files = {
        f"{thermal}/thermal_zone0/type": "cpu-thermal\n",
        f"{thermal}/thermal_zone0/temp": "51200\n",
        f"{thermal}/thermal_zone1/type": "cpu-thermal\n",
        f"{thermal}/thermal_zone1/temp": "49000\n",
        f"{thermal}/thermal_zone2/type": "USB-MINUS-SKIN\n",
        f"{thermal}/thermal_zone2/temp": "9000\n",
        f"{thermal}/cooling_device0/type": "cpufreq-cpu4\n",
        f"{thermal}/cooling_device0/cur_state": "3\n",
    }
    found = raw(with_files(files))
    assert temperatures(found) == {"cpu-thermal": 51.2}
    assert capped(found) == (("cpufreq-cpu4", 3),)
    assert capped(raw(with_files({}), thermal=THERMAL)) == (("thermal-cpufreq", 6),)


def test_facts_without_anything_are_none_with_a_reason() -> None:
    facts = parse_facts(raw(with_files({})))
    assert facts.identity == "pi.lab"
    for name in ("model", "os", "ram_bytes", "governor", "soc", "libc"):
        assert getattr(facts, name) is None
        assert any(line.startswith(f"{name}:") for line in facts.unread)
    assert facts.features == ("dotprod", "neon")


def test_facts_hold_nothing_that_a_terminal_would_obey() -> None:
    evil = "\x1b[2Jevil\x07\r\nsecond"
    files = {key: evil for key in PI_FILES} | {"/etc/os-release": f"NAME={evil}\n"}
    getprop = f"[ro.product.model]: [{evil}]\n[ro.serialno]: [{evil}]\n"
    facts = parse_facts(raw(with_files(files), getprop=getprop))
    assert all(c.isprintable() for c in repr(facts))
    assert "\\x1b" not in repr(facts)
    assert facts.model == "evil"


def test_emulated_userland_has_the_emulators_features() -> None:
    facts = parse_facts(raw(with_files({"/proc/cpuinfo": X86.format(extra="")})))
    assert facts.emulated
    assert facts.features == ("dotprod", "neon")


def test_memory_limit_of_a_control_group_counts() -> None:
    files = PI_FILES | {"/sys/fs/cgroup/memory.max": "1000000\n"}
    assert parse_facts(raw(with_files(files))).ram_bytes == 1_000_000
    files |= {"/sys/fs/cgroup/memory.max": "max\n"}
    files |= {"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert parse_facts(raw(with_files(files))).ram_bytes == 8_192_000_000


def test_serial_that_no_maker_set_is_no_identity() -> None:
    found = raw(with_files({}), getprop="[ro.serialno]: [unknown]\n[ro.boot.serialno]: [B7]\n")
    assert parse_facts(found).identity == "B7"


def test_emulators_of_one_version_are_several_devices() -> None:
    serial = "[ro.serialno]: [EMULATOR30X1X2X0]\n[ro.boot.qemu.avd_name]: [{}]\n"
    made = [parse_facts(raw(with_files({}), getprop=serial.format(n))) for n in ("Tall", "Wide")]
    assert [facts.identity for facts in made] == ["EMULATOR30X1X2X0:Tall", "EMULATOR30X1X2X0:Wide"]


@pytest.mark.parametrize("name", ["ARMv8 Processor rev 2 (v8l)", "AArch64 Processor rev 1"])
def test_an_architecture_is_no_model(name: str) -> None:
    core = f"processor\t: 0\nmodel name\t: {name}\nFeatures\t: fp asimd\n"
    facts = parse_facts(raw(with_files({"/proc/cpuinfo": core})))
    assert facts.model is None
    assert "model: not reported" in facts.unread


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b'{"uname": {"machine": "s390x"}}'])
def test_probe_that_is_no_document(document: bytes) -> None:
    with pytest.raises(BadOutput):
        parse_facts(raw(document))


@pytest.mark.parametrize("length", range(0, 1200, 97))
def test_truncated_texts_never_fail_otherwise(length: int) -> None:
    files = {key: value[:length] for key, value in PI_FILES.items()}
    found = raw(
        with_files(files),
        getprop=GETPROP[:length],
        battery=BATTERY[:length],
        thermal=THERMAL[:length],
    )
    parse_facts(found)
    temperatures(found)


def facts_of(identity: str = "a", **values: Any) -> DeviceFacts:
    return DeviceFacts(identity=identity, abi="arm64-v8a", **values)


def job(ram: int = 0) -> DeviceJob:
    artifact = (DeployFile(ObjectRef("0" * 64, 1, "model.pte"), "model.pte"),)
    return DeviceJob(
        "m:r/x y",
        1,
        1,
        "run",
        "c",
        "d",
        RunnerSpec("toy"),
        artifact,
        (LaunchRequest(1),),
        ram_need_bytes=ram,
    )


def test_fit_says_what_is_needed_and_what_is_there() -> None:
    entry = DeviceEntry("board", "ssh")
    small = facts_of(ram_bytes=1_288_490_189)
    with pytest.raises(DeviceUnfit, match=r"board needs 1\.9 GiB of RAM, has 1\.2 GiB"):
        check_fit(job(2_040_109_466), entry, small)
    check_fit(job(1_000_000_000), entry, small)
    check_fit(job(1 << 60), entry, facts_of(ram_bytes=None))


@pytest.mark.parametrize(
    ("expect", "unmet"),
    [
        ((("os", "15"),), ()),
        ((("os", "Android 15"),), ()),
        ((("os", "14"),), ("os is Android 15, expected 14",)),
        ((("os", "5"),), ("os is Android 15, expected 5",)),
        ((("sdk", "35"), ("soc", "X")), ("soc is unknown, expected X",)),
    ],
)
def test_expectations(expect: tuple[tuple[str, str], ...], unmet: tuple[str, ...]) -> None:
    facts = facts_of(os="Android 15", sdk=35)
    entry = DeviceEntry("phone", "adb", expect=expect)
    assert unmet_expectations(entry, facts) == unmet
    if unmet:
        with pytest.raises(DeviceUnfit, match="expected"):
            check_fit(job(), entry, facts)


def polled(
    state: str, code: int | None = None, signal: int | None = None, reason: str = ""
) -> Polled:
    return Polled(state, code, signal, reason or None, 0, 0, b"")


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (
            polled("killed", reason="stale_heartbeat"),
            DeviceLost,
            "the host didn't reach the device",
        ),
        (polled("killed", reason="output_limit"), BadOutput, "without end"),
        (polled("killed", reason="storage_full"), StorageFull, "no space"),
        (polled("killed", reason="work_lost"), DeviceLost, "lost"),
        (polled("killed", reason="supervisor_lost"), DeviceLost, "lost"),
        (polled("killed", reason="killed"), RunnerTimeout, "stopped"),
        (polled("exited", signal=4), RunnerCrashed, "SIGILL"),
        (polled("exited", signal=31), RunnerCrashed, "signal 31"),
        (polled("exited", code=9), RunnerCrashed, "exit code 9: last words"),
        (polled("exited", code=0), BadOutput, "never said"),
    ],
)
def test_how_a_launch_ended(
    status: Polled, kind: type[FarmError], words: str, tmp_path: Any
) -> None:
    with pytest.raises(kind, match=words) as caught:
        read_launch(
            ToyRunner(tmp_path), LaunchRequest(1), status, b"", b"first\nlast words\n", 0, "phone"
        )
    assert caught.value.device == "phone"
    assert caught.value.message.startswith("phone: ")


def test_text_of_a_device_is_harmless() -> None:
    raw_text = b"\x1b[31mred\x1b[0m \x1b]0;title\x07ok\x00\x08\xff\nnext\x9b"
    assert clean_text(raw_text) == "red ok\ufffd\nnext\ufffd"


def device(name: str, identity: str | None, serial: str | None = None) -> Device:
    facts = None if identity is None else facts_of(identity)
    return Device(DeviceEntry(name, "adb", serial=serial), facts)


def test_one_phone_on_two_connections_is_one_device() -> None:
    found = merge(
        [device("desk", "A")],
        [
            device("1.2.3.4:5555", "B", "1.2.3.4:5555"),
            device("USB-B", "B", "USB-B"),
            device("adb-A._adb-tls-connect._tcp", "A", "adb-A._adb-tls-connect._tcp"),
            device("offline", None),
            device("offline2", None),
        ],
    )
    assert [item.name for item in found] == ["desk", "USB-B", "offline", "offline2"]


def test_two_names_for_one_device_are_an_error_that_names_both() -> None:
    one, two, other = merge([device("one", "A"), device("two", "A"), device("other", "B")], [])
    assert (one.state, two.state, other.state) == ("unfit", "unfit", "ready")
    assert "two" in one.reason
    assert "one" in two.reason


def test_machines_with_a_copied_identity_are_two_devices_and_both_are_named() -> None:
    card, copy, usb = (
        Device(DeviceEntry(name, "ssh"), facts_of("A", boot_id=boot))
        for name, boot in (("card", "b1"), ("copy", "b2"), ("usb", "b1"))
    )
    one, two = merge([card, copy], [])
    assert (one.state, two.state) == ("unfit", "unfit")
    assert "yet they are two devices" in one.reason
    assert "copy" in one.reason
    assert "card" in two.reason
    assert not one.usable
    # Also where one of them is only discovered: it doesn't vanish as a second connection.
    assert [item.state for item in merge([card], [copy])] == ["unfit", "unfit"]
    assert [item.name for item in merge([card], [usb])] == ["card"]


def test_conditions_name_what_was_read() -> None:
    before = Snapshot(facts_of(governor="performance", battery_c=30.5), (("a", 30.0), ("b", 41.5)))
    after = Snapshot(facts_of(battery_c=33.0, virtualised=True, unread=("soc: not reported",)), ())
    pairs = dict(conditions(before, after))
    assert pairs["governor_before"] == "performance"
    assert "governor_after" not in pairs
    assert (pairs["battery_c_before"], pairs["battery_c_after"]) == ("30.5", "33.0")
    assert pairs["hottest_before"] == "b 41.5 C"
    assert (pairs["virtualised"], pairs["emulated"]) == ("true", "false")
    assert pairs["unread"] == "soc: not reported"
    assert "niceness" not in pairs
    assert dict(conditions(before, after, 15))["niceness"] == "15"


def test_work_folder_has_a_plain_and_unique_name() -> None:
    name = work_name(job())
    assert name.startswith("m-r-x-y-")
    assert name.endswith("-1-1")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
