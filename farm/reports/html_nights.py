"""The curve of decoding without a pause, as inline SVG."""

from __future__ import annotations

from html import escape

from farm.core.sustained import Sustained
from farm.reports.words import number

WIDTH, HEIGHT = 420, 96
_LEFT, _TOP, _BOTTOM = 10, 8, 16


def curve(found: Sustained) -> str:
    """Rate over time, from 0 to its highest."""
    if not found.curve:
        return ""
    top = max(rate for _, rate in found.curve)
    right, low = WIDTH - _LEFT, HEIGHT - _BOTTOM

    def x(t_s: float) -> float:
        return _LEFT + t_s / found.seconds * (right - _LEFT)

    points = " ".join(
        f"{x(t):.1f},{low - rate / top * (low - _TOP):.1f}" for t, rate in found.curve
    )
    mark = ""
    if found.throttled_after_s is not None:
        at = f"{x(found.throttled_after_s):.1f}"
        mark = f'<line stroke="currentColor" x1="{at}" y1="{_TOP}" x2="{at}" y2="{low}"/>'
    label = f"{found.metric}: tok/s over {found.seconds:.0f} s"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(label, quote=True)}">'
        f'<line stroke="currentColor" opacity="0.4" x1="{_LEFT}" y1="{low}" x2="{right}"'
        f' y2="{low}"/>{mark}'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        f'<g fill="currentColor" font-size="10"><text x="{_LEFT}" y="{HEIGHT - 3}">0 s</text>'
        f'<text x="{right}" y="{HEIGHT - 3}" text-anchor="end">{found.seconds:.0f} s</text>'
        f'<text x="{_LEFT}" y="{_TOP + 8}">{escape(number(top))} tok/s</text></g></svg></figure>'
    )
