"""Guards: what must be known about a measurement before its number may be trusted.

| guard         | fires when                                          | phone | board | server, vm |
|---------------|-----------------------------------------------------|-------|-------|------------|
| token_count   | a window held another number of tokens than asked   | needs | needs | needs      |
| backend       | the requested backend isn't what ran                | needs | needs | needs      |
| garbage_text  | the generated text is no language                   | needs | needs | needs      |
| window        | a timed window is shorter than 100 ms               | needs | needs | needs      |
| spread        | samples scatter by more than 5 %                    | needs | needs | needs      |
| first_ever    | the very first start after a push                   | needs | needs | needs      |
| emulated      | another instruction set is emulated                 | needs | needs | needs      |
| hidden_cap    | fixed work slows, cgroup throttling, steal          | needs | needs | needs      |
| load          | other programs used the device                      | needs | needs | needs      |
| priority      | the host's own device: started at a niceness > 0    |       |       | needs      |
| hot_start     | thermal status > 0, battery or zone over its limit  | needs | needs |            |
| clock_cap     | scaling_max_freq fell by more than 15 %             | needs | needs | if told    |
| under_voltage | the firmware of a Raspberry Pi reports it           |       | Pi    |            |
| power_mode    | nvpmodel of a Jetson changed, or isn't as labelled  |       | Jetson|            |

A needed guard that can't be read makes the number `unverified`. On a server or virtual machine
clocks, heat and power may be the host's: a guest can't see them, so they aren't needed there; what
they do shows in fixed work, steal and spread, which are. garbage_text isn't needed of a model that
knows no language (random weights), nor where no text was asked for. The guards on a device's
surroundings are in farm.judge.environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from farm.core.result import PerformanceReport, Trust
from farm.core.rules.interval import MAX_SPREAD

GuardState = Literal["ok", "flagged", "unavailable"]

MIN_WINDOW_S = 0.1
#: Perplexity on natural text above which a model knows no language, whatever its vocabulary; a
#: small trained model has 10-50.
_NO_LANGUAGE_PERPLEXITY = 1000.0

#: Guards whose firing makes a number weak. Any other one makes it meaningless.
_WEAKENING = ("window", "spread", "load", "first_ever", "priority")
_NOISY = ("spread", "load", "priority")
#: Caps that two arms have alike where their windows take turns: each lasts a fraction of a second,
#: and the other one's come before and after it.
CAPS_IN_TURN = ("hidden_cap", "clock_cap")


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard of one metric."""

    name: str
    state: GuardState
    #: What was seen; for people.
    detail: str = ""


def no_language_perplexity(vocabulary: int) -> float:
    """Perplexity above which a model knows no language: random weights give the vocabulary's size.

    Args:
        vocabulary: Number of token ids; 0 when it isn't known.
    """
    return min(_NO_LANGUAGE_PERPLEXITY, vocabulary / 2 or _NO_LANGUAGE_PERPLEXITY)


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


def spoils_ratio(report: PerformanceReport, shared: Sequence[str] = ()) -> bool:
    """Tell whether a number is invalid by more than what both arms of a pair had alike."""
    return report.trust == "invalid" and bool(_fired(report, shared) or not _fired(report))


def why_invalid(report: PerformanceReport, shared: Sequence[str] = ()) -> str:
    """Say which guards made a number meaningless, or that there is none."""
    fired = _fired(report, shared)
    if report.median is None or not fired:
        return "there is no number"
    return f"the number is invalid: {', '.join(fired)}"


def _fired(report: PerformanceReport, shared: Sequence[str] = ()) -> list[str]:
    flagged = [name for name, state in report.guards.items() if state == "flagged"]
    return [name for name in flagged if name not in (*_WEAKENING, *shared)]


def trust_of(guards: list[Guard]) -> Trust:
    """Fold guards into one word, the worst first."""
    states = {guard.name: guard.state for guard in guards}
    if any(state == "flagged" and name not in _WEAKENING for name, state in states.items()):
        return "invalid"
    if any(states.get(name) == "flagged" for name in _NOISY):
        return "noisy"
    return "ok" if all(state == "ok" for state in states.values()) else "unverified"
