"""The page of a `PathsReport`: one file of HTML that needs no other and no network."""

from html import escape

from refquant.drift.page_style import SCRIPT, STYLE
from refquant.drift.paths_text import accuracy_rows, bridge_rows, parameters_text
from refquant.drift.svg import rect, svg, text

__all__ = ["paths_page", "quality_chart"]

_NAME, _WIDE, _BAR = 200, 760, 9
_COLOURS = ("cause-weights", "cause-rounding", "cause-inputs")


def paths_page(report):
    """Return the page."""
    main = [name for name in report.titles if any(name in row.seen for row in report.tensors)]
    title = f"{report.model}: {len(main)} ways to INT8"
    what = f"calibrated on {report.calibration} inputs, judged on {report.images:,}, tensors on {report.layer_images}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    body = [f'<header><h1>{escape(title)}</h1><div class="soft">{escape(what)}</div></header>']
    said = {**{n: report.titles[n] for n in main}, **{n: f"refuses: {why}" for n, why in report.refused.items()}}
    body += ["<ul>" + "".join(f"<li><b>{escape(n)}</b> {escape(what)}</li>" for n, what in said.items()) + "</ul>"]
    body += ["<h2>What it does to the output</h2>", _table(accuracy_rows(report))]
    legend = "".join(f'<span><svg width="12" height="12"><rect class="{c}" width="12" height="12"/></svg>{escape(n)}</span>' for n, c in zip(main, _COLOURS))
    body += ["<h2>How good each tensor is</h2>", f'<p class="soft">Decibels against float, the longer the better.</p><div class="legend">{legend}</div>']
    body += [f'<div class="scroll">{quality_chart(report, main)}</div>', "<h2>Who quantizes what</h2>", _tensors(report, main)]
    if report.bridges:
        body += ["<h2>One choice exchanged</h2>", '<p class="soft">Tensors with another path\'s parameters, to the bit.</p>', _table(bridge_rows(report))]
    start = f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body><main>\n'
    return start + "\n".join(body) + f"\n</main><script>{SCRIPT}</script></body></html>\n"


def quality_chart(report, main):
    """Return a picture: a group of bars a tensor, one bar a path."""
    most = max((v for row in report.tensors for v in row.sqnr.values() if v < 1e3), default=1.0)
    parts, y = [], 6
    for row in report.tensors:
        parts.append(text(_NAME - 8, y + 10, row.name[:28], "name", "end"))
        for name, colour in zip(main, _COLOURS):
            if name in row.sqnr:
                length = max(1.0, _WIDE * min(max(row.sqnr[name], 0.0), most) / most)
                parts.append(rect(_NAME, y, length, _BAR - 1, colour, f"{row.name}, {name}: {row.sqnr[name]:.1f} dB"))
            y += _BAR
        y += 6
    return svg(_NAME + _WIDE + 10, y, parts, "quality of each tensor on each path")


def _table(rows):
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _tensors(report, main):
    rows = [("tensor", *main, "why")]
    for row in report.tensors:
        cells = (f"{parameters_text(row.seen[n])} ({row.seen[n].by})" if n in row.seen else "–" for n in main)
        rows.append((row.name, *cells, "; ".join(row.why)))
    return _table(rows)

