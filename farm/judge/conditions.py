"""The conditions of a measurement in words: what telemetry read, and why guards fired."""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.device import Device
from farm.core.rules.classes import device_class
from farm.core.runtime import DeviceRunResult
from farm.core.telemetry import LaunchState, LaunchTelemetry, Start
from farm.judge.guards import Guard
from farm.judge.statistics import most_of


def conditions(run: DeviceRunResult, device: Device, guards: Sequence[Guard]) -> dict[str, str]:
    """Name to text. What wasn't reported is left out; why a guard isn't `ok` is at `guard_NAME`."""
    found = dict(run.conditions)
    if device.facts is not None:
        found.setdefault("device_class", device_class(device.facts, device.entry.labels))
    own = [name for launch in run.launches[:1] for name in launch.hello.own_code]
    if own:
        # A program that ships with stock kernels would run at another speed.
        found["own_kernels"] = ", ".join(own)
    if run.stop is not None:
        found["launches"] = run.stop.detail
    if run.unpaired:
        found["unpaired"] = run.unpaired
    found |= _worst(run.telemetry) | _waited(run.starts)
    for guard in guards:
        if guard.state != "ok" and guard.detail:
            found[f"guard_{guard.name}"] = guard.detail
    return found


def launch_states(run: DeviceRunResult) -> tuple[LaunchState, ...]:
    """What is known of heat and clocks launch by launch, in order; those that told nothing miss."""
    starts: dict[int, float] = {}
    for launch in run.launches:
        for sample in launch.samples:
            starts[sample.launch] = min(sample.t_s, starts.get(sample.launch, sample.t_s))
    return tuple(
        LaunchState(x.launch, starts[x.launch], x.hottest, x.battery_c, x.clocks)
        for x in run.telemetry
        if x.launch in starts and (x.hottest or x.battery_c is not None or x.clocks)
    )


def _worst(launches: Sequence[LaunchTelemetry]) -> dict[str, str]:
    """The worst that any launch reported."""
    found: dict[str, str] = {}
    shares = {
        "steal": [x.steal for x in launches if x.steal is not None],
        "telemetry_cost": [x.cost for x in launches if x.seconds],
    }
    found |= {name: f"{max(values):.2%}" for name, values in shares.items() if values}
    idle = [x.idle for x in launches if x.idle is not None]
    if idle:
        found["cpu_idle_least"] = f"{min(idle):.0%}"
    others = [x.others for x in launches if x.others is not None]
    if others:
        found["other_programs"] = f"{max(others):.2f} cores"
    loads = [x.load1 for x in launches if x.load1 is not None]
    if loads:
        found["load1"] = f"{max(loads):.2f}"
    points = [point for x in launches for point in x.points]
    kinds = {
        "fixed_work": [min(c.unit_mean_ns or c.unit_ns for c in p.cores) for p in points],
        "wide_work": [
            min(took)
            for p in points
            if (took := [t for c in p.cores if (t := c.wide_mean_ns or c.wide_ns) is not None])
        ],
        "memory_reads": [p.memory_ns for p in points if p.memory_ns is not None],
    }
    found |= {f"{name}_us": _mostly(times) for name, times in kinds.items() if times}
    throttled = [x.throttled for x in launches if x.throttled is not None]
    if throttled:
        found["cgroup_throttled"] = str(sum(throttled))
    warm = max((x.hottest for x in launches if x.hottest), default=None, key=lambda item: item[1])
    if warm is not None:
        found["hottest_during"] = f"{warm[0]} {warm[1]:.1f} C"
    battery = [x.battery_c for x in launches if x.battery_c is not None]
    if battery:
        found["battery_c_during"] = f"{max(battery):.1f}"
    states = list(dict.fromkeys(x.battery_status for x in launches if x.battery_status))
    if states:
        found["battery_status"] = ", ".join(states)
    for name in sorted({clock.name for x in launches for clock in x.clocks}):
        ceilings = [c for x in launches for c in x.clocks if c.name == name]
        low = min(c.lowest_khz for c in ceilings) / 1000
        high = max(c.highest_khz for c in ceilings) / 1000
        found[f"clock_{name}_mhz"] = f"{high:.0f}" if low == high else f"{low:.0f}-{high:.0f}"
    modes = list(dict.fromkeys(mode for x in launches for mode in x.power_modes))
    if modes:
        found["power_mode"] = ", ".join(modes)
    return found


def _mostly(times_ns: Sequence[int]) -> str:
    low, high = most_of(times_ns)
    return f"{low / 1e3:.0f}-{high / 1e3:.0f}"


def _waited(starts: Sequence[Start]) -> dict[str, str]:
    waited = sum(start.waited_s for start in starts)
    return {"cooldown_s": f"{waited:.0f}"} if waited else {}
