"""A made /sys for a lab device: sensors that this machine doesn't have, at their real places.

Three folders of the kernel's own /sys are covered by made ones; a file changed here is what the
device reads next.
"""

from __future__ import annotations

import shutil
from pathlib import Path

#: Folders that are covered. Of the first the kernel's own texts are kept beside ours.
_CPU = "/sys/devices/system/cpu"
_COVERED = (_CPU, "/sys/class/thermal", "/sys/class/power_supply")

CEILING = f"{_CPU}/cpufreq/policy0/scaling_max_freq"
ZONE = "/sys/class/thermal/thermal_zone0/temp"
_SUPPLY = "/sys/class/power_supply/battery"

FULL_KHZ, CAPPED_KHZ = 2_400_000, 1_500_000

#: One cluster at 2.4 GHz, one zone, a battery that gives 4 W.
SENSORS = (
    (CEILING, f"{FULL_KHZ}\n"),
    (f"{_CPU}/cpufreq/policy0/scaling_cur_freq", f"{FULL_KHZ}\n"),
    (f"{_CPU}/cpufreq/policy0/cpuinfo_max_freq", f"{FULL_KHZ}\n"),
    (f"{_CPU}/cpufreq/policy0/scaling_governor", "performance\n"),
    ("/sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
    (ZONE, "41000\n"),
    (f"{_SUPPLY}/type", "Battery\n"),
    (f"{_SUPPLY}/status", "Discharging\n"),
    (f"{_SUPPLY}/temp", "312\n"),
    (f"{_SUPPLY}/capacity", "87\n"),
    (f"{_SUPPLY}/current_now", "-1000000\n"),
    (f"{_SUPPLY}/voltage_now", "4000000\n"),
)


#: Program that says that it runs once a sample has seen the full clock, and waits until the ceiling
#: falls, however long the word takes to be heard. A last sample is taken after its end.
RUNS_UNTIL_CAPPED = f"""until grep -q {FULL_KHZ} telemetry.jsonl; do sleep 0.1; done
printf '{{"progress": ["decode", 1, 2]}}\\n'
until grep -q {CAPPED_KHZ} telemetry.jsonl; do sleep 0.1; done
"""


class MadeSys:
    """Folder of the host with the made files of one device.

    Args:
        folder: The folder.
        whole: Whether the device sees these files alone, and nothing of the kernel's own.
    """

    def __init__(self, folder: Path, *, whole: bool = False) -> None:
        self._folder = folder
        self._whole = whole

    def make(self, files: tuple[tuple[str, str], ...]) -> None:
        """Write the files, and what the kernel says of this machine's cores unless `whole`."""
        if self._whole:
            (self._folder / "fs/cgroup").mkdir(parents=True)
            self.become(files)
            return
        for covered in _COVERED:
            self._place(covered).mkdir(parents=True)
        for path in _kernel_texts(Path(_CPU)):
            self._write(str(path), _read(path))
        for name, text in files:
            self._write(name, text)

    def become(self, files: tuple[tuple[str, str], ...]) -> None:
        """Have these files in place of all others, at once: a device of another kind."""
        for place in self._folder.iterdir():
            if place.name != "fs":
                shutil.rmtree(place)
        for name, text in files:
            self._write(name, text)

    def set(self, path: str, text: str) -> None:
        """Change a file."""
        self._write(path, text)

    def mounts(self) -> str:
        """Shell lines that show the files, run in the root of the device."""
        if self._whole:
            return f"mount --bind {self._folder} sys\nmount --rbind /sys/fs/cgroup sys/fs/cgroup"
        lines = [f"mount --bind {self._place(path)} .{path}" for path in _COVERED]
        return "\n".join(lines)

    def _write(self, path: str, text: str) -> None:
        target = self._place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def _place(self, path: str) -> Path:
        return self._folder / path.removeprefix("/sys/")


def _kernel_texts(root: Path) -> list[Path]:
    """Small text files that name cores and caches, without those that only root may read."""
    patterns = ("*", "cpu[0-9]*/cpu_capacity", "cpu[0-9]*/topology/*", "cpu[0-9]*/cache/index*/*")
    found = (path for pattern in patterns for path in root.glob(pattern))
    return [path for path in found if path.is_file() and path.stat().st_mode & 0o004]


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")
