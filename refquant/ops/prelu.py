"""prelu: a leaky ReLU with a quantized slope a channel."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import quantize_real
from refquant.core.epilogue import apply_epilogue, gemmlowp_multiply, half_up_multiply
from refquant.core.qtensor import QTensor
from refquant.core.wrap import saturate
from refquant.errors import ShapeError, UnsupportedError
from refquant.kernels.requantize import requantize
from refquant.numerics.fixed_forms import MultiplierForm
from refquant.numerics.range_forms import RangeForm
from refquant.numerics.special_forms import RealsForm
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor
from refquant.ops.by_reals import in_format_of, through_reals
from refquant.ops.dequantize import dequantize
from refquant.ops.memory_order import memory_order
from refquant.ops.output_stage import output_stage, quantized_multiplier
from refquant.ops.range_elementwise import range_prelu
from refquant.ops.vector_loop import leaves_int32, loop_codes

__all__ = ["prelu", "prelu_reference"]

# Elements of a step: two vectors of 32 codes.
_STEP = 64


def _prelu(x, weight, out, numerics, finish):
    profile = profiles.get(numerics)
    place = f"prelu[{profile.name}]"
    form = profile.section("prelu", "prelu")
    for name, q in (("x", x), ("weight", weight)):
        check_eight_bit(check_qtensor(q, name, place), name, place)
    check_out(out, place)
    if not x.dtype == weight.dtype == out.dtype:
        raise UnsupportedError(f"{place}: x is {x.dtype}, weight {weight.dtype} and out {out.dtype}; {profile.engine} takes one dtype for all")
    slopes = weight.values.reshape(-1)
    if not x.ndim or slopes.size not in (1, x.shape[1] if x.ndim > 1 else 1):
        raise ShapeError(f"{place}: weight has {slopes.size} slopes but x has shape {x.shape}; give one, or one for each of its channels (axis 1)")
    if isinstance(form, RealsForm):
        steep = dequantize(QTensor(slopes, weight.qparams), numerics=profile).reshape(-1, *[1] * max(x.ndim - 2, 0))
        return through_reals(x, out, profile, lambda real: np.where(real > 0, real, real * steep))
    if isinstance(form, RangeForm):
        y = range_prelu(form, x.qparams, weight.qparams, out, x.values, slopes.reshape(-1, *[1] * max(x.ndim - 2, 0)))
        return QTensor(y.astype(out.storage), out)
    slopes = slopes.astype(np.int32).reshape(-1, *[1] * max(x.ndim - 2, 0))
    qx, qw = x.qparams, weight.qparams
    kind = qw._type
    if isinstance(form, MultiplierForm):
        return QTensor(_by_two_multipliers(form, x, slopes - np.int32(qw.zero_point), qw.scale, out), out)
    one = quantize_real(np.float32(1), qw.scale, qw.zero_point, kind.qmin, kind.qmax, scaling="reciprocal", add="before", rounding="half_even")
    centred = x.values.astype(np.int32) - np.int32(qx.zero_point)
    acc = np.maximum(centred, 0) * np.int32(one - qw.zero_point) + np.minimum(centred, 0) * (slopes - np.int32(qw.zero_point))
    stage = output_stage(form, qx, qw, out, None, 1, None, place)
    if leaves_int32(acc, stage):
        return in_format_of(QTensor(loop_codes(acc, stage, out.storage, _scalar_part(x, slopes.size)), out), x.values)
    return in_format_of(QTensor(finish(acc.reshape(-1, 1), stage, out.storage).reshape(x.shape), out), x.values)


def _scalar_part(x, slopes):
    """Return which elements the loop takes one by one: the last ones of each run, over which the slope is one number or goes along with memory."""
    order, dense = memory_order(x.values)
    length = dense.size if slopes == 1 or dense.size == x.shape[1] else dense.shape[-1] if order[-1] == 1 else int(np.prod(dense.shape[order.index(1) + 1 :]))
    tail = np.arange(dense.size) % length >= length // _STEP * _STEP
    return tail.reshape(dense.shape).transpose(np.argsort(order))


def _by_two_multipliers(form, x, slopes, scale, out):
    multiply = gemmlowp_multiply if form.multiply == "gemmlowp" else half_up_multiply
    sx, sw, sy = (np.float32(v) for v in (x.qparams.scale, scale, out.scale))
    centred = x.values.astype(np.int64) - x.qparams.zero_point
    above, below = (multiply(v, *quantized_multiplier(m)) for v, m in ((centred, sx / sy), (centred * slopes, sx * sw / sy)))
    codes = np.where(centred >= 0, above, below) + out.zero_point
    return saturate(codes, out._type.qmin, out._type.qmax).astype(out.storage)


def prelu(x, weight, *, out, numerics="fbgemm"):
    """Apply ``x`` where it is positive, else ``weight · x``, on codes: ``(x⁺ · code of 1 + x⁻ · w) · m + zy``.

    Parameters
    ----------
    x : QTensor, (N, C, …)
        uint8 or int8, per tensor.
    weight : QTensor, (C,) or (1,)
        The slopes, of the dtype of `x`.
    out : QParams
        Of the same dtype.
    numerics : str or Numerics

    Returns
    -------
    QTensor
        PyTorch's in the memory format of `x`.

    Exactness
    ---------
    Bit-exact. PyTorch makes a code of the weight's grid of the number 1, so with a grid that does not reach 1 positive numbers shrink;
    TensorFlow Lite has a multiplier for them, see `refquant.numerics.fixed_forms.MultiplierForm`.

    Source
    ------
    PyTorch 2.13 QuantizedOpKernels.cpp, ``qprelu_out_kernel``; TensorFlow Lite kernels/activations.cc, ``BroadcastPrelu4DSlow``; OpenVINO, see `refquant.ops.range_elementwise`.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([[0, 20]], np.uint8), rq.QParams(0.5, 10, "uint8"))
    >>> w = rq.QTensor(np.array([5], np.uint8), rq.QParams(0.1, 0, "uint8"))
    >>> prelu(x, w, out=rq.QParams(0.5, 10, "uint8")).values
    array([[ 5, 20]], dtype=uint8)
    """
    return _prelu(x, weight, out, numerics, requantize)


def prelu_reference(x, weight, *, out, numerics="fbgemm"):
    """Same result as `prelu`, in NumPy."""
    return _prelu(x, weight, out, numerics, apply_epilogue)
