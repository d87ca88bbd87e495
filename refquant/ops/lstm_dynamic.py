"""lstm_dynamic: a recurrent layer that quantizes its input, and its state at every step, at run time."""

from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.mlas import mlas_logistic, mlas_tanh
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError, choose
from refquant.ops.arguments import check_eight_bit, check_qtensor
from refquant.ops.linear_dynamic import linear_dynamic, linear_dynamic_reference
from refquant.ops.quantize import real_array

__all__ = ["LstmOutput", "lstm_dynamic", "lstm_dynamic_reference"]

_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


class LstmOutput(NamedTuple):
    """What an LSTM gives: D is 2 for both directions, else 1.

    Attributes
    ----------
    y : ndarray of float32, (T, D, B, H)
        Every hidden state.
    h, c : ndarray of float32, (D, B, H)
        The last hidden state and cell.
    """

    y: np.ndarray
    h: np.ndarray
    c: np.ndarray


def _weights(w, name, shape, place):
    """Return the layer of each direction, as (4H, K)."""
    check_eight_bit(check_qtensor(w, name, place, per_channel=True), name, place)
    if w.shape != shape:
        raise ShapeError(f"{place}: {name} has shape {w.shape} but must be {shape}: directions, inputs, four gates of hidden units")
    if w.qparams.per_channel and w.qparams.axis != 2:
        raise ArgumentError(f"{place}: {name} is quantized along axis {w.qparams.axis} but gates are axis 2; quantize it per tensor or along axis 2")
    p = w.qparams
    p = type(p)(p.scale, p.zero_point, p.dtype, axis=0, unchecked=True) if p.per_channel else p
    return [QTensor(np.ascontiguousarray(values.T), p) for values in w.values]


def _steps(layer, x, w, r, bias, h, c, backwards):
    """Run one direction over (T, B, K); return the states in the order of the input, and the last ones."""
    size = h.shape[1]
    x = x[::-1] if backwards else x
    ahead = layer(np.ascontiguousarray(x).reshape(-1, x.shape[2]), w).reshape(*x.shape[:2], 4 * size)
    states = np.empty((*x.shape[:2], size), np.float32)
    for t, gates in enumerate(ahead):
        gates = gates + layer(h, r)
        gates = gates if bias is None else gates + bias
        entry, output, forget, candidate = (gates[:, i * size : (i + 1) * size] for i in range(4))
        c = c * mlas_logistic(forget) + mlas_logistic(entry) * mlas_tanh(candidate)
        h = states[t] = mlas_logistic(output) * mlas_tanh(c)
    return states[::-1] if backwards else states, h, c


def _state(value, name, shape, place):
    if value is None:
        return np.zeros(shape, np.float32)
    value = real_array(value, place)
    if value.shape != shape:
        raise ShapeError(f"{place}: {name} has shape {value.shape} but must be {shape}: directions, batch, hidden units")
    return value


def _lstm(dynamic, x, w, r, bias, h, c, direction, numerics, isa):
    profile = profiles.get(numerics)
    place = f"lstm_dynamic[{profile.name}]"
    ways = _DIRECTIONS[choose(place, "direction", direction, _DIRECTIONS)]
    x = real_array(x, place)
    if x.ndim != 3 or not x.size or getattr(r, "ndim", 0) != 3 or not r.size:
        raise ShapeError(f"{place}: x has shape {x.shape} and r {getattr(r, 'shape', None)}; x must be (T, B, K), r (directions, H, 4 * H), and neither empty")
    size, batch = r.shape[1], x.shape[1]
    ws, rs = (_weights(v, name, (len(ways), k, 4 * size), place) for v, name, k in ((w, "w", x.shape[2]), (r, "r", size)))
    bias = None if bias is None else real_array(bias, place)
    if bias is not None and bias.shape != (len(ways), 8 * size):
        raise ShapeError(f"{place}: bias has shape {bias.shape} but must be {(len(ways), 8 * size)}: directions, the four gates of w and then those of r")
    h, c = (_state(v, name, (len(ways), batch, size), place) for v, name in ((h, "h"), (c, "c")))
    profile.check_offered("lstm_dynamic")
    layer = lambda v, layer_weights: dynamic(v, layer_weights, numerics=profile, isa=isa)  # noqa: E731
    both = [None if bias is None else bias[i, : 4 * size] + bias[i, 4 * size :] for i in range(len(ways))]
    runs = [_steps(layer, x, ws[i], rs[i], both[i], h[i], c[i], way) for i, way in enumerate(ways)]
    return LstmOutput(np.stack([run[0] for run in runs], axis=1), *(np.stack([run[i] for run in runs]) for i in (1, 2)))


def lstm_dynamic(x, w, r, bias=None, h=None, c=None, *, direction="forward", numerics="onnxruntime", isa=None):
    """Run an LSTM whose inputs and states are quantized at run time: ``DynamicQuantizeLSTM``.

    ``g = x @ w + h @ r + bias``, gates in the order input, output, forget, cell; ``c' = c · σ(gf) + σ(gi) · tanh(gc)``, ``h' = σ(go) · tanh(c')``. All of `x` gets
    one pair of parameters, the states of each step another.

    Parameters
    ----------
    x : array_like of float, (T, B, K)
        Finite, not empty.
    w : QTensor, (D, K, 4 · H)
    r : QTensor, (D, H, 4 · H)
        uint8 or int8, per tensor or along the last axis, for both directions alike.
    bias : array_like, (D, 8 · H), optional
        The gates' of `w`, then those of `r`; added to one another first.
    h, c : array_like, (D, B, H), optional
        Where to begin; zeros unless given.
    direction : {"forward", "reverse", "bidirectional"}
        D is 2 for the last.
    numerics : str or Numerics
    isa : str, optional
        The processor level of the engine, as for `refquant.ops.linear`.

    Returns
    -------
    LstmOutput

    Raises
    ------
    ArgumentError, ShapeError
        What does not fit, with all shapes.
    UnsupportedError
        The engine has no such operator.

    Exactness
    ---------
    Bit-exact on a CPU with FMA: `linear_dynamic`, `refquant.core.mlas.mlas_logistic` and `mlas_tanh`, every other step rounded to float32. Without peepholes, clipping
    and lengths of sequences, and on one thread: more cut the batch into pieces, each of whose states gets parameters of its own.

    Source
    ------
    ONNX Runtime 1.32, contrib_ops/cpu/quantization/dynamic_quantize_lstm.cc, core/providers/cpu/rnn/uni_directional_lstm.cc.

    Examples
    --------
    >>> import refquant as rq
    >>> w = rq.QTensor(np.full((1, 1, 4), 64, np.int8), rq.QParams(1 / 64, 0, "int8"))
    >>> out = lstm_dynamic(np.float32([[[1.0]], [[-1.0]]]), w, w)
    >>> out.y.ravel().tolist() == [float(out.y[0, 0, 0, 0]), float(out.h[0, 0, 0])], out.c.shape
    (True, (1, 1, 1))
    """
    return _lstm(linear_dynamic, x, w, r, bias, h, c, direction, numerics, isa)


def lstm_dynamic_reference(x, w, r, bias=None, h=None, c=None, *, direction="forward", numerics="onnxruntime", isa=None):
    """Same result as `lstm_dynamic`, its products in NumPy."""
    return _lstm(linear_dynamic_reference, x, w, r, bias, h, c, direction, numerics, isa)
