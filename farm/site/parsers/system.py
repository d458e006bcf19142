"""Files that every Linux has: meminfo, os-release, thermal zones, names of the hardware."""

from __future__ import annotations

import re
import shlex

_MEMINFO = re.compile(r"^(MemTotal|MemAvailable):\s+(\d{1,15}) kB\s*$", re.MULTILINE)
_TEGRA = re.compile(r"R(\d+) \(release\), REVISION: ([0-9.]+)")


def parse_meminfo(text: str) -> tuple[int | None, int | None]:
    """Read total and available memory from /proc/meminfo, bytes.

    Total is what the kernel has: less than what the device was sold with.
    """
    values = {key: int(number) * 1024 for key, number in _MEMINFO.findall(text)}
    return values.get("MemTotal"), values.get("MemAvailable")


def parse_os_release(text: str) -> str | None:
    """Read the name of the system from /etc/os-release, for example `Debian GNU/Linux 12`."""
    values: dict[str, str] = {}
    for line in text.splitlines():
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
    """Read a thermal zone, degrees Celsius. 0 and impossible values mean an absent sensor."""
    if not re.fullmatch(r"-?\d{1,7}", text.strip()):
        return None
    value = int(text)
    if value == 0 or not -60_000 < value < 200_000:
        return None
    return value / 1000


def clean_name(text: str) -> str | None:
    """First line of a name from the device tree or DMI: no NUL, control or escape bytes."""
    line = text.replace("\0", "\n").strip().partition("\n")[0]
    cleaned = "".join(c for c in line if c.isprintable()).strip()
    return cleaned[:120] or None
