"""One node of a quantized model in exact arithmetic: what its engine would give if it rounded nothing but the result."""

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.core.wrap import saturate
from refquant.graph.opset import Context, graph_op
from refquant.graph.shapes import pair

__all__ = ["PRODUCTS", "real_value", "exact_value", "on_grid", "clipped", "codes_to_real", "grid_range"]

PRODUCTS = ("conv1d", "conv2d", "linear")
"""Operations with weights."""
_MEANS = ("avg_pool2d", "adaptive_avg_pool2d")


def codes_to_real(q):
    """Return ``scale · (code − zero point)`` of a QTensor in float64, one rounding each.

    Examples
    --------
    >>> from refquant.core.qparams import QParams
    >>> codes_to_real(QTensor(np.uint8([128, 130]), QParams(0.25, 128, "uint8")))
    array([0. , 0.5])
    """
    scale, zero = q.qparams.along(q.ndim)
    return (q.values.astype(np.int64) - zero) * scale


def grid_range(qparams, ndim=0):
    """Return the least and the greatest real number that codes of the dtype can say.

    Quantized operators saturate at the ends of the dtype, also where a narrower range was calibrated (``reduce_range``).
    """
    kind, (scale, zero) = qparams._type, qparams.along(ndim)
    return scale * (kind.qmin - zero), scale * (kind.qmax - zero)


def clipped(x, qparams):
    """Move reals into the range of a grid (all of them where `qparams` is None).

    Examples
    --------
    >>> from refquant.core.qparams import QParams
    >>> clipped(np.float32([-1, 300]), QParams(1.0, 0, "uint8"))
    array([  0., 255.])
    """
    return np.asarray(x, np.float64) if qparams is None else np.clip(np.asarray(x, np.float64), *grid_range(qparams, np.ndim(x)))


def on_grid(x, qparams):
    """Move reals onto a grid, half to even, in float64.

    Examples
    --------
    >>> from refquant.core.qparams import QParams
    >>> on_grid(np.array([0.3, 0.25, 900]), QParams(0.5, 0, "uint8"))
    array([  0.5,   0. , 127.5])
    """
    if qparams is None:
        return np.asarray(x, np.float64)
    kind, (scale, zero) = qparams._type, qparams.along(np.ndim(x))
    codes = saturate(round_real(np.asarray(x, np.float64) / scale, Round.HALF_EVEN), kind.qmin - zero, kind.qmax - zero)
    return codes * scale


def real_value(node, inputs, weight=None):
    """Run a node on reals: sums in float64, rounded once to float32.

    Parameters
    ----------
    node : Node
        Of a quantized model.
    inputs : list of ndarray
    weight : ndarray of float32, optional
        For nodes with weights.
    """
    if node.op in ("quantize", "dequantize"):
        return np.asarray(inputs[0], np.float64)
    changes = {"params": {**node.params, "weight": weight}} if node.op in PRODUCTS else {}
    context = Context(None, "float64", 1)
    real = graph_op(node.op, "drift").run(context, node.replace(**changes), *(np.asarray(x, np.float32) for x in inputs))
    return np.asarray(real, np.float64)


def exact_value(node, inputs):
    """Return what a node of a quantized model makes of codes, before it rounds: float64.

    Products of codes are summed as integers, which float64 holds exactly; then one scaling and one addition. Sums of tensors and
    joins are formed in float64; means are taken of codes, to float32's precision, so that ties stay ties.

    Parameters
    ----------
    node : Node
    inputs : list of QTensor, or of ndarray for a node that quantizes
    """
    if node.op == "quantize":
        return np.asarray(inputs[0], np.float64)
    if not isinstance(inputs[0], QTensor):
        return real_value(node, inputs, node.params.get("weight"))
    if node.op in PRODUCTS:
        return _product(node, inputs[0])
    if node.op == "add":
        return _activated(node, codes_to_real(inputs[0]) + codes_to_real(inputs[1]))
    if node.op == "cat":
        return np.concatenate([codes_to_real(x) for x in inputs], axis=node.attrs["dim"])
    if node.op in _MEANS:
        (x,) = inputs
        return real_value(node, [x.values.astype(np.int64) - x.qparams.zero_point]) * x.qparams.scale
    return real_value(node, [codes_to_real(x) for x in inputs])


def _activated(node, y):
    return np.maximum(y, 0.0) if node.attrs["activation"] == "relu" else y


def _product(node, x):
    weight, bias = node.params["weight"], node.params.get("bias")
    zero = np.asarray(weight.qparams.zero_point).reshape(-1, *[1] * (weight.ndim - 1))
    w = (weight.values.astype(np.int64) - zero).astype(np.float64)
    a = (x.values.astype(np.int64) - x.qparams.zero_point).astype(np.float64)
    acc = a @ w.T if node.op == "linear" else _convolve(a, w, node.attrs)
    along = (-1,) if node.op == "linear" else (-1, *[1] * (acc.ndim - 2))
    y = acc * (x.qparams.scale * np.broadcast_to(weight.qparams.scale, (len(w),))).reshape(along)
    if bias is not None:
        y = y + np.asarray(bias, np.float64).reshape(along)
    return _activated(node, y)


def _convolve(x, w, attrs):
    """Convolve integers held in float64; exact below 2**53, in any order of summation."""
    dims, groups = w.ndim - 2, attrs["groups"]
    stride, padding, dilation = (pair(attrs[k], dims) for k in ("stride", "padding", "dilation"))
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    reach = [d * (k - 1) + 1 for k, d in zip(w.shape[2:], dilation)]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, x.ndim)))
    everything = (slice(None), slice(None))
    windows = windows[(*everything, *(slice(None, None, s) for s in stride), *(slice(None, None, d) for d in dilation))]
    n, out = len(x), windows.shape[2 : 2 + dims]
    windows = windows.reshape(n, groups, -1, int(np.prod(out)), int(np.prod(w.shape[2:])))
    flat = np.moveaxis(windows, 3, 2).reshape(n, groups, int(np.prod(out)), -1)
    taps = w.reshape(groups, len(w) // groups, -1)
    return (taps @ np.swapaxes(flat, 2, 3)).reshape(n, len(w), *out)
