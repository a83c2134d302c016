"""Lines as a picture: small charts side by side, in SVG."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, TOP = 260, 150, 50, 40
STEP_X, STEP_Y = WIDTH + LEFT + 30, HEIGHT + TOP + 50
COLUMNS = 2
STYLE = "text{font:12px sans-serif;fill:#444}.title{font-weight:bold}path{fill:none;stroke:#2a6fb0;stroke-width:2}"
ROOM = 1.2  # above the highest point


class Line(NamedTuple):
    """A cost, by what it may grow with."""

    title: str
    across: str
    unit: str
    points: Sequence[tuple[float, float]]
    is_logarithmic: bool = True
    """Whether the horizontal axis is."""


def drawn(lines: Sequence[Line]) -> str:
    """Return a picture of all lines."""
    rows = math.ceil(len(lines) / COLUMNS)
    charts = [
        f'<g transform="translate({LEFT + STEP_X * (n % COLUMNS)},{TOP + STEP_Y * (n // COLUMNS)})">{_chart(line)}</g>'
        for n, line in enumerate(lines)
    ]
    size = f'width="{COLUMNS * STEP_X}" height="{rows * STEP_Y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *charts, "</svg>\n"])


def _chart(line: Line) -> str:
    """Draw one line: the vertical axis begins at 0, each point has its value."""
    scale = math.log10 if line.is_logarithmic else float
    low, high = (scale(end(x for x, _ in line.points)) for end in (min, max))
    top = ROOM * max(y for _, y in line.points)
    places = [
        (WIDTH * (scale(x) - low) / ((high - low) or 1), HEIGHT * (1 - y / (top or 1)), x, y) for x, y in line.points
    ]
    parts = [f'<text class="title" y="-20">{escape(line.title)}, {escape(line.unit)}</text>']
    parts.append(f'<path style="stroke:#aaa;stroke-width:1" d="M0,0V{HEIGHT}H{WIDTH}"/>')
    parts.append(f'<path d="M{" L".join(f"{left:.1f},{down:.1f}" for left, down, _, _ in places)}"/>')
    for left, down, x, y in places:
        parts.append(f'<circle cx="{left:.1f}" cy="{down:.1f}" r="3" fill="#2a6fb0"/>')
        parts.append(f'<text x="{left:.1f}" y="{down - 8:.1f}" text-anchor="middle">{_brief(y)}</text>')
        parts.append(f'<text x="{left:.1f}" y="{HEIGHT + 16}" text-anchor="middle">{x:,.9g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT + 34}" text-anchor="middle">{escape(line.across)}</text>')
    return "\n".join(parts)


def _brief(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
