"""Strip plots of samples as inline SVG: every sample a dot, the median and its interval drawn.

Colours come from the page's CSS classes, so that they follow light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from farm.core.result import PerformanceReport, SampleReport
from farm.reports.words import number, seconds

WIDTH, HEIGHT = 420, 54
_LEFT, _RIGHT, _MIDDLE = 10, 10, 22
#: Vertical distance of neighbouring launches, pixels: launches form lanes.
_LANE = 5


def strip(report: PerformanceReport) -> str:
    """Draw the samples of one metric on a scale of their own; empty without samples."""
    samples = [sample for sample in report.samples if sample.arm == "candidate"]
    if not samples:
        return ""
    others = [sample for sample in report.samples if sample.arm == "baseline"]
    low, high = _range([s.value for s in report.samples], report.ci95)

    def x(value: float) -> float:
        clipped = min(max(value, low), high)
        return _LEFT + (clipped - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    parts = [
        f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(_label(report), quote=True)}">',
        f'<line class="axis" x1="{_LEFT}" y1="40" x2="{WIDTH - _RIGHT}" y2="40"/>',
    ]
    if report.ci95 is not None:
        start, end = x(report.ci95[0]), x(report.ci95[1])
        parts.append(
            f'<rect class="interval" x="{start:.1f}" y="4" width="{max(1.0, end - start):.1f}" '
            'height="36" rx="2"/>'
        )
    if report.median is not None:
        middle = x(report.median)
        parts.append(f'<line class="median" x1="{middle:.1f}" y1="4" x2="{middle:.1f}" y2="40"/>')
    parts += _dots(others, x, report.unit, "other")
    parts += _dots(samples, x, report.unit)
    for value, anchor, place in ((low, "start", _LEFT), (high, "end", WIDTH - _RIGHT)):
        parts.append(
            f'<text x="{place}" y="51" text-anchor="{anchor}">{_words(value, report.unit)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _dots(samples: Sequence[SampleReport], x: object, unit: str, arm: str = "") -> list[str]:
    assert callable(x)
    launches = sorted({sample.launch for sample in samples})
    parts = []
    for sample in samples:
        lane = launches.index(sample.launch) - (len(launches) - 1) / 2
        y = _MIDDLE + max(-14.0, min(14.0, lane * _LANE))
        kind = arm or f"l{launches.index(sample.launch) % 3}"
        whose = "baseline, " if arm else ""
        where = f"{whose}launch {sample.launch}, repetition {sample.rep}"
        title = f"{where}: {_words(sample.value, unit)}"
        parts.append(
            f'<circle class="dot {kind}" cx="{x(sample.value):.1f}" '
            f'cy="{y:.1f}" r="3"><title>{escape(title)}</title></circle>'
        )
    return parts


def _range(values: Sequence[float], ci95: tuple[float, float] | None) -> tuple[float, float]:
    """Ends of the scale: the samples, and the interval unless it dwarfs them; never empty."""
    low, high = min(values), max(values)
    room = max(high - low, 0.02 * abs(high))
    if ci95 is not None:
        low, high = max(min(low, ci95[0]), low - room), min(max(high, ci95[1]), high + room)
    margin = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    # No rate and no time is below zero.
    return max(0.0, low - margin), high + margin


def _words(value: float, unit: str) -> str:
    return seconds(value) if unit == "s" else f"{number(value)} {unit}"


def _label(report: PerformanceReport) -> str:
    median = "none" if report.median is None else _words(report.median, report.unit)
    return f"{len(report.samples)} samples of {report.metric}, median {median}"
