"""Guards: what must be known about a measurement before its number may be trusted.

| guard         | fires when                                            | phone | board | server |
|---------------|-------------------------------------------------------|-------|-------|--------|
| token_count   | a window held another number of tokens than asked     | needs | needs | needs  |
| backend       | the requested backend isn't what ran                  | needs | needs | needs  |
| garbage_text  | the generated text is no language                     | needs | needs | needs  |
| window        | a timed window is shorter than 100 ms                 | needs | needs | needs  |
| spread        | samples scatter by more than 5 %                      | needs | needs | needs  |
| emulated      | another instruction set is emulated                   | needs | needs | needs  |
| hot_start     | thermal status > 0 or battery over its limit          | needs | needs |        |
| clock_cap     | scaling_max_freq fell during the run                  | needs | needs |        |
| hidden_cap    | a calibrator slows, cgroup throttling, steal          | needs | needs |        |
| under_voltage | the firmware of a Raspberry Pi reports it             |       | Pi    |        |
| power_mode    | a Jetson's nvpmodel isn't the one asked for           |       | Jetson|        |

A needed guard that can't be read makes the number `unverified`. On a server or virtual machine
clocks, heat and power are the host's: a guest can't see them, so they aren't needed there; what
they do shows as spread between launches, which is. garbage_text isn't needed of a model that
knows no language (random weights), nor where no text was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from farm.core.device import DeviceFacts, ThermalLimits
from farm.core.result import Trust

DeviceClass = Literal["phone", "board", "server"]
GuardState = Literal["ok", "flagged", "unavailable"]

MIN_WINDOW_S = 0.1
MAX_SPREAD = 0.05
#: Perplexity on natural text above which a model knows no language: random weights give about
#: the size of the vocabulary, a small trained model 10-50.
NO_LANGUAGE_PERPLEXITY = 1000.0

#: Guards whose firing makes a number weak. Any other one makes it meaningless.
_WEAKENING = ("window", "spread")
_BOARD_NAMES = ("raspberry pi", "jetson", "orange pi", "rockchip", "rk35", "beagle")


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard of one metric."""

    name: str
    state: GuardState
    #: What was seen; for people.
    detail: str = ""


def device_class(facts: DeviceFacts, labels: tuple[tuple[str, str], ...] = ()) -> DeviceClass:
    """Decide which guards a device needs; a label `class` overrules what the facts suggest."""
    match dict(labels).get("class"):
        case "phone":
            return "phone"
        case "board":
            return "board"
        case "server":
            return "server"
    if facts.sdk is not None or facts.libc == "bionic" or (facts.os or "").startswith("Android"):
        return "phone"
    name = f"{facts.model or ''} {facts.soc or ''}".lower()
    if any(word in name for word in _BOARD_NAMES):
        return "board"
    small = facts.abi in ("arm64-v8a", "armeabi-v7a", "riscv64") and (facts.cores or 0) <= 16
    return "board" if small and not facts.virtualised else "server"


def environment_guards(
    facts: DeviceFacts, thermal: ThermalLimits, kind: DeviceClass
) -> list[Guard]:
    """Guards that the device's surroundings decide, as far as probing read them."""
    guards = [Guard("emulated", "flagged" if facts.emulated else "ok")]
    if kind == "server":
        return guards
    guards.append(_hot_start(facts, thermal))
    guards += [Guard("clock_cap", "unavailable"), Guard("hidden_cap", "unavailable")]
    name = f"{facts.model or ''} {facts.soc or ''}".lower()
    if "raspberry" in name:
        guards.append(Guard("under_voltage", "unavailable"))
    if "jetson" in name:
        guards.append(Guard("power_mode", "unavailable"))
    return guards


def backend_guard(requested: str, effective: str | None) -> Guard:
    """Compare the backend that was asked for with the one that ran (None: unknown)."""
    if effective is None:
        return Guard("backend", "unavailable")
    if effective != requested:
        return Guard("backend", "flagged", f"{requested} was asked for, {effective} ran")
    return Guard("backend", "ok")


def window_guard(shortest_s: float) -> Guard:
    """Flag windows in which the clock, the scheduler and the first token weigh too much."""
    if shortest_s < MIN_WINDOW_S:
        return Guard("window", "flagged", f"shortest window {1000 * shortest_s:.1f} ms")
    return Guard("window", "ok")


def spread_guard(spread: float | None) -> Guard:
    """Flag samples that scatter."""
    if spread is None:
        return Guard("spread", "unavailable", "too few samples")
    if spread > MAX_SPREAD:
        return Guard("spread", "flagged", f"samples scatter by {spread:.0%}")
    return Guard("spread", "ok")


def trust_of(guards: list[Guard]) -> Trust:
    """Fold guards into one word, the worst first."""
    states = {guard.name: guard.state for guard in guards}
    if any(state == "flagged" and name not in _WEAKENING for name, state in states.items()):
        return "invalid"
    if states.get("spread") == "flagged":
        return "noisy"
    return "ok" if all(state == "ok" for state in states.values()) else "unverified"


def _hot_start(facts: DeviceFacts, thermal: ThermalLimits) -> Guard:
    if facts.thermal_status is not None and facts.thermal_status > 0:
        return Guard("hot_start", "flagged", f"thermal status {facts.thermal_status}")
    limit = thermal.battery_max_c
    if limit is not None and facts.battery_c is not None and facts.battery_c > limit:
        return Guard("hot_start", "flagged", f"battery {facts.battery_c:.1f} °C, limit {limit:g}")
    known = facts.thermal_status is not None or (limit is not None and facts.battery_c is not None)
    return Guard("hot_start", "ok" if known else "unavailable")
