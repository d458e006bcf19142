"""Numbers as people read them: bytes, seconds, rates, percentages."""

from __future__ import annotations

import math

#: How a cell was compared with its baseline.
METHODS = {
    "paired": "side by side in one lease",
    "identity": "the same bytes",
    "sittings": "numbers of two nights",
}


def size(count: float | None) -> str:
    """Bytes with a binary unit: `105 MiB`, `1.9 GiB`."""
    if count is None:
        return "-"
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.3g} {unit}"


def seconds(value: float | None) -> str:
    """A duration: `30 µs`, `12 ms`, `3.4 s`, `2 min 05 s`, `1 h 02 min`."""
    if value is None or not math.isfinite(value):
        return "-"
    if 0 < value < 0.0009995:
        return f"{1e6 * value:.3g} µs"
    if value < 0.9995:
        return f"{1000 * value:.3g} ms"
    if value < 60:
        return f"{value:.3g} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock(value: float) -> str:
    """Elapsed time as `m:ss` or `h:mm:ss`."""
    whole = int(max(0.0, value))
    hours, rest = divmod(whole, 3600)
    text = f"{rest // 60}:{rest % 60:02d}"
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else text


def number(value: float | None) -> str:
    """Three significant digits without an exponent where that reads well."""
    if value is None:
        return "-"
    if value == 0 or 0.001 <= abs(value) < 1e6:
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:.2g}"


def apart(value: float | None, bound: float | None) -> tuple[str, str]:
    """A number and its bound, with as many digits as tell them apart; empty for None.

    `1 >= 1` would hide which of the two is larger.
    """
    short = "" if value is None else number(value), "" if bound is None else number(bound)
    if value is None or bound is None or value == bound or short[0] != short[1]:
        return short
    for digits in range(4, 17):
        longer = f"{value:.{digits}g}", f"{bound:.{digits}g}"
        if longer[0] != longer[1]:
            return longer
    return short


def transfer(bytes_per_s: float, left_s: float) -> str:
    """How a transfer goes on: `12 MiB/s, 0:05 left`."""
    return f"{size(bytes_per_s)}/s, {clock(left_s + 0.5)} left"


def plus_minus(median: float | None, ci95: tuple[float, float] | None) -> str:
    """Half width of an interval relative to its median: `±3 %`."""
    if not median or ci95 is None:
        return ""
    return within((ci95[1] - ci95[0]) / median / 2)


def within(half: float) -> str:
    """Half of an interval relative to its middle: `±2 %`, `±0.4 %`."""
    if half > 1:
        return "±>100 %"
    return f"±{100 * half:.0f} %" if half >= 0.01 else f"±{100 * half:.1f} %"


def percent(value: float | None) -> str:
    """A share as percent: `93 %`."""
    if value is None:
        return "-"
    return f"{100 * value:.0f} %" if value in (0, 1) else f"{100 * value:.1f} %"


def visible_change(value: float | None) -> str:
    """The smallest change that samples could have shown: `2.4 %`, `>100 %`."""
    if value is None:
        return ""
    return percent(value) if value <= 1 else ">100 %"
