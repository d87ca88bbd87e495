"""Output stages written down a second time, from the engines' sources: vectorized in NumPy, and once more in exact fractions.

Nothing here is shared with `refquant.core` or the kernels, on purpose: the sweeps hold these against them.
"""

from fractions import Fraction
from math import floor, frexp

import numpy as np

__all__ = ["BY_NUMPY", "BY_FRACTIONS", "float32"]

_F = np.float32


def _x86_tail(v, zy, low, high):
    """cvtps2dq, packssdw, paddsw, packuswb: beyond int32 there is one answer, then 16 bits saturate twice."""
    r = np.rint(v).astype(np.float64)
    r = np.where((r >= -(2.0**31)) & (r < 2.0**31), r, -(2.0**31))
    r = np.clip(np.clip(r, -32768, 32767) + zy, -32768, 32767)
    return np.clip(r, low, high)


def _mlas(acc, sx, sw, sy, zy, low, high):
    m = _F(_F(sx) * _F(sw)) / _F(sy)
    return np.rint(np.clip(acc.astype(_F) * m, _F(low - zy), _F(high - zy))) + _F(zy)


def _qnnpack(acc, sx, sw, sy, zy, low, high):
    m = _F(_F(sw) * _F(sx)) * _F(_F(1) / _F(sy))
    return _x86_tail(acc.astype(_F) * m, zy, low, high)


def _fbgemm(acc, sx, sw, sy, zy, low, high):
    m = _F(_F(sx) * _F(sw)) / _F(sy)
    return _x86_tail(acc.astype(_F) * m, zy, low, high)


def _inverse(s):
    return _F(1) / _F(1 / float(s))


def _onednn(acc, sx, sw, sy, zy, low, high):
    v = acc.astype(_F) * _inverse(sx) * _inverse(sw) * (_F(1) / _inverse_single(sy)) + _F(zy)
    return np.rint(np.clip(v, _F(low), _F(high)))


def _inverse_single(sy):
    return _F(1) / _F(1 / float(sy))


def _multiplier(sx, sw, sy):
    """QuantizeMultiplier: 31 bits and an exponent."""
    mantissa, e = frexp(float(_F(sx)) * float(_F(sw)) / float(_F(sy)))
    m = floor(mantissa * 2**31 + 0.5)
    return (m // 2, e + 1) if m == 2**31 else (m, e)


def _gemmlowp(acc, sx, sw, sy, zy, low, high):
    m, e = _multiplier(sx, sw, sy)
    product = (acc.astype(np.int64) << max(e, 0)) * m
    t = product + np.where(product >= 0, 2**30, 1 - 2**30)
    high_half = np.where(t >= 0, t >> 31, -(-t >> 31))
    n = max(-e, 0)
    mask = (1 << n) - 1
    r = (high_half >> n) + ((high_half & mask) > (mask >> 1) + (high_half < 0))
    return np.clip(r + zy, low, high)


def _ruy(acc, sx, sw, sy, zy, low, high):
    # The optimized fully connected layer multiplies the scales in float32 where the weights have one scale.
    mantissa, e = frexp(float(_F(sx) * _F(sw)) / float(_F(sy)))
    m = floor(mantissa * 2**31 + 0.5)
    t = (((acc.astype(np.int64) << max(e, 0)) * m) + 2**30) >> 31
    n = max(-e, 0)
    return np.clip(((t + (1 << (n - 1)) if n else t) >> n) + zy, low, high)


def float32(x):
    """Round a Fraction to float32, ties to even."""
    if x == 0:
        return Fraction(0)
    a = abs(x)
    e = a.numerator.bit_length() - a.denominator.bit_length()
    e -= a < Fraction(2) ** e
    quantum = Fraction(2) ** (max(e, -126) - 23)
    return _even(a / quantum) * quantum * (1 if x > 0 else -1)


def _even(x):
    low = floor(x)
    rest = x - low
    return low + int(rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1))


def _away(x):
    return floor(x + Fraction(1, 2)) if x >= 0 else -floor(-x + Fraction(1, 2))


def _exact(s):
    return Fraction(float(s))


def _clip(v, low, high):
    return max(low, min(high, v))


def _single_multiplier(sx, sw, sy):
    return float32(float32(float32(_exact(sx)) * float32(_exact(sw))) / float32(_exact(sy)))


def _cvt(v):
    r = _even(v)
    return r if -(2**31) <= r < 2**31 else -(2**31)


def _mlas_exactly(acc, sx, sw, sy, zy, low, high):
    return _even(_clip(float32(float32(Fraction(acc)) * _single_multiplier(sx, sw, sy)), low - zy, high - zy)) + zy


def _tail_exactly(v, zy, low, high):
    return _clip(_clip(_clip(_cvt(v), -32768, 32767) + zy, -32768, 32767), low, high)


def _fbgemm_exactly(acc, sx, sw, sy, zy, low, high):
    return _tail_exactly(float32(float32(Fraction(acc)) * _single_multiplier(sx, sw, sy)), zy, low, high)


def _qnnpack_exactly(acc, sx, sw, sy, zy, low, high):
    m = float32(float32(float32(_exact(sw)) * float32(_exact(sx))) * float32(1 / float32(_exact(sy))))
    return _tail_exactly(float32(float32(Fraction(acc)) * m), zy, low, high)


def _inverse_exactly(s):
    return float32(1 / float32(1 / _exact(s)))


def _onednn_exactly(acc, sx, sw, sy, zy, low, high):
    v = float32(float32(Fraction(acc)) * _inverse_exactly(sx))
    v = float32(float32(v * _inverse_exactly(sw)) * float32(1 / _inverse_exactly(sy)))
    return _even(_clip(float32(v + zy), low, high))


def _fixed(d):
    mantissa, e = frexp(d)
    m = _away(Fraction(mantissa) * 2**31)
    return (m // 2, e + 1) if m == 2**31 else (m, e)


def _gemmlowp_exactly(acc, sx, sw, sy, zy, low, high):
    m, e = _fixed(float(_F(sx)) * float(_F(sw)) / float(_F(sy)))
    half = _away(Fraction((acc << max(e, 0)) * m, 2**31))
    # SaturatingRoundingDoublingHighMul takes a negative tie up, which `_away` does not.
    if acc < 0 and Fraction((acc << max(e, 0)) * m, 2**31) - floor(Fraction((acc << max(e, 0)) * m, 2**31)) == Fraction(1, 2):
        half += 1
    return _clip(_away(Fraction(half, 2 ** max(-e, 0))) + zy, low, high)


def _ruy_exactly(acc, sx, sw, sy, zy, low, high):
    m, e = _fixed(float(_F(sx) * _F(sw)) / float(_F(sy)))
    half = floor(Fraction((acc << max(e, 0)) * m, 2**31) + Fraction(1, 2))
    return _clip(floor(Fraction(half, 2 ** max(-e, 0)) + Fraction(1, 2)) + zy, low, high)


#: (accumulators, sx, sw, sy, zero point, lowest, highest code) -> codes, by profile: of its linear layer, of tflite_ref its convolution.
BY_NUMPY = {
    "fbgemm": _fbgemm, "onednn": _onednn, "qnnpack": _qnnpack, "onnxruntime": _mlas, "tflite_ref": _gemmlowp, "tflite_opt": _ruy, "xnnpack": _mlas,
}  # fmt: skip

#: The same of one accumulator, in fractions.
BY_FRACTIONS = {
    "fbgemm": _fbgemm_exactly, "onednn": _onednn_exactly, "qnnpack": _qnnpack_exactly, "onnxruntime": _mlas_exactly, "tflite_ref": _gemmlowp_exactly,
    "tflite_opt": _ruy_exactly, "xnnpack": _mlas_exactly,
}  # fmt: skip
