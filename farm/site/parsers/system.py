"""Files that every Linux has: meminfo, os-release, thermal zones, names of the hardware."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from farm.site.parsers.text import whole_lines

_MEMINFO = re.compile(r"^(MemTotal|MemAvailable):\s+(\d{1,15}) kB\s*$", re.MULTILINE)
_TEGRA = re.compile(r"R(\d+) \(release\), REVISION: ([0-9.]+),")

#: Parts of names of sensors that measure no temperature: differences, voltages, currents, charge.
_NO_DEGREES = frozenset({"minus", "vbat", "ibat", "bcl", "socd", "lvl"})
#: Parts of names of sensors on the processor's die. `soc` alone is the battery's charge on some.
_PROCESSOR = frozenset(
    (
        *("cpu", "bcpu", "mcpu", "cpuss", "tcpu", "mtktscpu", "bigcore", "littlecore", "cluster"),
        *("big", "mid", "little", "tj", "junction", "pkg", "package", "coretemp"),
    )
)


def parse_meminfo(text: str) -> tuple[int | None, int | None]:
    """Read total and available memory from /proc/meminfo, bytes.

    Total is what the kernel has: less than what the device was sold with.
    """
    values = {key: int(number) * 1024 for key, number in _MEMINFO.findall(text)}
    return values.get("MemTotal"), values.get("MemAvailable")


def parse_os_release(text: str) -> str | None:
    """Read the name of the system from /etc/os-release, for example `Debian GNU/Linux 12`."""
    values: dict[str, str] = {}
    for line in whole_lines(text).splitlines():
        key, equals, raw = line.strip().partition("=")
        if not equals:
            continue
        try:
            words = shlex.split(raw)
        except ValueError:
            continue
        values[key] = " ".join(words)
    name = values.get("NAME")
    version = values.get("VERSION_ID")
    if name and version:
        return f"{name} {version}"
    return values.get("PRETTY_NAME") or name


def parse_tegra_release(text: str) -> str | None:
    """Read /etc/nv_tegra_release of a Jetson, for example `L4T 36.4.7`."""
    match = _TEGRA.search(text)
    return f"L4T {match[1]}.{match[2]}" if match else None


def parse_millidegrees(text: str) -> float | None:
    """Read a thermal zone, degrees Celsius. 0 and impossible values mean an absent sensor.

    Old kernels of some vendors print whole degrees, or tenths: those are not believed either.
    """
    if not re.fullmatch(r"-?[0-9]{1,7}", text.strip()):
        return None
    value = int(text)
    if abs(value) < 1000 or not -60_000 < value < 200_000:
        return None
    return value / 1000


def clean_name(text: str) -> str | None:
    """First line of a name from the device tree or DMI: no NUL, control or escape bytes."""
    line = text.replace("\0", "\n").strip().partition("\n")[0]
    cleaned = "".join(c for c in line if c.isprintable()).strip()
    return cleaned[:120] or None


def is_temperature(name: str) -> bool:
    """Whether a sensor of this name measures a temperature."""
    return not _words(name) & _NO_DEGREES


def is_processor(name: str) -> bool:
    """Whether a sensor of this name lies on the processor's die: its CPU, SoC or junction.

    Others say nothing of the clocks: a Jetson's `PMIC-Die` reads 100 degrees for ever.
    """
    words = _words(name)
    if "fan" in words or not is_temperature(name):
        return False
    therm = any(word.startswith("therm") for word in words)
    return bool(words & _PROCESSOR) or (therm and bool(words & {"soc", "imx", "bcm"}))


def warmest(readings: Iterable[tuple[str, float]]) -> tuple[str, float] | None:
    """Warmest sensor of the processor; of any kind where none is named as one of it."""
    known = list(readings)
    own = [item for item in known if is_processor(item[0])]
    return max(own or known, default=None, key=lambda item: item[1])


def cooling_steps(texts: Mapping[str, str | None]) -> tuple[tuple[str, int], ...]:
    """Cooling devices of the processor that hold it back, and their step, 1 the mildest.

    Args:
        texts: By path, with `cooling_device*/type` and `cooling_device*/cur_state` among them.
    """
    found: dict[str, int] = {}
    for path, text in texts.items():
        match = re.fullmatch(r"(/sys/class/thermal/cooling_device\d+)/cur_state", path)
        if match is None or not re.fullmatch(r"\d{1,9}\s*", text or ""):
            continue
        name = clean_name(texts.get(f"{match[1]}/type") or "") or ""
        # `thermal-cpufreq-6`, `cpufreq-cpu0`, `cpu-isolate2`, ACPI's `Processor`.
        if re.search(r"(?<!g)cpu|processor", name.lower()) and int(text or 0) > 0:
            found[name] = max(int(text or 0), found.get(name, 0))
    return tuple(sorted(found.items()))


def _words(name: str) -> frozenset[str]:
    """Words of a sensor's name, in lower case and without numbers: `CPU7`, `soc0-thermal`."""
    return frozenset(re.findall(r"[a-z]+", name.lower()))
