"""The ratios as a picture. Imports matplotlib when called."""

import textwrap
from typing import NamedTuple

from refquant.backends.bench.harness import geomean
from refquant.backends.bench.report import machine_line

__all__ = ["draw", "chart_rows"]

_FASTER, _SLOWER, _INK, _FAINT = "#1f7a8c", "#d1495b", "#22223b", "#8d99ae"
_NOTE = "Equal bits were proved first. Medians of interleaved turns; a dot is one case, the bar behind dots their geomean."
_TITLES = {
    "gemm": "Integer product, u8 x s8", "numpy": "Beside NumPy", "linear": "Linear layers", "conv": "Convolutions",
    "networks": "Whole networks", "elementwise": "Codes and floats", "observers": "Observers",
}  # fmt: skip


class Row(NamedTuple):
    """A bar of the chart: its label, its length, the single cases behind it."""

    label: str
    ratio: float
    cases: list


def chart_rows(row):
    """Return the rows of one work: a group each where it has groups, a case each otherwise."""
    timed = [r for r in row.results if r.ratio is not None]
    if not row.work.grouped:
        return [Row(r.name, r.ratio, []) for r in timed]
    groups = {}
    for r in timed:
        groups.setdefault(r.group, []).append(r.ratio)
    return [Row(f"{group} ({len(ratios)})", geomean(ratios), ratios) for group, ratios in groups.items()]


def draw(found, machine):
    """Draw how many times longer the best rival takes, one bar a case or group, one colour on each side of 1.

    Parameters
    ----------
    found : list of WorkResult
    machine : dict

    Returns
    -------
    matplotlib.figure.Figure or None
        None where nothing has a ratio.
    """
    from matplotlib.figure import Figure

    blocks = [(row.work.name, chart_rows(row)) for row in found if row.work.charted]
    blocks = [(name, rows) for name, rows in blocks if rows]
    if not blocks:
        return None
    places, y = [], 0.0
    for name, rows in blocks:
        places.append((name, y))
        y += 1.1
        for row in rows:
            places.append((row, y))
            y += 1
        y += 0.6
    figure = Figure(figsize=(9.5, 1.6 + 0.23 * y), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for item, at in places:
        if isinstance(item, Row):
            _bar(axes, item, at)
        else:
            axes.text(-0.01, at, _TITLES.get(item, item), transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold", color=_INK, size=9.5)
    _dress(axes, places, y)
    figure.suptitle("refquant beside the engines: how many times longer the best rival takes", x=0.01, ha="left", weight="bold", color=_INK, size=12.5)
    figure.supxlabel("\n".join(textwrap.wrap(machine_line(machine), 130) + [_NOTE]), x=0.01, ha="left", size=7.5, color=_FAINT)
    return figure


def _bar(axes, row, at):
    color = _FASTER if row.ratio >= 1 else _SLOWER
    axes.barh(at, row.ratio - 1, left=1, height=0.62, color=color, zorder=2)
    axes.scatter(row.cases, [at] * len(row.cases), s=9, color=_INK, alpha=0.4, linewidths=0, zorder=3)
    end = max([row.ratio, 1, *row.cases])
    axes.annotate(f"{row.ratio:.2f}x", (end, at), (5, 0), textcoords="offset points", va="center", size=8, color=_INK)


def _dress(axes, places, height):
    axes.set_xscale("log", base=2)
    rows = [(item, at) for item, at in places if isinstance(item, Row)]
    low = min(1.0, *(v for item, _ in rows for v in (item.ratio, *item.cases)))
    high = max(2.0, *(v for item, _ in rows for v in (item.ratio, *item.cases)))
    axes.set_xlim(min(low * 0.92, 0.7), high * 1.25)
    axes.set_ylim(height - 0.6, -0.8)
    ticks = [t for t in (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64) if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{t:g}x" for t in ticks], color=_FAINT, size=8)
    axes.set_xticks([], minor=True)
    axes.set_yticks([at for _, at in rows], [item.label for item, _ in rows], size=8.5, color=_INK)
    axes.grid(axis="x", color="#e5e7eb", zorder=0)
    axes.axvline(1, color=_INK, linewidth=1.2, zorder=4)
    axes.annotate("as fast as the best rival", (1, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center", size=8, color=_INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
