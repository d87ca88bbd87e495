"""The report in words: which layer, why, and what to do."""

import math

from refquant.drift.causes import OWN
from refquant.drift.layer_pass import probe
from refquant.drift.remedies import EVEN_CHANNELS, remedies
from refquant.drift.report import Verdict

__all__ = ["judge", "decibel_text", "percent", "points"]

_EXTRA = 3.0  # dB that a remedy must be better by if it changes the network itself
_HARMLESS = 30.0  # dB at the network's output
_SIGNIFICANT = 2.0  # standard deviations of (broken - repaired) under chance


def decibel_text(value):
    """Return ``"12.3 dB"``, or words for what is infinite.

    Examples
    --------
    >>> decibel_text(12.34), decibel_text(math.inf)
    ('12.3 dB', 'no error')
    """
    return "no error" if value == math.inf else f"{value:.1f} dB"


def percent(count, images):
    """Return a share of the images as text.

    Examples
    --------
    >>> percent(497, 500)
    '99.40 %'
    """
    return f"{100 * count / images:.2f} %"


def points(value):
    """Return a difference of two shares in per cent as text, with its sign.

    Examples
    --------
    >>> points(-0.751), points(-0.0)
    ('−0.75', '±0.00')
    """
    return "±0.00" if abs(value) < 0.005 else f"{value:+.2f}".replace("-", "−")


def judge(model, int8, layers, records, accuracy, steps, alternatives, batches):
    """Return the `Verdict`.

    The layer is the one whose own grids lower the SQNR of the network's output most, all others being float; its cause is the one
    whose removal gives most of that back; its remedy the one of `remedies` that gives most back. Where that layer leaves 30 dB
    and no accuracy is lost, nothing needs to change.

    Parameters
    ----------
    model, int8 : Model
    layers : list of Layer
    records : tuple of LayerRecord
    accuracy : Accuracy
    steps, alternatives : tuple of Step
    batches : list of ndarray
    """
    order = sorted(range(len(layers)), key=lambda k: records[k].impact)
    layer, record = layers[order[0]], records[order[0]]
    sentences = [_accuracy_sentence(accuracy)] + _step_sentences(accuracy, steps)
    if record.impact == math.inf:
        return Verdict(layer=record.name, cause="none", loss=0.0, remedy="", sentences=(*sentences, "No layer makes an error on these images."))
    if record.impact >= _HARMLESS and not _costs(accuracy):
        kept = f"whose own grids alone leave the network's output {decibel_text(record.impact)}"
        weakest = f"No layer stands out: the weakest is {record.name} ({record.op}), {kept}."
        return Verdict(layer=record.name, cause=record.cause, loss=0.0, remedy="", sentences=(*sentences, weakest))
    gains = _gains(model, int8, layer, batches)
    cause = max(gains, key=gains.get)
    tried = {name: (changed, OWN) for name, changed in remedies(int8, layer, cause, record.values).items()}
    measured = probe(model, int8, tried, batches) if tried else {}
    remedy = max(measured, key=lambda name: measured[name] - (_EXTRA if name == EVEN_CHANNELS else 0.0), default="")
    gain = measured[remedy] - record.impact if remedy else 0.0
    sentences += _layer_sentences(record, [records[k] for k in order[1:3]], cause, gains[cause])
    sentences.append(_remedy_sentence(record, cause, remedy, gain))
    sentences += [s for s in (_best_exception(accuracy, records), _best_alternative(accuracy, steps[-1], alternatives)) if s]
    return Verdict(layer=record.name, cause=cause, loss=gains[cause], remedy=remedy if gain > 0.5 else "", sentences=tuple(sentences))


def _gains(model, int8, layer, batches):
    """How many dB of the output's SQNR come back when one of the layer's own causes is taken away."""
    variants = {name: (layer, tuple(c for c in OWN if c != name)) for name in OWN}
    measured = probe(model, int8, {"all": (layer, OWN), **variants}, batches)
    return {name: min(measured[name] - measured["all"], 200.0) for name in OWN}


def _costs(a):
    """Whether accuracy was lost that chance does not explain."""
    return a.fp32 is not None and a.broken - a.repaired > _SIGNIFICANT * math.sqrt(a.broken + a.repaired)


def _accuracy_sentence(a):
    if a.fp32 is None:
        return f"{a.changed:,} of {a.images:,} predictions change." if a.changed is not None else "The output is no classification; see the SQNRs."
    numbers = f"{percent(a.fp32, a.images)} in FP32, {percent(a.int8, a.images)} in INT8"
    if a.fp32 == a.int8:
        return f"INT8 costs no accuracy on these {a.images:,} images ({numbers}; {a.changed} predictions change)."
    word = "costs" if a.drop > 0 else "gains"
    text = f"INT8 {word} {abs(a.drop):.2f} points of accuracy ({numbers}; {a.changed} of {a.images:,} predictions change)"
    if abs(a.broken - a.repaired) <= _SIGNIFICANT * math.sqrt(a.broken + a.repaired):
        return text + f", which chance alone can explain ({a.broken} broken, {a.repaired} repaired)."
    return text + "."


def _step_sentences(a, steps):
    by_name = {s.name: s for s in steps}
    if a.fp32 is None or a.drop < 0.5:
        return []
    weights, activations = (100 * (a.fp32 - by_name[n].correct) / a.images for n in ("weights only", "activations only"))
    return [f"The weight grids alone cost {_points(weights)}, the activation grids alone {_points(activations)}."]


def _points(value):
    return "nothing" if abs(value) < 0.005 else f"{value:.2f} points"


def _layer_sentences(record, next_ones, cause, loss):
    others = " and ".join(f"{r.name} ({decibel_text(r.impact)})" for r in next_ones)
    first = f"The layer that harms most is {record.name} ({record.op}): its own grids alone bring the network's output down to "
    first += decibel_text(record.impact) + (f"; next come {others}." if others else ".")
    return [first, f"It loses {loss:.1f} dB {_reason(record, cause)}."]


def _reason(r, cause):
    w = r.weights
    if cause == "weights" and w is not None:
        if w.per_channel:
            return f"to its weight grids, although each channel has its own; channel {w.worst} keeps {decibel_text(w.worst_sqnr)}"
        return (
            f"because one scale serves the weights of all {len(w.low)} channels, whose greatest weights differ {w.spread:,.0f}-fold:"
            f" channel {w.worst} keeps {decibel_text(w.worst_sqnr)}"
        )
    if cause == "range_out":
        grid, values = (f"[{v.low:.3g}, {v.high:.3g}]" for v in (r.grid, r.values))
        return f"because its grid ends at {grid} while its values reach {values}: {100 * r.saturated:.2g} % are cut off"
    if cause == "rounding":
        codes, spans = r.grid.qmax - r.grid.qmin + 1, [m / r.grid.scale for m in r.values.magnitudes]
        text = f"because its output is rounded to {codes} codes, one every {r.grid.scale:.3g}"
        quietest = min(range(len(spans)), key=lambda k: (spans[k] == 0, spans[k]))
        return text + (f": channel {quietest}, the quietest, spans {spans[quietest]:.1f} of them" if len(spans) > 1 else "")
    return "to the engine's own arithmetic (int16 pair saturation, or rounding of scales and biases)"


def _remedy_sentence(record, cause, remedy, gain):
    if remedy and gain > 0.5:
        worth = "which is worth up to" if remedy == EVEN_CHANNELS else "which alone brings"
        return f"Remedy: {remedy}, {worth} {gain:.1f} dB."
    if cause == "engine":
        return "Remedy: another engine, or 7-bit activations (reduce_range), so that pairs of products fit into int16."
    if remedy:
        return f"No other choice of grid helps this layer ({remedy}: {gain:+.1f} dB); leave it in float, or even out its channels before quantization."
    return "Remedy: leave this layer in float."


def _best_exception(a, records):
    """What leaving one layer in float gives back, where that was measured."""
    if records[0].without is None or a.fp32 is None:
        return None
    best = max(records, key=lambda r: r.without)
    points = 100 * (best.without - a.int8) / a.images
    if points <= 0:
        return "Leaving any one layer in float gives nothing back."
    return f"Of all single layers {best.name} gives back most if it is left in float: {percent(best.without, a.images)} (+{points:.2f} points)."


def _best_alternative(a, int8, alternatives):
    if not alternatives:
        return None
    if a.fp32 is None:
        best = max(alternatives, key=lambda s: s.sqnr)
        if best.sqnr <= int8.sqnr:
            return None
        dB = f"{decibel_text(best.sqnr)} at the output instead of {decibel_text(int8.sqnr)}"
        return f"Measured on the whole network, “{best.name}” helps most: {dB}."
    best = max(alternatives, key=lambda s: (s.correct, s.sqnr))
    points = 100 * (best.correct - a.int8) / a.images
    if points <= 0:
        return "Of the other choices that were measured on the whole network none is more accurate."
    return f"Measured on the whole network, “{best.name}” helps most: {percent(best.correct, a.images)} (+{points:.2f} points)."
