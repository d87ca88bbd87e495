"""batch_norm: normalization by constants, which is one line a channel."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import quantize_real
from refquant.core.arguments import as_real, as_reals
from refquant.core.fma import fma32
from refquant.core.layout import to_channels_last
from refquant.core.qtensor import QTensor
from refquant.errors import ShapeError, UnsupportedError, choose
from refquant.numerics.special_forms import RealsForm
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor
from refquant.ops.by_reals import through_reals

__all__ = ["batch_norm", "batch_norm_reference"]

_F = np.float32
# Channels of a step, all of one point; the last ones are rounded to 64 bits one by one.
_STEP = 8


def vector_of(value, name, size, place, default):
    """Return a float32 vector of `size` entries; `default` where there is none."""
    if value is None:
        return np.full(size, default, _F)
    value = as_reals(value, name, place)
    if value.shape != (size,):
        raise ShapeError(f"{place}: {name} has shape {value.shape} but there are {size} channels; it must be ({size},)")
    return value


def _lines(x, mean, var, weight, bias, eps, out, place):
    """Return (alpha, beta), float32: float products, the scales as doubles."""
    size = x.shape[1]
    mean, var = vector_of(mean, "mean", size, place, 0), vector_of(var, "var", size, place, 1)
    weight, bias = vector_of(weight, "weight", size, place, 1), vector_of(bias, "bias", size, place, 0)
    eps = as_real(eps, "eps", place)
    with np.errstate(all="ignore"):
        gain = (1.0 / np.sqrt(var + _F(eps)).astype(np.float64)).astype(_F)
        alpha = ((gain * weight).astype(np.float64) * (x.qparams.scale / out.scale)).astype(_F)
        beta = ((bias - mean * gain * weight).astype(np.float64) / out.scale).astype(_F)
    return alpha, beta


def _real_lines(x, mean, var, weight, bias, eps, place):
    """Return (alpha, beta), float32, of real numbers: PyTorch's float kernel."""
    size = x.shape[1]
    mean, var = vector_of(mean, "mean", size, place, 0), vector_of(var, "var", size, place, 1)
    weight, bias = vector_of(weight, "weight", size, place, 1), vector_of(bias, "bias", size, place, 0)
    eps = as_real(eps, "eps", place)
    with np.errstate(all="ignore"):
        alpha = weight * (_F(1) / np.sqrt(var + _F(eps)))
        return alpha, fma32(-mean, alpha, bias)


def _line(form, centred, alpha, beta, out, activation):
    with np.errstate(all="ignore"):
        v = fma32(alpha, centred, beta) if form.contraction == "fma" else alpha * centred + beta
    kind = out._type
    low = max(kind.qmin, out.zero_point) if activation == "relu" else kind.qmin
    body, tail = (
        quantize_real(v, 1.0, out.zero_point, low, kind.qmax, scaling="reciprocal", add="after", rounding=form.rounding, overflow=overflow).astype(out.storage)
        for overflow in ("wrap", "long")
    )
    channels = np.arange(alpha.size).reshape(alpha.shape)
    return np.where(channels < alpha.size // _STEP * _STEP, body, tail)


def _plan(x, mean, var, weight, bias, eps, out, numerics, activation):
    profile = profiles.get(numerics)
    place = f"batch_norm[{profile.name}]"
    choose(place, "activation", activation, [None, "relu"])
    form = profile.section("batch_norm", "batch_norm")
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    if x.ndim < 2:
        raise ShapeError(f"{place}: x has shape {x.shape} but must be (N, C, …)")
    if check_out(out, place).dtype != x.dtype:
        raise UnsupportedError(f"{place}: {profile.engine} keeps the dtype {x.dtype} of its input, but out is {out.dtype}; give out the same dtype")
    if isinstance(form, RealsForm):
        return form, *_real_lines(x, mean, var, weight, bias, eps, place)
    return form, *_lines(x, mean, var, weight, bias, eps, out, place)


def batch_norm(x, mean, var, weight=None, bias=None, eps=1e-5, *, out, numerics="fbgemm", activation=None):
    """Normalize each channel by a given mean and variance.

    ``alpha = weight / sqrt(var + eps) · sx / sy``, ``beta = (bias − mean · weight / sqrt(var + eps)) / sy``, ``y = round(alpha · (q − zx) + beta) + zy``.

    Parameters
    ----------
    x : QTensor, (N, C, …)
        uint8 or int8, per tensor.
    mean, var : array_like of float32, (C,)
    weight, bias : array_like of float32, (C,), optional
    eps : float
    out : QParams
        Of the dtype of `x`.
    numerics : str or Numerics
    activation : {None, "relu"}

    Returns
    -------
    QTensor
        Images and volumes channels last, as PyTorch's quantized kernel makes them; under inductor contiguous.

    Exactness
    ---------
    Bit-exact: sums and products in float32, scales in double, ``alpha · (q − z) + beta`` rounded once.

    Source
    ------
    PyTorch 2.13 ATen/native/quantized/cpu/Normalization.cpp, ``compute_fused_params``; QuantizedOpKernels.cpp, ``q_batch_norm_kernel``.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([[10, 20]], np.uint8), rq.QParams(0.5, 0, "uint8"))
    >>> batch_norm(x, [1.0, 2.0], [4.0, 1.0], eps=0.0, out=rq.QParams(0.5, 0, "uint8")).values
    array([[ 4, 16]], dtype=uint8)
    """
    form, alpha, beta = _plan(x, mean, var, weight, bias, eps, out, numerics, activation)
    if isinstance(form, RealsForm):
        return _by_reals(x, alpha, beta, out, numerics, activation)
    if not x.size:
        return QTensor(np.empty(x.shape, out.storage), out)
    # A channel has 256 codes, so what a tensor of more holds is looked up.
    if x.size < 512 * x.shape[1]:
        return QTensor(_laid_out(_reference(form, x, alpha, beta, out, activation)), out)
    codes = np.arange(256, dtype=np.uint8).view(x.values.dtype).astype(np.int32) - np.int32(x.qparams.zero_point)
    tables = _line(form, codes.astype(_F), alpha[:, None], beta[:, None], out, activation)
    moved = np.ascontiguousarray(np.moveaxis(x.values, 1, 0))
    y = np.stack([np.take(table, plane.view(np.uint8)) for table, plane in zip(tables, moved)])
    return QTensor(_laid_out(np.moveaxis(y, 0, 1)), out)


def _laid_out(y):
    """qbatch_norm.cpp makes images and volumes channels last, whatever their input is."""
    return to_channels_last(y) if y.ndim > 3 else np.ascontiguousarray(y)


def _by_reals(x, alpha, beta, out, numerics, activation):
    """Dequantize, one line a channel with product and sum rounded once, quantize."""
    column = lambda v: np.broadcast_to(v.reshape(-1, *[1] * (x.ndim - 2)), x.shape)  # noqa: E731
    floor = _F(0) if activation == "relu" else _F(-np.inf)
    y = through_reals(x, out, profiles.get(numerics), lambda real: np.maximum(fma32(np.ascontiguousarray(real), column(alpha), column(beta)), floor))
    return QTensor(np.ascontiguousarray(y.values), out)


def _reference(form, x, alpha, beta, out, activation):
    shape = (1, -1, *[1] * (x.ndim - 2))
    centred = (x.values.astype(np.int32) - np.int32(x.qparams.zero_point)).astype(_F)
    return _line(form, centred, alpha.reshape(shape), beta.reshape(shape), out, activation)


def batch_norm_reference(x, mean, var, weight=None, bias=None, eps=1e-5, *, out, numerics="fbgemm", activation=None):
    """Same result as `batch_norm`, element by element."""
    form, alpha, beta = _plan(x, mean, var, weight, bias, eps, out, numerics, activation)
    if isinstance(form, RealsForm):
        return _by_reals(x, alpha, beta, out, numerics, activation)
    return QTensor(_laid_out(_reference(form, x, alpha, beta, out, activation)), out)
