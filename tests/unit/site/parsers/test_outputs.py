"""Every kind of output that devices were seen to print, against values that a person read off.

The second half changes the same texts as connections, consoles and sick devices do: what is read
then is the same value or none, never another one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from farm.core.errors import BadOutput
from farm.site.job.telemetry import summarise
from farm.site.look.facts import RawFacts, capped, parse_facts, temperatures
from farm.site.parsers import android, cpu, emulation, system, telemetry
from farm.site.parsers.text import clean_text
from farm.transports.adb_devices import parse_devices
from tests.unit.site.parsers import outputs
from tests.unit.site.parsers.mutations import MUTATIONS, escaped, huge
from tests.unit.site.recordings import calibration, recorded, sample, sensors

#: Kinds of public captures, and what reads each. Without a reader: farm runs no such program.
READERS = {
    "adb-devices": "farm.transports.adb_devices", "adb-errors": "farm.site.parsers.start",
    "battery": "parse_battery", "cpufreq": "parse_telemetry and parse_facts",
    "cpuinfo": "parse_cpuinfo", "df": None, "executorch": "runners.executorch and runners.output",
    "getprop": "parse_getprop", "jetson": "parse_tegra_release and power_mode_names",
    "forms": None, "linker": "farm.site.parsers.start", "litert-lm": "runners.command",
    "llama-bench": "runners.llama_cpp", "llama-cli": "runners.command", "lmk": None, "lscpu": None,
    "meminfo": "parse_meminfo", "mlc": "runners.command", "os-release": "parse_os_release",
    "tegrastats": None, "thermalservice": "parse_thermalservice", "vcgencmd": "firmware_bits",
}  # fmt: skip

Read = Callable[[str], dict[str, Any]]


def battery(text: str) -> dict[str, Any]:
    found = android.parse_battery(text)
    return {} if found is None else {"level": found.level, "celsius": found.celsius}


def thermal(text: str) -> dict[str, Any]:
    found = android.parse_thermalservice(text)
    heat = {item.name: item.celsius for item in found.temperatures}
    return {"status": found.status, **heat, **{f"step {n}": s for n, s in found.capped}}


def getprop(text: str) -> dict[str, Any]:
    return {key: value for key, value in android.parse_getprop(text).items() if key != "end"}


def processor(text: str) -> dict[str, Any]:
    info = cpu.parse_cpuinfo(text)
    emulation.emulated("arm64-v8a", info)
    cpu.clusters([core.index for core in info.cores], info, {}, {})
    names = {f"core {core.index}": core.name for core in info.cores if core.name}
    return {"hardware": info.hardware, "board": info.board, **names}


def memory(text: str) -> dict[str, Any]:
    return dict(zip(("total", "available"), system.parse_meminfo(text), strict=True))


def named(parse: Callable[[str], Any]) -> Read:
    return lambda text: {"value": parse(text)}


#: Kind, how it is read, the text, what a person reads in it.
READ: list[tuple[str, Read, str, Mapping[str, Any]]] = [
    ("battery", battery, outputs.BATTERY_PLAIN, {"level": 62, "celsius": 26.3}),
    ("battery", battery, outputs.BATTERY_HISTORY, {"level": 81, "celsius": 34.1}),
    ("thermalservice", thermal, outputs.THERMAL_QUALCOMM,
     {"status": 1, "battery": 37.6, "skin": 41.1, "CPU7": 52.1, "step thermal-cpufreq-6": 9}),
    ("thermalservice", thermal, outputs.THERMAL_TENSOR,
     {"status": 0, "BIG": 27.4, "VIRTUAL-SKIN": 26.3}),
    ("thermalservice", thermal, outputs.THERMAL_NAMED,
     {"status": 0, "TYPE_CPU": 31.0, "TYPE_BATTERY": 29.4, "TYPE_SKIN": 30.2}),
    ("getprop", getprop, outputs.GETPROP_NEW,
     {"init.svc.history": "reboot,1800000101\nshutdown,1800000099", "ro.board.platform": "",
      "ro.build.fingerprint": "maker/one/one:16/AB3.1/77:user/release-keys",
      "ro.build.version.release": "16", "ro.build.version.sdk": "36",
      "ro.product.cpu.abi": "arm64-v8a", "ro.product.model": "Phone One 5G",
      "ro.serialno": "Z9X8Y7", "ro.soc.model": "SM9990"}),
    ("getprop", getprop, outputs.GETPROP_OLD,
     {"ro.board.platform": "mt6700", "ro.build.version.release": "8.1.0",
      "ro.build.version.sdk": "27", "ro.product.cpu.abi": "arm64-v8a",
      "ro.product.model": "PACX00"}),
    ("cpuinfo", processor, outputs.CPU_EXYNOS,
     {f"core {i}": "Cortex-A55" if i < 4 else "Cortex-A75" if i < 6 else "Exynos-M4"
      for i in range(8)}),
    ("cpuinfo", processor, outputs.CPU_KIRIN,
     {f"core {i}": "Cortex-A510" if i < 4 else "HiSilicon 0xd42" if i < 7 else "TaiShan-v120"
      for i in range(8)}),
    ("cpuinfo", processor, outputs.CPU_ELITE, {f"core {i}": "Oryon" for i in range(8)}),
    ("cpuinfo", processor, outputs.CPU_OLD,
     {"hardware": "mt6700"}
     | {f"core {i}": f"Cortex-A{'35' if i < 4 else '53' if i < 8 else '73'}" for i in range(10)}),
    ("cpuinfo", processor, outputs.CPU_PI,
     {"hardware": "BCM2835", "board": "Raspberry Pi 5"}
     | {f"core {i}": "Cortex-A76" for i in range(4)}),
    ("meminfo", memory, outputs.MEMINFO, {"total": 16_294_711_296, "available": 5_246_464_000}),
    ("os-release", named(system.parse_os_release), outputs.OS_DEBIAN,
     {"value": "Debian GNU/Linux 13"}),
    ("os-release", named(system.parse_os_release), outputs.OS_32_BIT,
     {"value": "Raspbian GNU/Linux 11"}),
    ("jetson", named(system.parse_tegra_release), outputs.TEGRA, {"value": "L4T 35.6.1"}),
    ("jetson", telemetry.power_mode_names, outputs.NVPMODEL, {"0": "10W", "1": "MAXN_SUPER"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "read", "text", "values"), READ)
def test_what_devices_print_is_read_as_a_person_reads_it(
    kind: str, read: Read, text: str, values: Mapping[str, Any]
) -> None:
    assert READERS[kind] is not None
    assert {key: value for key, value in read(text).items() if value is not None} == values
    crlf = read(text.replace("\n", "\r\n"))
    for key, value in crlf.items():
        assert value is None or str(value).replace("\r", "") == str(values[key])


def test_a_list_of_adb_is_read_as_a_person_reads_it() -> None:
    assert [(row.serial, row.state, row.model) for row in parse_devices(outputs.ADB_LIST)] == [
        ("7A8B9C0D", "device", "One_5G"),
        ("adb-7A8B-k3Xq9z (2)._adb-tls-connect._tcp", "device", "One_5G"),
        ("emulator-5554", "offline", "sdk_phone"),
        ("00112233445566", "unauthorized", None),
        ("99887766554433", "no permissions", None),
        ("200ABC", "device", "Pixel_7"),
    ]


def test_a_core_without_a_ceiling_and_a_mode_below_the_silicon() -> None:
    """cpufreq: one cluster lists no scaling_max_freq, which is unknown and not uncapped."""
    policy = "/sys/devices/system/cpu/cpufreq/policy{}/scaling_{}_freq"
    paths = [policy.format(0, "cur"), policy.format(4, "cur"), policy.format(4, "max")]
    found = summarise(
        telemetry.parse_telemetry(
            recorded(sensors(paths), sample(1, "300000", "800000", "1728000"))
        ),
        1,
        (),
    )
    assert [(clock.name, clock.highest_khz) for clock in found.clocks] == [("policy4", 1_728_000)]
    assert found.blind_clocks == ("policy0",)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("throttled=0x0", 0), ("throttled=0x80000", 0x80000), ("throttled=0xe0008", 0xE0008),
     ("80005", 0x80005), ('error=1 error_msg="Command not registered"', None)],
)  # fmt: skip
def test_bits_of_a_pi(text: str, bits: int | None) -> None:
    assert telemetry.firmware_bits(text) == bits


@pytest.mark.parametrize("seed", range(200))
def test_a_mutated_output_gives_the_same_value_or_none(seed: int) -> None:
    dice = random.Random(seed)
    mutate = MUTATIONS[seed % len(MUTATIONS)]
    for _kind, read, text, values in READ:
        changed = mutate(text, dice)
        for key, value in read(changed).items():
            # Texts of Linux's own files are cleaned where they are shown; a longer name is no lie.
            spoilt = isinstance(value, str) and mutate is escaped
            spoilt = spoilt or str(value).startswith(str(values.get(key)))
            assert value is None or spoilt or value == values.get(key) or mutate is huge, key
            if isinstance(value, int | float) and value != values.get(key):
                # Of a row whose kind was spoilt the number stays within what a device can have.
                assert -60 < value < 200, (key, value)
        parse_devices(changed)
        clean_text(changed)


def document(**files: str) -> dict[str, Any]:
    return {
        "uname": {"machine": "aarch64", "release": "6.6.1", "version": "#1"},
        "boot_id": "0e1e4f3c", "nproc": 8, "cpu_features": ["asimd"],
        "filesystems": {"/root/farm": {"free_bytes": 60_000_000}},
        "files": {key.replace("__", "/"): value for key, value in files.items()},
    }  # fmt: skip


PROBE = document(
    __proc__cpuinfo=outputs.CPU_EXYNOS,
    __proc__meminfo=outputs.MEMINFO,
    __sys__devices__system__cpu__online="0-7\n",
    __sys__class__thermal__thermal_zone0__type="cpu-thermal\n",
    __sys__class__thermal__thermal_zone0__temp="41250\n",
    __sys__class__thermal__cooling_device0__type="cpufreq-cpu0\n",
    __sys__class__thermal__cooling_device0__cur_state="2\n",
    __sys__class__power_supply__battery__type="Battery\n",
    __sys__class__power_supply__battery__temp="312\n",
    __sys__class__power_supply__battery__capacity="77\n",
)
#: A mouse's battery comes first in the list of supplies, and isn't the device's.
MOUSE = {
    f"/sys/class/power_supply/hidpp_battery_0/{leaf}": text
    for leaf, text in (("type", "Battery\n"), ("capacity", "12\n"))
}
NUMBERS = ("ram_bytes", "ram_available_bytes", "storage_free_bytes", "battery_c", "battery_level",
           "thermal_status", "sdk", "cores")  # fmt: skip


def raw(probe: bytes, *, getprop: str | None = None, battery: str | None = None,
        thermal: str | None = None) -> RawFacts:  # fmt: skip
    return RawFacts(probe, "fallback", "/root/farm", getprop, battery, thermal)


@pytest.mark.parametrize("seed", range(200))
def test_facts_of_a_mutated_probe_are_true_or_none(seed: int) -> None:
    dice = random.Random(seed)
    mutate = MUTATIONS[seed % len(MUTATIONS)]
    text = json.dumps(PROBE)
    whole = raw(text.encode())
    true = parse_facts(whole)
    found = raw(mutate(text, dice).encode("utf-8", "replace"))
    try:
        facts = parse_facts(found)
    except BadOutput:
        return  # said so, and shown
    for name in NUMBERS:
        assert getattr(facts, name) in (None, getattr(true, name)), name
    assert all(c.isprintable() for c in repr(facts))
    assert set(temperatures(found).values()) <= {41.25}
    assert {step for _, step in capped(found)} <= {2}
    # Android alone has the last two.
    missing = {name for name in NUMBERS if getattr(facts, name) is None}
    named = {line.partition(":")[0] for line in facts.unread}
    assert named >= missing - {"thermal_status", "sdk"}


def test_the_battery_of_a_mouse_is_not_the_devices() -> None:
    files = MOUSE | PROBE["files"]
    facts = parse_facts(raw(json.dumps({**PROBE, "files": files}).encode()))
    assert (facts.battery_c, facts.battery_level) == (31.2, 77)


@pytest.mark.parametrize(
    ("values", "soc"),
    [
        ({"ro.board.platform": "exynos5", "ro.chipname": "exynos8895"}, "exynos8895"),
        ({"ro.board.platform": "exynos5", "ro.hardware": "samsungexynos7580"},
         "samsungexynos7580"),
        ({"ro.soc.model": "unknown", "ro.board.platform": "kona"}, "kona"),
        ({"ro.soc.model": "Tensor G3", "ro.board.platform": "zuma"}, "Tensor G3"),
        ({"ro.soc.model": "MT6893Z_B/CZA"}, "MT6893Z_B/CZA"),
        ({"ro.soc.model": "", "ro.board.platform": "universal9820"}, "universal9820"),
    ],
)  # fmt: skip
def test_which_property_names_the_chip(values: Mapping[str, str], soc: str) -> None:
    text = "".join(f"[{key}]: [{value}]\n" for key, value in values.items())
    text += "[ro.product.cpu.abi]: [arm64-v8a]\n"
    assert parse_facts(raw(json.dumps(PROBE).encode(), getprop=text)).soc == soc


def test_a_battery_that_was_overridden_is_unread_with_its_remedy() -> None:
    text = outputs.BATTERY_PLAIN.replace("AC", "  (UPDATES STOPPED -- use 'reset' to restart)\nAC")
    facts = parse_facts(raw(json.dumps(PROBE).encode(), getprop=outputs.GETPROP_NEW, battery=text))
    assert (facts.battery_c, facts.battery_level) == (None, None)
    named = [line for line in facts.unread if line.startswith("battery_")]
    assert [("dumpsys battery reset" in line) for line in named] == [True, True]


@pytest.mark.parametrize("seed", range(200))
def test_facts_of_mutated_android_texts_are_true_or_none(seed: int) -> None:
    dice = random.Random(seed)
    mutate = MUTATIONS[seed % len(MUTATIONS)]
    texts = {"getprop": outputs.GETPROP_NEW, "battery": outputs.BATTERY_HISTORY,
             "thermal": outputs.THERMAL_QUALCOMM}  # fmt: skip
    probe = json.dumps(PROBE).encode()
    true = parse_facts(raw(probe, **texts))
    found = raw(probe, **{name: mutate(text, dice) for name, text in texts.items()})
    facts = parse_facts(found)
    for name in NUMBERS:
        assert getattr(facts, name) in (None, getattr(true, name)), name
    assert all(
        c.isprintable() for c in repr(facts) + repr(temperatures(found)) + repr(capped(found))
    )


@pytest.mark.parametrize("seed", range(200))
def test_a_mutated_recording_is_no_error(seed: int) -> None:
    dice = random.Random(seed)
    policy = "/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"
    paths = [policy, "/proc/stat", "/proc/loadavg", "/proc/77/stat", "/sys/fs/cgroup/cpu.stat"]
    text = recorded(
        calibration(),
        sensors(paths),
        *(
            sample(t, "2400000", f"cpu  {90 + t} 0 0 9 0 0 0 1 0 0", "0.10 0.2 0.3 1/2 3",
                   "77 (x) R 1 77 77 0 -1 0 0 0 0 0 5 0 0 0 39 19 2 0", "nr_throttled 0\n")
            for t in range(1, 5)
        ),
    ).decode()  # fmt: skip
    mutate = MUTATIONS[seed % len(MUTATIONS)]
    found = summarise(
        telemetry.parse_telemetry(mutate(text, dice).encode("utf-8", "replace")), 1, ()
    )
    for clock in found.clocks:
        assert (clock.lowest_khz, clock.highest_khz) == (2_400_000, 2_400_000)
    for share in (found.steal, found.idle):
        assert share is None or 0.0 <= share <= 1.0
    assert found.others is None or found.others >= 0


def test_texts_that_would_keep_a_parser_busy_for_ever_do_not() -> None:
    """Patterns that try many ways: each of these took minutes, or would."""
    assert telemetry.cpu_times("cpu  " + "1" * 400 + "x") is None
    assert android.parse_getprop("[a]: [\n" * 40_000) == {}
    assert clean_text("\x1b[" * 40_000).count("x") == 0
    assert parse_devices("a" + " " * 60_000 + "B") == ()
