"""What a device said about its own state around one launch: plain data, in one unit each.

Not to be confused with facts, which say what a device is. None means: could not be read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClockRange:
    """The ceiling that the kernel set on one cluster's clock (scaling_max_freq), kHz."""

    #: `policy4`, or `cpu4` where the kernel shows no policies.
    name: str
    highest_khz: int
    lowest_khz: int


@dataclass(frozen=True, slots=True)
class CoreSpeed:
    """One core under fixed work."""

    cpu: int
    #: CPU time of the fastest unit of work of which each step needs the last one, nanoseconds.
    unit_ns: int
    #: The same of work that keeps all units of a core busy: slower beside another thread of it.
    wide_ns: int | None = None
    #: Means over all units: what the work took, where the fastest tells what it can take.
    unit_mean_ns: int | None = None
    wide_mean_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fixed work on all cores at once, while no job ran."""

    cores: tuple[CoreSpeed, ...]
    #: CPU time that the work got of the time it took, 0..1.
    share: float
    #: Cores' worth of CPU time that other programs used meanwhile.
    others: float | None
    #: CPU time of reading 64 MiB from beginning to end, as decoding reads weights: the mean of many
    #: passes, nanoseconds.
    memory_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Usual:
    """What fixed work took in a device's earlier jobs; empty while few are known."""

    cores: tuple[CoreSpeed, ...] = ()
    memory_ns: int | None = None


NOTHING_USUAL = Usual()


@dataclass(frozen=True, slots=True)
class WindowEnergy:
    """Energy that the device used while one metric was timed."""

    metric: str
    joules: float
    tokens: int
    #: Sum of the windows, seconds.
    seconds: float


@dataclass(frozen=True, slots=True)
class Start:
    """How warm the device was when a launch began, and how long it was waited for."""

    launch: int
    waited_s: float
    #: Why it counts as too warm even now; empty when it is cool.
    hot: str
    #: Nothing on this device tells how warm it is.
    blind: bool
    thermal_status: int | None = None
    battery_c: float | None = None
    #: Name and degrees Celsius of the warmest sensor.
    hottest: tuple[str, float] | None = None
    #: Cooling devices that held the processor back at that moment, and their step.
    capped: tuple[tuple[str, int], ...] = ()
    #: Of a blind device: why it can't tell; empty when no more is known.
    unread: str = ""


@dataclass(frozen=True, slots=True)
class LaunchState:
    """How warm a device was during one timed launch, and how its clocks were capped."""

    launch: int
    #: Of its first window, seconds since the job's first.
    t_s: float
    #: Name and degrees Celsius of the warmest sensor at its warmest.
    hottest: tuple[str, float] | None
    battery_c: float | None
    clocks: tuple[ClockRange, ...]


@dataclass(frozen=True, slots=True)
class LaunchTelemetry:
    """Telemetry of one timed launch."""

    launch: int
    samples: int
    #: From the first sample to the last, seconds.
    seconds: float
    #: CPU time of the sampler, as a share of one core.
    cost: float
    clocks: tuple[ClockRange, ...] = ()
    #: Clusters that have a clock, but whose ceiling couldn't be read.
    blind_clocks: tuple[str, ...] = ()
    #: Cooling devices that held the processor back at some moment, and their highest step.
    capped: tuple[tuple[str, int], ...] = ()
    before: Calibration | None = None
    after: Calibration | None = None
    #: Times that a control group of the job was out of CPU time; None where no group tells.
    throttled: int | None = None
    throttled_s: float | None = None
    #: Share of the CPU time wanted that the hypervisor gave to others, 0..1.
    steal: float | None = None
    #: Cores' worth of CPU time that other programs used.
    others: float | None = None
    #: Share of all CPU time in which the cores were idle, 0..1.
    idle: float | None = None
    #: Load average over a minute, at the end.
    load1: float | None = None
    #: Name and degrees Celsius of the warmest sensor at its warmest.
    hottest: tuple[str, float] | None = None
    battery_c: float | None = None
    battery_status: str | None = None
    #: Bits of a Raspberry Pi's firmware that were set at some moment: 1 under-voltage, 2 clock
    #: capped, 4 throttled, 8 too warm; the same << 16 when it happened since boot.
    firmware_bits: int | None = None
    #: Bits that were set since boot before the launch began.
    firmware_before: int | None = None
    #: An alarm of the supply's voltage (hwmon), where there is one.
    voltage_alarm: bool | None = None
    #: nvpmodel modes of a Jetson during the launch, in order of appearance: `2 MAXN_SUPER`, or the
    #: number alone.
    power_modes: tuple[str, ...] = ()
    energy: tuple[WindowEnergy, ...] = ()
    #: Where energy comes from, or why there is none.
    energy_source: str = ""

    @property
    def points(self) -> tuple[Calibration, ...]:
        """Fixed work around the launch, as far as there was any."""
        return tuple(point for point in (self.before, self.after) if point is not None)
