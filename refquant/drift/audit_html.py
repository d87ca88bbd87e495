"""The audit as one page of HTML that needs no other file and no network."""

from html import escape

from refquant.drift.audit_text import sentences, share
from refquant.drift.charts import decibels
from refquant.drift.page_frame import page_frame, sortable_table
from refquant.drift.svg import rect, svg, text
from refquant.drift.text import shortened
from refquant.drift.verdict import percent

__all__ = ["audit_page", "channel_map"]

_NAME, _WIDE, _ROW = 230, 820, 22


def audit_page(report):
    """Return the page of an `AuditReport`."""
    title = f"{report.model} on {report.level}"
    body = [_header(report), _verdict(report), _networks(report), _map(report), _layers(report)]
    return page_frame(title, body)


def _header(report):
    own, n = report.networks[0], report.images
    cards = [] if own.right is None else [("right with VNNI", percent(own.right, n), ""), (f"right on {report.level}", percent(own.right_there, n), "bad" if own.right_there < own.right else "")]
    if own.changed is not None:
        cards.append((f"of {n:,} predictions changed", f"{own.changed:,}", "bad" if own.changed else ""))
    cards.append(("of all accumulators saturate", share(own.saturated, max(own.accumulators, 1)), "bad" if own.saturated else ""))
    shown = "".join(f'<div class="card {kind}"><b>{value}</b><span class="soft">{escape(name)}</span></div>' for name, value, kind in cards)
    what = f"{report.numerics}, on {report.level} instead of AVX512-VNNI; {n:,} images, layers on {report.layer_images} of them"
    return f'<header><h1>{escape(report.model)}</h1><div class="soft">{escape(what)}</div></header>\n<div class="cards">{shown}</div>'


def _verdict(report):
    return '<section class="verdict">' + "".join(f"<p>{escape(s)}</p>" for s in sentences(report)) + "</section>"


def _networks(report):
    rows = []
    for n in report.networks:
        right = "".join(f"<td>{'–' if v is None else percent(v, report.images)}</td>" for v in (n.right, n.right_there))
        quality = "".join(f"<td>{'–' if v is None else decibels(v)}</td>" for v in (n.sqnr, n.sqnr_there))
        changed = "–" if n.changed is None else f"{n.changed:,}"
        rows.append(f"<tr><td>{escape(n.name)}</td>{right}<td>{changed}</td><td>{share(n.saturated, max(n.accumulators, 1))}</td>{quality}</tr>")
    names = ["quantized", "right with VNNI", f"right on {report.level}", "predictions changed", "saturating", "output with VNNI", f"output on {report.level}"]
    return "<h2>Other choices</h2>" + sortable_table(names, rows)


def channel_map(report):
    """Return a picture: a row a layer, a cell a channel, the redder the more of its accumulators saturate; grey cells could, on other data."""
    layers = [layer for layer in report.layers if layer.weights]
    height, parts = 8 + _ROW * len(layers), []
    for k, layer in enumerate(layers):
        y, pitch = 4 + k * _ROW, _WIDE / layer.channels
        parts.append(text(_NAME - 8, y + 14, shortened(layer.name, 32), "name", "end"))
        parts.append(rect(_NAME, y + 3, _WIDE, _ROW - 7, "band", f"{layer.name}: {layer.at_risk} of {layer.channels} channels could saturate"))
        each = layer.outputs / layer.channels
        for channel, count in layer.by_channel.items():
            kind = "poor" if count / each >= 1e-3 else "fair"
            parts.append(rect(_NAME + channel * pitch, y + 3, max(pitch, 1.5), _ROW - 7, kind, f"{layer.name}, channel {channel}: {count:,} of {each:,.0f} accumulators saturate"))
    return svg(_NAME + _WIDE + 10, height, parts, "saturating channels, layer by layer")


def _map(report):
    note = "A row a layer, a cell a channel: yellow where an accumulator saturated on these images, red from one in a thousand on."
    return f'<h2>Which channels saturate</h2><p class="soft">{note}</p><div class="scroll">{channel_map(report)}</div>'


def _layers(report):
    rows = []
    for r in report.layers:
        ties = -1 if r.ties is None else r.ties
        cells = [(r.outputs, f"{r.outputs:,}"), (r.at_risk / r.channels, f"{r.at_risk} of {r.channels}" if r.weights else "–")]
        cells += [(r.saturated / r.outputs, share(r.saturated, r.outputs)), (r.images, str(r.images)), (r.codes, f"{r.codes:,}"), (r.most, str(r.most)), (r.mean, f"{r.mean:.1f}")]
        cells += [(ties, "–" if r.ties is None else f"{r.ties:,}"), (r.undecided, f"{r.undecided:,}")]
        shown = "".join(f'<td data-value="{value:.9g}">{label}</td>' for value, label in cells)
        rows.append(f"<tr><td>{escape(r.name)}</td><td>{escape(r.label)}</td>{shown}</tr>")
    names = ["layer", "operation", "outputs", "channels that could", "saturating", "images", "codes changed", "max LSB", "mean", "on a tie", "engines disagree"]
    return "<h2>All numbers</h2>" + sortable_table(names, rows)
