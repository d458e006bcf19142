"""Decoding without a pause: what came of it on one device, and the curve of its rate."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sustained:
    """Decoding without a pause until the device has settled."""

    #: The measure that was repeated, `tg64`.
    metric: str
    seconds: float
    #: Rate of the first seconds, tok/s, and how many they are: a minute, or a tenth of all.
    first_tok_s: float | None
    first_s: float
    #: Rate of the last third, tok/s.
    steady_tok_s: float | None
    #: Whether the halves of that third agree.
    settled: bool
    #: Seconds until the rate fell below nine tenths of the first and stayed there; None: never.
    throttled_after_s: float | None
    #: Seconds since the start, and tok/s, in equal steps.
    curve: tuple[tuple[float, float], ...]
    #: Joules of the whole device per token; None where nothing gauges them.
    j_per_token: float | None
    #: Which gauge they come from, or why there is none.
    energy_source: str
    #: What was seen of clocks, quotas and heat: guard name to what it saw; a cap is a finding here.
    guards: dict[str, str] = field(default_factory=dict)
    #: Why there is no number.
    reason: str = ""
