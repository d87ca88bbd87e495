"""attention: queries, keys and values from codes, then attention of each head in float32."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.mlas import mlas_softmax
from refquant.core.mlas_gemm import mlas_gemm
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError
from refquant.ops.arguments import sides
from refquant.ops.linear import linear, linear_reference
from refquant.ops.matmul import check_factors, columns_as_channels

__all__ = ["attention", "attention_reference"]

_F = np.float32
#: What a masked score is lowered by.
_FILTER = _F(-10000)


def _addend(mask, causal, batch, length, place):
    """Return what is added to the scores, (B, S, S), or None."""
    if mask is None and not causal:
        return None
    total = np.zeros((batch, length, length), _F)
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != (batch, length):
            raise ShapeError(f"{place}: mask has shape {mask.shape} but must be {(batch, length)}, one entry a key")
        total += np.where(mask > 0, _F(0), _FILTER)[:, None, :]
    if causal and length > 1:
        total[:, np.triu(np.ones((length, length), bool), 1)] = np.finfo(_F).min
    return total


def _head(q, k, v, scale, addend):
    return mlas_gemm(mlas_softmax(mlas_gemm(q, np.ascontiguousarray(k.T), scale, addend)), v)


def _attention(layer, x, w, bias, num_heads, mask, causal, numerics, isa):
    profile = profiles.get(numerics)
    place = f"attention[{profile.name}]"
    check_factors(x, w, place)
    heads = sides(num_heads, "num_heads", 1, place, least=1)[0]
    if x.ndim != 3 or w.ndim != 2 or w.shape[1] % (3 * heads) or not x.size or not w.size:
        raise ShapeError(f"{place}: x {x.shape}, w {w.shape} and num_heads={heads} do not fit: x must be (B, S, K) and w (K, 3 * num_heads * size), and neither empty")
    if x.dtype != "uint8":
        raise ArgumentError(f"{place}: x is {x.dtype} but must be uint8; shift codes and zero point by 128")
    profile.check_offered("attention")
    (batch, length, _), size = x.shape, w.shape[1] // 3 // heads
    addend = _addend(mask, causal, batch, length, place)
    columns = QTensor(np.ascontiguousarray(w.values.T), columns_as_channels(w.qparams))
    parts = layer(x, columns, bias, numerics=profile, isa=isa).reshape(batch, length, 3, heads, size)
    y, scale = np.empty((batch, length, heads, size), _F), _F(1) / np.sqrt(_F(size))
    for b, h in np.ndindex(batch, heads):
        q, k, v = (np.ascontiguousarray(parts[b, :, i, h]) for i in range(3))
        y[b, :, h] = _head(q, k, v, scale, None if addend is None else addend[b])
    return y.reshape(batch, length, heads * size)


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
    mask : array_like, (B, S), optional
        Keys whose entry is not positive have 10,000 taken off their scores.
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
    Bit-exact, where MLAS takes its kernels for AVX2 and FMA: see `refquant.core.mlas_gemm.mlas_gemm` and `refquant.core.mlas.mlas_softmax`. Without past keys, and for
    heads of more than one number.

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
    return _attention(linear, x, w, bias, num_heads, mask, causal, numerics, isa)


def attention_reference(x, w, bias, num_heads, mask=None, *, causal=False, numerics="onnxruntime", isa=None):
    """Same result as `attention`, its products in NumPy."""
    return _attention(linear_reference, x, w, bias, num_heads, mask, causal, numerics, isa)
