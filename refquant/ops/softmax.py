"""softmax: exponentials that add up to one."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.core.sleef import sleef_exp
from refquant.errors import ArgumentError, ShapeError
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor
from refquant.ops.dequantize import dequantize
from refquant.ops.quantize import quantize

__all__ = ["softmax"]

_F = np.float32
_TOP = 8388607.0


def _lane_sum(values, lanes):
    """Add float32 rows as vectors do: `lanes` running sums, the rest added to the first of them, then halves onto halves; short rows in order."""
    n = values.shape[1]
    if n < lanes:
        return np.add.accumulate(values, axis=1, dtype=_F)[:, -1:]
    steps = n // lanes * lanes
    acc = np.add.accumulate(values[:, :steps].reshape(len(values), -1, lanes), axis=1, dtype=_F)[:, -1]
    acc[:, : n - steps] += values[:, steps:]
    while acc.shape[1] > 1:
        half = acc.shape[1] // 2
        acc = acc[:, :half] + acc[:, half:]
    return acc


def _densest(x, lanes):
    """Softmax of float32 rows (R, N): vectors along each row, and a product with the inverse of the sum."""
    e = sleef_exp(x - x.max(1, keepdims=True))
    return e * (_F(1) / _lane_sum(e, lanes))


def _across(x, lanes):
    """Softmax of (R, N, I) along N: vectors along I, whose last I % lanes entries take the C library's exponential; sums in order."""
    centred = x - x.max(1, keepdims=True)
    body = x.shape[2] // lanes * lanes
    tail = np.exp(centred[:, :, body:].astype(np.float64)).astype(_F)
    e = np.concatenate([sleef_exp(centred[:, :, :body]), tail], axis=2)
    return e / np.add.accumulate(e, axis=1, dtype=_F)[:, -1:]


def _by_table(codes, scale):
    """QNNPACK: softmax of codes (R, N, I) along N with exponentials as integers, one rounded integer division."""
    unit = min((2.0**32 - 1) / codes.shape[1], _TOP)
    exponents = (np.arange(256) - 255).astype(np.float64) * np.float64(_F(scale))
    table = round_real(unit * np.exp(exponents), Round.HALF_EVEN).astype(np.int64)
    e = table[codes.astype(np.int64) + (255 - codes.max(1, keepdims=True).astype(np.int64))]
    total = e.sum(1, keepdims=True)
    return np.minimum((256 * e + (total >> 1)) // total, 255)


def softmax(x, dim=-1, *, out=None, numerics="fbgemm"):
    """Compute ``exp(x − max) / Σ exp(x − max)`` along an axis.

    Parameters
    ----------
    x : QTensor
        uint8 or int8, per tensor.
    dim : int
    out : QParams, optional
        (1/256, zero point at the smallest code) unless given.
    numerics : str or Numerics

    Returns
    -------
    QTensor
        Contiguous.

    Exactness
    ---------
    Along the densest axis bit-exact: SLEEF's exponential, the sum in the order of PyTorch's vectors, a product with its inverse. Along another
    the same but for the last entries, which fill no vector: there the C library's exponential is taken in float64 and rounded, which may
    differ from its own float32 by an ulp. QNNPACK's table for uint8 with a scale of 1/256 and zero point 0: exact, but that the C library's
    exponential decides a table entry beside a tie.

    Source
    ------
    PyTorch 2.13 ATen/native/quantized/cpu/qsoftmax.cpp, ATen/native/cpu/SoftMaxKernel.cpp; QNNPACK src/softargmax.c, u8lut32norm/scalar.c.

    Examples
    --------
    >>> import refquant as rq
    >>> softmax(rq.QTensor(np.array([[0, 0, 10]], np.uint8), rq.QParams(0.1, 0, "uint8"))).values
    array([[ 54,  54, 147]], dtype=uint8)
    """
    profile = profiles.get(numerics)
    place = f"softmax[{profile.name}]"
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    form = profile.section("softmax", "softmax")
    out = check_out(out or QParams(1 / 256, x.qparams._type.qmin, x.dtype), place)
    if not -x.ndim <= dim < x.ndim:
        raise ArgumentError(f"{place}: dim={dim} but x has {x.ndim} dimensions; choose {-x.ndim} … {x.ndim - 1}")
    if not x.size:
        raise ShapeError(f"{place}: x has shape {x.shape}; it must not be empty")
    dim %= x.ndim
    n, inner = x.shape[dim], int(np.prod(x.shape[dim + 1 :]))
    codes = np.ascontiguousarray(x.values).reshape(-1, n, inner)
    if form.style == "table" and x.dtype == "uint8" and (out.dtype, out.scale, out.zero_point) == ("uint8", 1 / 256, 0):
        y = QTensor(_by_table(codes, x.qparams.scale).astype(np.uint8), out)
    else:
        real = dequantize(QTensor(codes, x.qparams), numerics=profile)
        real = _densest(real[:, :, 0], form.vector)[:, :, None] if dim == x.ndim - 1 else _across(real, form.vector)
        y = quantize(real, out, numerics=profile)
    return QTensor(np.ascontiguousarray(y.values).reshape(x.shape), out)
