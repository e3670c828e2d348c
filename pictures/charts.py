"""Charts of a page: curves as SVG, bars as HTML, in the page's own colours."""

import html
import math

from runtime.words import percent


def ticks(low, high, count=4):
    """Round numbers that cover low..high."""
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if span / (step * m) <= count)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def line_chart(title, rows, series, y_range=None, unit=""):
    """An SVG line chart that takes its colours from the page. Lines differ in dash as well as in colour.

    rows: dicts with "epoch"; series: [(key, label)]; points that are None or NaN are left out. y_range: (low, high) or None
    """
    width, height, left, right, top, bottom = 460, 270, 42, 12, 12, 40
    points = {
        key: [(row["epoch"], row[key]) for row in rows if row.get(key) is not None and not math.isnan(row[key])]
        for key, _ in series
    }
    values = [y for line in points.values() for _, y in line]
    if not values:
        return ""
    low, high = y_range or (min(0.0, min(values)), max(values))
    marks = ticks(low, high)
    low, high = marks[0], marks[-1]
    epochs = [row["epoch"] for row in rows]
    first, last = min(epochs), max(epochs)

    def x_of(epoch):
        return left + (width - left - right) * ((epoch - first) / max(last - first, 1))

    def y_of(value):
        return top + (height - top - bottom) * (1 - (value - low) / max(high - low, 1e-9))

    ends = "; ".join(f"{label} ends at {points[key][-1][1]:.2f}{unit}" for key, label in series if points[key])
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(f"{title}: {ends}.")}">']
    for mark in marks:
        y = y_of(mark)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 5:.1f}" text-anchor="end">{mark:g}</text>')
    step = max(1, math.ceil((last - first) / 8))
    for epoch in range(first, last + 1, step):
        parts.append(f'<text class="tick" x="{x_of(epoch):.1f}" y="{height - 18}" text-anchor="middle">{epoch}</text>')
    parts.append(f'<text class="tick" x="{(left + width - right) / 2}" y="{height - 1}" text-anchor="middle">epoch</text>')
    for number, (key, _) in enumerate(series):
        line = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points[key])
        parts.append(f'<polyline class="line line{number}" points="{line}"/>')
        if points[key]:
            x, y = points[key][-1]
            parts.append(f'<circle class="dot dot{number}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4"/>')
    parts.append("</svg>")
    key = "".join(
        f'<li><svg class="dash" viewBox="0 0 28 8" aria-hidden="true"><line class="line line{n}" x1="1" x2="27" y1="4" y2="4"/></svg>'
        f"{html.escape(label)}</li>"
        for n, (_, label) in enumerate(series)
    )
    return f'<figure class="chart"><h3>{html.escape(title)}</h3>{"".join(parts)}<ul class="key">{key}</ul></figure>'


def bar_row(words, share, css):
    value = 0 if share is None or math.isnan(share) else share
    return (
        f'<div class="bar"><span class="who">{html.escape(words)}</span>'
        f'<span class="rail"><span class="{css}" style="width:{100 * value:.1f}%"></span></span>'
        f'<span class="value">{percent(share)}</span></div>'
    )
