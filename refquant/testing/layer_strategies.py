"""Hypothesis strategies of whole layers whose data bring a numerical effect out; see `refquant.testing.strategies`."""

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import choose
from refquant.testing.tensor_strategies import codes, hypothesis_modules, near_tie_scales, qparams, scales, sizes, zero_points
from refquant.verify import Problem

__all__ = ["EFFECTS", "linear_problems", "conv2d_problems"]

#: What the data of a layer bring out: nothing in particular; outputs on a rounding tie or a few ulp beside; codes at the ends of their range; products whose
#: pairs leave int16; outputs on a tie at the edge of the output's range; sums that leave int32 (huge K, linear layers alone); an int32 bias at its ends.
EFFECTS = ("plain", "neartie", "ends", "pairs", "clamp", "wrap", "bias")

_PLAIN_LINEAR, _PLAIN_CONV = EFFECTS, tuple(e for e in EFFECTS if e != "wrap")
# From here on products of the largest codes leave int32.
_HUGE = 133_000


def linear_problems(*, x_dtypes=("uint8",), w_dtypes=("int8",), asymmetric=False, per_channel=None, biases=("none", "float32"), activations=(None, "relu"), effects=_PLAIN_LINEAR):
    """Return a strategy of `Problem` of ``linear``; shrinks to one output and K = 1.

    Parameters
    ----------
    x_dtypes, w_dtypes : sequence of str
        Of activation (and output) and weight.
    asymmetric : bool
        Whether weights have zero points.
    per_channel : bool, optional
        Either unless given.
    biases : sequence of {"none", "float32", "int32"}
    activations : sequence of {None, "relu"}
    effects : sequence of str
        Some of `EFFECTS`. ``wrap`` makes K larger than 133,000.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> from refquant import numerics
    >>> from refquant.verify import oracle
    >>> away = numerics.get("onnx").replace(rounding="half_away")
    >>> differ = lambda p: (oracle(p, "onnx") != oracle(p, away)).any()
    >>> small = find(linear_problems(effects=["neartie"]), differ, settings=once)
    >>> small["x"].shape, small["w"].shape, small["bias"], small["activation"]
    ((1, 1), (1, 1), None, None)
    """
    return _layers("linear", x_dtypes, w_dtypes, asymmetric, per_channel, biases, activations, effects)


def conv2d_problems(*, x_dtypes=("uint8",), w_dtypes=("int8",), asymmetric=False, per_channel=None, biases=("none", "float32"), activations=(None, "relu"), effects=_PLAIN_CONV):
    """Return a strategy of `Problem` of ``conv2d``, with strides, padding, dilation and groups; shrinks to one output of a 1x1 kernel.

    Parameters as for `linear_problems`.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> small = find(conv2d_problems(), lambda p: p["groups"] > 1, settings=once)
    >>> small["x"].shape, small["w"].shape, small["stride"], small["padding"]
    ((1, 2, 1, 1), (2, 1, 1, 1), 1, 0)
    """
    return _layers("conv2d", x_dtypes, w_dtypes, asymmetric, per_channel, biases, activations, effects)


def _layers(op, x_dtypes, w_dtypes, asymmetric, per_channel, biases, activations, effects):
    st, _ = hypothesis_modules()
    for effect in effects:
        choose(f"strategies.{op}_problems", "effect", effect, _PLAIN_LINEAR if op == "linear" else _PLAIN_CONV)
    for bias in biases:
        choose(f"strategies.{op}_problems", "bias", bias, ("none", "float32", "int32"))

    @st.composite
    def layer(draw):
        effect = draw(st.sampled_from(effects))
        shapes, geometry = _linear_shapes(draw, effect) if op == "linear" else _conv2d_shapes(draw)
        wide = draw(st.sampled_from((False, True) if per_channel is None else (per_channel,)))
        x, w = _operands(draw, effect, shapes, (draw(st.sampled_from(x_dtypes)), draw(st.sampled_from(w_dtypes))), asymmetric, shapes[1][0] if wide else None)
        relu = draw(st.sampled_from(activations))
        out = QParams(draw(scales(2.0**-6)), draw(zero_points(x.qparams.dtype)), x.qparams.dtype)
        bias = _bias(draw, effect, biases, shapes[1][0])
        w = _at_ties(draw, effect, x, w, bias, out, geometry)
        if bias is not None and bias.dtype == np.float32:
            bias = (bias * x.qparams.scale * np.broadcast_to(w.qparams.scale, bias.shape)).astype(np.float32)
        return Problem(op, {"x": x, "w": w, "bias": bias, "out": out, "activation": relu, **geometry})

    return layer()


def _linear_shapes(draw, effect):
    st, _ = hypothesis_modules()
    k = _HUGE + draw(st.integers(0, 70)) if effect == "wrap" else draw(sizes(513))
    m, n = (draw(sizes(3 if effect == "wrap" else 17)) for _ in "mn")
    return ((m, k), (n, k)), {}


def _conv2d_shapes(draw):
    st, _ = hypothesis_modules()
    groups, each, inner = draw(st.sampled_from((1, 2, 3, 8))), draw(sizes(5)), draw(sizes(9))
    kernel = [draw(st.integers(1, 3)) for _ in "hw"]
    stride, padding, dilation = draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(st.integers(1, 2))
    sides = [draw(st.integers(max(1, dilation * (k - 1) + 1 - 2 * padding), 9)) for k in kernel]
    shapes = (draw(st.integers(1, 2)), groups * inner, *sides), (groups * each, inner, *kernel)
    return shapes, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def _operands(draw, effect, shapes, dtypes, asymmetric, channels):
    q = [draw(qparams(dtypes[0])), draw(qparams(dtypes[1], channels=channels, symmetric=not asymmetric))]
    ends = effect in ("ends", "pairs", "wrap")
    zeros = [int(np.ravel(p.zero_point)[0]) for p in q]
    if effect in ("neartie", "clamp"):
        # Sums of zeros have no ties.
        zeros = [z + 1 if z < p.qmax else z - 1 for z, p in zip(zeros, q)]
    return [QTensor(draw(codes(shape, p.dtype, quiet=z, ends=ends)), p) for shape, p, z in zip(shapes, q, zeros)]


def _bias(draw, effect, biases, channels):
    """Draw a bias: int32, or float32 in units of the accumulator for now."""
    st, hnp = hypothesis_modules()
    kind = "int32" if effect == "bias" and "int32" in biases else draw(st.sampled_from(biases))
    if kind == "none":
        return None
    least, most = -(2**31), 2**31 - 1
    number = st.sampled_from((0, most, least, most - 1, least + 1)) if effect == "bias" else st.integers(-9999, 9999)
    bias = draw(hnp.arrays(np.int32, channels, elements=number, fill=number))
    return bias if kind == "int32" else bias.astype(np.float32)


def _at_ties(draw, effect, x, w, bias, out, geometry):
    """Return the weights with scales that put the first output of each channel on a tie, or beside."""
    st, _ = hypothesis_modules()
    if effect not in ("neartie", "clamp"):
        return w
    steps = None
    if effect == "clamp":
        edge = draw(st.sampled_from((out.qmax - out.zero_point, out.zero_point - out.qmin)))
        steps = max(edge + draw(st.integers(-1, 1)), 0)
    acc = _first_accumulators(x, w, geometry)
    if bias is not None:
        acc = acc + bias.astype(np.int64)
    q = w.qparams
    if q.per_channel:
        scale = [draw(near_tie_scales(int(a), x.qparams.scale, out.scale, steps=steps)) if a else 1.0 for a in acc]
    else:
        first = next((int(a) for a in acc if a), 1)
        scale = draw(near_tie_scales(first, x.qparams.scale, out.scale, steps=steps))
    return QTensor(w.values, QParams(scale, q.zero_point, q.dtype, axis=q.axis))


def _first_accumulators(x, w, geometry):
    """Return the exact sum of the first output of each channel."""
    q = w.qparams
    weights = w.values.astype(np.int64) - np.reshape(q.zero_point, (-1, *[1] * (w.ndim - 1)))
    codes = x.values[0].astype(np.int64) - x.qparams.zero_point
    if not geometry:
        return weights @ codes
    p, d = geometry["padding"], geometry["dilation"]
    padded = np.pad(codes, ((0, 0), (p, p), (p, p)))
    patch = padded[:, : d * (w.shape[2] - 1) + 1 : d, : d * (w.shape[3] - 1) + 1 : d]
    groups, inner = geometry["groups"], w.shape[1]
    own = np.repeat(np.arange(groups), w.shape[0] // groups)
    return np.array([(weights[i] * patch[g * inner : (g + 1) * inner]).sum() for i, g in enumerate(own)])
