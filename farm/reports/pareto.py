"""A plot of recipes as SVG: KL against the rate of decode, a panel for each device.

It stands alone: its colours are its own, for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from farm.reports.recipes import RecipeGroup, RecipeRow
from farm.reports.words import number, size

_WIDTH, _HEIGHT, _HEAD = 720, 340, 34
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 40, 46
_STYLE = """text{font:12px sans-serif;fill:#333}line{stroke:#999}circle{fill:#999}
.front{fill:#0a7d4b}polyline{fill:none;stroke:#0a7d4b}
@media(prefers-color-scheme:dark){text{fill:#ddd}line{stroke:#777}}"""


def pareto_svg(groups: Sequence[RecipeGroup]) -> str:
    """Draw every group; recipes without either number are listed below their panel."""
    height = _HEIGHT + _HEAD
    drawn = [
        f'<g transform="translate(0,{index * height})">{_panel(group)}</g>'
        for index, group in enumerate(groups)
    ]
    total = max(1, len(groups)) * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {total}" '
        f'width="{_WIDTH}" height="{total}"><style>{_STYLE}</style>{"".join(drawn)}</svg>\n'
    )


def panels(groups: Sequence[RecipeGroup]) -> list[tuple[str, str]]:
    """The groups for a page that brings the colours: (what a reader is told, the SVG) of each."""
    return [
        (
            f"{group.model} on {group.device}: KL to fp32 against tok/s; on the front: "
            + ", ".join(row.recipe for row in group.rows if row.on_front),
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _HEAD}">{_panel(group)}</svg>',
        )
        for group in groups
    ]


def drawable(group: RecipeGroup) -> bool:
    """Whether two recipes of a group have both numbers: one alone is no comparison."""
    return sum(row.kl is not None and row.decode_tok_s is not None for row in group.rows) > 1


def _panel(group: RecipeGroup) -> str:
    where = f"{group.model} on {group.device}, {group.runner}, {group.decode or 'not timed'}"
    drawn = [row for row in group.rows if row.kl is not None and row.decode_tok_s is not None]
    left_out = [row.recipe for row in group.rows if row not in drawn]
    parts = [f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(where)}</text>']
    if left_out:
        words = escape(f"without KL or decode rate, not drawn: {', '.join(left_out)}")
        parts.append(f'<text x="{_LEFT}" y="{_HEIGHT + 16}">{words}</text>')
    if not drawn:
        return "".join(parts)
    xs, ys = _scale([_log(row) for row in drawn]), _scale([_speed(row) for row in drawn])

    def at(row: RecipeRow) -> tuple[float, float]:
        x = (_log(row) - xs[0]) / (xs[1] - xs[0])
        y = (_speed(row) - ys[0]) / (ys[1] - ys[0])
        return (
            _LEFT + x * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - y * (_HEIGHT - _TOP - _BOTTOM),
        )

    bottom = _HEIGHT - _BOTTOM
    parts += [
        f'<line x1="{_LEFT}" y1="{bottom}" x2="{_WIDTH - _RIGHT}" y2="{bottom}"/>',
        f'<line x1="{_LEFT}" y1="{_TOP}" x2="{_LEFT}" y2="{bottom}"/>',
        f'<text x="{_LEFT}" y="{bottom + 18}">{10 ** xs[0]:.2g}</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{bottom + 18}" text-anchor="end">{10 ** xs[1]:.2g}</text>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{bottom + 34}" text-anchor="middle">'
        "KL to fp32, nats (less is better)</text>",
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{number(ys[0])}</text>',
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{number(ys[1])}</text>',
        f'<text x="{_LEFT - 6}" y="{_TOP - 8}" text-anchor="end">tok/s</text>',
    ]
    front = sorted(at(row) for row in drawn if row.on_front)
    if len(front) > 1:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in front)
        parts.append(f'<polyline points="{points}"/>')
    for row in drawn:
        x, y = at(row)
        title = escape(f"{row.recipe}: KL {row.kl:.3g}, {size(row.size_bytes)}")
        style = ' class="front"' if row.on_front else ""
        parts.append(
            f'<circle{style} cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{title}</title></circle>'
            f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(row.recipe)}</text>'
        )
    return "".join(parts)


def _log(row: RecipeRow) -> float:
    """KL on a scale of powers of ten; what is nearly none is as little as can be drawn."""
    return math.log10(max(row.kl or 0.0, 1e-9))


def _speed(row: RecipeRow) -> float:
    return row.decode_tok_s or 0.0


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Both ends, a little beyond the values; never equal."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room
