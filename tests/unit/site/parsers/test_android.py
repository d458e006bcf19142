from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.site.parsers.android import (
    Temperature,
    parse_battery,
    parse_getprop,
    parse_thermalservice,
)

GETPROP = """\
[persist.sys.boot.reason]: []
[persist.sys.boot.reason.history]: [reboot,1700000001
reboot,ota,1690000002
reboot,1680000003]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.model]: [Test Phone 5]
[ro.note]: [a [bracketed] value: here]
"""


def test_getprop_value_may_span_lines_and_hold_brackets() -> None:
    values = parse_getprop(GETPROP)
    assert values["persist.sys.boot.reason"] == ""
    assert values["persist.sys.boot.reason.history"].splitlines()[1] == "reboot,ota,1690000002"
    assert values["ro.product.cpu.abi"] == "arm64-v8a"
    assert values["ro.product.model"] == "Test Phone 5"
    assert values["ro.note"] == "a [bracketed] value: here"
    assert len(values) == 5


def test_getprop_with_carriage_returns() -> None:
    assert parse_getprop(GETPROP.replace("\n", "\r\n")) == parse_getprop(GETPROP)


def test_getprop_cut_off_loses_only_the_last_entry() -> None:
    cut = GETPROP[: GETPROP.index("Phone 5")]
    values = parse_getprop(cut)
    assert values["ro.product.cpu.abi"] == "arm64-v8a"
    assert "ro.product.model" not in values


BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
 Time when the latest updated value of the voltage was sent via battery changed broadcast: 0
  Capacity level: 3
  status: {status}
  present: {present}
  level: {level}
  scale: {scale}
  temperature: {temperature}
  level: 12
  history: level: 99 temperature: 999
"""


def battery(**changes: object) -> str:
    values = {"status": 2, "present": "true", "level": 87, "scale": 100, "temperature": 312}
    return BATTERY.format(**(values | changes))


def test_battery_reads_the_first_state_block() -> None:
    found = parse_battery("warning: level: 3\n" + battery())
    assert found is not None
    assert (found.level, found.celsius, found.charging, found.powered) == (87, 31.2, True, True)


def test_battery_without_indentation() -> None:
    text = "\n".join(line.strip() for line in battery().splitlines())
    assert parse_battery(text) == parse_battery(battery())


@pytest.mark.parametrize(
    ("changes", "level", "celsius"),
    [
        ({"scale": 50, "level": 25}, 50, 31.2),
        ({"level": 623}, None, 31.2),
        ({"level": "n/a"}, None, 31.2),
        ({"temperature": -105}, 87, -10.5),
        ({"temperature": 99999}, 87, None),
        ({"temperature": ""}, 87, None),
        ({"temperature": 0}, 87, None),
        ({"scale": 0}, None, 31.2),
        ({"scale": -1}, None, 31.2),
        ({"temperature": 2147483647, "level": -1}, None, None),
    ],
)
def test_battery_values(changes: dict[str, object], level: int | None, celsius: float) -> None:
    found = parse_battery(battery(**changes))
    assert found is not None
    assert (found.level, found.celsius) == (level, celsius)


def test_a_battery_that_somebody_overrode_is_unread() -> None:
    """After `dumpsys battery unplug` it says the same for ever."""
    found = parse_battery(battery().replace("  AC", "  (UPDATES STOPPED -- use 'reset' to"))
    assert found is not None
    assert (found.level, found.celsius, found.charging, found.powered) == (None,) * 4
    assert "dumpsys battery reset" in found.unread


@pytest.mark.parametrize("status", [1, 0, 9, "unknown"])
def test_an_unknown_status_isnt_discharging(status: object) -> None:
    found = parse_battery(battery(status=status))
    assert found is not None
    assert found.charging is None


@pytest.mark.parametrize(
    "text", ["", "Can't find service: battery\n", battery(present="false"), "level: 4"]
)
def test_no_battery(text: str) -> None:
    assert parse_battery(text) is None


THERMAL = """\
IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=71.5, mType=3, mName=old-skin, mStatus=3}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
 Temperature{mValue=44.300002, mType=0, mName=big, mStatus=0}
\tTemperature{mValue=31.0, mType=2, mName=battery, mStatus=0}
Temperature{mValue=-99.9, mType=4, mName=usb, mStatus=0}
\tTemperature{mValue=0.0, mType=2, mName=second-battery, mStatus=0}
\tTemperature{mValue=NaN, mType=3, mName=skin, mStatus=0}
\tTemperature{mValue=4.1, mType=6, mName=vbat, mStatus=0}
\tTemperature{mValue=11900.0, mType=7, mName=limit, mStatus=0}
\tTemperature{mValue=33.0, mType=8, mName=soc-percent, mStatus=0}
\tTemperature{mValue=29.5, mType=-1, mName=board, mStatus=0}
\tTemperature{mValue=35.5, mType=4, mName=TYPE_SKIN, mStatus=0}
\tTemperature{mValue=36.5, mType=6, mName=TYPE_POWER_AMPLIFIER, mStatus=0}
\tTemperature{mValue=4.2, mType=9, mName=TYPE_BCL_VOLTAGE, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=6, mType=2, mName=thermal-cpufreq}
\tTemperature{mValue=61.0, mType=0, mName=not-here, mStatus=0}
"""


def test_thermalservice_reads_what_the_hal_says_now() -> None:
    found = parse_thermalservice(THERMAL)
    assert found.status == 2
    assert found.temperatures == (
        Temperature("big", "cpu", 44.3),
        Temperature("battery", "battery", 31.0),
        Temperature("board", "other", 29.5),
        Temperature("TYPE_SKIN", "skin", 35.5),
        Temperature("TYPE_POWER_AMPLIFIER", "power_amplifier", 36.5),
    )


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("HAL Ready: true", "HAL Ready: false", "isn't ready"),
        (THERMAL[THERMAL.index("HAL Ready") :], "", "isn't ready"),
        ("IsStatusOverride: false", "IsStatusOverride: true", "thermalservice reset"),
        ("connected: yes", "connected: no", "isn't connected"),
        ("AIDL 1  connected", "1.0 connected", "reports no throttling"),
        ("Thermal Status: 2", "Thermal Status: 17", "reports no status"),
        ("Thermal Status: 2\n", "", "reports no status"),
    ],
)
def test_a_thermal_status_that_nobody_measured_is_unread(old: str, new: str, reason: str) -> None:
    assert old in THERMAL
    found = parse_thermalservice(THERMAL.replace(old, new))
    assert found.status is None
    assert reason in found.unread


def test_status_0_without_a_skin_sensor_says_nothing() -> None:
    cool = THERMAL.replace("Thermal Status: 2", "Thermal Status: 0")
    assert parse_thermalservice(cool).status == 0
    late = cool.replace("TYPE_SKIN, mStatus=0", "TYPE_SKIN, mStatus=3")
    assert parse_thermalservice(late).status == 3
    lines = [line for line in cool.splitlines() if "TYPE_SKIN" not in line]
    found = parse_thermalservice("\n".join(lines))
    assert found.status is None
    assert "no skin sensor" in found.unread


def test_cooling_devices_of_the_processor_are_named() -> None:
    more = "CoolingDevice{mValue=11, mType=2, mName=cpufreq-6}\n"
    more += "CoolingDevice{mValue=3, mType=4, mName=modem}\n"
    more += "CoolingDevice{mValue=0, mType=2, mName=cpu-isolate0}\n"
    more += "CoolingDevice{mValue=2, mType=2, mName=cpu-hotplug, mPowerMw=300}\n"
    found = parse_thermalservice(THERMAL + more)
    assert found.capped == (("thermal-cpufreq", 6), ("cpufreq-6", 11), ("cpu-hotplug", 2))


def test_a_difference_is_no_temperature() -> None:
    row = "\tTemperature{mValue=29.5, mType=-1, mName=board, mStatus=0}\n"
    other = row.replace("board", "PORT-MINUS-COIL")
    assert parse_thermalservice(THERMAL.replace(row, row + other)) == parse_thermalservice(THERMAL)


def test_thermalservice_cut_in_a_row() -> None:
    found = parse_thermalservice(THERMAL[: THERMAL.index("mName=battery")])
    assert found.temperatures == (Temperature("big", "cpu", 44.3),)


@given(st.text(alphabet="[]:{}=, \r\n\t\0 levtmpraus019-", max_size=300))
def test_no_text_makes_a_parser_fail(text: str) -> None:
    parse_getprop(text)
    parse_battery("Current Battery Service state:" + text)
    parse_thermalservice(text)
