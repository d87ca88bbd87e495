"""The audit as text for a terminal, and its sentences."""

import textwrap

from refquant.drift.charts import decibels
from refquant.drift.text import bar, shortened
from refquant.drift.verdict import percent

__all__ = ["audit_text", "sentences", "share"]

_WORST_CHANNELS = 4


def share(count, of):
    """Return a share as text; a small one by its order of magnitude.

    Examples
    --------
    >>> share(0, 10), share(5, 10), share(3, 1_000_000)
    ('0', '50.00 %', '3 in 1e6')
    """
    if not count:
        return "0"
    if count / of >= 1e-4:
        return f"{100 * count / of:.2f} %"
    return f"{1e6 * count / of:.0f} in 1e6" if count / of >= 5e-7 else f"{1e9 * count / of:.0f} in 1e9"


def sentences(report):
    """Return what an audit comes to, in sentences."""
    own = report.networks[0]
    hit = [layer for layer in report.layers if layer.saturated]
    out = [_saturation(report, own, hit), _answers(report, own)]
    out += [_choice(report, other) for other in report.networks[1:]]
    if not hit and own.outputs:
        images = "" if report.images == report.layer_images else ", or something saturates on other images"
        out.append(f"{own.outputs:,} numbers of the output differ all the same: on {report.level} the engine takes kernels that round otherwise{images}.")
    undecided, outputs = (sum(getattr(layer, k) for layer in report.layers) for k in ("undecided", "outputs"))
    known = [layer for layer in report.layers if layer.ties is not None]
    if known:
        ties, of = sum(layer.ties for layer in known), sum(layer.outputs for layer in known)
        out.append(f"{ties:,} of {of:,} outputs of layers lie on a rounding tie, or within an ulp of one.")
    out.append(f"On {undecided:,} of {outputs:,} outputs engines disagree, by their order of operations or because some round a bias to int32.")
    out += [f"{name} was left out: {why}." for name, why in report.skipped.items()]
    return out


def _saturation(report, own, hit):
    layers = [layer for layer in report.layers if layer.weights]
    risky = [layer for layer in layers if layer.at_risk]
    if not risky:
        return f"Nothing can saturate on {report.level}, whatever the data: its products are exact there, or no two neighbouring weights leave int16 with any codes."
    if not hit:
        return (
            f"Nothing saturates on {report.level} on these {report.layer_images} images, though in {len(risky)} of {len(layers)} layers with weights"
            " other codes could."
        )
    worst = max(hit, key=lambda layer: layer.saturated / layer.outputs)
    return (
        f"{own.saturated:,} of {own.accumulators:,} accumulators saturate on {report.level}, in {len(hit)} of {len(layers)} layers with weights; most of all in"
        f" {worst.name}: {share(worst.saturated, worst.outputs)}, in {worst.images} of {report.layer_images} images, up to {max(layer.most for layer in hit)} steps off."
    )


def _answers(report, own):
    if own.changed is None:
        return f"The network's output changes in {own.outputs:,} of {report.output_size:,} numbers."
    if not own.changed:
        return f"No prediction changes, of {report.images:,} images; {own.outputs:,} of {report.output_size:,} numbers of the output do."
    right = "" if own.right is None else f", and right answers go from {percent(own.right, report.images)} to {percent(own.right_there, report.images)}"
    return f"{own.changed} of {report.images:,} predictions change{right}."


def _choice(report, other):
    rate = "nothing saturates" if not other.saturated else f"{other.saturated:,} accumulators saturate"
    changed = {None: "", 0: ", no prediction changes for lack of VNNI", 1: ", one prediction changes for lack of VNNI"}.get(
        other.changed, f", {other.changed} predictions change for lack of VNNI"
    )
    right = "" if other.right_there is None else f"; {percent(other.right_there, report.images)} are right there"
    return f"With {other.name} {rate}{changed}{right}."


def audit_text(report, width=100):
    """Return the report as text of at most `width` columns, 80 at least."""
    width = max(int(width), 80)
    head = [f"{report.model}, {report.numerics}, on {report.level} instead of AVX512-VNNI", f"{report.images:,} images, layers on {report.layer_images} of them"]
    blocks = [head, _networks(report), _layers(report, width), _ties(report, width), _verdict(report, width)]
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks) + "\n"


def _networks(report):
    lines = [f"{'':38} {'VNNI':>9} {report.level:>9} {'changed':>8} {'saturating':>13} {'output there':>13}"]
    if report.float_right is not None:
        lines.append(f"{'float32':38} {percent(report.float_right, report.images):>9}")
    for n in report.networks:
        right, there = ("–" if v is None else percent(v, report.images) for v in (n.right, n.right_there))
        lines.append(
            f"{shortened(n.name, 38):38} {right:>9} {there:>9} {'–' if n.changed is None else n.changed:>8} {share(n.saturated, max(n.accumulators, 1)):>13}"
            f" {'–' if n.sqnr_there is None else decibels(n.sqnr_there):>13}"
        )
    return lines


def _layers(report, width):
    layers = [layer for layer in report.layers if layer.weights]
    w = max(12, min(width - 66, max((len(layer.name) for layer in layers), default=12)))
    most = max((layer.saturated / layer.outputs for layer in layers), default=0) or 1
    lines = ["SATURATION, layer by layer", f"{'':{w}}  channels        accumulators           codes       LSB   images  worst channels"]
    lines.append(f"{'':{w}}  could   do      saturate               changed     max")
    for layer in layers:
        if layer.name in report.skipped:
            lines.append(f"{shortened(layer.name, w):{w}}  not known")
            continue
        rate, top = layer.saturated / layer.outputs, sorted(layer.by_channel, key=layer.by_channel.get, reverse=True)[:_WORST_CHANNELS]
        lines.append(
            f"{shortened(layer.name, w):{w}}  {layer.at_risk:4}/{layer.channels:<4}{len(layer.by_channel):4}  {share(layer.saturated, layer.outputs):>10} {bar(rate / most, 8)}"
            f"  {share(layer.codes, layer.outputs):>10}  {layer.most or '':>4}  {layer.images or '':>4}     {' '.join(map(str, top))}"
        )
    note = "could: channels with two neighbouring weights that leave int16 with some codes; do: those that did on these data"
    return lines + textwrap.wrap(note, width)


def _ties(report, width):
    w = max(12, min(width - 50, max(len(layer.name) for layer in report.layers)))
    lines = ["TIES, layer by layer", f"{'':{w}}  {'outputs':>12}  {'on a tie':>10}  {'engines disagree':>18}"]
    for layer in report.layers:
        ties = "–" if layer.ties is None else f"{layer.ties:,}"
        lines.append(f"{shortened(layer.name, w):{w}}  {layer.outputs:>12,}  {ties:>10}  {layer.undecided:>7,} {share(layer.undecided, layer.outputs):>10}")
    return lines


def _verdict(report, width):
    lines = ["VERDICT"]
    for sentence in sentences(report):
        lines += textwrap.wrap(sentence, width - 2, initial_indent="• ", subsequent_indent="  ")
    return lines
