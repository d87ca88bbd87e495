"""softmax: exponentials that add up to one."""

import math

import numpy as np

from refquant import numerics as profiles
from refquant.core.glibc import glibc_exp
from refquant.core.layout import is_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.core.sleef import sleef_exp
from refquant.core.wrap import saturate
from refquant.errors import ShapeError, UnsupportedError
from refquant.numerics.range_forms import RangeSoftmaxForm
from refquant.ops.arguments import axis_of, check_eight_bit, check_out, check_qtensor
from refquant.ops.dequantize import dequantize
from refquant.ops.fixed_softmax import softmax_by_gemmlowp, softmax_by_table
from refquant.ops.quantize import quantize
from refquant.ops.range_elementwise import range_softmax

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
    e = np.concatenate([sleef_exp(centred[:, :, :body]), glibc_exp(centred[:, :, body:])], axis=2)
    return e / np.add.accumulate(e, axis=1, dtype=_F)[:, -1:]


def _by_table(codes, scale):
    """QNNPACK: softmax of codes (R, N, I) along N with exponentials as integers, one rounded integer division."""
    unit = min((2.0**32 - 1) / codes.shape[1], _TOP)
    exponents = (np.arange(256) - 255).astype(np.float64) * np.float64(_F(scale))
    table = round_real(unit * np.exp(exponents), Round.HALF_EVEN).astype(np.int64)
    e = table[codes.astype(np.int64) + (255 - codes.max(1, keepdims=True).astype(np.int64))]
    total = e.sum(1, keepdims=True)
    return np.minimum((256 * e + (total >> 1)) // total, 255)


def _in_a_line(x, n, place):
    """QNNPACK's softmax as PyTorch calls it for strides of 1 along the axis: rows of `n` codes follow one another in memory, gaps or not."""
    values = x.values
    if values.size - 1 > sum((size - 1) * stride for size, stride in zip(values.shape, values.strides)):
        raise UnsupportedError(f"{place}: x has shape {x.shape} and strides {values.strides}, and the engine reads memory behind it; copy x")
    rows = np.lib.stride_tricks.as_strided(values, (values.size // n, n, 1), (n, 1, 1), writeable=False)
    codes = _by_table(rows, x.qparams.scale).astype(np.uint8)
    if is_channels_last(values):
        return np.moveaxis(codes.reshape(values.shape[0], *values.shape[2:], values.shape[1]), -1, 1)
    return codes.reshape(values.shape)


def _by_rows(form, rows, q, out, inner, profile, place):
    """Return codes of rows (R, N) by TensorFlow Lite's kernels, or by ONNX Runtime's."""
    if form.style == "mlas":
        codes = _mlas(rows, q.scale, out)
    else:
        if inner > 1:
            raise UnsupportedError(f"{place}: {profile.engine} has softmax along the last axis alone; move the axis there")
        if (out.dtype, out.scale, out.zero_point) != ("int8", 1 / 256, -128) or rows.dtype != np.int8:
            raise UnsupportedError(f"{place}: {profile.engine} has softmax of int8 into scale 1/256 and zero point -128 alone; leave out away")
        if _F(q.scale) <= 2.0**-26:
            raise UnsupportedError(f"{place}: x has scale {q.scale:.3g} but {profile.engine} wants more than 2**-26; requantize")
        codes = (softmax_by_gemmlowp if form.style == "gemmlowp" else softmax_by_table)(rows, q.scale)
    return saturate(codes, out._type.qmin, out._type.qmax).astype(out.storage)


def _mlas(codes, scale, out):
    """ONNX Runtime's QLinearSoftmax: exponentials from a table, shifted up as far as a float32 sum of a row allows; the output scale enters as ``floor(1 / sy)``."""
    scale = float(_F(scale))
    room = float(_F(math.log(float(np.finfo(_F).max / _F(codes.shape[1])))))
    shift = max(0.0, room - 5) / scale
    table = np.array([math.exp((i - 255 + shift) * scale) for i in range(256)]).astype(_F)
    e = table[codes.astype(np.int64) - codes.max(1, keepdims=True).astype(np.int64) + 255]
    total = np.add.accumulate(e, axis=1, dtype=_F)[:, -1:]
    # Product and quotient are double in release 1.32.
    steps = round_real(_F(1) / _F(out.scale), Round.FLOOR)
    return round_real(e.astype(np.float64) * steps / total, Round.HALF_EVEN).astype(np.int64) + out.zero_point


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
    the same but for the last entries, which fill no vector: there glibc's ``expf`` is taken. QNNPACK's table for uint8 with a scale of 1/256 and zero point 0: exact, but that the C library's
    exponential decides a table entry beside a tie. TensorFlow Lite's reference kernel: exact, integers alone; its optimized one and ONNX Runtime's
    QLinearSoftmax: the same reservation about a table. OpenVINO: bit-exact, by oneDNN's kernels (`refquant.core.onednn_softmax`).

    Source
    ------
    ONNX Runtime contrib_ops/cpu/quantization/qlinear_softmax.cc; TensorFlow Lite, see `refquant.ops.fixed_softmax`; PyTorch 2.13 ATen/native/quantized/cpu/qsoftmax.cpp, ATen/native/cpu/SoftMaxKernel.cpp; QNNPACK src/softargmax.c, u8lut32norm/scalar.c.

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
    out = check_out(QParams(1 / 256, x.qparams._type.qmin, x.dtype) if out is None else out, place)
    dim = axis_of(dim, x.ndim, place)
    if not x.size:
        raise ShapeError(f"{place}: x has shape {x.shape}; it must not be empty")
    n, inner = x.shape[dim], int(np.prod(x.shape[dim + 1 :]))
    codes = np.ascontiguousarray(x.values).reshape(-1, n, inner)
    if isinstance(form, RangeSoftmaxForm):
        return QTensor(range_softmax(form, x.qparams, out, np.ascontiguousarray(x.values), dim).astype(out.storage), out)
    if form.style in ("gemmlowp", "lookup", "mlas"):
        rows = np.moveaxis(codes, 1, 2).reshape(-1, n)
        y = np.moveaxis(_by_rows(form, rows, x.qparams, out, inner, profile, place).reshape(-1, inner, n), 2, 1)
        return QTensor(np.ascontiguousarray(y).reshape(x.shape), out)
    if form.style in ("table", "raw_table") and x.dtype == "uint8" and (out.dtype, out.scale, out.zero_point) == ("uint8", 1 / 256, 0):
        if form.style == "raw_table" and x.values.strides[dim] == 1:
            return QTensor(_in_a_line(x, n, place), out)
        y = QTensor(_by_table(codes, x.qparams.scale).astype(np.uint8), out)
    else:
        real = dequantize(QTensor(codes, x.qparams), numerics=profile)
        if form.style == "float64":
            wide = np.exp(real.astype(np.float64) - real.max(1, keepdims=True))
            real = (wide / wide.sum(1, keepdims=True)).astype(_F)
        else:
            lanes = max(form.vector, 1)
            real = _densest(real[:, :, 0], lanes)[:, :, None] if dim == x.ndim - 1 else _across(real, lanes)
        y = quantize(real, out, numerics=profile)
    return QTensor(np.ascontiguousarray(y.values).reshape(x.shape), out)
