"""Telemetry of one timed launch: fetched from its work folder, and summed up. No judgement here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from farm.core.artifact import ObjectRef
from farm.core.runtime import LaunchResult, Sample
from farm.core.telemetry import ClockRange, LaunchTelemetry
from farm.site.device.supervised import Link
from farm.site.job.power import window_energy
from farm.site.job.results import fetch_bytes
from farm.site.parsers.system import (
    clean_name,
    cooling_steps,
    is_temperature,
    parse_millidegrees,
    warmest,
)
from farm.site.parsers.telemetry import (
    SUPPLIES,
    Reading,
    Recording,
    cpu_times,
    firmware_bits,
    parse_telemetry,
    power_mode,
    power_mode_names,
    process_cpu_s,
    throttling,
)
from farm.store.objects import ContentStore

#: Between two samples, seconds.
INTERVAL_S = 0.5
#: Largest telemetry file; the helper stops well before.
_MAX_BYTES = 16 << 20
#: Shortest time over which CPU time, counted in hundredths of a second, is worth a share.
_LEAST_S = 0.4
_NVPMODEL = "/etc/nvpmodel.conf"


def fetch_telemetry(
    link: Link, index: int, work: str, result: LaunchResult, store: ContentStore
) -> tuple[LaunchTelemetry, ObjectRef]:
    """Pull the telemetry of a launch that ended well, keep it, and sum it up.

    Raises:
        DeviceLost: The device is gone.
        TransferError: It can't be read.
    """
    text = fetch_bytes(link, f"{work}/telemetry.jsonl", store, max_bytes=_MAX_BYTES)
    ref = store.put_bytes(text, f"launch-{index}.telemetry")
    # Energy is the candidate's: a baseline arm is measured for its speed.
    samples = result.samples if result.arm == "candidate" else ()
    return summarise(parse_telemetry(text), index, samples), ref


def summarise(recording: Recording, launch: int, samples: Sequence[Sample]) -> LaunchTelemetry:
    """Sum up a recording; `samples` are the launch's windows on the same clock."""
    readings = recording.readings
    beside = [r for r in readings if _job_cpu_s(r, recording) is not None]
    energy, source = window_energy(recording, samples)
    throttled, throttled_s = _throttled(readings)
    steal, idle = _shares(readings)
    clocks = _clocks(recording)
    bits = [b for r in readings if (b := _firmware(r)) is not None]
    seconds = readings[-1].t_s - readings[0].t_s if readings else 0.0
    calibrations = recording.calibrations
    return LaunchTelemetry(
        launch=launch,
        samples=len(readings),
        seconds=seconds,
        cost=_cost(beside),
        clocks=clocks,
        blind_clocks=_blind_clocks(recording, clocks),
        capped=_capped(recording),
        before=calibrations[0] if calibrations else None,
        after=calibrations[1] if len(calibrations) > 1 else None,
        throttled=throttled,
        throttled_s=throttled_s,
        steal=steal,
        others=_others(beside, recording),
        idle=idle,
        load1=_load(readings),
        hottest=_hottest(recording),
        battery_c=_battery_c(recording),
        battery_status=_battery_status(recording),
        firmware_bits=_any_bit(bits),
        firmware_before=bits[0] if bits else None,
        voltage_alarm=_alarm(recording),
        power_modes=_modes(recording),
        energy=energy,
        energy_source=source,
    )


def _clocks(recording: Recording) -> tuple[ClockRange, ...]:
    found = []
    for path, name in recording.clock_names().items():
        values = [v for r in recording.readings if (v := r.integer(path)) is not None and v > 0]
        if values:
            found.append(ClockRange(name, max(values), min(values)))
    return tuple(found)


def _blind_clocks(recording: Recording, clocks: Sequence[ClockRange]) -> tuple[str, ...]:
    """Clusters with a clock of which no ceiling was read: some kernels show it for a few only."""
    known = {clock.name for clock in clocks}
    every = {**recording.clock_names("scaling_cur_freq"), **recording.clock_names()}
    return tuple(sorted(set(every.values()) - known))


def _throttled(readings: Sequence[Reading]) -> tuple[int | None, float | None]:
    """The largest growth in any of the job's groups: an outer quota counts as its own."""
    found: list[tuple[int, float]] = []
    for path in sorted({p for r in readings for p in r.texts if p.endswith("/cpu.stat")}):
        values = [v for r in readings if (v := throttling(r.texts.get(path))) is not None]
        if values:
            found.append((values[-1][0] - values[0][0], values[-1][1] - values[0][1]))
    return max(found, default=(None, None), key=lambda item: item[0] or 0)


def _shares(readings: Sequence[Reading]) -> tuple[float | None, float | None]:
    """Steal and idle time between the first and the last sample, as shares."""
    times = [t for r in readings if (t := cpu_times(r.texts.get("/proc/stat"))) is not None]
    if len(times) < 2:
        return None, None
    busy, idle, steal = (
        getattr(times[-1], name) - getattr(times[0], name) for name in ("busy", "idle", "steal")
    )
    wanted, total = busy + steal, busy + idle + steal
    return (steal / wanted if wanted > 0 else None), (idle / total if total > 0 else None)


def _job_cpu_s(reading: Reading, recording: Recording) -> float | None:
    """CPU time of the job's processes that could be read: the first one, and arms in turn."""
    found = [
        process_cpu_s(text, recording.ticks_s)
        for path, text in reading.texts.items()
        if path.startswith("/proc/") and path.endswith("/stat") and path != "/proc/stat"
    ]
    known = [seconds for seconds in found if seconds is not None]
    return sum(known) if known else None


def _others(beside: Sequence[Reading], recording: Recording) -> float | None:
    """Cores' worth of CPU time that neither the job nor its sampler used."""
    usable = [
        (r, times, job)
        for r in beside
        if (times := cpu_times(r.texts.get("/proc/stat"))) is not None
        and (job := _job_cpu_s(r, recording)) is not None
    ]
    if len(usable) < 2:
        return None
    (first, times0, job0), (last, times1, job1) = usable[0], usable[-1]
    seconds = last.t_s - first.t_s
    if seconds < _LEAST_S:
        return None
    busy = (times1.busy - times0.busy) * recording.ticks_s
    own = job1 - job0 + last.cost_s - first.cost_s
    return max(0.0, busy - own) / seconds


def _cost(beside: Sequence[Reading]) -> float:
    """The sampler's CPU time while it sampled; reading anew what it had read before."""
    if len(beside) < 2 or beside[-1].t_s <= beside[0].t_s:
        return 0.0
    return (beside[-1].cost_s - beside[0].cost_s) / (beside[-1].t_s - beside[0].t_s)


def _load(readings: Sequence[Reading]) -> float | None:
    for reading in reversed(readings):
        first = (reading.texts.get("/proc/loadavg") or "").split(" ")[0]
        if re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,4}", first):
            return float(first)
    return None


def _hottest(recording: Recording) -> tuple[str, float] | None:
    found = []
    for path in recording.paths("/temp"):
        if path.startswith(SUPPLIES):
            continue
        name = clean_name(recording.names.get(path.removesuffix("temp") + "type", "")) or path
        values = [parse_millidegrees(r.texts.get(path) or "") for r in recording.readings]
        if is_temperature(name):
            found += [(name, value) for value in values if value is not None]
    return warmest(found)


def _capped(recording: Recording) -> tuple[tuple[str, int], ...]:
    """Highest step of each cooling device of the processor."""
    highest: dict[str, int] = {}
    for reading in recording.readings:
        for name, step in cooling_steps({**recording.names, **reading.texts}):
            highest[name] = max(step, highest.get(name, 0))
    return tuple(sorted(highest.items()))


def _battery(recording: Recording) -> str | None:
    return next(iter(recording.batteries), None)


def _battery_c(recording: Recording) -> float | None:
    folder = _battery(recording)
    tenths = [r.integer(f"{folder}/temp") for r in recording.readings if folder]
    return max((t / 10 for t in tenths if t and -400 < t < 1200), default=None)


def _battery_status(recording: Recording) -> str | None:
    folder = _battery(recording)
    found = [r.texts.get(f"{folder}/status") for r in recording.readings if folder]
    return next((text for text in reversed(found) if text), None)


def _firmware(reading: Reading) -> int | None:
    paths = (p for p in reading.texts if p.endswith(":firmware/get_throttled"))
    return next((firmware_bits(reading.texts[path]) for path in paths), None)


def _any_bit(bits: Sequence[int]) -> int | None:
    if not bits:
        return None
    found = 0
    for value in bits:
        found |= value
    return found


def _alarm(recording: Recording) -> bool | None:
    values = [
        value
        for path in recording.paths("_lcrit_alarm")
        for r in recording.readings
        if (value := r.integer(path)) is not None
    ]
    return any(values) if values else None


def _modes(recording: Recording) -> tuple[str, ...]:
    """Power modes in order of appearance: the number, and the name where it is known."""
    names = power_mode_names(recording.names.get(_NVPMODEL))
    texts = (r.texts.get("/var/lib/nvpmodel/status") for r in recording.readings)
    modes = (mode for text in texts if (mode := power_mode(text)) is not None)
    return tuple(dict.fromkeys(f"{mode} {names.get(mode, '')}".rstrip() for mode in modes))
