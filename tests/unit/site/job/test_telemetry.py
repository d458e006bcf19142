"""Telemetry files to readings and sums: what was read, what wasn't, and energy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from farm.core.runtime import Sample
from farm.core.telemetry import ClockRange, CoreSpeed, LaunchTelemetry
from farm.site.job.telemetry import summarise
from farm.site.parsers.telemetry import (
    cpu_times,
    firmware_bits,
    parse_telemetry,
    power_mode,
    process_cpu_s,
    throttling,
)
from tests.unit.site.recordings import PID_STAT, STAT, calibration, recorded, sample, sensors

CLOCK = "/sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq"
GROUP = "/sys/fs/cgroup/cpu/lab/cpu.stat"
BATTERY = "/sys/class/power_supply/battery"


def summed(*lines: str, windows: tuple[Sample, ...] = ()) -> LaunchTelemetry:
    return summarise(parse_telemetry(recorded(*lines)), 3, windows)


def test_a_quiet_launch_is_summed_up() -> None:
    job = "/proc/77/stat"
    found = summed(
        calibration(busy=40),
        sensors([CLOCK, GROUP, job, "/proc/stat", "/proc/loadavg"]),
        sample(10.0, "2400000", "nr_throttled 3\nthrottled_time 1000", PID_STAT.format(ticks=100),
               STAT.format(busy=1000, idle=500, steal=10), "0.50 0.4 0.3 1/99 77"),
        sample(12.0, "2000000", "nr_throttled 5\nthrottled_time 500001000",
               PID_STAT.format(ticks=260), STAT.format(busy=1180, idle=700, steal=20), None,
               cost_s=0.003),
        "",
        calibration(unit_ns=2_600_000, busy=40),
    )  # fmt: skip
    assert found.launch == 3
    assert found.samples == 2
    assert found.clocks == (ClockRange("policy4", 2_400_000, 2_000_000),)
    assert (found.throttled, found.throttled_s) == (2, 0.5)
    # 180 ticks busy in 2 s, 160 of them the job's, 2 ms the sampler's.
    assert found.others == pytest.approx((1.8 - 1.6 - 0.002) / 2)
    assert found.steal == pytest.approx(10 / 190)
    assert found.idle == pytest.approx(200 / 390)
    assert found.cost == pytest.approx(0.001)
    assert found.load1 == 0.5
    assert found.before is not None
    assert found.after is not None
    assert found.after.memory_ns == 150_000
    assert found.after.cores == tuple(
        CoreSpeed(cpu, 2_600_000, 5_200_000, 7_800_000, 10_400_000) for cpu in (0, 1)
    )
    assert found.before.others == pytest.approx(0.0)


def test_arms_in_turn_are_the_job_and_not_others() -> None:
    """Their process ids come later; what they computed before that is in their sums."""
    conductor, paths = "/proc/70/stat", ["/proc/stat", "/proc/70/stat"]
    ended = PID_STAT.replace(" 0 0 39", " 90 0 39")  # ticks of children that ended
    found = summed(
        sensors(paths),
        sample(10.0, STAT.format(busy=1000, idle=0, steal=0), PID_STAT.format(ticks=0)),
        sensors([*paths, "/proc/77/stat", "/proc/78/stat"]),
        sample(11.0, STAT.format(busy=1100, idle=0, steal=0), PID_STAT.format(ticks=0),
               PID_STAT.format(ticks=60), PID_STAT.format(ticks=35)),
        sample(12.0, STAT.format(busy=1200, idle=0, steal=0), ended.format(ticks=0), None,
               PID_STAT.format(ticks=100)),
    )  # fmt: skip
    assert conductor in paths
    assert found.others == pytest.approx((2.0 - 1.9) / 2, abs=1e-3)


def test_cut_and_garbled_lines_are_left_out() -> None:
    found = summed(
        '{"type":"calibration","cores":[{"cpu":0,"unit_ns":"x"}]}',
        sensors([CLOCK]),
        '{"type":"sample","t_ns":"soon","cost_ns":0,"texts":{}}',
        '{"type":"sample","t_ns":1,"cost_ns":0,"texts":{"7":"1","x":"2","0":"garbage"}}',
        '{"type":"sample","t_ns":2,"cost_ns":0,"texts":{"0":"18',
        "[1,2]",
        "[" * 100_000,
    )
    assert (found.samples, found.clocks, found.before) == (1, (), None)
    assert (found.throttled, found.others, found.steal) == (None, None, None)
    assert summed().samples == 0


def test_every_core_has_its_clock_where_there_are_no_policies() -> None:
    path = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_max_freq"
    found = summed(sensors([path.format(0), path.format(4)]), sample(1, "0", "1800000"))
    assert found.clocks == (ClockRange("cpu4", 1_800_000, 1_800_000),)


def test_a_clock_without_its_ceiling_is_named() -> None:
    folder = "/sys/devices/system/cpu/cpufreq/"
    leaves = ("policy0/scaling_cur_freq", "policy4/scaling_max_freq", "policy4/scaling_cur_freq",
              "policy8/scaling_max_freq")  # fmt: skip
    found = summed(
        sensors([folder + leaf for leaf in leaves]), sample(1, "1197000", "2367000", "900000", None)
    )
    assert found.clocks == (ClockRange("policy4", 2_367_000, 2_367_000),)
    assert found.blind_clocks == ("policy0", "policy8")


def test_heat_and_charge() -> None:
    zone = "/sys/class/thermal/thermal_zone3/temp"
    names = {zone.replace("temp", "type"): "skin", f"{BATTERY}/type": "Battery"}
    paths = [zone, f"{BATTERY}/temp", f"{BATTERY}/status"]
    found = summed(
        sensors(paths, names),
        sample(1, "41000", "312", "Discharging"),
        sample(2, "43500", "318", "Charging"),
        sample(3, "-127000", None, None),
    )
    assert found.hottest == ("skin", 43.5)
    assert (found.battery_c, found.battery_status) == (31.8, "Charging")


def test_a_sensor_that_always_reads_100_is_not_the_warmest() -> None:
    zone = "/sys/class/thermal/thermal_zone{}/{}"
    names = {zone.format(i, "type"): kind for i, kind in enumerate(("PMIC-Die", "CPU-therm"))}
    found = summed(
        sensors([zone.format(0, "temp"), zone.format(1, "temp")], names),
        sample(1, "100000", "41500"),
    )
    assert found.hottest == ("CPU-therm", 41.5)


def test_cooling_devices_and_the_name_of_the_power_mode() -> None:
    device = "/sys/class/thermal/cooling_device7"
    names = {
        f"{device}/type": "thermal-cpufreq-6",
        "/etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=02 NAME=MAXN_X >\n",
    }
    found = summed(
        sensors([f"{device}/cur_state", "/var/lib/nvpmodel/status"], names),
        sample(1, "0", "pmode:0002"),
        sample(2, "11", "pmode:0003"),
        sample(3, "4", None),
    )
    assert found.capped == (("thermal-cpufreq-6", 11),)
    assert found.power_modes == ("2 MAXN_X", "3")


def test_firmware_of_a_pi_and_mode_of_a_jetson() -> None:
    paths = [
        "/sys/devices/platform/soc/soc:firmware/get_throttled",
        "/sys/class/hwmon/hwmon1/in0_lcrit_alarm",
        "/var/lib/nvpmodel/status",
    ]
    found = summed(
        sensors(paths),
        sample(1, "80000", "0", "pmode:0002"),
        sample(2, "80005", "1", "pmode:0000"),
    )
    assert (found.firmware_before, found.firmware_bits) == (0x80000, 0x80005)
    assert found.voltage_alarm is True
    assert found.power_modes == ("2", "0")


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (firmware_bits, "throttled=0x50005", 0x50005),
        (firmware_bits, "0", 0),
        (firmware_bits, "error=1 error_msg", None),
        (power_mode, "pmode:0010", "10"),
        (power_mode, "NV Power Mode: MAXN", None),
        (throttling, "usage_usec 5", None),
        (throttling, "nr_periods 9\nnr_throttled 2\nthrottled_usec 1500000", (2, 1.5)),
        (cpu_times, "cpu  1 2", None),
        (cpu_times, "cpu0 1 2 3 4 5 6 7 8 9 10", None),
        (cpu_times, None, None),
    ],
)
def test_small_texts(
    parse: Callable[[str | None], object], text: str | None, expected: object
) -> None:
    assert parse(text) == expected


def test_cpu_time_of_a_process_with_an_odd_name() -> None:
    text = PID_STAT.format(ticks=250).replace("farm runner", "a) b (c")
    assert process_cpu_s(text, 0.01) == 2.5
    assert process_cpu_s("77 (x", 0.01) is None


def window(t_s: float, seconds: float, tokens: int = 64, metric: str = "tg64") -> Sample:
    return Sample(metric, 3, 0, False, tokens, seconds, t_s=t_s)


def discharging(*states: str) -> list[str]:
    paths = [f"{BATTERY}/status", f"{BATTERY}/current_now", f"{BATTERY}/voltage_now"]
    lines = [sensors(paths, {f"{BATTERY}/type": "Battery"})]
    # -1 A at 4 V: 4 W.
    lines += [sample(10.0 + i, state, "-1000000", "4000000") for i, state in enumerate(states)]
    return lines


def test_energy_from_a_fuel_gauge() -> None:
    windows = (window(10.5, 1.0), window(12.0, 1.5))
    (energy,) = summed(*discharging(*["Discharging"] * 6), windows=windows).energy
    assert (energy.metric, energy.tokens) == ("tg64", 128)
    assert energy.joules == pytest.approx(4 * 2.5)


@pytest.mark.parametrize(
    ("lines", "windows", "reason"),
    [
        (discharging(*["Charging"] * 5), (window(10.5, 3.0),), "battery is Charging"),
        (discharging(*["Discharging"] * 5), (window(10.5, 0.5),), "shorter than 2 s"),
        # Beyond the last reading nobody knows.
        (discharging(*["Discharging"] * 5), (window(13.0, 3.0),), "shorter than 2 s"),
        ([sensors(["/proc/stat"]), sample(1, None)], (window(0.0, 3.0),), "no fuel gauge"),
    ],
)
def test_no_energy_has_a_reason(lines: list[str], windows: tuple[Sample, ...], reason: str) -> None:
    found = summed(*lines, windows=windows)
    assert found.energy == ()
    assert reason in found.energy_source


def test_energy_from_an_ina_rail_a_meter_and_a_counter() -> None:
    hwmon = "/sys/class/hwmon/hwmon4"
    rail = [f"{hwmon}/in1_input", f"{hwmon}/curr1_input"]
    meter = ["/sys/class/hwmon/hwmon2/power1_input"]
    counter = ["/sys/class/powercap/intel-rapl:0/energy_uj"]
    cases: list[tuple[list[str], dict[str, str], Callable[[int], tuple[str, ...]], float, str]] = [
        (rail, {f"{hwmon}/in1_label": "VDD_IN"}, lambda _t: ("5000", "2000"), 10.0, "INA VDD_IN"),
        (meter, {"/sys/class/hwmon/hwmon2/name": "ina226"}, lambda _t: ("7500000",), 7.5, "ina226"),
        (counter, {counter[0].replace("energy_uj", "name"): "package-0"},
         lambda t: (str(int(t * 20e6)),), 20.0, "energy counter"),
    ]  # fmt: skip
    for paths, names, values, watts, source in cases:
        lines = [sensors(paths, names), *(sample(t, *values(t)) for t in range(1, 8))]
        found = summed(*lines, windows=(window(2.2, 3.0),))
        assert found.energy[0].joules == pytest.approx(3 * watts), source
        assert source in found.energy_source


def rails(*labels: str, seconds: int = 8) -> list[str]:
    """A sensor of several rails at 5 V; the first carries 1 A, the second 2 A, and so on."""
    hwmon = "/sys/class/hwmon/hwmon4"
    paths, names = [], {f"{hwmon}/name": "ina3221"}
    for index, label in enumerate(labels, 1):
        paths += [f"{hwmon}/in{index}_input", f"{hwmon}/curr{index}_input"]
        names[f"{hwmon}/in{index}_label"] = label
    values = [v for index in range(1, len(labels) + 1) for v in ("5000", str(1000 * index))]
    return [sensors(paths, names), *(sample(t, *values) for t in range(1, seconds))]


@pytest.mark.parametrize(
    ("labels", "watts", "source"),
    [
        (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 30.0,
         "INA VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0"),
        (("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), 105.0,
         "INA CPU + CV + GPU + SOC + SYS5V + VDDRQ"),
        # One rail that feeds all others goes before any sum.
        (("VDD_CPU_GPU_CV", "VDD_IN", "VDD_SOC"), 10.0, "INA VDD_IN"),
    ],
)  # fmt: skip
def test_energy_of_a_board_with_several_rails(
    labels: tuple[str, ...], watts: float, source: str
) -> None:
    found = summed(*rails(*labels), windows=(window(2.2, 3.0),))
    assert found.energy[0].joules == pytest.approx(3 * watts)
    assert found.energy_source == source


def test_rails_that_are_no_whole_give_no_energy() -> None:
    found = summed(*rails("VIN_SYS_5V0", "VDD_CPU_CV", "NC"), windows=(window(2.2, 3.0),))
    assert found.energy == ()
    assert found.energy_source == (
        "rails VDD_CPU_CV, VIN_SYS_5V0 are no set that feeds the whole board"
    )


def test_one_of_several_meters_or_counters_is_not_the_whole() -> None:
    hwmon = "/sys/class/hwmon/hwmon{}"
    meters = [hwmon.format(i) + "/power1_input" for i in (1, 2)]
    names = {hwmon.format(i) + "/name": "ina226" for i in (1, 2)}
    counters = [hwmon.format(3) + f"/energy{i}_input" for i in (1, 2)]
    for paths, reason in ((meters, "2 power sensors"), (counters, "2 energy counters")):
        lines = [sensors(paths, names), *(sample(t, "7500000", "2500000") for t in range(1, 8))]
        found = summed(*lines, windows=(window(2.2, 3.0),))
        assert found.energy == ()
        assert reason in found.energy_source
