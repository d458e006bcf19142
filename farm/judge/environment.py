"""Guards on a device's surroundings: what its telemetry says about the launches of one job.

One launch in which a guard fires spoils the job's numbers: its launches are pooled.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from farm.core.device import DeviceEntry, DeviceFacts
from farm.core.rules.classes import DeviceClass
from farm.core.runtime import DeviceRunResult
from farm.core.telemetry import Calibration, CoreSpeed, LaunchTelemetry, Start, Usual
from farm.judge.guards import Guard, GuardState
from farm.judge.statistics import most_of

#: Smallest fall of a clock's ceiling, or rise of the time for fixed work, that counts as a cap.
MAX_SLOWDOWN = 0.15
#: Rise of the time for reading memory that counts as somebody else's use of it: of a job's median
#: over what is usual, and of its slow readings over its fast ones, which scatter more.
MAX_MEMORY_SLOWDOWN, MAX_MEMORY_SCATTER = 0.15, 0.35
#: Share of the CPU time wanted that a hypervisor may keep.
MAX_STEAL = 0.05
#: Share of a launch that may pass while its control group is out of CPU time.
MAX_THROTTLED = 0.01
#: CPU time that other programs may use: so many cores' worth, or this share of all cores.
OTHER_CORES, OTHER_SHARE = 0.3, 0.10
#: CPU time that fixed work may miss with nobody else using it, in cores' worth.
MISSING_CORES = 0.25

#: Both kinds of fixed work: one shows the clock, the other who else uses the core's units.
_KINDS: tuple[tuple[Callable[[CoreSpeed], int | None], str], ...] = (
    (lambda core: core.unit_ns, "fixed work"),
    (lambda core: core.wide_ns, "fixed work that fills the core"),
)

_UNDER_VOLTAGE = 1
#: Clock capped, throttled, soft limit of temperature.
_FIRMWARE_CAPS = 2 | 4 | 8


def environment_guards(
    facts: DeviceFacts, entry: DeviceEntry, kind: DeviceClass, run: DeviceRunResult
) -> list[Guard]:
    """Every guard that a device of this class needs, and others that fired."""
    launches = run.telemetry
    guards = [
        Guard("emulated", "flagged" if facts.emulated else "ok"),
        hidden_cap(facts, launches, run.usual),
        load(facts, launches, run.usual),
    ]
    clock = clock_cap(launches, run.starts)
    if kind in ("phone", "board") or clock.state != "unavailable":
        guards.append(clock)
    if kind in ("phone", "board"):
        guards.append(hot_start(run))
    if entry.transport == "local":
        guards.append(priority(dict(run.conditions).get("niceness")))
    name = f"{facts.model or ''} {facts.soc or ''}".lower()
    if "raspberry" in name:
        guards.append(under_voltage(launches))
    if "jetson" in name:
        guards.append(power_mode(launches, dict(entry.labels).get("power_mode")))
    return guards


def clock_cap(launches: Sequence[LaunchTelemetry], starts: Sequence[Start] = ()) -> Guard:
    """The kernel lowered the ceiling of a cluster's clock, or a firmware capped it unseen."""
    highest: dict[str, int] = {}
    lowest: dict[str, int] = {}
    for launch in launches:
        for clock in launch.clocks:
            highest[clock.name] = max(highest.get(clock.name, 0), clock.highest_khz)
            lowest[clock.name] = min(lowest.get(clock.name, clock.lowest_khz), clock.lowest_khz)
    fired = [
        f"{name} from {highest[name] / 1000:.0f} to {low / 1000:.0f} MHz"
        for name, low in lowest.items()
        if low < (1 - MAX_SLOWDOWN) * highest[name]
    ]
    if any(_new_bits(launch, _FIRMWARE_CAPS) for launch in launches):
        fired.append("capped by the firmware")
    fired += _cooled(launches, starts)
    # Each launch must have reported each cluster, else nothing is known of it.
    blind = sorted({name for launch in launches for name in launch.blind_clocks})
    known = bool(launches) and not blind and all(launch.clocks for launch in launches)
    where = f" of {', '.join(blind)}" if blind else ""
    return _decided("clock_cap", fired, known, f"no scaling_max_freq{where}")


def _cooled(launches: Sequence[LaunchTelemetry], starts: Sequence[Start]) -> list[str]:
    """Cooling devices that held cores back while no ceiling moved: some kernels show none."""
    moved = {x.launch for x in launches if any(c.lowest_khz < c.highest_khz for c in x.clocks)}
    seen = [(x.launch, x.capped) for x in launches] + [(x.launch, x.capped) for x in starts]
    steps: dict[str, int] = {}
    for name, step in (one for launch, found in seen if launch not in moved for one in found):
        steps[name] = max(step, steps.get(name, 0))
    return [f"cooling device {name} at step {step}" for name, step in steps.items()]


def hidden_cap(facts: DeviceFacts, launches: Sequence[LaunchTelemetry], usual: Usual) -> Guard:
    """The device gave less than its clocks say: fixed work slowed, a quota, a hypervisor.

    Fixed work is compared with its best in this job, and with what was `usual` in earlier ones.
    """
    points = _points(launches)
    fired = _slowed(facts, points, usual.cores)
    fired += _kept_from_work(points)
    for launch in launches:
        count, seconds = launch.throttled or 0, launch.throttled_s
        if count and (seconds is None or seconds > MAX_THROTTLED * launch.seconds):
            fired.append(f"a control group was out of CPU time {count} times")
        if launch.steal is not None and launch.steal > MAX_STEAL:
            fired.append(f"the hypervisor kept {launch.steal:.0%} of the CPU time")
    known = bool(launches) and all(launch.before and launch.after for launch in launches)
    return _decided("hidden_cap", fired, known, "no fixed work before and after the launches")


def load(facts: DeviceFacts, launches: Sequence[LaunchTelemetry], usual: Usual) -> Guard:
    """Other programs used the device, or somebody unseen the memory behind its cores."""
    found = [_others(launch) for launch in launches]
    allowed = max(OTHER_CORES, OTHER_SHARE * (facts.cores or 1))
    fired = [
        f"other programs used {cores:.1f} cores"
        for cores in found
        if cores is not None and cores > allowed
    ]
    fired += _memory_shared(_points(launches), usual)
    return _decided("load", fired, bool(found) and None not in found, "no CPU times of others")


def priority(niceness: str | None) -> Guard:
    """The runner of this host's own device started behind other programs (`nice`, a Ray worker)."""
    fired = []
    if niceness is not None and int(niceness) > 0:
        fired = [f"started at niceness {niceness}: every other program of this host came first"]
    return _decided("priority", fired, niceness is not None, "no niceness of the start")


def hot_start(run: DeviceRunResult) -> Guard:
    """A launch began too warm, although the device was waited for."""
    fired = [
        f"{start.hot}" + (f" after {start.waited_s:.0f} s of waiting" if start.waited_s else "")
        for start in run.starts
        if start.hot
    ]
    known = bool(run.starts) and not any(start.blind for start in run.starts)
    reasons = [start.unread for start in run.starts if start.blind and start.unread]
    unread = reasons[0] if reasons else "no thermal status, zone, or battery with a limit"
    return _decided("hot_start", fired, known, unread)


def under_voltage(launches: Sequence[LaunchTelemetry]) -> Guard:
    """A Raspberry Pi's supply was too weak."""
    fired = any(_new_bits(launch, _UNDER_VOLTAGE) or launch.voltage_alarm for launch in launches)
    known = bool(launches) and all(
        launch.firmware_bits is not None or launch.voltage_alarm is not None for launch in launches
    )
    reasons = ["the supply's voltage was too low"] if fired else []
    return _decided("under_voltage", reasons, known, "no get_throttled and no voltage alarm")


def power_mode(launches: Sequence[LaunchTelemetry], wanted: str | None) -> Guard:
    """A Jetson's nvpmodel changed, or isn't the mode that the inventory's label asks for."""
    modes = list(dict.fromkeys(mode for launch in launches for mode in launch.power_modes))
    fired = []
    if len(modes) > 1:
        fired.append(f"nvpmodel changed: {', '.join(modes)}")
    elif modes and wanted is not None and wanted.lower() not in modes[0].lower().split():
        fired.append(f"nvpmodel is {modes[0]}, label power_mode says {wanted}")
    return _decided("power_mode", fired, bool(modes), "no nvpmodel status")


def _slowed(
    facts: DeviceFacts, points: Sequence[Calibration], usual: Sequence[CoreSpeed]
) -> list[str]:
    """Clusters whose fixed work took longer at some point than at their best, or than usual."""
    clusters = [cluster.cores for cluster in facts.clusters] or [
        tuple(sorted({core.cpu for point in points for core in point.cores}))
    ]
    found = []
    for cores in clusters:
        for took, how in _KINDS:
            times = [t for point in points if (t := _fastest(point.cores, cores, took)) is not None]
            normal = _fastest(usual, cores, took)
            if not times:
                continue
            best = min(times) if normal is None else min(*times, normal)
            if (slower := max(times) / best - 1) > MAX_SLOWDOWN:
                than = "" if best in times else " than in earlier jobs"
                found.append(f"{how} took {slower:.0%} longer{than} on cores {_span(cores)}")
    return found


def _fastest(
    speeds: Sequence[CoreSpeed], cores: Sequence[int], took: Callable[[CoreSpeed], int | None]
) -> int | None:
    """Time of a cluster's fastest core: a cap is on all of them, a disturbance on one."""
    times = [t for core in speeds if core.cpu in cores and (t := took(core)) is not None]
    return min(times, default=None)


def _memory_shared(points: Sequence[Calibration], usual: Usual) -> list[str]:
    """Memory that answered slower than usual, or slower at some times than at others.

    One reading scatters, so the median is compared with what is usual, and quantiles with each
    other: a job of many launches has many readings.
    """
    times = [p.memory_ns for p in points if p.memory_ns is not None]
    if not times:
        return []
    low, high = most_of(times)
    found = []
    if usual.memory_ns is not None:
        slower = statistics.median(times) / usual.memory_ns - 1
        if slower > MAX_MEMORY_SLOWDOWN:
            found.append(f"memory answered {slower:.0%} slower than in earlier jobs")
    if high / low - 1 > MAX_MEMORY_SCATTER:
        found.append(f"memory answered {high / low - 1:.0%} slower at times")
    return found


def _points(launches: Sequence[LaunchTelemetry]) -> list[Calibration]:
    return [point for launch in launches for point in launch.points]


def _kept_from_work(points: Sequence[Calibration]) -> list[str]:
    """Points at which the work got less CPU time than there was, with nobody else taking it."""
    found = []
    for point in points:
        missing = (1 - point.share) * len(point.cores) - (point.others or 0.0)
        if missing > MISSING_CORES:
            found.append(f"fixed work got {point.share:.0%} of the CPU time it could use")
    return found


def _others(launch: LaunchTelemetry) -> float | None:
    """During the launch; of one too short to tell, around it."""
    if launch.others is not None:
        return launch.others
    shares = [point.others for point in launch.points if point.others is not None]
    return sum(shares) / len(shares) if shares else None


def _new_bits(launch: LaunchTelemetry, bits: int) -> bool:
    """Whether one of these bits was set now, or since boot only after the launch began."""
    if launch.firmware_bits is None:
        return False
    since_boot = (launch.firmware_bits & ~(launch.firmware_before or 0)) >> 16
    return bool((launch.firmware_bits | since_boot) & bits)


def _decided(name: str, fired: Sequence[str], known: bool, unread: str) -> Guard:
    if fired:
        more = f" (and {len(fired) - 1} more)" if len(fired) > 1 else ""
        return Guard(name, "flagged", fired[0] + more)
    state: GuardState = "ok" if known else "unavailable"
    return Guard(name, state, "" if known else unread)


def _span(cores: Sequence[int]) -> str:
    return f"{cores[0]}-{cores[-1]}" if len(cores) > 1 else str(cores[0])
