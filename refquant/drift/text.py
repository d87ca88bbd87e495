"""The report as text for a terminal."""

import math
import textwrap

from refquant.drift.causes import CAUSES
from refquant.drift.verdict import percent, points

__all__ = ["text", "bar", "shortened"]

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SHADES = {"weights": "█", "inputs": "▓", "rounding": "▒", "clipping": "░", "engine": "·"}
_HARMLESS = 50.0  # dB at the output that leave no bar


def bar(share, width):
    """Return a bar of `width` columns, filled to an eighth of a column.

    Examples
    --------
    >>> bar(0.55, 5), bar(0, 2)
    ('██▊  ', '  ')
    """
    eighths = int(min(max(share, 0.0), 1.0) * width * 8 + 0.5)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def shortened(name, width):
    """Return a name of at most `width` characters, its middle left out.

    Examples
    --------
    >>> shortened("branches_right_depthwise_conv", 20)
    'branches_…hwise_conv'
    """
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}…{name[len(name) - (width - 1 - head):]}"


def text(report, width=100):
    """Return a report as text of at most `width` columns, 80 at least.

    Parameters
    ----------
    report : Report
    width : int
    """
    width = max(int(width), 80)
    blocks = [_head(report, width), _steps(report)]
    if report.alternatives:
        blocks.append(_alternatives(report))
    blocks += [_layers(report, width), _causes(report, width)]
    if report.layers[0].only is not None:
        blocks.append(_sensitivity(report, width))
    blocks.append(_verdict(report, width))
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks) + "\n"


def _head(report, width):
    a = report.accuracy
    lines = [shortened(report.model, width), *textwrap.wrap(report.settings, width)]
    rule = len(lines)
    if a.fp32 is not None:
        shares = f"FP32 {percent(a.fp32, a.images)}   INT8 {percent(a.int8, a.images)}"
        lines.append(f"accuracy      {shares}   {points(-a.drop)} points on {a.images:,} images")
    if a.changed is not None:
        detail = f": {a.broken:,} broken, {a.repaired:,} repaired" if a.fp32 is not None else ""
        lines.append(f"predictions   {a.changed:,} of {a.images:,} changed{detail}")
    for note in report.notes:
        lines += textwrap.wrap(f"note: {note}", width)
    return [*lines[:rule], "─" * min(width, max(map(len, lines))), *lines[rule:]]


def decibels(value):
    """Return dB in six columns."""
    return f"{value:6.1f}".replace("-", "−") if math.isfinite(value) else "     ∞" if value > 0 else "    −∞"


def _step_line(report, step):
    a = report.accuracy
    right = percent(step.correct, a.images) if step.correct is not None else "–"
    changed = f"{step.changed:,}" if step.changed is not None else "–"
    quality = min(max(step.sqnr, 0.0), _HARMLESS) / _HARMLESS
    return f"{shortened(step.name, 34):34} {right:>9} {changed:>9} {decibels(step.sqnr)} dB  {bar(quality, 16)}"


def _steps(report):
    heading = f"{'FROM FLOAT TO INT8':34} {'right':>9} {'changed':>9} {'output':>9}"
    first = report.accuracy.fp32
    lines = [heading] + ([f"{'FP32':34} {percent(first, report.accuracy.images):>9} {'–':>9}"] if first is not None else [])
    return lines + [_step_line(report, step) for step in report.steps]


def _alternatives(report):
    return [f"{'OTHER CHOICES, ONE AT A TIME':34} {'right':>9} {'changed':>9} {'output':>9}"] + [_step_line(report, step) for step in report.alternatives]


def _name_width(report, room):
    return max(12, min(room, max(len(r.name) for r in report.layers)))


def _layers(report, width):
    full = width >= 96
    w = _name_width(report, width - (68 if full else 52))
    heading = f"{'':{w}}  alone  cumul.  output  {'':8}    max   mean  satur. codes  worst weights"
    narrow = f"{'':{w}}  alone  cumul.  output    max  satur. codes  worst weights"
    lines = [f"LAYERS, on {report.layer_images} images; SQNR in dB, errors in steps (LSB) of the layer's grid", heading if full else narrow]
    lines += [_layer_line(r, w, full) for r in report.layers]
    notes = "alone: fed with the float network's values · output: of the network, nothing but this layer's own grids in it"
    return lines + textwrap.wrap(notes + (" · bar: the harm of that" if full else ""), width)


def _layer_line(r, w, full):
    quality = f"{decibels(r.local.sqnr)}  {decibels(r.cumulative.sqnr)}  {decibels(r.impact)}"
    harm = bar((_HARMLESS - min(max(r.impact, 0.0), _HARMLESS)) / _HARMLESS, 8)
    greatest, mean = (f"{r.local.max_lsb:6.1f}", f"{r.local.mean_lsb:6.2f}") if r.grid else ("     –", "     –")
    codes = f"{_share(r.saturated)} {100 * r.occupancy:4.0f}%" if r.grid else f"{'–':>7} {'–':>5}"
    worst = f"ch {r.weights.worst}: {decibels(r.weights.worst_sqnr).strip()}" if r.weights else ""
    steps = f"{harm} {greatest} {mean}" if full else greatest
    return f"{shortened(r.name, w):{w}} {quality}  {steps} {codes}  {worst}"


def _share(value):
    if 0 < value < 5e-5:
        return "<0.01%"
    return f"{100 * value:5.2f}%" if value else "    0%"


def _causes(report, width):
    room = width - 38 - 3
    w = _name_width(report, room - 12)
    bars = min(40, room - w)
    legend = "  ".join(f"{shade} {name}" for name, shade in _SHADES.items())
    heading = "CAUSES of each layer's own error"
    heading = [f"{heading}   {legend}"] if len(heading) + 3 + len(legend) <= width else [heading, legend]
    lines = [*heading, f"{'':{w}}  {'':{bars}} weights inputs round. clipp. engine"]
    for r in report.layers:
        shares = folded(r.causes)
        numbers = " ".join(f"{_percent(shares[name]):>{n}}" for name, n in zip(_SHADES, (7, 6, 6, 6, 6)))
        lines.append(f"{shortened(r.name, w):{w}}  {_stack(shares, bars)} {numbers}")
    return lines


def folded(causes):
    """Return shares with both kinds of clipping as one."""
    shares = {name: causes[name].share for name in CAUSES}
    clipping = shares["range_in"] + shares["range_out"]
    return {**{name: shares[name] for name in ("weights", "inputs", "rounding")}, "clipping": clipping, "engine": shares["engine"]}


def _percent(share):
    value = int(abs(100 * share) + 0.5)
    return f"{'−' if share < 0 and value else ''}{value}%"


def _stack(shares, width):
    """Return a stacked bar; negative shares take no room."""
    positive = {name: max(share, 0.0) for name, share in shares.items()}
    total = sum(positive.values())
    out, passed, drawn = "", 0.0, 0
    for name, share in positive.items():
        passed += share
        end = int(passed / total * width + 0.5) if total else 0
        out += _SHADES[name] * (end - drawn)
        drawn = end
    return out.ljust(width)


def _sensitivity(report, width):
    a = report.accuracy
    reference, int8 = (a.fp32, a.int8) if a.fp32 is not None else (a.images, a.images - a.changed)
    what = "right answers" if a.fp32 is not None else "answers as in FP32"
    w = _name_width(report, width - 46)
    lines = [f"ONE LAYER AT A TIME, {what}", f"{'':{w}}  {'only it in INT8':>18}  {'all but it in INT8':>20}"]
    for r in sorted(report.layers, key=lambda r: (-r.without, r.only)):
        only, without = (f"{percent(n, a.images)} {points(100 * (n - base) / a.images):>7}" for n, base in ((r.only, reference), (r.without, int8)))
        lines.append(f"{shortened(r.name, w):{w}}  {only:>18}  {without:>20}")
    return lines


def _verdict(report, width):
    lines = ["VERDICT"]
    for sentence in report.verdict.sentences:
        lines += textwrap.wrap(sentence, width - 2, initial_indent="• ", subsequent_indent="  ")
    return lines
