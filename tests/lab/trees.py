"""/sys and system files of boards and phones that people have, as far as farm reads them.

The shapes are those of public captures (tests/unit/captures), the values are made. A lab board has
this machine's processor and no device tree, so the name of the board stands in its DMI table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.lab.phone import thermal_text

Files = tuple[tuple[str, str], ...]

_CPU = "/sys/devices/system/cpu"
_HWMON = "/sys/class/hwmon"
_SUPPLY = "/sys/class/power_supply/battery"


@dataclass(frozen=True, slots=True)
class Tree:
    """One kind of device."""

    name: str
    #: `board` or `phone`.
    kind: str
    sys: Files
    #: What a check says that nobody can see there: area and name, without battery and SoC.
    blind: frozenset[tuple[str, str]]
    #: Other rows of a check, and a part of what they tell.
    told: Mapping[tuple[str, str], str]
    #: Files outside /sys; a board's are under its root, a phone's properties and services.
    files: Mapping[str, str] = field(default_factory=dict)


def _cluster(number: int, cores: range, khz: int, ceiling: int | None = 0, *,
             governor: str = "schedutil") -> Files:  # fmt: skip
    """Files of a cluster; `ceiling` 0 is its own top clock, None a kernel that shows none."""
    common = [("cpuinfo_max_freq", khz), ("scaling_cur_freq", khz), ("scaling_governor", governor)]
    if ceiling is not None:
        common.append(("scaling_max_freq", ceiling or khz))
    places = [f"{_CPU}/cpufreq/policy{number}", *(f"{_CPU}/cpu{n}/cpufreq" for n in cores)]
    return tuple((f"{place}/{leaf}", f"{value}\n") for place in places for leaf, value in common)


def _zones(*rows: tuple[str, int]) -> Files:
    return tuple(
        (f"/sys/class/thermal/thermal_zone{number}/{leaf}", f"{value}\n")
        for number, row in enumerate(rows)
        for leaf, value in zip(("type", "temp"), row, strict=True)
    )


def _cooling(*rows: tuple[str, int]) -> Files:
    return tuple(
        (f"/sys/class/thermal/cooling_device{number}/{leaf}", f"{value}\n")
        for number, row in enumerate(rows)
        for leaf, value in zip(("type", "cur_state"), row, strict=True)
    )


def _named(model: str, online: str) -> Files:
    return (
        ("/sys/class/dmi/id/product_name", f"{model}\n"),
        (f"{_CPU}/online", f"{online}\n"),
        (f"{_CPU}/possible", f"{online}\n"),
    )


def _rails(*rows: tuple[str, int, int]) -> Files:
    """An INA3221 as hwmon shows it: label, millivolts, milliamperes."""
    folder = f"{_HWMON}/hwmon3"
    files = [(f"{folder}/name", "ina3221\n")]
    for number, (label, millivolts, milliamperes) in enumerate(rows, 1):
        files += [
            (f"{folder}/in{number}_label", f"{label}\n"),
            (f"{folder}/in{number}_input", f"{millivolts}\n"),
            (f"{folder}/curr{number}_input", f"{milliamperes}\n"),
        ]
    return tuple(files)


def _battery(status: str, microamperes: int) -> Files:
    values = {"type": "Battery", "status": status, "current_now": microamperes,
              "voltage_now": 4_012_000, "temp": 301, "capacity": 71}  # fmt: skip
    return tuple((f"{_SUPPLY}/{leaf}", f"{value}\n") for leaf, value in values.items())


def _modes(*names: str, now: int) -> dict[str, str]:
    rows = [f"< POWER_MODEL ID={number} NAME={name} >\n" for number, name in enumerate(names)]
    return {"etc/nvpmodel.conf": "".join(rows), "var/lib/nvpmodel/status": f"pmode:{now:04}\n"}


_ENERGY = ("sensors", "energy")
_CLOCK, _MODE = ("trust", "clock_cap"), ("trust", "power_mode")

TREES = (
    Tree(
        "Raspberry Pi 4", "board",
        _named("Raspberry Pi 4 Model B Rev 1.1", "0-3")
        + _cluster(0, range(4), 1_800_000, governor="ondemand")
        + _zones(("cpu-thermal", 51_121))
        + _cooling(("cpufreq-cpu0", 0))
        + ((f"{_HWMON}/hwmon1/name", "rpi_volt\n"), (f"{_HWMON}/hwmon1/in0_lcrit_alarm", "0\n"),
           ("/sys/devices/platform/soc/soc:firmware/get_throttled", "80000\n")),
        frozenset({_ENERGY}),
        {("sensors", "temperatures"): "cpu-thermal 51.1", ("facts", "governor"): "ondemand",
         ("trust", "under_voltage"): "ok", _CLOCK: "ok"},
    ),
    Tree(
        "Raspberry Pi 5", "board",
        _named("Raspberry Pi 5 Model B Rev 1.0", "0-3")
        + _cluster(0, range(4), 2_400_000)
        + _zones(("cpu-thermal", 44_650))
        + _cooling(("pwm-fan", 3), ("cpufreq-cpu0", 0))
        + ((f"{_HWMON}/hwmon0/name", "cpu_thermal\n"), (f"{_HWMON}/hwmon0/temp1_input", "44650\n"),
           (f"{_HWMON}/hwmon1/name", "rp1_adc\n"), (f"{_HWMON}/hwmon1/in1_input", "946\n"),
           ("/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", "0\n")),
        frozenset({_ENERGY}),
        {("sensors", "temperatures"): "cpu-thermal 44.6", ("trust", "under_voltage"): "ok",
         _CLOCK: "ok", ("trust", "hot_start"): "ok"},
    ),
    Tree(
        "Jetson Nano", "board",
        _named("NVIDIA Jetson Nano Developer Kit", "0-3")
        + _cluster(0, range(4), 1_479_000)
        + _zones(("AO-therm", 43_500), ("CPU-therm", 36_000), ("GPU-therm", 34_500),
                 ("PLL-therm", 34_000), ("PMIC-Die", 100_000), ("thermal-fan-est", 35_250))
        + tuple((f"/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/{leaf}", f"{value}\n")
                for number, (label, milliwatts) in enumerate(
                    (("POM_5V_IN", 2510), ("POM_5V_GPU", 120), ("POM_5V_CPU", 480)))
                for leaf, value in ((f"rail_name_{number}", label),
                                    (f"in_power{number}_input", milliwatts))),
        frozenset(),
        {("sensors", "temperatures"): "CPU-therm 36.0", _MODE: "ok", _ENERGY: "POM_5V_IN",
         ("trust", "hot_start"): "ok", ("facts", "os"): "L4T 32.7.1"},
        {"etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 1, BOARD: t210ref\n",
         **_modes("MAXN", "5W", now=0)},
    ),
    Tree(
        "Jetson Orin Nano", "board",
        _named("NVIDIA Jetson Orin Nano Developer Kit Super", "0-5")
        # The mode's ceiling lies below the silicon's.
        + _cluster(0, range(4), 1_728_000, 1_344_000)
        + _cluster(4, range(4, 6), 1_728_000, 1_344_000)
        # Blocks that are off can't be read, or read 0.
        + _zones(("cpu-thermal", 46_031), ("gpu-thermal", 46_687), ("cv0-thermal", 0),
                 ("cv1-thermal", 0), ("soc0-thermal", 46_218), ("tj-thermal", 47_031))
        + _rails(("VDD_IN", 4984, 1232), ("VDD_CPU_GPU_CV", 4984, 280), ("VDD_SOC", 4984, 312)),
        frozenset(),
        {("sensors", "temperatures"): "tj-thermal 47.0", _MODE: "ok", _ENERGY: "VDD_IN",
         _CLOCK: "ok", ("facts", "os"): "L4T 36.4.7"},
        {"etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 1, BOARD: generic\n",
         **_modes("15W", "25W", "MAXN_SUPER", now=1)},
    ),
    Tree(
        "RK3588", "board",
        _named("Turing RK1 (rk3588)", "0-7")
        + _cluster(0, range(4), 1_800_000) + _cluster(4, range(4, 6), 2_304_000)
        + _cluster(6, range(6, 8), 2_304_000)
        + _zones(("soc-thermal", 38_846), ("bigcore0-thermal", 38_846),
                 ("bigcore1-thermal", 39_769), ("littlecore-thermal", 38_846),
                 ("center-thermal", 37_923), ("gpu-thermal", 37_923), ("npu-thermal", 38_846)),
        frozenset({_ENERGY}),
        {("sensors", "temperatures"): "bigcore1-thermal 39.8", _CLOCK: "ok",
         ("trust", "hot_start"): "ok"},
    ),
    Tree(
        "Pixel 8", "phone",
        # The first cluster's ceiling can't be read by a shell, and its cable charges it.
        _named("", "0-8")
        + _cluster(0, range(4), 1_704_000, None, governor="sched_pixel")
        + _cluster(4, range(4, 8), 2_367_000, governor="sched_pixel")
        + _cluster(8, range(8, 9), 2_914_000, governor="sched_pixel")
        + _battery("Charging", 405_000),
        frozenset({_ENERGY, _CLOCK}),
        {("facts", "model"): "Pixel 8", ("facts", "soc"): "Tensor G3",
         ("facts", "governor"): "sched_pixel", ("trust", "hot_start"): "ok",
         ("sensors", "temperatures"): "BIG 41.0", _ENERGY: "the battery is Charging",
         _CLOCK: "no scaling_max_freq of policy0"},
        {"ro.product.model": "Pixel 8", "ro.soc.model": "Tensor G3",
         "thermalservice": thermal_text(
             0, ("BIG", 0, 41.0), ("vdroop2", 6, 1250.0), ("ocp_cpu2", 7, 11900.0),
             ("USB2-MINUS-USB", -1, -0.4), ("VIRTUAL-SKIN", 3, 27.9))},
    ),
    Tree(
        "Snapdragon 8 Gen 2", "phone",
        _named("", "0-7")
        + _cluster(0, range(3), 2_016_000, governor="walt")
        + _cluster(3, range(3, 7), 2_803_200, governor="walt")
        + _cluster(7, range(7, 8), 3_187_200, governor="walt")
        # A fuel gauge that everybody may read.
        + _battery("Discharging", -812_000)
        + _cooling(("thermal-cpufreq-6", 11), ("thermal-cpufreq-0", 0)),
        frozenset(),
        {("facts", "soc"): "SM8550", ("trust", "clock_cap"): "thermal-cpufreq-6",
         ("trust", "hot_start"): "ok", _ENERGY: "fuel gauge"},
        {"ro.product.model": "SM-S918B", "ro.soc.model": "SM8550",
         "thermalservice": thermal_text(
             0, ("CPU7", 0, 38.4), ("skin", 3, 31.2), ("socd", 8, 19.0))},
    ),
)  # fmt: skip
