"""The page of a `PathsReport`: one file of HTML that needs no other and no network."""

from html import escape

from refquant.drift.page_frame import page_frame, sortable_table
from refquant.drift.paths_text import accuracy_rows, bridge_rows, parameters_text
from refquant.drift.svg import line, nice_ticks, rect, svg, text
from refquant.drift.text import shortened

__all__ = ["paths_page", "quality_chart"]

_NAME, _WIDE, _BAR, _TOP, _MOST = 230, 740, 9, 18, 60
_OUTPUT = "dB: the output's SQNR, float being the signal. Changed: predictions that are not the float network's. Right: predictions that are the labels."
_TENSORS = "dtype/number of codes, scale, zero point z, and who quantizes: the kernel that computes the tensor, or a node of its own."
_COLOURS = ("cause-weights", "cause-rounding", "cause-inputs")


def paths_page(report):
    """Return the page."""
    main = [name for name in report.titles if any(name in row.seen for row in report.tensors)]
    title = f"{report.model}: {len(main)} ways to INT8"
    what = f"calibrated on {report.calibration} inputs, judged on {report.images:,}, tensors on {report.layer_images}"
    body = [f'<header><h1>{escape(title)}</h1><div class="soft">{escape(what)}</div></header>']
    said = {**{n: report.titles[n] for n in main}, **{n: f"refuses: {why}" for n, why in report.refused.items()}}
    body += ["<ul>" + "".join(f"<li><b>{escape(n)}</b> {escape(what)}</li>" for n, what in said.items()) + "</ul>"]
    body += ["<h2>What it does to the output</h2>", f'<p class="soft">{_OUTPUT}</p>', _table(accuracy_rows(report))]
    legend = "".join(f'<span><svg width="12" height="12"><rect class="{c}" width="12" height="12"/></svg>{escape(n)}</span>' for n, c in zip(main, _COLOURS))
    body += ["<h2>How good each tensor is</h2>", f'<p class="soft">Beside the values of the float network. A path that leaves a tensor in float has no bar.</p><div class="legend">{legend}</div>']
    body += [f'<div class="scroll">{quality_chart(report, main)}</div>', "<h2>Who quantizes what</h2>", f'<p class="soft">{_TENSORS}</p>', _tensors(report, main)]
    if report.bridges:
        body += ["<h2>One choice exchanged</h2>", '<p class="soft">Tensors with another path\'s parameters, to the bit.</p>', _table(bridge_rows(report))]
    return page_frame(title, body)


def quality_chart(report, main):
    """Return a picture: a group of bars a tensor, one bar a path; what is better than `_MOST` decibels ends there."""
    parts, y = [], _TOP + 4
    for row in report.tensors:
        parts.append(text(_NAME - 8, y + (_BAR * len(main)) / 2 + 3, shortened(row.name, 32), "name", "end"))
        for name, colour in zip(main, _COLOURS):
            if name in row.sqnr:
                length = max(1.0, _WIDE * min(max(row.sqnr[name], 0.0), _MOST) / _MOST)
                parts.append(rect(_NAME, y, length, _BAR - 1, colour, f"{row.name}, {name}: {row.sqnr[name]:.1f} dB"))
            y += _BAR
        y += 6
    axis = [text(_NAME, 12, "SQNR in dB, more is better", "heading")]
    for tick in nice_ticks(0, _MOST, 6):
        x = _NAME + _WIDE * tick / _MOST
        axis += [line(x, _TOP, x, y, "grid"), text(x, y + 14, f"{tick:.0f}" if tick < _MOST else f"≥ {tick:.0f}", "tick", "middle")]
    return svg(_NAME + _WIDE + 20, y + 20, axis + parts, "SQNR of each tensor in dB, a bar for each path")


def _table(rows, kind=""):
    return sortable_table(rows[0], ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]), kind)


def _tensors(report, main):
    rows = [("tensor", *main, "why")]
    for row in report.tensors:
        cells = (f"{parameters_text(row.seen[n]).replace('z-', 'z−')} ({row.seen[n].by})" if n in row.seen else "–" for n in main)
        rows.append((row.name, *cells, "; ".join(row.why)))
    return _table(rows, "words")

