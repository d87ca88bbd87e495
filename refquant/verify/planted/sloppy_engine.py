"""A small engine that can be told to be wrong.

Written from the engines' formulas with NumPy alone; nothing of refquant's diagnosis (nor of its operators) is used here.
Every fault is a keyword. Codes come in and go out as plain arrays.
"""

import numpy as np

__all__ = [
    "F", "accumulate", "add_spec", "as_codes", "average", "bf16", "f16", "fma", "maximum", "mul_codes", "quantize", "real_output", "requantize", "sat", "terms_conv",
    "terms_linear", "wrap",
]  # fmt: skip

F = np.float32


def half_away(v):
    return np.trunc(v) + np.sign(v) * (np.abs(v - np.trunc(v)) >= 0.5)


ROUND = {
    "even": np.rint,
    "away": half_away,
    "up": lambda v: np.floor(np.float64(v) + 0.5),
    "add a half": lambda v: np.floor(v + v.dtype.type(0.5)),
    "truncate": np.trunc,
    "floor": np.floor,
    "ceil": np.ceil,
}


def bf16(v):
    """By the textbook: keep 8 bits of significand, ties to even."""
    mantissa, exponent = np.frexp(np.asarray(v, np.float64))
    return F(np.ldexp(np.rint(mantissa * 256) / 256, exponent))


def f16(v):
    return F(np.float16(v))


def sat(v, bits):
    return np.clip(v, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def wrap(v, bits):
    return (v + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def as_codes(v, dtype, how="saturate"):
    info = np.iinfo(dtype)
    return (np.clip(v, info.min, info.max) if how == "saturate" else (v - info.min) % 256 + info.min).astype(dtype)


# Products


def terms_linear(x, w):
    """Return (x, w) as (M, OC, K) each."""
    return np.broadcast_to(x[:, None, :], (len(x), len(w), x.shape[1])), np.broadcast_to(w[None], (len(x), *w.shape))


def terms_conv(x, w, *, stride, padding, groups, pad, dilation=1):
    """Return (x, w) as (N, OH, OW, OC, IC/groups, taps) each."""
    n, c, h, wide = x.shape
    oc, per, kh, kw = w.shape
    big = np.full((n, c, h + 2 * padding, wide + 2 * padding), pad, np.int64)
    big[:, :, padding : padding + h, padding : padding + wide] = x
    oh = (big.shape[2] - dilation * (kh - 1) - 1) // stride + 1
    ow = (big.shape[3] - dilation * (kw - 1) - 1) // stride + 1
    xs = np.empty((n, oh, ow, oc, per, kh * kw), np.int64)
    for o in range(oc):
        first = o // (oc // groups) * per
        for t in range(kh * kw):
            i, j = t // kw * dilation, t % kw * dilation
            part = big[:, first : first + per, i : i + (oh - 1) * stride + 1 : stride, j : j + (ow - 1) * stride + 1 : stride]
            xs[:, :, :, o, :, t] = np.moveaxis(part, 1, -1)
    return xs, np.broadcast_to(w.reshape(oc, per, kh * kw), xs.shape)


def accumulate(xs, ws, zx, zw, *, inner=False, how="exact", drop=0, compensate_x=1, compensate_w=1, cross=1, u8=0):
    """Sum products of raw codes over the trailing axes, then take the zero points off.

    `inner`: channels run innermost; `how`: what the registers do; `drop`: K is cut to a multiple; `u8`: added to x before the sum.
    """
    if xs.ndim == 6:
        xs, ws = (np.moveaxis(v, -1, -2) if inner else v for v in (xs, ws))
        xs, ws = (v.reshape(*v.shape[:-2], -1) for v in (xs, ws))
    xs, ws = xs.astype(np.int64) + u8, ws.astype(np.int64)
    k = xs.shape[-1]
    if drop:
        xs, ws = xs[..., : k // drop * drop], ws[..., : k // drop * drop]
        k = xs.shape[-1]
    p = xs * ws
    if how == "exact":
        total = p.sum(-1)
    elif how in ("pairs", "fours"):
        q = np.concatenate([p, np.zeros((*p.shape[:-1], -k % 4), np.int64)], -1)
        q = sat(q[..., 0::2] + q[..., 1::2], 16)
        total = (sat(q[..., 0::2] + q[..., 1::2], 16) if how == "fours" else q).sum(-1)
    elif how == "steps16":
        total = np.zeros(p.shape[:-1], np.int64)
        for i in range(k):
            total = sat(total + p[..., i], 16)
    elif how == "float32":
        total = np.zeros(p.shape[:-1], F)
        for i in range(k):
            total += p[..., i].astype(F)
        total = total.astype(np.int64)
    else:
        limit, bits = how
        total = limit(p.sum(-1), bits)
    zx = zx + u8
    return total - compensate_x * zx * ws.sum(-1) - compensate_w * zw * xs.sum(-1) + cross * k * zx * zw


def requantize(acc, sx, sw, sy, zy, bias, dtype, *, style, rounding="even", zero="after", relu=None, limits="saturate", clamp=None,
               scale=lambda v: v, arithmetic="float32", early=False, order="(xw)/y", relu_first=False, real=lambda v: v, multiplier=lambda v: v):  # fmt: skip
    """Turn accumulators (..., OC) into codes. `style`: ``ort`` (int32 bias), ``fbgemm`` (float bias per channel, in units of acc), ``onednn``, ``spec``."""
    acc = np.maximum(acc, 0) if relu_first else acc
    sx, sw, sy = scale(F(sx)), scale(np.asarray(sw).astype(F)), scale(F(sy))
    if style == "onednn":
        v = F(acc) * (F(1) / F(1 / np.float64(sx))) * (F(1) / (F(1) / sw) if early else sw)
        v = v if bias is None else v + F(bias)
        v = v * (F(1) / (F(1) / F(1 / np.float64(sy))))
        q = ROUND[rounding](v + F(zy))
        return as_codes(np.maximum(q, zy) if relu == "zero point" else q, dtype, limits)
    if style == "spec":
        acc = acc if bias is None else wrap(acc + bias, 32)
        q = ROUND[rounding](real(F(acc) * (sx * sw)) / sy).astype(np.int64) + zy
        return as_codes(np.maximum(q, zy) if relu else q, dtype, limits)
    if style == "ort":
        acc = acc if bias is None else wrap(acc + bias, 32)
        v, m = F(acc), ORDERS[order](sx, sw, sy)
    else:
        product = sx * sw
        v, m = F(acc), product / sy
        v = v if bias is None else v + F(bias) / product
    m = multiplier(m)
    if arithmetic == "float64":
        v, m = np.float64(acc), np.float64(sx) * np.float64(sw) / np.float64(sy)
    if arithmetic.startswith("fixed"):
        q = fixed_point(acc, np.float64(m), arithmetic.removeprefix("fixed "))
    else:
        v = v * m
        q = ROUND[rounding](v + F(zy)) - zy if zero == "before" else ROUND[rounding](v)
    q = q.astype(np.int64)
    if clamp == "before zero":
        q = np.clip(q, np.iinfo(dtype).min, np.iinfo(dtype).max)
    elif clamp is not None:
        q = np.clip(q + zy, *clamp) - zy
    q = q + zy
    if relu is not None:
        q = np.maximum(q, {"zero point": zy, "code 0": 0}[relu])
    return as_codes(q, dtype, limits)


#: The ways to one float32 multiplier.
ORDERS = {"(xw)/y": lambda x, w, y: (x * w) / y, "(xw)*(1/y)": lambda x, w, y: (w * x) * (F(1) / y), "x*(w/y)": lambda x, w, y: x * (w / y)}


def fixed_point(acc, real, how):
    """TFLite's MultiplyByQuantizedMultiplier, element by element in Python integers: ``gemmlowp`` rounds half away, ``half up`` up, ``once`` in one step."""
    real = np.broadcast_to(real, acc.shape)
    out = np.empty(acc.shape, np.int64)
    for i in np.ndindex(acc.shape):
        mantissa, exponent = np.frexp(real[i])
        m = int(half_away(mantissa * 2.0**31))
        if m == 2**31:
            m, exponent = m // 2, exponent + 1
        left, right = max(int(exponent), 0), max(-int(exponent), 0)
        t = int(acc[i]) * 2**left * m
        if how == "once":
            out[i] = t + (1 << 30 + right) >> 31 + right
        elif how == "half up":
            out[i] = (t + 2**30 >> 31) + (1 << right >> 1) >> right
        else:
            t += 2**30 if t >= 0 else 1 - 2**30
            high = abs(t) // 2**31 * (1 if t >= 0 else -1)
            out[i] = (abs(high) + (1 << right >> 1) >> right) * (1 if high >= 0 else -1)
    return out


def fma(a, b, c):
    """The product and the sum, rounded once: exact in float64 for the numbers of these faults."""
    return F(np.float64(a) * np.float64(b) + np.float64(c))


def real_output(acc, sx, sw, bias, *, fused=True, steps=False):
    """A float32 output with a float bias: scaled at once or in two steps, the bias fused or added."""
    sx, sw = F(sx), np.asarray(sw).astype(F)
    if steps:
        return F(acc) * sx * sw + F(bias)
    return fma(F(acc), sx * sw, F(bias)) if fused else F(acc) * (sx * sw) + F(bias)


# Elementwise


def quantize(x, s, z, dtype, *, rounding="even", zero="after", divide=True, limits="saturate", nan="low", clip=None):
    """ONNX's QuantizeLinear, with faults."""
    with np.errstate(all="ignore"):
        s = F(s)
        v = F(x) / s if divide else F(x) * (F(1) / s)
        v = v + F(z) if zero == "before" else v
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        r = ROUND[rounding](np.clip(np.nan_to_num(v, nan=0.0, posinf=1e9, neginf=-1e9), -1e9, 1e9)).astype(np.int64) + (0 if zero == "before" else z)
        r = r if clip is None else np.clip(r, *clip)
        q = as_codes(r, dtype, limits)
        return np.where(np.isnan(v), dtype({"low": low, "high": high, "zero": min(max(0, low), high)}[nan]), q)


def add_spec(a, b, qa, qb, s, z, dtype, *, relu=None, fused=False, **how):
    """Dequantize, add, quantize, each step in float32: the ONNX specification; (scale, zero point) each."""
    with np.errstate(all="ignore"):
        parts = [fma(F(q), F(s), F(s) * F(-z)) if fused else F(q.astype(np.int64) - z) * F(s) for q, (s, z) in ((a, qa), (b, qb))]
        real = parts[0] + parts[1]
        y = quantize(np.maximum(real, F(0)) if relu == "real" else real, s, z, dtype, **how)
        return np.maximum(y, dtype(0)) if relu == "code 0" else y


def mul_codes(a, b, qa, qb, s, z, dtype, *, relu=None, **how):
    """The product of centred codes through one multiplier: MLAS's mul, which adds the zero point before rounding; (scale, zero point) each."""
    acc = (a.astype(np.int64) - qa[1]) * (b.astype(np.int64) - qb[1])
    return requantize(acc[..., None], qa[0], qb[0], s, z, None, dtype, **{"style": "ort", "zero": "before", "relu": relu, **how})[..., 0]


def average(x, z, s, kernel, stride, padding, dtype, *, counted=True, pad=None, divisor=None, out=None, **how):
    """Mean over windows as dequantize, average, quantize with the same parameters; `pad`: code that fills the padding."""
    n, c, h, w = x.shape
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    oh, ow = (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1
    y = np.empty((n, c, oh, ow), dtype)
    for i in range(oh):
        for j in range(ow):
            r0, c0 = i * sh - ph, j * sw - pw
            part = x[:, :, max(r0, 0) : min(r0 + kh, h), max(c0, 0) : min(c0 + kw, w)].astype(np.int64)
            inside = part.shape[2] * part.shape[3]
            total = (F(part - z) * F(s)).astype(np.float64).sum((2, 3))
            if pad is not None:
                total = total + (kh * kw - inside) * np.float64(F(pad - z) * F(s))
            mean = F(total / (divisor or (kh * kw if counted else inside)))
            y[:, :, i, j] = quantize(mean, *(out or (s, z)), dtype, **how)
    return y


def maximum(x, kernel, stride, padding, dtype, *, pad=None, bytes_of=None):
    n, c, h, w = x.shape
    low = np.iinfo(dtype).min if pad is None else pad
    x = x if bytes_of is None else x.view(bytes_of)
    low = np.iinfo(x.dtype).min if pad is None else pad
    big = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=low)
    oh, ow = ((side + 2 * padding - kernel) // stride + 1 for side in (h, w))
    y = np.empty((n, c, oh, ow), x.dtype)
    for i in range(oh):
        for j in range(ow):
            y[:, :, i, j] = big[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel].max((2, 3))
    return y.view(dtype)
