"""attention: queries, keys and values from codes, then attention of each head in float32."""

from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_array
from refquant.core.mlas import mlas_softmax
from refquant.core.mlas_gemm import mlas_dots, mlas_gemm
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError
from refquant.ops.arguments import sides
from refquant.ops.linear import linear, linear_reference
from refquant.ops.matmul import check_factors, columns_as_channels

__all__ = ["AttentionOutput", "attention", "attention_reference", "attention_with_past"]

_F = np.float32
#: What a masked score is lowered by.
_FILTER = -10000.0


class AttentionOutput(NamedTuple):
    """What attention gives beside what it keeps.

    Attributes
    ----------
    y : ndarray of float32, (B, S, H)
    present : ndarray of float32, (2, B, heads, P + S, size)
        Keys and values of all steps so far.
    """

    y: np.ndarray
    present: np.ndarray


def _addend(mask, causal, batch, length, before, low, place):
    """Return what is added to the scores, (B, S, P + S), or None."""
    causal = causal and length > 1
    if mask is None and not causal:
        return None
    keys = before + length
    total = np.zeros((batch, length, keys), _F)
    if mask is not None:
        mask = as_array(mask, "mask", place)
        if mask.shape not in ((batch, keys), (batch, length, keys)):
            raise ShapeError(f"{place}: mask has shape {mask.shape} but must be {(batch, keys)}, one entry a key, or {(batch, length, keys)}, one a score")
        total += np.where(mask > 0, _F(0), _F(low)).reshape(batch, -1, keys)
    if causal:
        total[:, np.triu(np.ones((length, keys), bool), before + 1)] = np.finfo(_F).min
    return total


def _head(q, k, v, scale, addend):
    alone = len(q) == 1
    scores = mlas_dots(k, q[0])[None] if alone and scale == 1 else mlas_gemm(q, np.ascontiguousarray(k.T), scale)
    shares = mlas_softmax(scores if addend is None else scores + addend)
    return mlas_dots(shares, v[:, 0])[:, None] if v.shape[1] == 1 and not alone else mlas_gemm(shares, v)


def _kept(past, batch, heads, size, place):
    """Return the keys and values of earlier steps, (2, B, heads, P, size)."""
    past = np.zeros((2, batch, heads, 0, size), _F) if past is None else as_array(past, "past", place)
    if past.dtype != _F or past.ndim != 5 or past.shape[:3] + past.shape[4:] != (2, batch, heads, size):
        raise ShapeError(f"{place}: past is {past.dtype} {past.shape} but must be float32 {(2, batch, heads, 'P', size)}: keys and values, batch, heads, steps, size")
    return past


def _check(x, w, heads, place):
    if x.ndim != 3 or w.ndim != 2 or w.shape[1] % (3 * heads) or not x.size or not w.size:
        raise ShapeError(f"{place}: x {x.shape}, w {w.shape} and num_heads={heads} do not fit: x must be (B, S, K) and w (K, 3 * num_heads * size), and neither empty")
    if x.dtype != "uint8":
        raise ArgumentError(f"{place}: x is {x.dtype} but must be uint8; shift codes and zero point by 128")


def _attention(layer, x, w, bias, num_heads, mask, causal, past, scale, mask_value, numerics, isa):
    profile = profiles.get(numerics)
    place = f"attention[{profile.name}]"
    check_factors(x, w, place)
    heads = sides(num_heads, "num_heads", 1, place, least=1)[0]
    _check(x, w, heads, place)
    profile.check_offered("attention")
    (batch, length, _), size = x.shape, w.shape[1] // 3 // heads
    past = _kept(past, batch, heads, size, place)
    addend = _addend(mask, causal, batch, length, past.shape[3], mask_value, place)
    scale = _F(1) / np.sqrt(_F(size)) if not scale else _F(scale)
    columns = QTensor(np.ascontiguousarray(w.values.T), columns_as_channels(w.qparams))
    parts = layer(x, columns, bias, numerics=profile, isa=isa).reshape(batch, length, 3, heads, size)
    present = np.concatenate([past, parts[:, :, 1:].transpose(2, 0, 3, 1, 4)], axis=3)
    y = np.empty((batch, length, heads, size), _F)
    for b, h in np.ndindex(batch, heads):
        q, k, v = (np.ascontiguousarray(part) for part in (parts[b, :, 0, h], *present[:, b, h]))
        y[b, :, h] = _head(q, k, v, scale, None if addend is None else addend[b])
    return AttentionOutput(y.reshape(batch, length, heads * size), present)


def attention(x, w, bias, num_heads, mask=None, *, causal=False, numerics="onnxruntime", isa=None):
    """Compute multi-head self-attention of codes: ``QAttention``.

    ``[q, k, v] = x @ w + bias`` by `refquant.ops.matmul`, then of each head ``softmax(q @ kᵀ / √size + addend) @ v`` in float32.

    Parameters
    ----------
    x : QTensor of uint8, (B, S, K)
    w : QTensor, (K, 3 · H)
        uint8 or int8, per tensor or per column: queries, keys and values of all heads side by side.
    bias : array_like of float32, (3 · H,)
    num_heads : int
        Divides H.
    mask : array_like, (B, S) or (B, S, S), optional
        Keys, or scores, whose entry is not positive have 10,000 taken off.
    causal : bool
        Whether later keys are left out.
    numerics : str or Numerics
    isa : str, optional
        The processor level of the engine, as for `refquant.ops.linear`.

    Returns
    -------
    ndarray of float32, (B, S, H)

    Raises
    ------
    ArgumentError, ShapeError
        What does not fit, with all shapes.
    UnsupportedError
        The engine has no such operator.

    Exactness
    ---------
    Bit-exact, where MLAS takes its kernels for AVX2 and FMA: see `refquant.core.mlas_gemm.mlas_gemm` and `refquant.core.mlas.mlas_softmax`.

    Source
    ------
    ONNX Runtime 1.32, contrib_ops/cpu/quantization/attention_quant.cc, contrib_ops/cpu/bert/attention_cpu_base.h.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([[[3, 1], [2, 4]]], np.uint8), rq.QParams(0.5, 2, "uint8"))
    >>> w = rq.QTensor(np.tile(np.array([[2, 0], [0, 2]], np.int8), 3), rq.QParams(0.5, 0, "int8"))
    >>> attention(x, w, np.zeros(6, np.float32), 1, causal=True).tolist()
    [[[0.5, -0.5], [0.1285916566848755, 0.6142250299453735]]]
    """
    return _attention(linear, x, w, bias, num_heads, mask, causal, None, None, _FILTER, numerics, isa).y


def attention_with_past(x, w, bias, num_heads, mask=None, past=None, *, causal=False, scale=None, mask_value=_FILTER, numerics="onnxruntime", isa=None):
    """Compute attention as `attention` does, over the keys and values of earlier steps too.

    Parameters
    ----------
    x, w, bias, num_heads, causal, numerics, isa
        As for `attention`.
    mask : array_like, (B, P + S) or (B, S, P + S), optional
    past : array_like of float32, (2, B, num_heads, P, size), optional
    scale : float, optional
        What scores are multiplied by; ``1 / √size`` unless given, or for 0.
    mask_value : float
        What masked scores get added.

    Returns
    -------
    AttentionOutput

    Raises
    ------
    ArgumentError, ShapeError
        What does not fit, with all shapes.
    UnsupportedError
        The engine has no such operator.

    Exactness
    ---------
    As `attention`.

    Source
    ------
    ONNX Runtime 1.32, contrib_ops/cpu/quantization/attention_quant.cc, contrib_ops/cpu/bert/attention_cpu_base.h, attention_helper.h.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([[[3, 1], [2, 4]]], np.uint8), rq.QParams(0.5, 2, "uint8"))
    >>> w, none = rq.QTensor(np.tile(np.array([[2, 0], [0, 2]], np.int8), 3), rq.QParams(0.5, 0, "int8")), np.zeros(6, np.float32)
    >>> first = attention_with_past(rq.QTensor(x.values[:, :1], x.qparams), w, none, 1, causal=True)
    >>> second = attention_with_past(rq.QTensor(x.values[:, 1:], x.qparams), w, none, 1, past=first.present, causal=True)
    >>> second.y.tolist(), second.present.shape
    ([[[0.1285916566848755, 0.6142250299453735]]], (2, 1, 1, 2, 2))
    """
    return _attention(linear, x, w, bias, num_heads, mask, causal, past, scale, mask_value, numerics, isa)


def attention_reference(x, w, bias, num_heads, mask=None, *, causal=False, numerics="onnxruntime", isa=None):
    """Same result as `attention`, its products in NumPy."""
    return _attention(linear_reference, x, w, bias, num_heads, mask, causal, None, None, _FILTER, numerics, isa).y
