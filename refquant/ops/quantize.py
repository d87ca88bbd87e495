"""quantize: real numbers to codes, as each engine does it."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import code_of_nan, quantize_real, reciprocal
from refquant.core.arguments import as_array
from refquant.core.layout import in_suggested_format
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.core.wrap import saturate, wrap_int32
from refquant.errors import ArgumentError, ShapeError
from refquant.kernels import affine as kernels
from refquant.numerics.range_forms import RangeForm
from refquant.numerics.tail_forms import FlushedQuantizeForm
from refquant.ops.memo import Memo
from refquant.ops.memory_order import around_axis, memory_order, restored
from refquant.ops.range_elementwise import range_quantize

__all__ = ["quantize", "quantize_reference"]


def real_array(x, place):
    """Return `x` as float32, or say why not."""
    x = as_array(x, "x", place)
    if x.dtype.kind != "f":
        raise ArgumentError(f"{place}: x has dtype {x.dtype} but must be real numbers; convert with x.astype(np.float32)")
    with np.errstate(over="ignore"):
        return x.astype(np.float32, copy=False)


def check_axis(x, qparams, place):
    """Refuse per-channel parameters that do not fit the array."""
    if qparams.per_channel and (qparams.axis >= x.ndim or x.shape[qparams.axis] != len(qparams.scale)):
        raise ShapeError(f"{place}: {len(qparams.scale)} scales along axis {qparams.axis} but x has shape {x.shape}; they must agree")


def _plan(x, qparams, numerics):
    profile = profiles.get(numerics)
    place = f"quantize[{profile.name}]"
    if not isinstance(qparams, QParams):
        raise ArgumentError(f"{place}: qparams must be a QParams, not {type(qparams).__name__}; build one with refquant.QParams")
    x = real_array(x, place)
    check_axis(x, qparams, place)
    section = "quantize_channel" if qparams.per_channel else "quantize_int32" if qparams.dtype == "int32" else "quantize"
    form = profile.section(section, "quantize")
    return _flushed(x, qparams) if isinstance(form, FlushedQuantizeForm) else x, form


def _flushed(x, qparams):
    """Take subnormal numbers for zero, where that can move a code: the least of x under the least scales, the reciprocals of the largest scales."""
    scale = np.asarray(qparams.along(x.ndim)[0], np.float32)
    if not np.any((scale < 2.0**-124) | (scale > 2.0**126)):
        return x
    with np.errstate(invalid="ignore"):
        x = np.where(np.abs(x) < np.finfo(np.float32).tiny, np.float32(0), x)
        return np.where(scale > 2.0**126, x * np.float32(0), x)


def quantize(x, qparams, *, numerics="fbgemm"):
    """Quantize real numbers: ``clip(round(x / scale) + zero_point)`` as the engine computes it.

    Parameters
    ----------
    x : array_like of float
        Any shape; float64 is rounded to float32 first.
    qparams : QParams
        Per tensor, or per channel along ``qparams.axis``.
    numerics : str or Numerics
        Whose arithmetic: which profile's ``quantize`` (``quantize_channel``, ``quantize_int32``) form.

    Returns
    -------
    QTensor
        Codes saturated to the whole dtype, of PyTorch's quantized_decomposed operators to the limits of `qparams`; with the memory format of `x`.

    Raises
    ------
    ArgumentError, ShapeError
        Integers for `x`; as many scales as the axis has channels are needed.

    Exactness
    ---------
    Bit-exact for every float32, NaN and infinities included. See `refquant.numerics.forms.QuantizeForm`.

    Examples
    --------
    >>> from refquant import QParams
    >>> x = [0.5, 1.5, 2.5]
    >>> quantize(x, QParams(1.0, 1, "uint8"), numerics="fbgemm").values.tolist()
    [2, 2, 4]
    >>> quantize(x, QParams(1.0, 1, "uint8"), numerics="onnx").values.tolist()
    [1, 3, 3]
    """
    x, form = _plan(x, qparams, numerics)
    numbers = _MEMO.get((form, qparams), (), lambda: _numbers(form, qparams))
    if numbers is None:
        return quantize_reference(x, qparams, numerics=numerics)
    axes, source = memory_order(_without_gaps(form, x))
    out = np.empty(source.shape, qparams.storage)
    kernels.quantize_codes(source, out, *numbers, around_axis(x.shape, axes, qparams.axis))
    _put_tail(form, source, out, qparams)
    return QTensor(restored(out, axes), qparams)


def _without_gaps(form, x):
    """PyTorch's kernels take tensors in a memory format; quantized_decomposed keeps whatever order of axes `x` has."""
    return x if form.zero_point == "float_after" else in_suggested_format(x)


def _put_tail(form, source, out, qparams):
    """Write the scalar tail of a form that has one; both arrays lie in memory order."""
    if getattr(form, "tail", "body") == "body":
        return
    body = source.size // form.vector * form.vector
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        real = source.reshape(-1)[body:].astype(np.float64) / np.float64(np.float32(qparams.scale))
        whole = round_real(real, Round.HALF_AWAY)
        inside = np.abs(whole) < 2.0**31
    codes = wrap_int32(np.where(inside, whole, -(2.0**31)).astype(np.int64) + qparams.zero_point)
    out.reshape(-1)[body:] = saturate(codes, qparams._type.qmin, qparams._type.qmax).astype(out.dtype)


_MEMO = Memo(512)


def _numbers(form, qparams):
    """Return what the kernel takes for a form and parameters, or None where it has no such loop."""
    how = None if isinstance(form, RangeForm) else quantizer(form)
    if how is None or qparams.storage.itemsize > 2:
        return None
    factor, zero, _ = channel_vectors(form, qparams)
    limits = _limits(form, qparams)
    return how, factor, zero, limits, code_of_nan(form.nan, *limits)


def _limits(form, qparams):
    """quantized_decomposed, whose zero point is a float too, gets the observer's limits; other engines saturate to what the dtype holds."""
    kind = qparams._type
    return (qparams.qmin, qparams.qmax) if form.zero_point == "float_after" else (kind.qmin, kind.qmax)


def quantizer(form):
    """Return what the kernel is to be compiled for, or None where it has no such loop."""
    overflow = {"saturate": kernels.SATURATE, "int64": kernels.BY_INT64, "indefinite": kernels.INDEFINITE}[form.overflow]
    if form.rounding not in (Round.HALF_EVEN, Round.HALF_AWAY) or (form.nan == "overflow") != (overflow == kernels.INDEFINITE):
        return None
    if form.zero_point == "float_after" and overflow != kernels.SATURATE:
        return None
    # In 16 bits and fewer, a float zero point and an integer one make the same sums.
    add = {"after": kernels.AFTER, "float_after": kernels.AFTER, "before": kernels.BEFORE, "fma": kernels.FUSED}[form.zero_point]
    if add == kernels.FUSED and form.scaling == "divide":
        return None
    return kernels.Quantizer(form.scaling == "divide", add, form.rounding is Round.HALF_AWAY, overflow)


def channel_vectors(form, qparams):
    """Return (factor, zero point, scale) as float32 vectors, one entry a channel."""
    with np.errstate(over="ignore", under="ignore"):
        factor = np.atleast_1d(np.asarray(reciprocal(qparams.scale, form.scaling), np.float32))
        scale = np.atleast_1d(np.asarray(qparams.scale).astype(np.float32))
    return factor, np.atleast_1d(np.asarray(qparams.zero_point)).astype(np.float32), scale


def quantize_reference(x, qparams, *, numerics="fbgemm"):
    """Same result as `quantize`, in NumPy."""
    x, form = _plan(x, qparams, numerics)
    if isinstance(form, RangeForm):
        return QTensor(range_quantize(form, x, qparams).astype(qparams.storage), qparams)
    scale, zero = qparams.along(x.ndim)
    codes = quantize_real(
        x, scale, zero, *_limits(form, qparams),
        scaling=form.scaling, add=form.zero_point, rounding=form.rounding, overflow=form.overflow, nan=form.nan,
    )  # fmt: skip
    axes, source = memory_order(_without_gaps(form, x))
    codes = np.ascontiguousarray(codes.transpose(axes)).astype(qparams.storage)
    _put_tail(form, source, codes, qparams)
    return QTensor(restored(codes, axes), qparams)
