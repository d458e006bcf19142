"""From raw text of a device to DeviceFacts. Pure: no connection, no clock.

The raw text comes from `farm-helper probe` and, on Android, from getprop and dumpsys. What
can't be read is None and has a line in `unread`; it is never zero or guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farm.core.abi import ABIS, BUILT, abi_of_machine
from farm.core.device import DeviceFacts
from farm.core.errors import RAW_BYTES, BadOutput
from farm.site.parsers import android, cpu, emulation, system
from farm.site.parsers.system import clean_name
from farm.site.parsers.telemetry import SUPPLIES
from farm.site.parsers.text import whole_number

_CPU = "/sys/devices/system/cpu"
#: Largest values that are believed.
_MOST_SDK, _MOST_CORES, _MOST_KHZ, _MOST_CAPACITY = 999, 4096, 20_000_000, 1 << 16
_NAMES = (
    *("/proc/device-tree/model", "/sys/class/dmi/id/sys_vendor"),
    *("/sys/class/dmi/id/product_name", "/sys/hypervisor/type"),
)
_MEMORY_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
#: How Qualcomm names its chips in /sys/devices/soc0/machine.
_QUALCOMM = re.compile(r"(?:APQ|IPQ|MSM|QC[MS]|QRB|SA|SC|SD[AMX]|SM|SXR|X1[EP])\d")
_SOC_PROPERTIES = ("ro.soc.model", "ro.board.platform", "ro.chipname", "ro.hardware")


@dataclass(frozen=True, slots=True)
class RawFacts:
    """What a device printed, and what only the host knows of it."""

    #: Output of `farm-helper probe`.
    probe: bytes
    #: Identity where the device reports none: the transport's own name for it.
    fallback_identity: str
    #: farm's folder on the device, as `probe` was asked about it.
    root: str
    #: Output of getprop; None where there is no such program.
    getprop: str | None = None
    battery: str | None = None
    thermal: str | None = None
    #: Of LOADERS and CXX_RUNTIMES, the files that were found.
    loaders: frozenset[str] = field(default_factory=frozenset)
    #: Set where the machine's identity isn't the device's: several simulated devices of one.
    identity: str | None = None


#: Where a program of each C library looks for its loader, by ABI.
LOADERS: Mapping[str, Mapping[str, str]] = {
    abi.name: {
        "glibc": abi.glibc_loader,
        "musl": f"/lib/ld-musl-{abi.machine}.so.1",
        "bionic": "/system/bin/linker64",
    }
    for abi in BUILT.values()
}

#: Places of the C++ runtime for glibc, by ABI.
CXX_RUNTIMES: Mapping[str, tuple[str, ...]] = {
    abi.name: tuple(
        f"{folder}/libstdc++.so.6"
        for folder in (
            *(f"/usr/lib/{abi.triple}", f"/lib/{abi.triple}"),
            *("/usr/lib64", "/usr/lib", "/lib64"),
        )
    )
    for abi in BUILT.values()
}


def parse_facts(raw: RawFacts) -> DeviceFacts:
    """Make facts of raw text.

    Raises:
        BadOutput: `probe` isn't the helper's JSON, or names an unknown ABI.
    """
    probe = _document(raw.probe)
    files = {str(k): str(v) for k, v in _mapping(probe, "files").items()}
    uname = {str(k): str(v) for k, v in _mapping(probe, "uname").items()}
    properties = android.parse_getprop(raw.getprop) if raw.getprop else {}
    abi = clean_name(properties.get("ro.product.cpu.abi", ""))
    abi = abi or abi_of_machine(uname.get("machine", ""))
    if abi is None:
        raise BadOutput(
            f"unknown machine type {uname.get('machine', '')[:40]!r}; known: {', '.join(ABIS)}",
            raw=str(uname),
        )
    info = cpu.parse_cpuinfo(files.get("/proc/cpuinfo", ""))
    total, available = system.parse_meminfo(files.get("/proc/meminfo", ""))
    emulated = emulation.emulated(abi, info)
    limit = _memory_limit(files)
    battery = android.parse_battery(raw.battery) if raw.battery else None
    thermal = android.parse_thermalservice(raw.thermal) if raw.thermal else None
    names = {path: files[path] for path in _NAMES if path in files}
    libc = next((k for k, path in LOADERS.get(abi, {}).items() if path in raw.loaders), None)
    values: dict[str, Any] = {
        "model": properties.get("ro.product.model") or _model(info, files),
        "soc": _soc(properties, files, info),
        "os": _os(properties, files),
        "os_build": properties.get("ro.build.fingerprint") or uname.get("version") or None,
        "kernel": uname.get("release") or None,
        "cores": _integer(probe.get("nproc"), _MOST_CORES),
        "ram_bytes": total if limit is None or total is None else min(total, limit),
        "ram_available_bytes": available,
        "storage_free_bytes": _free(probe, raw.root),
        "libc": libc,
        "governor": _governor(files),
        "boot_id": str(probe.get("boot_id") or "") or None,
    }
    if raw.getprop is not None:
        values["sdk"] = whole_number(properties.get("ro.build.version.sdk"), _MOST_SDK)
        values["battery_c"] = battery.celsius if battery else None
        values["battery_level"] = battery.level if battery else None
        values["thermal_status"] = thermal.status if thermal else None
    else:
        values["battery_c"], values["battery_level"] = _linux_battery(files)
    # Texts of a device are shown in terminals: one printable line each.
    values = {k: clean_name(v) if isinstance(v, str) else v for k, v in values.items()}
    return DeviceFacts(
        identity=raw.identity or _identity(properties, files) or raw.fallback_identity,
        abi=abi,
        clusters=_clusters(files, info, values["cores"]),
        system_loader=LOADERS.get(abi, {}).get("glibc") in raw.loaders,
        cxx_runtime=any(path in raw.loaders for path in CXX_RUNTIMES.get(abi, ())),
        # Under emulation /proc/cpuinfo is the host's; the helper asks the emulator.
        features=(not emulated and cpu.features(info)) or _helper_features(probe),
        emulated=emulated,
        virtualised=emulation.virtualised(info, names, properties),
        unread=_unread(values, thermal, battery),
        **values,
    )


def temperatures(raw: RawFacts) -> dict[str, float]:
    """Degrees Celsius by sensor: the thermal service's, else the kernel's zones."""
    if raw.thermal is not None:
        found = android.parse_thermalservice(raw.thermal).temperatures
        return {clean_name(item.name) or "unnamed": item.celsius for item in found}
    files = _mapping(_document(raw.probe), "files")
    zones: dict[str, float] = {}
    for path, text in files.items():
        match = re.fullmatch(r"(/sys/class/thermal/thermal_zone\d+)/temp", path)
        if match and (celsius := system.parse_millidegrees(str(text))) is not None:
            name = clean_name(str(files.get(f"{match[1]}/type", ""))) or match[1]
            if system.is_temperature(name):
                # Zones of one name are of one kind: the warmest counts.
                zones[name] = max(celsius, zones.get(name, celsius))
    return zones


def capped(raw: RawFacts) -> tuple[tuple[str, int], ...]:
    """Cooling devices that hold the processor back now, and their step: what clocks don't show."""
    if raw.thermal is not None:
        found = android.parse_thermalservice(raw.thermal).capped
        return tuple((clean_name(name) or "unnamed", step) for name, step in found)
    files = _mapping(_document(raw.probe), "files")
    texts = {path: text for path, text in files.items() if isinstance(text, str)}
    return system.cooling_steps(texts)


def _document(probe: bytes) -> dict[str, Any]:
    try:
        value = json.loads(probe)
    except ValueError as error:
        raw = probe[:RAW_BYTES].decode("utf-8", "replace")
        raise BadOutput("farm-helper probe didn't print JSON", raw=raw) from error
    if not isinstance(value, dict):
        raise BadOutput("farm-helper probe didn't print a JSON object", raw=str(value)[:RAW_BYTES])
    return value


def _mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _integer(value: object, most: int) -> int | None:
    number = isinstance(value, int) and not isinstance(value, bool)
    return value if number and 0 <= value <= most else None  # type: ignore[operator, return-value]


def _identity(properties: Mapping[str, str], files: Mapping[str, str]) -> str | None:
    for key in ("ro.serialno", "ro.boot.serialno"):
        value = properties.get(key, "")
        if not value or value.lower() in ("unknown", "0123456789abcdef"):
            continue
        # An emulator's serial is its version: all that run side by side have the same one.
        avd = properties.get("ro.boot.qemu.avd_name", "")
        return clean_name(f"{value}:{avd}" if avd else value)
    machine_id = files.get("/etc/machine-id", "").strip()
    return machine_id if re.fullmatch(r"[0-9a-f]{32}", machine_id) else None


def _os(properties: Mapping[str, str], files: Mapping[str, str]) -> str | None:
    release = properties.get("ro.build.version.release")
    if release:
        return f"Android {release}"
    text = files.get("/etc/os-release") or files.get("/usr/lib/os-release") or ""
    name = system.parse_os_release(text)
    tegra = system.parse_tegra_release(files.get("/etc/nv_tegra_release", ""))
    if tegra:
        return f"{name} ({tegra})" if name else tegra
    return name or ("Android" if properties else None)


def _model(info: cpu.CpuInfo, files: Mapping[str, str]) -> str | None:
    if info.board:
        return clean_name(info.board)
    for path in ("/proc/device-tree/model", "/sys/class/dmi/id/product_name"):
        if name := clean_name(files.get(path, "")):
            return name
    return next((core.model for core in info.cores if core.model), None)


def _soc(properties: Mapping[str, str], files: Mapping[str, str], info: cpu.CpuInfo) -> str | None:
    for key in _SOC_PROPERTIES:
        value = clean_name(properties.get(key, ""))
        # `exynos5` is a platform of ten chips, whose name another property has.
        if value and not re.fullmatch(r"(?i)unknown|exynos\d", value):
            return value
    machine = files.get("/sys/devices/soc0/machine", "")
    compatible = files.get("/proc/device-tree/compatible", "").replace(",", " ").split("\0")
    if not _QUALCOMM.match(machine) and not any(name.startswith("qcom ") for name in compatible):
        machine = ""  # there it names the board, as the device tree does
    # The last entry is the most general one: the chip. The Hardware line of /proc/cpuinfo is
    # wrong on some boards, so it comes last.
    chip = next((name for name in reversed(compatible) if name.strip()), "")
    return clean_name(machine) or clean_name(chip) or info.hardware


def _clusters(files: Mapping[str, str], info: cpu.CpuInfo, cores: int | None) -> tuple[Any, ...]:
    online = cpu.parse_cpu_list(files.get(f"{_CPU}/online", ""))
    if not online:
        online = tuple(core.index for core in info.cores) or tuple(range(cores or 0))
    khz, capacity = {}, {}
    for index in online:
        clock = whole_number(files.get(f"{_CPU}/cpu{index}/cpufreq/cpuinfo_max_freq"), _MOST_KHZ)
        if clock is not None:
            khz[index] = clock
        share = whole_number(files.get(f"{_CPU}/cpu{index}/cpu_capacity"), _MOST_CAPACITY)
        if share is not None:
            capacity[index] = share
    return cpu.clusters(online, info, khz, capacity)


def _memory_limit(files: Mapping[str, str]) -> int | None:
    """Limit of the control group; the kernel writes `max` or a number near 2^63 for none."""
    found = [whole_number(files.get(path), (1 << 60) - 1) for path in _MEMORY_LIMITS]
    return min((limit for limit in found if limit is not None), default=None)


def _free(probe: Mapping[str, Any], root: str) -> int | None:
    file_system = _mapping(probe, "filesystems").get(root)
    if not isinstance(file_system, dict):
        return None
    return _integer(file_system.get("free_bytes"), 1 << 60)


def _governor(files: Mapping[str, str]) -> str | None:
    """Governors in use, the fastest cores' last; several only where they differ."""
    found: dict[str, None] = {}
    for path, text in files.items():
        if path.endswith("/cpufreq/scaling_governor") and text.strip():
            found[text.strip()[:40]] = None
    return "+".join(sorted(found)) or None


def _linux_battery(files: Mapping[str, str]) -> tuple[float | None, int | None]:
    for path, text in files.items():
        # `hid...` is that of a mouse or a keyboard.
        supply = path.startswith(SUPPLIES) and path.endswith("/type") and "/hid" not in path
        if supply and text.strip() == "Battery":
            folder = path.removesuffix("/type")
            text = files.get(f"{folder}/temp", "").strip()
            tenths = int(text) if re.fullmatch(r"-?[0-9]{1,4}", text) else None
            celsius = tenths / 10 if tenths and -400 < tenths < 1200 else None
            return celsius, whole_number(files.get(f"{folder}/capacity"), 100)
    return None, None


def _helper_features(probe: Mapping[str, Any]) -> tuple[str, ...]:
    value = probe.get("cpu_features")
    return cpu.named_features(map(str, value)) if isinstance(value, list) else ()


def _unread(
    values: Mapping[str, Any], thermal: android.Thermal | None, battery: android.Battery | None
) -> tuple[str, ...]:
    reasons = {
        "governor": "no cpufreq",
        "libc": "no known loader at its usual place",
        "battery_c": "no battery, or it reports no temperature",
        "battery_level": "no battery, or it reports no level",
        "thermal_status": "no thermal service",
    }
    if thermal is not None:
        reasons["thermal_status"] = thermal.unread
    if battery is not None and battery.unread:
        reasons["battery_c"] = reasons["battery_level"] = battery.unread
    lines = [f"{k}: {reasons.get(k, 'not reported')}" for k, v in values.items() if v is None]
    if thermal is not None and not thermal.temperatures:
        lines.append("temperatures: the thermal service lists none now")
    return tuple(lines)
