"""The pictures of the page, one function each."""

import math

from refquant.drift.svg import dot, line, nice_ticks, rect, svg, text
from refquant.drift.text import folded, shortened

__all__ = ["CAUSE_KINDS", "layer_chart", "channel_chart", "value_chart", "decibels"]

CAUSE_KINDS = ("weights", "inputs", "rounding", "clipping", "engine")
_ROW, _NAME, _BARS, _GAP, _SHARES = 26, 210, 360, 44, 360
_TOP, _FULL = 26, 60.0


def decibels(value):
    """Return dB as text."""
    if math.isfinite(value):
        return f"{value:.1f} dB".replace("-", "−")
    return "exact" if value > 0 else "no signal"


def layer_chart(layers):
    """Return the chart of all layers: SQNR alone and cumulated, the harm at the output, and the causes as stacked bars."""
    width, height = _NAME + _BARS + _GAP + _SHARES + 20, _TOP + _ROW * len(layers) + 24
    bottom = height - 20
    parts = [text(_NAME, 14, "SQNR in dB, more is better", "heading"), text(_NAME + _BARS + _GAP, 14, "Causes of the layer's own error", "heading")]
    for tick in nice_ticks(0, _FULL, 6):
        x = _NAME + _BARS * tick / _FULL
        parts += [line(x, _TOP, x, bottom, "grid"), text(x, height - 5, f"{tick:.0f}" if tick < _FULL else f"≥ {tick:.0f}", "tick", "middle")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = _NAME + _BARS + _GAP + _SHARES * share
        parts += [line(x, _TOP, x, bottom, "grid"), text(x, height - 5, f"{100 * share:.0f} %", "tick", "middle")]
    for k, record in enumerate(layers):
        parts += _layer_row(record, _TOP + k * _ROW)
    return svg(width, height, parts, "SQNR and causes of error, layer by layer")


def _layer_row(r, y):
    def length(value):
        return _BARS * min(max(value, 0.0), _FULL) / _FULL

    parts = [text(_NAME - 8, y + 17, shortened(r.name, 30), "name", "end")]
    parts.append(rect(_NAME, y + 4, max(length(r.local.sqnr), 1), 8, "local", f"{r.name}: alone {decibels(r.local.sqnr)}", 1.5))
    parts.append(rect(_NAME, y + 13, max(length(r.cumulative.sqnr), 1), 8, "cumulative", f"{r.name}: cumulated {decibels(r.cumulative.sqnr)}", 1.5))
    title = f"{r.name}: the network's output keeps {decibels(r.impact)} with nothing but this layer's own grids"
    parts.append(dot(_NAME + length(r.impact), y + 12.5, 4.5, "impact", title))
    return parts + _stack(r, _NAME + _BARS + _GAP, y + 4)


def _stack(r, x, y):
    shares = folded(r.causes)
    total = sum(max(share, 0.0) for share in shares.values()) or 1.0
    parts = []
    for kind in CAUSE_KINDS:
        width = _SHARES * max(shares[kind], 0.0) / total
        parts.append(rect(x, y, width, 17, f"cause-{kind}", f"{r.name}: {kind} {100 * shares[kind]:.1f} %"))
        x += width
    return parts


def channel_chart(magnitudes, steps, quality, what):
    """Return a chart of the greatest magnitude of each channel beside one step of its grid, on a logarithmic axis.

    Parameters
    ----------
    magnitudes, steps : sequence of float
        A channel each; one step for all, or none.
    quality : sequence of float or None
        dB of each channel, which colours it.
    what : str
    """
    width, height, left, bottom, top = 330, 150, 44, 128, 10
    seen = [v for v in (*magnitudes, *steps) if v > 0]
    if not seen:
        return ""
    low, high = math.floor(math.log10(min(seen)) - 0.2), math.ceil(math.log10(max(seen)) + 0.05)

    def at(value):
        return bottom - (bottom - top) * (math.log10(max(value, 10.0**low)) - low) / (high - low)

    parts = []
    for power in range(low, high + 1, max(1, (high - low) // 4)):
        y = at(10.0**power)
        parts += [line(left, y, width - 4, y, "grid"), text(left - 5, y + 3.5, f"{10.0**power:g}", "tick", "end")]
    pitch = (width - 4 - left) / len(magnitudes)
    for k, value in enumerate(magnitudes):
        step = steps[k if len(steps) > 1 else 0] if steps else 0
        spans = f", {value / step:.1f} steps" if step else ""
        db = f", {decibels(quality[k])}" if quality else ""
        kind = _kind(quality[k] if quality else 20 * math.log10(max(value / step, 1e-9)) if step else math.inf)
        x = left + k * pitch
        parts.append(rect(x + 0.1 * pitch, at(value), 0.8 * pitch, bottom - at(value), kind, f"channel {k}: {value:.3g}{spans}{db}"))
        if len(steps) > 1 and step:
            parts.append(line(x, at(step), x + pitch, at(step), "step"))
    if len(steps) == 1 and steps[0]:
        parts.append(line(left, at(steps[0]), width - 4, at(steps[0]), "step", f"one step of the grid: {steps[0]:.3g}"))
    parts.append(text((left + width) / 2, height - 6, f"channels 0 … {len(magnitudes) - 1}", "tick", "middle"))
    return svg(width, height, parts, what)


def _kind(db):
    return "poor" if db < 10 else "fair" if db < 25 else "good"


def _reached(value, band, grid):
    """Whether calibrated codes say a value, or other codes of the dtype, or none."""
    if band[0] - grid.scale <= value <= band[1] + grid.scale:
        return "values"
    return "fair" if grid.low - grid.scale <= value <= grid.high + grid.scale else "outside"


def value_chart(values, grid):
    """Return the histogram of a layer's float values over the range that its codes were calibrated for."""
    width, height, left, bottom, top = 330, 150, 44, 128, 10
    low, high, band = values.low, values.high, None
    if grid is not None:
        band = [grid.scale * (code - grid.zero_point) for code in (grid.qmin, grid.qmax)]
        low, high = min(low, band[0]), max(high, band[1])
    room = (high - low) * 0.02 or 1.0
    low, high = low - room, high + room

    def at(value):
        return left + (width - 4 - left) * (value - low) / (high - low)

    parts = []
    if band:
        title = f"the grid: {grid.qmax - grid.qmin + 1} codes over [{band[0]:.3g}, {band[1]:.3g}]"
        parts.append(rect(at(band[0]), top, at(band[1]) - at(band[0]), bottom - top, "band", title))
        parts += [line(at(v), top, at(v), bottom, "edge") for v in band]
    size, peak = (values.high - values.low) / len(values.counts), math.log10(1 + max(values.counts))
    for k, count in enumerate(values.counts):
        start = values.low + k * size
        tall = (bottom - top) * math.log10(1 + count) / peak if peak else 0
        kind = "values" if band is None else _reached(start + size / 2, band, grid)
        title = f"[{start:.3g}, {start + size:.3g}]: {count:,}"
        parts.append(rect(at(start), bottom - tall, max(at(start + size) - at(start) - 0.4, 0.6), tall, kind, title))
    parts += [text(at(v), height - 6, f"{v:g}".replace("-", "−"), "tick", "middle") for v in nice_ticks(low, high, 6)]
    power = 0
    while power <= peak:
        y = bottom - (bottom - top) * power / peak if peak else bottom
        parts.append(text(left - 5, y + 3.5, f"{10**power:,}" if power < 5 else f"1e{power}", "tick", "end"))
        power += 2 if peak > 4 else 1
    return svg(width, height, parts, "histogram of values with the range of the grid")
