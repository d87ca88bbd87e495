"""Why paths give a tensor other parameters, in words: codes, dtype, range, observer, eps, placement, fusion."""

import numpy as np

__all__ = ["why_tensors", "why_weights", "codes_of"]

_CLOSE = 1e-5


def codes_of(q):
    """Return how many codes parameters use."""
    return q.qmax - q.qmin + 1


def _span(q):
    """The real numbers from the lowest code to the highest."""
    return q.scale * (q.qmax - q.qmin)


def _each(values, text):
    return ", ".join(f"{name} {text(value)}" for name, value in values.items())


def why_tensors(seen, absent, real_range):
    """Yield the reasons for which paths differ on a tensor.

    Parameters
    ----------
    seen : dict of str to Seen
        By path.
    absent : dict of str to (str or None)
        The paths that do not quantize the tensor: the layer that it is fused into, or None where it stays float.
    real_range : (float, float)
        Of the float model over the calibration.

    Yields
    ------
    str
    """
    qparams = {name: s.qparams for name, s in seen.items()}
    counts = {name: codes_of(q) for name, q in qparams.items()}
    if len(set(counts.values())) > 1:
        yield "codes: " + _each(counts, lambda n: f"{n} (7 bits, reduce_range)" if n == 128 else str(n))
    if len({q.dtype for q in qparams.values()}) > 1:
        yield "dtype: " + _each(qparams, lambda q: f"{q.dtype} from {q.qmin}")
    yield from _why_ranges(seen, qparams, real_range)
    held_up = {name: s.eps for name, s in seen.items() if s.eps and np.float32(s.qparams.scale) == np.float32(s.eps)}
    if held_up:
        yield "eps: the scale is the least one, " + _each(held_up, lambda eps: f"2^{int(np.log2(eps))}")
    for name, s in seen.items():
        others = [o for o in seen if o != name and seen[o].shared != s.shared]
        if s.shared and others:
            yield f"shared: {name} takes the parameters of {s.shared}, {' and '.join(others)} {'does' if len(others) == 1 else 'do'} not"
    for name, layer in absent.items():
        yield f"fusion: {name} computes it inside of the fused layer {layer} and never rounds it to codes" if layer else f"placement: {name} leaves it float"
    if len({s.by for s in seen.values()}) > 1:
        yield "placement: " + _each(seen, lambda s: "computes its codes in the layer" if s.by == "kernel" else "quantizes real numbers behind the layer")


def _why_ranges(seen, qparams, real_range):
    spans = {name: _span(q) for name, q in qparams.items()}
    if len(spans) < 2 or max(spans.values()) <= (1 + _CLOSE) * min(spans.values()):
        return
    whole = max(real_range[1], 0) - min(real_range[0], 0)
    yield "range: " + _each(spans, lambda v: f"{v:.4g}") + f" of {whole:.4g} seen"
    kinds = {name: s.observer for name, s in seen.items()}
    if len(set(kinds.values())) > 1:
        yield "observer: " + _each(kinds, str)


def why_weights(found):
    """Yield the reasons for which the weights of a layer differ.

    Parameters
    ----------
    found : dict of str to QTensor
        By path.

    Yields
    ------
    str
    """
    names = list(found)
    kinds = {name: "per channel" if w.qparams.per_channel else "per tensor" for name, w in found.items()}
    if len(set(kinds.values())) > 1:
        yield "granularity: " + _each(kinds, str)
    codes = {name: (w.qparams.dtype, w.qparams.qmin, w.qparams.qmax) for name, w in found.items()}
    if len(set(codes.values())) > 1:
        yield "codes: " + _each(codes, lambda c: f"{c[0]} {c[1]} … {c[2]}")
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            one, two = (np.asarray(found[n].qparams.scale, np.float32).reshape(-1) for n in (a, b))
            if one.shape != two.shape or np.array_equal(one, two):
                continue
            ratio = (two.astype(np.float64) / one).max(), (two.astype(np.float64) / one).min()
            held = [n for n, s in ((a, one), (b, two)) if (s == np.float32(2**-12)).any()]
            if held:
                yield f"eps: some scales of {' and '.join(held)} are held up at 2^-12"
            elif max(ratio) < 1 + 1e-5 and min(ratio) > 1 - 1e-5:
                yield f"rounding: {a} and {b} divide the same range in another order, last bits differ"
            else:
                yield f"formula: scales of {b} are {min(ratio):.4f} to {max(ratio):.4f} of {a}'s"
