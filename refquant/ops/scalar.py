"""add_scalar, mul_scalar: a number added to, or multiplied with, a quantized tensor; PyTorch moves the parameters rather than the codes."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_real
from refquant.core.epilogue import to_int32
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.core.wrap import saturate, wrap_int32
from refquant.errors import RangeError, choose
from refquant.ops.arguments import check_eight_bit, check_qtensor
from refquant.ops.relu import relu

__all__ = ["add_scalar", "mul_scalar"]

_F = np.float32
_INT32 = 2.0**31


def _plan(x, number, numerics, activation, op):
    profile = profiles.get(numerics)
    place = f"{op}[{profile.name}]"
    choose(place, "activation", activation, [None, "relu"])
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    form = profile.section("scalar", op)
    return form, place, as_real(number, "number", place)


def add_scalar(x, number, *, numerics="fbgemm", activation=None):
    """Add a number: ``z' = z − round(number / s)``, the codes as they are, as long as z' is a code.

    Else the nearer end of the dtype becomes the zero point, the scale grows to ``s' = s · (qmax − z') / (qmax − qmin)`` (or ``(z' − qmin)``),
    and the codes are requantized.

    Parameters
    ----------
    x : QTensor
        uint8 or int8, per tensor.
    number : float
        As a double; within 2³¹ scales.
    numerics : str or Numerics
    activation : {None, "relu"}

    Returns
    -------
    QTensor
        With parameters of its own.

    Exactness
    ---------
    Bit-exact, parameters (a double scale) and codes. The number is rounded to a multiple of the scale.

    Source
    ------
    PyTorch 2.13 ATen/native/quantized/cpu/BinaryOps.cpp ``_add_scalar_out``, QuantizedOpKernels.cpp ``qadd_scalar_kernel``.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([0, 255], np.uint8), rq.QParams(0.5, 100, "uint8"))
    >>> add_scalar(x, 10.0)
    QTensor(shape=(2,), QParams(scale=0.5, zero_point=80, dtype='uint8'))
    >>> add_scalar(x, 60.0).values, add_scalar(x, 60.0).qparams.scale
    (array([ 19, 255], dtype=uint8), 0.5392156862745098)
    """
    form, place, number = _plan(x, number, numerics, activation, "add_scalar")
    q, kind = x.qparams, x.qparams._type
    steps = round_real(np.float64(number) / q.scale, Round.HALF_EVEN)
    if not abs(steps) < _INT32:
        raise RangeError(f"{place}: number={number} is {steps:.3g} scales of {q.scale:.3g} but must be less than 2**31 of them; scale the data")
    steps, span = int(steps), kind.qmax - kind.qmin
    moved = q.zero_point - steps
    if kind.qmin <= moved <= kind.qmax:
        y = QTensor(x.values, QParams(q.scale, moved, q.dtype))
        return relu(y) if activation == "relu" else y
    if moved < kind.qmin:
        out = QParams(float(kind.qmax - moved) / float(span) * q.scale, kind.qmin, q.dtype)
    else:
        out = QParams(float(moved - kind.qmin) / float(span) * q.scale, kind.qmax, q.dtype)
    codes = _requantized(form, x, steps, out)
    return QTensor(np.maximum(codes, codes.dtype.type(out.zero_point)) if activation == "relu" else codes, out)


def _requantized(form, x, steps, out):
    sx, sy = _F(x.qparams.scale), _F(out.scale)
    multiplier = sx / sy if form.multiplier == "x/y" else sx * (_F(1) / sy)
    total = wrap_int32(x.values.astype(np.int64) - x.qparams.zero_point + steps)
    codes = to_int32(total.astype(_F) * multiplier, form.rounding) + out.zero_point
    return saturate(codes, out._type.qmin, out._type.qmax).astype(out.storage)


def mul_scalar(x, number, *, numerics="fbgemm", activation=None):
    """Multiply with a number: ``s' = |number| · s``; a negative number turns the codes around, 0 gives code 0 with scale 1 and zero point 0.

    Parameters
    ----------
    x : QTensor
        uint8 or int8, per tensor.
    number : float
        As a double.
    numerics : str or Numerics
    activation : {None, "relu"}

    Returns
    -------
    QTensor
        With parameters of its own.

    Exactness
    ---------
    Bit-exact; no code is rounded.

    Source
    ------
    PyTorch 2.13 ATen/native/quantized/cpu/qmul.cpp ``_mul_scalar_out``.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([0, 255], np.uint8), rq.QParams(0.5, 100, "uint8"))
    >>> mul_scalar(x, -3.0).values, mul_scalar(x, -3.0).qparams.zero_point
    (array([255,   0], dtype=uint8), 155)
    """
    _, _, number = _plan(x, number, numerics, activation, "mul_scalar")
    q, kind = x.qparams, x.qparams._type
    if number == 0:
        return QTensor(np.zeros_like(x.values), QParams(1.0, 0, q.dtype))
    scale = abs(number) * q.scale
    if number > 0:
        y = QTensor(x.values, QParams(scale, q.zero_point, q.dtype))
    else:
        turned = (kind.qmax + kind.qmin - x.values.astype(np.int16)).astype(x.values.dtype)
        y = QTensor(turned, QParams(scale, kind.qmax - (q.zero_point - kind.qmin), q.dtype))
    return relu(y) if activation == "relu" else y
