"""mul: the product of two quantized tensors, and of its ReLU."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.epilogue import apply_epilogue
from refquant.core.layout import is_channels_last
from refquant.core.qtensor import QTensor
from refquant.core.wrap import saturate, saturate_int16
from refquant.errors import UnsupportedError, choose
from refquant.kernels.requantize import requantize
from refquant.numerics.forms import ProductForm
from refquant.numerics.range_forms import RangeForm
from refquant.ops.add import memory_order_of_pair
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor
from refquant.ops.broadcast import broadcast_shape, spread
from refquant.ops.by_reals import in_format_of
from refquant.ops.output_stage import output_stage
from refquant.ops.range_elementwise import range_product
from refquant.ops.vector_loop import leaves_int32, loop_codes

__all__ = ["mul", "mul_reference"]

# Elements of a step of ATen's loop: two vectors of 32 codes.
_STEP = 64


def _mul(a, b, out, numerics, activation, finish):
    profile = profiles.get(numerics)
    place = f"mul[{profile.name}]"
    choose(place, "activation", activation, [None, "relu"])
    for name, q in (("a", a), ("b", b)):
        check_eight_bit(check_qtensor(q, name, place), name, place)
    check_out(out, place)
    form = profile.section("mul", "mul")
    broadcasts = a.shape != b.shape
    if broadcasts:
        shape = broadcast_shape(place, a=a, b=b)
        a, b = (QTensor(spread(q.values, shape), q.qparams) for q in (a, b))
    u, v, back = memory_order_of_pair(a, b)
    if isinstance(form, ProductForm):
        acc = (u.astype(np.int32) - np.int32(a.qparams.zero_point)) * (v.astype(np.int32) - np.int32(b.qparams.zero_point))
        stage = output_stage(form, a.qparams, b.qparams, out, None, 1, activation, place)
        if form.arithmetic == "float32" and form.zero_point == "after" and leaves_int32(acc, stage):
            tail = _scalar_part(a, b, broadcasts, place)
            return QTensor(back(loop_codes(acc, stage, out.storage, tail)), out)
        y = finish(acc[:, None], stage, out.storage)[:, 0]
        if getattr(form, "narrow", "none") == "int16":
            body = acc.size // form.vector * form.vector
            y[:body] = _narrowed(acc[:body], stage, out)
        return in_format_of(QTensor(back(y), out), a.values)
    if isinstance(form, RangeForm):
        return QTensor(back(range_product(form, a.qparams, b.qparams, out, u, v, activation).astype(out.storage)), out)
    return QTensor(back(_by_reals(form, a.qparams, b.qparams, out, u, v, activation)), out)


def _scalar_part(a, b, broadcasts, place):
    """Return which products, in memory order, ATen's loop takes one by one: those that fill no step, or all where the memory formats differ."""
    if broadcasts:
        raise UnsupportedError(
            f"{place}: a and b have different shapes and products, over the output's scale, of 2**30 and more, where it counts how the engine loops;"
            " make them of one shape"
        )
    mixed = is_channels_last(a.values) != is_channels_last(b.values)
    return np.arange(a.size) >= (0 if mixed else a.size // _STEP * _STEP)


def _narrowed(acc, stage, out):
    """Go on with scaled products in 16 bits: they saturate, and their sum with the zero point wraps."""
    whole = apply_epilogue(acc[:, None], stage._replace(zi=0, qlo=-(2**31), qhi=2**31 - 1), np.int32)[:, 0]
    low = (saturate_int16(whole.astype(np.int64)) + out.zero_point + 2**15) % 2**16 - 2**15
    return saturate(low, stage.qlo, stage.qhi).astype(out.storage)


def _by_reals(form, qa, qb, out, u, v, activation):
    real = dequantize_codes(u, qa.scale, qa.zero_point, form.dequantize) * dequantize_codes(v, qb.scale, qb.zero_point, form.dequantize)
    if activation == "relu":
        real = np.where(real > 0, real, np.float32(0))
    kind = out._type
    codes = quantize_real(real, out.scale, out.zero_point, kind.qmin, kind.qmax, scaling=form.scaling, add=form.zero_point, rounding=form.rounding)
    return saturate(codes, kind.qmin, kind.qmax).astype(out.storage)


def mul(a, b, *, out, numerics="fbgemm", activation=None):
    """Multiply two quantized tensors elementwise.

    Parameters
    ----------
    a, b : QTensor
        Per tensor; of one shape, or, under ONNX's profiles, of two that broadcast.
    out : QParams
    numerics : str or Numerics
    activation : {None, "relu"}

    Returns
    -------
    QTensor
        Under PyTorch's profiles in the memory format of `a`, else channels last where both inputs are.

    Exactness
    ---------
    The product of the centred codes is an exact integer; the output stage rounds as the profile's ``mul`` form says. PyTorch multiplies by
    ``f(sa·sb)·f(1/sy)``, ONNX Runtime by ``f(sa·sb)/sy`` with the zero point inside of the rounding. Bit-exact.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> a = rq.QTensor(np.array([3, 9], np.uint8), rq.QParams(0.5, 1, "uint8"))
    >>> mul(a, a, out=rq.QParams(0.25, 5, "uint8"), numerics="fbgemm").values
    array([ 9, 69], dtype=uint8)
    """
    return _mul(a, b, out, numerics, activation, requantize)


def mul_reference(a, b, *, out, numerics="fbgemm", activation=None):
    """Same result as `mul`, in NumPy."""
    return _mul(a, b, out, numerics, activation, apply_epilogue)
