"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear: per tensor, per axis and in blocks, to every low-precision type."""

import numpy as np

from refquant import ops
from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.interop.onnx.call import axis_of, need
from refquant.interop.onnx.cast import cast_to, real_of
from refquant.interop.onnx.dtypes import as_codes, type_of_array, type_of_number, view_codes

__all__ = ["quantize_linear", "dequantize_linear", "dynamic_quantize_linear"]

_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint4", "int4", "uint2", "int2")
_HALF = ("float16", "bfloat16")


def _axis(call, scale, x):
    """Return the axis that scales run along; None for one scale for all."""
    if scale.size == 1 and scale.ndim < 2:
        return None
    return axis_of(call, call.get("axis", 1) if x.ndim > 1 else 0, x.ndim)


def _spread(call, parameter, x, axis):
    """Shape scales or zero points so that they broadcast against `x`."""
    if axis is None:
        return parameter.reshape(())
    block = call.get("block_size", 0)
    if block and parameter.ndim == x.ndim:
        blocks = -(-x.shape[axis] // block)
        wanted = (*x.shape[:axis], blocks, *x.shape[axis + 1 :])
        need(call, parameter.shape == wanted, f"scales have shape {parameter.shape} but blocks of {block} along axis {axis} of x {x.shape} need {wanted}")
        return np.repeat(parameter, block, axis=axis).take(range(x.shape[axis]), axis=axis)
    need(call, parameter.shape == (x.shape[axis],), f"scales have shape {parameter.shape} but x has shape {x.shape} and axis={axis}")
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def _qparams(scale, zero, kind, axis):
    if axis is None:
        return QParams(float(scale.reshape(())), int(zero.reshape(())), kind.name, unchecked=True)
    return QParams(scale.astype(np.float64), zero, kind.name, axis=axis, unchecked=True)


def _target(call, zero_point):
    number = call.get("output_dtype", 0)
    kind = type_of_number(number, call.place) if number else None
    if zero_point is None:
        return kind or type_of_number(2, call.place)
    own = type_of_array(zero_point, call.place)
    need(call, kind in (None, own), f"output_dtype is {kind and kind.name} but the zero point is {own.name}")
    return own


def _precision(call, scale):
    """Return the dtype that ``x / scale`` is rounded to."""
    if call.rules.division == "float32":
        return "float32"
    number = call.get("precision", 0)
    kind = type_of_number(number, call.place) if number else type_of_array(scale, call.place)
    return kind.name if kind.name in (*_HALF, "float64") else "float32"


def _quotient(x, scale, precision):
    """Return ``x / scale``, rounded to `precision`: float32 has more than twice the digits of half formats, so two roundings are one."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore", under="ignore"):
        if precision == "float64":
            return x.astype(np.float64) / scale.astype(np.float64)
        if precision == "float32":
            return x.astype(np.float32) / scale.astype(np.float32)
        kind = type_of_number(10 if precision == "float16" else 16, "precision")
        half = [real_of(cast_to(v, kind)).astype(np.float32) for v in (x, scale)]
        return real_of(cast_to(half[0] / half[1], kind)).astype(np.float32)


def quantize_linear(call, x, scale, zero_point=None):
    """``QuantizeLinear``: ``saturate(round(x / scale) + zero_point)``."""
    kind, axis, precision = _target(call, zero_point), _axis(call, scale, x), _precision(call, scale)
    scale, x = real_of(scale), real_of(x)
    if kind.name not in _INTEGERS:
        return _to_float(call, x, scale, zero_point, kind, axis, precision)
    zero = np.zeros(scale.shape, np.int64) if zero_point is None else real_of(zero_point).astype(np.int64)
    need(call, zero.size == scale.size, f"the scale has shape {scale.shape} but the zero point {zero.shape}")
    if precision == "float32" and (axis is None or scale.ndim == 1):
        _spread(call, scale, x, axis)
        q = ops.quantize(x.astype(np.float32), _qparams(scale, zero, kind, axis), numerics=call.profile)
        return _stored(q.values, kind, x.shape)
    form = call.profile.quantize if axis is None else call.profile.quantize_channel
    scale, zero = _spread(call, scale, x, axis), _spread(call, zero.reshape(scale.shape), x, axis)
    if precision != "float32":
        x, scale = _quotient(x, scale, precision).astype(np.float32), np.float32(1)
    limits = QParams(1.0, 0, kind.name)._type
    codes = quantize_real(
        x, scale, zero, limits.qmin, limits.qmax,
        scaling=form.scaling, add=form.zero_point, rounding=form.rounding, overflow=form.overflow, nan=form.nan,
    )  # fmt: skip
    return _stored(codes.astype(limits.storage), kind, x.shape)


def _stored(codes, kind, shape):
    return view_codes(codes, kind).reshape(shape) if kind.kind == "small_int" else np.ascontiguousarray(codes).reshape(shape)


def _to_float(call, x, scale, zero_point, kind, axis, precision):
    if kind.kind != "small_float" or kind.name in ("bfloat16", "float8_e8m0fnu"):
        call.refuse(f"quantizes to {kind.name}", f"choose {', '.join(_INTEGERS)} or a float of 8, 6 or 4 bits")
    y = _quotient(x, _spread(call, scale, x, axis), precision)
    if zero_point is not None:
        zero = _real_zero(call, zero_point, kind)
        if kind.bits < 8:
            y = _rounded_sum(y, _spread(call, zero, x, axis), precision)
    return cast_to(y, kind, saturate=call.get("saturate", 1), rules=call.rules, place=call.place)


def _rounded_sum(y, zero, precision):
    total = y + zero.astype(y.dtype)
    if precision not in _HALF:
        return total
    return real_of(cast_to(total, type_of_number(10 if precision == "float16" else 16, "precision"))).astype(np.float32)


def _real_zero(call, zero_point, kind):
    zero = real_of(zero_point)
    need(call, kind.bits < 8 or not as_codes(zero_point).any(), f"the zero point of {kind.name} must be 0 but is {zero.reshape(-1)[:4].tolist()}")
    return zero


def dequantize_linear(call, x, scale, zero_point=None):
    """``DequantizeLinear``: ``(x - zero_point) * scale`` in float32, then rounded to the output's type."""
    kind, axis = type_of_array(x, call.place), _axis(call, scale, x)
    number = call.get("output_dtype", 0)
    target = type_of_number(number, call.place) if number else type_of_array(scale, call.place)
    if target.name == "float8_e8m0fnu":
        target = type_of_number(1, call.place)
    scale = real_of(scale).astype(np.float32)
    if kind.kind == "small_float":
        real = real_of(x)
        if zero_point is not None:
            zero = _real_zero(call, zero_point, kind)
            real = real - _spread(call, zero, x, axis) if zero.any() else real
        y = real * _spread(call, scale, x, axis)
    else:
        y = _dequantize_codes(call, real_of(x), scale, zero_point, kind, axis)
    return cast_to(y, target, place=call.place).reshape(x.shape)


def _dequantize_codes(call, codes, scale, zero_point, kind, axis):
    need(call, kind.name in (*_INTEGERS, "int32"), f"x is {kind.name}", "DequantizeLinear takes 2- to 32-bit integers and small floats")
    zero = np.zeros(scale.shape, np.int64) if zero_point is None else real_of(zero_point).astype(np.int64).reshape(scale.shape)
    if axis is None or scale.ndim == 1:
        _spread(call, scale, codes, axis)
        return ops.dequantize(QTensor(codes, _qparams(scale, zero, kind, axis)), numerics=call.profile)
    scale, zero = _spread(call, scale, codes, axis), _spread(call, zero, codes, axis)
    return dequantize_codes(codes, scale, zero, call.profile.dequantize.formula)


def dynamic_range(call, x):
    """Return (scale, zero point) of uint8 for the range of `x`, 0 included."""
    f = np.float32
    x = np.append(x.reshape(-1), f(0))
    if call.rules.nan_range == "refuse" and np.isnan(x).any():
        call.refuse("quantizes NaN by a range of its own", "ONNX Runtime's answer depends on where in memory the NaN lies; remove it")
    low, high = x.min(), x.max()
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        if low == high:
            scale = f(1) if call.rules.flat_scale == "1" else f(1) / f(255)
        else:
            scale = (high - low) / f(255)
        zero = f(0) - low / scale
        zero = f(255) if np.isnan(zero) else min(max(zero, f(0)), f(255))
    return scale, int(round_real(f(zero), Round.HALF_EVEN))


def dynamic_quantize_linear(call, x):
    """``DynamicQuantizeLinear``: codes of uint8, their scale and zero point."""
    need(call, x.dtype == np.float32, f"x is {x.dtype} but must be float32")
    scale, zero = dynamic_range(call, x)
    q = ops.quantize(x, QParams(float(scale), zero, "uint8", unchecked=True), numerics=call.profile)
    return q.values, np.asarray(scale, np.float32), np.asarray(zero, np.uint8)
