"""The slow witness: engines' formulas in Python integers and fractions. Imports nothing from refquant, on purpose.

A float32 is held as the Fraction it stands for; `f` rounds a Fraction to the nearest float32, ties to even.
"""

from fractions import Fraction
from math import floor


def f(x):
    """Round an exact rational to float32, ties to even; subnormals included, overflow is an error of the test."""
    x = Fraction(x)
    if x == 0:
        return x
    a = abs(x)
    e = a.numerator.bit_length() - a.denominator.bit_length()
    if a < Fraction(2) ** e:
        e -= 1
    quantum = Fraction(2) ** (max(e, -126) - 23)
    y = half_even(a / quantum) * quantum
    assert y < Fraction(2) ** 128, "the witness has no infinities"
    return y if x > 0 else -y


def half_even(x):
    low = floor(x)
    rest = Fraction(x) - low
    return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1))


def half_away(x):
    return floor(x + Fraction(1, 2)) if x >= 0 else -floor(-x + Fraction(1, 2))


def half_up(x):
    return floor(x + Fraction(1, 2))


def clip(v, low, high):
    return max(low, min(high, v))


def wrap32(v):
    return (v + 2**31) % 2**32 - 2**31


def sat16(v):
    return clip(v, -32768, 32767)


def cvt(x):
    """cvtps2dq: beyond int32 there is one answer, -2**31."""
    r = half_even(x)
    return r if -(2**31) <= r < 2**31 else -(2**31)


def dot(x, w, zx, zw):
    return wrap32(sum((int(a) - zx) * (int(b) - zw) for a, b in zip(x, w)))


# Products: (acc, scales, zero point, bias as a Fraction or None, per channel, relu, limits) -> code.


def product_fbgemm(acc, xs, ws, os, oz, bias, per_channel, relu, qmin, qmax):
    a = f(f(xs) * f(ws))
    m = f(a / f(os))
    t = f(acc)
    if bias is not None:
        t = f(t + f(bias / a)) if per_channel else f(bias * f(1 / a) + t)
    r = sat16(sat16(cvt(f(t * m))) + oz)
    r = clip(r, qmin, qmax)
    return max(r, oz) if relu else r


def _onednn(acc, s, w, os, oz, bias, relu, qmin, qmax):
    t = f(f(f(acc) * s) * w)
    if bias is not None:
        t = f(t + bias)
    if relu:
        t = max(t, 0)
    d = f(1 / f(1 / f(1 / Fraction(os))))
    return half_even(clip(f(f(t * d) + oz), qmin, qmax))


def product_onednn_linear(acc, xs, ws, os, oz, bias, per_channel, relu, qmin, qmax):
    s = f(1 / f(1 / Fraction(xs)))
    w = f(1 / f(1 / f(ws))) if per_channel else f(1 / f(1 / Fraction(ws)))
    return _onednn(acc, s, w, os, oz, bias, relu, qmin, qmax)


def product_onednn_conv(acc, xs, ws, os, oz, bias, per_channel, relu, qmin, qmax):
    return _onednn(acc, f(1 / f(1 / Fraction(xs))), f(ws), os, oz, bias, relu, qmin, qmax)


def product_onnxruntime(acc, xs, ws, os, oz, bias, per_channel, relu, qmin, qmax):
    if bias is not None:
        acc = wrap32(acc + clip(half_even(f(bias / f(f(xs) * f(ws)))), -(2**31), 2**31 - 1))
    m = f(f(f(xs) * f(ws)) / f(os))
    r = half_even(clip(f(f(acc) * m), qmin - oz, qmax - oz)) + oz
    return max(r, oz) if relu else r


def product_onnx(acc, xs, ws, os, oz, bias, per_channel, relu, qmin, qmax):
    if bias is not None:
        acc = wrap32(acc + clip(half_even(f(bias / f(f(xs) * f(ws)))), -(2**31), 2**31 - 1))
    real = f(f(acc) * f(f(xs) * f(ws)))
    if relu:
        real = max(real, 0)
    return clip(half_even(f(real / f(os))) + oz, qmin, qmax)


PRODUCTS = {
    ("linear", "fbgemm"): product_fbgemm,
    ("linear", "onednn"): product_onednn_linear,
    ("linear", "x86"): product_fbgemm,
    ("linear", "onnxruntime"): product_onnxruntime,
    ("linear", "onnx"): product_onnx,
    ("conv", "fbgemm"): product_fbgemm,
    ("conv", "onednn"): product_onednn_conv,
    ("conv", "x86"): product_onednn_conv,
    ("conv", "onnxruntime"): product_onnxruntime,
    ("conv", "onnx"): product_onnx,
}


def quantize_torch(x, s, z, qmin, qmax):
    return clip(half_even(f(x * f(1 / f(s)) + z)), qmin, qmax)


def quantize_torch_channel(x, s, z, qmin, qmax):
    return clip(half_even(f(f(x * f(1 / f(s))) + z)), qmin, qmax)


def quantize_divide(x, s, z, qmin, qmax):
    return clip(half_even(f(x / f(s))) + z, qmin, qmax)


QUANTIZE = {
    "fbgemm": (quantize_torch, quantize_torch_channel),
    "onednn": (quantize_torch, quantize_torch_channel),
    "x86": (quantize_torch, quantize_torch_channel),
    "onnx": (quantize_divide, quantize_divide),
    "onnxruntime": (quantize_divide, quantize_divide),
}


def add_torch_body(a, b, sa, za, sb, zb, so, zo, relu, qmin, qmax):
    da = f(f(sa) * a + f(f(sa) * -za))
    db = f(f(sb) * b + f(f(sb) * -zb))
    c = f(da + db)
    if relu:
        c = max(c, 0)
    return clip(half_even(f(c * f(1 / f(so)))) + zo, qmin, qmax)


def add_torch_tail(a, b, sa, za, sb, zb, so, zo, relu, qmin, qmax):
    c = f(f((a - za) * f(sa)) + f((b - zb) * f(sb)))
    if relu:
        c = max(c, 0)
    return clip(half_even(f(f(c * f(1 / f(so))) + zo)), qmin, qmax)


def add_onnxruntime(a, b, sa, za, sb, zb, so, zo, relu, qmin, qmax):
    ra, rb = f(f(sa) / f(so)), f(f(sb) / f(so))
    k = f(zo - f(ra * za + f(rb * zb)))
    r = half_even(clip(f(a * ra + f(b * rb + k)), qmin, qmax))
    return max(r, zo) if relu else r


def add_onnx(a, b, sa, za, sb, zb, so, zo, relu, qmin, qmax):
    c = f(f((a - za) * f(sa)) + f((b - zb) * f(sb)))
    if relu:
        c = max(c, 0)
    return clip(half_even(f(c / f(so))) + zo, qmin, qmax)


ADD = {
    "fbgemm": (add_torch_body, add_torch_tail),
    "onednn": (add_torch_body, add_torch_tail),
    "x86": (add_torch_body, add_torch_tail),
    "onnx": (add_onnx, add_onnx),
    "onnxruntime": (add_onnxruntime, add_onnxruntime),
}
