"""The report as a picture by matplotlib, which is imported when a function is called."""

import io
from pathlib import Path

from refquant.core.files import write_whole
from refquant.drift.charts import CAUSE_KINDS
from refquant.drift.text import folded, shortened
from refquant.drift.verdict import percent
from refquant.errors import choose

__all__ = ["figure", "save"]

_COLOURS = {"weights": "#35618f", "inputs": "#4f9d94", "rounding": "#d9b23f", "clipping": "#b4432f", "engine": "#7d5fa8"}
_FULL = 60.0
_FORMATS = ("png", "svg", "pdf")


def figure(report):
    """Draw SQNR and causes of all layers side by side.

    Returns
    -------
    matplotlib.figure.Figure
        Not bound to a display.
    """
    from matplotlib.figure import Figure

    layers = report.layers
    drawn = Figure(figsize=(12, 1.6 + 0.27 * len(layers)), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True)
    _draw_sqnr(left, layers)
    _draw_causes(right, layers)
    left.set_yticks(range(len(layers)), [shortened(r.name, 32) for r in layers])
    left.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e3e5e8", linewidth=0.8)
        axes.set_axisbelow(True)
    drawn.suptitle(_title(report), x=0.01, ha="left", fontsize=12, fontweight="bold")
    return drawn


def _title(report):
    a = report.accuracy
    score = "" if a.fp32 is None else f": FP32 {percent(a.fp32, a.images)}, INT8 {percent(a.int8, a.images)}"
    return f"{report.model}{score} ({report.settings})"


def _draw_sqnr(axes, layers):
    def shown(values):
        return [min(max(v, 0.0), _FULL) for v in values]

    rows = range(len(layers))
    axes.barh([k - 0.19 for k in rows], shown(r.local.sqnr for r in layers), 0.36, color="#46525e", label="alone")
    axes.barh([k + 0.19 for k in rows], shown(r.cumulative.sqnr for r in layers), 0.36, color="#aeb8c2", label="cumulated")
    axes.plot(shown(r.impact for r in layers), list(rows), "o", color="#b4432f", markersize=6, markeredgecolor="white", label="at the output")
    axes.set_xlim(0, _FULL * 1.02)
    axes.set_xticks(range(0, int(_FULL) + 1, 10), [*map(str, range(0, int(_FULL), 10)), f"≥ {_FULL:.0f}"])
    axes.set_xlabel("SQNR in dB, more is better")
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _draw_causes(axes, layers):
    start = [0.0] * len(layers)
    shares = [folded(r.causes) for r in layers]
    totals = [sum(max(v, 0.0) for v in s.values()) or 1.0 for s in shares]
    for kind in CAUSE_KINDS:
        widths = [100 * max(s[kind], 0.0) / total for s, total in zip(shares, totals)]
        axes.barh(range(len(layers)), widths, 0.74, left=start, color=_COLOURS[kind], label=kind)
        start = [a + b for a, b in zip(start, widths)]
    axes.set_xlim(0, 100)
    axes.set_xlabel("causes of the layer's own error, %")
    axes.legend(frameon=False, ncols=5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, columnspacing=1.2, handlelength=1)


def save(drawn, path):
    """Write a figure in the format that the file's name ends in, whole or not at all.

    Raises
    ------
    ArgumentError
        Another ending than png, svg, pdf.
    """
    kind = check_format(path)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=kind, dpi=150)
    write_whole(path, buffer.getvalue())


def check_format(path):
    """Return the format of a picture's file name."""
    return choose(f"plot to {path}", "format", Path(path).suffix.lower().lstrip("."), _FORMATS)
