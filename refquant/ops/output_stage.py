"""From a profile's `ProductForm` and the parameters at hand to an `Epilogue`: the only translation of that form."""

import numpy as np

from refquant.core import epilogue as E
from refquant.core.arguments import as_array
from refquant.core.rounding import Round, round_real
from refquant.errors import ArgumentError, RangeError, ShapeError, choose

__all__ = ["output_stage", "real_stage", "check_bias", "integer_bias", "quantized_multiplier", "inverse_of_inverse"]

_F = np.float32


def check_bias(bias, channels, place):
    """Return the bias as a float32 or int32 vector of `channels` entries, or None."""
    if bias is None:
        return None
    bias = as_array(bias, "bias", place)
    if bias.dtype.kind == "f":
        with np.errstate(over="ignore"):
            bias = bias.astype(np.float32)
    elif bias.dtype.kind in "iu":
        low, high = (int(bias.min()), int(bias.max())) if bias.size else (0, 0)
        if low < -(2**31) or high >= 2**31:
            raise RangeError(f"{place}: bias spans [{low}, {high}] but must be int32, in units of x.scale * w.scale; clamp it, or give it in float32")
        bias = bias.astype(np.int32)
    else:
        raise ArgumentError(f"{place}: bias has dtype {bias.dtype}; give float32 (real units) or int32 (units of x.scale * w.scale)")
    if bias.shape != (channels,):
        raise ShapeError(f"{place}: bias has shape {bias.shape} but there are {channels} output channels; bias must be ({channels},)")
    return bias


def _reciprocals(scale):
    # oneDNN is handed inverse scales: from doubles for a scalar, in float32 for a vector.
    if np.ndim(scale) == 0:
        return _F(1) / _F(1.0 / np.float64(scale))
    return _F(1) / (_F(1) / scale.astype(_F))


def inverse_of_inverse(scale):
    """Return ``1 / f(1 / s)`` of a float32 scale, in float32."""
    return _F(1) / (_F(1) / _F(scale))


def _scale(scale, how):
    return _reciprocals(scale) if how == "reciprocals" else np.asarray(scale).astype(_F)[()]


def _order(form, w):
    """Return the order of the scale product for these weights; LiteRT takes a single scale as one of the tensor."""
    tensor, _, channel = form.multiplier.partition(", ")
    return channel if channel and np.size(w.scale) > 1 else tensor


def _real_multiplier(order, x, w, y):
    """Return the whole multiplier as float64; an order that is defined in float32 is rounded there first."""
    if order in ("double", "f64(xw)/y"):
        product = np.float64(x) * np.asarray(w, np.float64) if order == "double" else np.asarray(x * w, np.float64)
        return product / np.float64(y)
    return np.asarray(_combined(_SINGLE.get(order, order), x, w, y), np.float64)


_SINGLE = {"x,w,1/y": "(xw)*(1/y)", "(xw),1/y": "(xw)*(1/y)", "x,w,/y": "(xw)/y", "(xw),/y": "(xw)/y"}


def _combined(order, x, w, y):
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        if order == "(xw)/y":
            return (x * w) / y
        if order == "(xw)*(1/y)":
            return (w * x) * (_F(1) / y)
        return x * (w / y)


def output_stage(form, x, w, out, bias, channels, activation, place):
    """Build the output stage of a linear layer or convolution.

    Parameters
    ----------
    form : ProductForm
    x, w, out : QParams
        Of activation, weight (per tensor or per output channel) and output (per tensor).
    bias : ndarray or None
        As `check_bias` returns it.
    channels : int
    activation : {None, "relu"}
    place : str

    Returns
    -------
    Epilogue
    """
    choose(place, "activation", activation, [None, "relu"])
    kind = {"float32": E.FLOAT32, "float64": E.FLOAT64, "fixed_gemmlowp": E.FIXED_GEMMLOWP, "fixed_half_up": E.FIXED_HALF_UP}[form.arithmetic]
    sx, sw, sy = _scale(x.scale, form.x_scale), _scale(w.scale, form.w_scale), np.float32(out.scale)
    zero = int(out.zero_point)
    qmin, qmax = out._type.qmin, out._type.qmax
    parts = {"kind": kind, "flags": 0, "rounding": form.rounding, "qlo": qmin, "qhi": qmax}
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        if kind == E.FLOAT32:
            _scales(parts, form, sx, sw, sy, w, out)
            _bias(parts, form, bias, sx, sw, sy, x, w)
        else:
            real = _real_multiplier(_order(form, w), sx, sw, sy)
            parts["m64"] = real
            if kind != E.FLOAT64:
                parts["mult"], parts["shift"] = quantized_multiplier(np.broadcast_to(real, (channels,)))
            if bias is not None:
                parts["bias_i"] = _integer_bias(form, bias, x, w, sx, sw)
    inside = form.zero_point == "before" and kind in (E.FLOAT32, E.FLOAT64)
    if inside:
        parts["flags"] |= E.ZERO_FLOAT
        parts["zf"] = zero
    else:
        parts["zi"] = zero
    if form.overflow == "saturate":
        parts["flags"] |= E.CLAMP
        parts["lo"], parts["hi"] = (qmin, qmax) if inside else (qmin - zero, qmax - zero)
    if activation == "relu":
        if form.relu == "real" and kind == E.FLOAT32:
            parts["flags"] |= E.RELU
        else:
            parts["qlo"] = max(qmin, zero)
    return E.make_epilogue(channels, **parts)


def _scales(parts, form, sx, sw, sy, w, out):
    if form.multiplier in ("(xw)/y", "(xw)*(1/y)", "x*(w/y)", "double", "f64(xw)/y", "f64(xw)/y, double"):
        y = _reciprocals(out.scale) if form.y_scale == "reciprocals" else sy
        parts["s2"] = _F(_real_multiplier(_order(form, w), sx, sw, y))
        return
    if form.multiplier in ("(xw),/y", "(xw),1/y"):
        parts["s2"] = sx * sw
    else:
        parts["flags"] |= E.SCALE1
        parts["s1"], parts["s2"] = sx, sw
    y = _reciprocals(out.scale) if form.y_scale == "reciprocals" else sy
    divides = form.multiplier.endswith("/y") and not form.multiplier.endswith("1/y")
    parts["flags"] |= E.DST_DIV if divides else E.DST_MUL
    parts["d"] = y if divides else _F(1) / y


def _bias(parts, form, bias, sx, sw, sy, x, w):
    if bias is None:
        return
    if bias.dtype == np.int32 or form.bias.startswith("int32"):
        parts["bias_i"] = _integer_bias(form, bias, x, w, sx, sw)
    elif form.bias == "before":
        parts["flags"] |= E.PRE_BIAS
        product = sx * sw
        # FBGEMM divides per channel; per tensor the compiler fuses the product with the inverse into an FMA.
        parts["pre_b"], parts["pre_k"] = (bias / product, 1) if w.per_channel else (bias, _F(1) / product)
    else:
        parts["flags"] |= E.BIAS
        parts["b"] = bias if parts["flags"] & (E.DST_MUL | E.DST_DIV) else bias / sy


def integer_bias(form, bias, x, w):
    """Return a bias as the int32 of units ``x.scale * w.scale`` that a form makes of it.

    Parameters
    ----------
    form : ProductForm
    bias : ndarray of float32 or int32
    x, w : QParams
    """
    return _integer_bias(form, bias, x, w, _scale(x.scale, form.x_scale), _scale(w.scale, form.w_scale))


def _integer_bias(form, bias, x, w, sx, sw):
    if form.bias == "int32_reciprocal":
        product = np.asarray(np.float64(x.scale) * np.asarray(w.scale, np.float64)).astype(_F)
        return _bias_codes(bias, product, inverse=True)
    return _bias_codes(bias, sx * sw)


def _bias_codes(bias, product, *, inverse=False):
    if bias.dtype == np.int32:
        return bias
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = bias * (_F(1) / product) if inverse else bias / product
    scaled = np.nan_to_num(np.asarray(scaled, np.float64), nan=0.0)
    return np.clip(round_real(scaled, Round.HALF_EVEN), -(2.0**31), 2.0**31 - 1).astype(np.int32)


def real_stage(form, x, w, bias, channels, activation, place):
    """Build the output stage of a product with float32 output (dynamic quantization)."""
    choose(place, "activation", activation, [None, "relu"])
    sx, sw = _scale(x.scale, form.x_scale), _scale(w.scale, form.w_scale)
    parts = {"flags": E.RELU if activation == "relu" else 0}
    if form.multiplier == "(xw)":
        parts["s2"] = sx * sw
    else:
        parts["flags"] |= E.SCALE1
        parts["s1"], parts["s2"] = sx, sw
    if bias is not None:
        if bias.dtype == np.int32 or form.bias == "int32":
            parts["bias_i"] = _bias_codes(bias, sx * sw)
        else:
            parts["flags"] |= E.SCALE_FMA if form.bias == "fma" else E.BIAS
            parts["b"] = bias
    return E.make_epilogue(channels, **parts)


def quantized_multiplier(real):
    """Return (mult, shift) with ``real ≈ mult * 2**(shift - 31)``, mult in [2**30, 2**31).

    Source
    ------
    TensorFlow Lite ``QuantizeMultiplier`` (kernels/internal/quantization_util.cc): half away from zero.

    Examples
    --------
    >>> [int(v) for v in quantized_multiplier(0.75)]
    [1610612736, 0]
    """
    fraction, exponent = np.frexp(np.asarray(real, np.float64))
    mult = round_real(fraction * 2.0**31, Round.HALF_AWAY)
    top = mult == 2.0**31
    mult, exponent = np.where(top, 2.0**30, mult), exponent + top
    tiny = exponent < -31
    return np.where(tiny, 0, mult).astype(np.int32)[()], np.where(tiny, 0, exponent).astype(np.int32)[()]
