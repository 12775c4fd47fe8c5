"""Line charts as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 380, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 30, 44
LINE, LETTER = 15, 6.5
"""Height of a line of the legend, and the width that a letter of it may take."""
TICK = 6
"""Height of a row of ticks, of which there is room for two."""
COLOURS = ("#2f6fde", "#d9642c", "#2a9d5c", "#a34fc0", "#b8901f", "#5a6675")
"""In the order of the series; six can be told apart."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Marks:
    """Moments on the x axis: lines through the chart where `tall`, else a row of ticks below the axis."""

    name: str
    at: Sequence[float]
    colour: str
    tall: bool = False


def curves(
    title: str,
    series: Mapping[str, Points],
    *,
    x_label: str = "step",
    smooth: float = 0.0,
    marks: Sequence[Marks] = (),
    log: bool = False,
) -> str:
    """A chart of some series by name; points that are not finite are left out.

    Args:
        series: (x, y) each, x rising.
        smooth: weight in [0, 1) of what came before in an exponential mean; above 0 the points themselves stay as a faint line.
        marks: the x axis reaches to all of them; `key` names them, once for all charts of a page.
        log: the y axis is logarithmic, and what is not above 0 left out.
    """
    if log:
        series = {name: [(x, math.log10(y)) for x, y in points if 0 < y < math.inf] for name, points in series.items()}
    kept = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    places = legend(list(kept))
    height = HEIGHT + LINE * (1 + max((row for _, row in places), default=-1))
    start = (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" aria-label="{escape(title)}" '
        f'font-size="11" fill="currentColor"><text x="{LEFT}" y="14" font-weight="600">{escape(title)}</text>'
    )
    parts = [start]
    if kept:
        xs = [x for points in kept.values() for x, _ in points] + [x for one in marks for x in one.at]
        ys = [y for points in kept.values() for _, y in points]
        x_ticks, y_ticks = ticks(min(xs), max(xs)), (powers if log else ticks)(min(ys), max(ys))
        frame = (min(*xs, x_ticks[0]), max(*xs, x_ticks[-1]), min(*ys, y_ticks[0]), max(*ys, y_ticks[-1]))
        parts += _axes(x_ticks, {y: 10**y if log else y for y in y_ticks}, frame, x_label)
        short = [one for one in marks if not one.tall]
        parts += [_moments(one, frame, short.index(one) if one in short else 0) for one in marks if one.at]
        for number, (name, points) in enumerate(kept.items()):
            colour = COLOURS[number % len(COLOURS)]
            if smooth > 0:
                parts.append(_line(points, frame, colour, faint=True))
            parts.append(_line(smoothed(points, smooth), frame, colour))
            x, row = places[number]
            y = HEIGHT + LINE * row + 8
            parts.append(f'<text x="{x:.0f}" y="{y}" fill="{colour}">{escape(name)}</text>')
    else:
        parts.append(f'<text x="{LEFT}" y="{HEIGHT / 2:.0f}">nothing was logged</text>')
    return "".join(parts) + "</svg>"


def key(marks: Sequence[Marks]) -> str:
    """What the marks mean, as a line of HTML; nothing where there is none."""
    used = [one for one in marks if one.at]
    names = [
        f'<span style="color: {one.colour}">{"|" if one.tall else "&#9646;"} {escape(one.name)}</span>' for one in used
    ]
    return f'<p class="key">On the time axis: {", ".join(names)}.</p>' if names else ""


def legend(names: Sequence[str]) -> list[tuple[float, int]]:
    """Where the names stand below the chart: x and row, so that none lies on another."""
    places, x, row = [], float(LEFT), 0
    for name in names:
        width = LETTER * len(name) + 16
        if x > LEFT and x + width > WIDTH:
            x, row = float(LEFT), row + 1
        places.append((x, row))
        x += width
    return places


def smoothed(points: Points, weight: float) -> Points:
    """The exponential mean of y, corrected for its start."""
    mean, total, result = 0.0, 0.0, []
    for x, y in points:
        mean, total = weight * mean + (1 - weight) * y, weight * total + (1 - weight)
        result.append((x, mean / total))
    return result


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers, about `count` of them, that cover low to high."""
    scale = max(abs(low), abs(high))
    if high - low <= max(1e-12 * scale, 1e-280):  # as good as one value
        around = 0.5 * (scale if scale > 1e-200 else 1)
        low, high = low - around, high + around
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    digits = max(12, 2 - math.floor(math.log10(step)))
    return [round(number * step, digits) for number in range(first, last + 1)]


def powers(low: float, high: float) -> list[float]:
    """Decimal logarithms of round numbers that cover low to high: 1, 2 and 5 times the powers of ten, or these alone."""
    factors = (1, 2, 5) if high - low <= 2.5 else (1,)
    logs = [math.log10(f) + power for power in range(math.floor(low), math.ceil(high) + 2) for f in factors]
    below, above = max(one for one in logs if one <= low + 1e-9), min(one for one in logs if one >= high - 1e-9)
    return [one for one in logs if below <= one <= max(above, logs[logs.index(below) + 1])]


Frame = tuple[float, float, float, float]


def _axes(x_ticks: Sequence[float], y_ticks: Mapping[float, float], frame: Frame, x_label: str) -> list[str]:
    """Lines and numbers; `y_ticks` are places with what is written there."""
    parts = []
    for tick, value in y_ticks.items():
        _, y = _place(frame[0], tick, frame)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity=".15"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for tick in x_ticks:
        x, _ = _place(tick, frame[2], frame)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 24}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    return parts


def _moments(marks: Marks, frame: Frame, row: int) -> str:
    """One path, short ones in their row; marks on the same pixel are drawn once."""
    base = HEIGHT - BOTTOM
    start, length, look = base + 1 + TICK * row, TICK - 1, 'stroke-width="3"'
    if marks.tall:
        start, length, look = TOP, base - TOP, 'stroke-dasharray="3 3"'
    pixels = dict.fromkeys(f"{_place(x, frame[2], frame)[0]:.1f}" for x in marks.at)
    path = " ".join(f"M{x},{start}v{length}" for x in pixels)
    return f'<path d="{path}" stroke="{marks.colour}" fill="none" {look}><title>{escape(marks.name)}</title></path>'


def _line(points: Points, frame: Frame, colour: str, *, faint: bool = False) -> str:
    pixels = [_place(*point, frame) for point in points]
    if len(pixels) == 1:  # a line of one point is not drawn
        x, y = pixels[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    look = 'stroke-width="1" opacity=".3"' if faint else 'stroke-width="2"'
    return f'<polyline points="{path}" fill="none" stroke="{colour}" {look}/>'


def _place(x: float, y: float, frame: Frame) -> tuple[float, float]:
    """Pixels of a point of the chart."""
    left, right, bottom, top = frame
    across = (x - left) / ((right - left) or 1)
    up = (y - bottom) / ((top - bottom) or 1)
    return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
