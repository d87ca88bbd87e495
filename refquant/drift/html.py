"""The report as one page of HTML that needs no other file and no network."""

from html import escape

from refquant.drift.charts import CAUSE_KINDS, channel_chart, decibels, layer_chart, value_chart
from refquant.drift.page_frame import page_frame, sortable_table
from refquant.drift.verdict import percent, points

__all__ = ["page"]

_SHOWN = 3
_LEGEND = {"weights": "weight grid", "inputs": "input grid", "rounding": "output rounding", "clipping": "clipping", "engine": "engine arithmetic"}


def page(report):
    """Return the page.

    Parameters
    ----------
    report : Report

    Returns
    -------
    str
    """
    title = f"{report.model}: FP32 against INT8"
    body = [_header(report), _verdict(report), _steps(report), _chart(report), _table(report), _details(report)]
    return page_frame(title, body)


def _header(report):
    a = report.accuracy
    cards = []
    if a.fp32 is not None:
        cards += [("FP32 accuracy", percent(a.fp32, a.images), ""), ("INT8 accuracy", percent(a.int8, a.images), "bad" if a.drop >= 0.5 else "")]
        cards.append(("points of difference", points(-a.drop), "bad" if a.drop >= 0.5 else ""))
    if a.changed is not None:
        detail = f" ({a.broken} broken, {a.repaired} repaired)" if a.broken is not None else ""
        cards.append((f"of {a.images:,} predictions changed{detail}", f"{a.changed:,}", ""))
    shown = "".join(f'<div class="card {kind}"><b>{value}</b><span class="soft">{escape(name)}</span></div>' for name, value, kind in cards)
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in report.notes)
    return f'<header><h1>{escape(report.model)}</h1><div class="soft">{escape(report.settings)}</div></header>\n<div class="cards">{shown}</div>{notes}'


def _verdict(report):
    return '<section class="verdict">' + "".join(f"<p>{escape(s)}</p>" for s in report.verdict.sentences) + "</section>"


def _steps(report):
    out = ["<h2>From float to INT8</h2>"]
    out.append(
        '<p class="soft">The same network with only its weights on their grids, only its activations, both in exact arithmetic, and as the '
        "engine computes it. The bar is the SQNR of the network's output.</p>"
    )
    out.append(_step_table(report, report.steps, "network"))
    if report.alternatives:
        out.append('<h2>Other choices</h2><p class="soft">The whole network converted again with one thing changed.</p>')
        out.append(_step_table(report, report.alternatives, "changed"))
    return "\n".join(out)


def _step_table(report, steps, heading):
    a = report.accuracy
    rows = []
    for s in steps:
        right = "<td>–</td>" if s.correct is None else f"<td>{percent(s.correct, a.images)}</td>"
        changed = "–" if s.changed is None else f"{s.changed:,}"
        bar = f'<span class="bar" style="width:{min(max(s.sqnr, 0.5), 60.0) / 0.6:.1f}%"></span>'
        rows.append(f'<tr><td>{escape(s.name)}</td>{right}<td>{changed}</td><td>{decibels(s.sqnr)}</td><td class="bars">{bar}</td></tr>')
    head = f"<tr><th>{heading}</th><th>right</th><th>predictions changed</th><th>output</th><th></th></tr>"
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _legend(items):
    shown = (f'<span><i class="{shape}" style="background:var(--{var})"></i>{escape(name)}</span>' for var, name, shape in items)
    return f'<div class="legend">{"".join(shown)}</div>'


def _chart(report):
    text = (
        f"Measured on {report.layer_images} images. <b>Alone</b>: this layer quantized and fed with the float network's values, so the error is its own. "
        "<b>Cumulated</b>: the quantized network's value, so the error is also inherited. <b>At the output</b>: what the network's "
        "output keeps when nothing is quantized but this layer's own weights and output grid; the further left, the more this layer harms."
    )
    bars = _legend([("local", "alone", ""), ("cumulative", "cumulated", ""), ("impact", "at the output", "round")])
    causes = _legend([(kind, _LEGEND[kind], "") for kind in CAUSE_KINDS])
    return f'<h2>Layer by layer</h2><p class="soft">{text}</p>{bars}{causes}<div class="scroll">{layer_chart(report.layers)}</div>'


def _cell(value, shown, kind=""):
    return f'<td data-value="{_sortable(value)}"{kind}>{shown}</td>'


def _sortable(value):
    return "1e99" if value == float("inf") else "-1e99" if value in (None, float("-inf")) else f"{value:.9g}"


def _table(report):
    names = ["layer", "operation", "alone", "cumul.", "output", "max LSB", "mean", "saturated", "codes", "worst channel", "main cause"]
    sensitive = report.layers[0].only is not None
    names += ["only it", "all but it"] if sensitive else []
    return (
        '<h2>All numbers</h2><p class="soft">SQNR in dB, errors in steps of the layer\'s grid; click a heading to sort. '
        "Codes: the share that occurs. Worst channel: of the weights.</p>"
        + sortable_table(names, (_row(report, r, sensitive) for r in report.layers))
    )


def _row(report, r, sensitive):
    worst = ' class="worst"' if r.name == report.verdict.layer else ""
    cells = [f"<td{worst}>{escape(r.name)}</td><td>{escape(r.op)}</td>"]
    cells += [_cell(v, _bare(v)) for v in (r.local.sqnr, r.cumulative.sqnr)] + [_cell(r.impact, _bare(r.impact), worst)]
    if r.grid is None:
        cells += [_cell(None, "–")] * 4
    else:
        cells += [_cell(v, f"{v:.2f}") for v in (r.local.max_lsb, r.local.mean_lsb)]
        cells += [_cell(r.saturated, _rare(r.saturated)), _cell(r.occupancy, f"{100 * r.occupancy:.0f} %")]
    w = r.weights
    cells.append(_cell(None, "–") if w is None else _cell(w.worst_sqnr, f"ch {w.worst}: {_bare(w.worst_sqnr)}"))
    cells.append(f"<td>{r.cause.replace('_', ' ')} {100 * r.causes[r.cause].share:.0f} %</td>")
    if sensitive:
        cells += [_cell(n, percent(n, report.accuracy.images)) for n in (r.only, r.without)]
    return f"<tr>{''.join(cells)}</tr>"


def _bare(value):
    return decibels(value).removesuffix(" dB")


def _rare(share):
    return "0" if not share else "&lt; 0.01 %" if share < 5e-5 else f"{100 * share:.2f} %"


def _details(report):
    order = sorted(report.layers, key=lambda r: r.impact)
    colours = _legend([("poor", "below 10 dB", ""), ("fair", "below 25 dB", ""), ("good", "25 dB and more", "")])
    text = (
        "The layers that harm most come first. Channel charts have a logarithmic axis; the dashed line is one step of the grid: "
        "a channel that ends near it keeps nothing. Histograms show the float network's values (logarithmic counts) and, shaded, "
        "the range of the calibrated codes; beyond it other codes of the dtype may still reach (yellow), or nothing does (red)."
    )
    shown, rest = "".join(map(_layer, order[:_SHOWN])), "".join(map(_layer, order[_SHOWN:]))
    more = f"<details><summary>{len(order) - _SHOWN} more layers</summary>{rest}</details>" if rest else ""
    return f'<h2>Weights and values</h2><p class="soft">{text}</p>{colours}{shown}{more}'


def _layer(r):
    panels = []
    if r.weights is not None:
        w = r.weights
        magnitudes = [max(abs(a), abs(b)) for a, b in zip(w.low, w.high)]
        steps = w.step if w.per_channel else w.step[:1]
        panels.append(("Greatest weight of each channel", channel_chart(magnitudes, steps, w.channel_sqnr, "weights by channel")))
    if len(r.values.channel_low) > 1:
        steps = () if r.grid is None else (r.grid.scale,)
        panels.append(("Greatest value of each channel", channel_chart(r.values.magnitudes, steps, None, "values by channel")))
    panels.append(("Values and grid", value_chart(r.values, r.grid)))
    figures = "".join(f"<figure><figcaption>{name}</figcaption>{chart}</figure>" for name, chart in panels if chart)
    grid = "" if r.grid is None else f"{r.grid.dtype}, codes {r.grid.qmin} … {r.grid.qmax}, one every {r.grid.scale:.4g}, zero at {r.grid.zero_point}"
    return (
        f'<div class="layer"><h3>{escape(r.name)}</h3><div class="soft">{escape(r.op)}; the output keeps {decibels(r.impact)}; {grid}</div>'
        f'<div class="panels">{figures}</div></div>'
    )
