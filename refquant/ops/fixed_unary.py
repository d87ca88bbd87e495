"""Functions of one int8 code as TensorFlow Lite and XNNPACK compute them, see `refquant.numerics.fixed_forms.FixedUnaryForm`."""

import numpy as np

from refquant.core.affine import dequantize_codes
from refquant.core.epilogue import gemmlowp_multiply, to_int32
from refquant.core.qparams import QParams
from refquant.core.rounding import Round, round_shift
from refquant.core.wrap import saturate
from refquant.errors import UnsupportedError
from refquant.ops.output_stage import quantized_multiplier

__all__ = ["fixed_function"]

_F = np.float32
_OWN_OUTPUT = {"sigmoid": QParams(1 / 256, -128, "int8"), "tanh": QParams(1 / 128, 0, "int8")}


def fixed_function(form, name, function, parameter, q, out, codes, place):
    """Return the codes of a function, before they are cut to the output's dtype.

    Parameters
    ----------
    form : FixedUnaryForm
    name : str
    function : callable
        Of (float32 array, parameter).
    parameter : float or None
    q, out : QParams
    codes : ndarray of int8
    place : str

    Raises
    ------
    UnsupportedError
        Parameters that the engine refuses.

    Source
    ------
    TensorFlow Lite: kernels/activations.cc, internal/common.h (LUTPopulate), internal/reference/hard_swish.h, leaky_relu.h;
    XNNPACK: src/qs8-vlrelu, src/operators/unary-elementwise-nc.c.
    """
    if q.dtype != "int8" or out.dtype != "int8":
        raise UnsupportedError(f"{place}: x is {q.dtype} and out {out.dtype}, but the profile describes int8 kernels; use int8")
    if name == "hardswish":
        return _hardswish(q, out, codes, place)
    if name == "leaky_relu":
        return _leaky_relu(form, _F(parameter), q, out, codes, place)
    own = _OWN_OUTPUT.get(name)
    if own is not None and out != own:
        raise UnsupportedError(f"{place}: out has scale {out.scale:g} and zero point {out.zero_point}, but the kernel writes {own.scale:g} and {own.zero_point} alone")
    x = dequantize_codes(codes, q.scale, q.zero_point, "sub_mul")
    rounding = getattr(form, name if own is None else "sigmoid")
    inside, after = (out.zero_point, 0) if form.zero_point == "before" and name != "gelu" else (0, out.zero_point)
    with np.errstate(all="ignore"):
        return _clipped(to_int32(function(x, parameter) * (_F(1) / _F(out.scale)) + _F(inside), rounding) + after)


def _clipped(codes):
    return saturate(codes, -128, 127)


def _leaky_relu(form, slope, q, out, codes, place):
    centred = codes.astype(np.int64) - q.zero_point
    ratio = _F(q.scale) / _F(out.scale)
    if form.leaky_relu == "gemmlowp":
        same, other = (gemmlowp_multiply(centred, *quantized_multiplier(np.float64(m))) for m in (ratio, _F(q.scale) * slope / _F(out.scale)))
        return _clipped(np.where(centred >= 0, same, other) + out.zero_point)
    if not (2.0**-8 <= ratio <= 2.0**7 and 2.0**-8 <= abs(ratio * slope) <= 2.0**7):
        raise UnsupportedError(f"{place}: ratios of the scales {ratio:g} and, times the slope, {ratio * slope:g} must lie in [2**-8, 2**7]; change out.scale")
    same, other = (int(to_int32(_F(256) * m)) for m in (ratio, ratio * slope))
    return _clipped(round_shift(centred * np.where(centred >= 0, same, other), 8, Round.HALF_UP) + out.zero_point)


def _multiplier16(real):
    """Return a multiplier of 15 bits and its exponent."""
    mult, exponent = (int(v) for v in quantized_multiplier(np.float64(real)))
    return min(32767, (mult + 2**15) >> 16), exponent


def _doubling_high(a, b, nudge):
    """``a * b / 2**15`` toward zero, after adding `nudge` away from zero."""
    product = a * b
    product = product + np.where(product >= 0, nudge, 1 - nudge if nudge else 0)
    return np.minimum(round_shift(product, 15, Round.TRUNCATE), 32767)


def _hardswish(q, out, codes, place):
    fine = _F(1 / 128) * _F(q.scale)
    mult, exponent = _multiplier16(fine / _F(out.scale))
    if exponent < -15:
        raise UnsupportedError(f"{place}: x.scale {q.scale:g} is so small beside out.scale {out.scale:g} that the kernel shifts 16 bits by {-exponent}; use a smaller out.scale")
    if exponent > 0:
        raise UnsupportedError(f"{place}: x.scale {q.scale:g} is more than 128 times out.scale {out.scale:g}, which the kernel refuses; use a larger out.scale")
    gate_mult, gate_exponent = _multiplier16(fine / (_F(3) / _F(32768)))
    x = (codes.astype(np.int64) - q.zero_point) * 128
    gate = saturate(x << (gate_exponent - 1), -(2**15), 2**15 - 1) if gate_exponent > 0 else x
    gate = _doubling_high(gate, gate_mult, 2**14)
    if gate_exponent > 0:
        gate = saturate(gate << 1, -(2**15), 2**15 - 1)
    gate = round_shift(gate, max(-gate_exponent, 0), Round.HALF_AWAY)
    y = _doubling_high((gate + 2**15) >> 1, _doubling_high(x, mult, 2**14), 0)
    return _clipped(round_shift(y, -exponent, Round.HALF_AWAY) + out.zero_point)
