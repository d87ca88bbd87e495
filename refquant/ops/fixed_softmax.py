"""Softmax of int8 rows into scale 1/256 and zero point -128, as TensorFlow Lite's reference kernel computes it: in integers alone.

Numbers are gemmlowp's fixed points, int32 with so many bits before the point: differences of codes have 5, exponentials 0, their sum 12.
"""

import numpy as np

from refquant.core.epilogue import gemmlowp_multiply
from refquant.core.glibc import glibc_exp
from refquant.core.rounding import Round, round_shift
from refquant.errors import UnsupportedError
from refquant.ops.output_stage import quantized_multiplier

__all__ = ["softmax_by_gemmlowp", "softmax_by_table"]

_F = np.float32
_TOP = 2**31 - 1
# exp(-2**e) for the bits of a difference, as gemmlowp rounds them.
_POWERS = ((-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401), (4, 242))
_EXP_EIGHTH, _THIRD = 1895147668, 715827883


def _times(a, b):
    return gemmlowp_multiply(a, b, 0)


def _shift(x, power):
    """Multiply with a power of two: saturating to the left, rounding half away to the right."""
    return np.clip(x << power, -_TOP - 1, _TOP) if power >= 0 else round_shift(x, -power, Round.HALF_AWAY)


def _exponential(a):
    """Return exp of differences, which are 0 or negative: a polynomial on [-1/4, 0), and a factor for each further bit."""
    quarter = 1 << 24
    near = (a & (quarter - 1)) - quarter
    x = _shift(near, 5) + (1 << 28)
    x2 = _times(x, x)
    x3, x4 = _times(x2, x), _times(x2, x2)
    series = _shift(_times(_shift(x4, -2) + x3, _THIRD) + x2, -1)
    y = _EXP_EIGHTH + _times(_EXP_EIGHTH, x + series)
    rest = near - a
    for power, factor in _POWERS:
        y = np.where(rest & (1 << (26 + power)), _times(y, factor), y)
    return np.where(a == 0, _TOP, y)


def _inverse_of_one_and(a):
    """Return 1 / (1 + a) of 0 <= a < 1 by three steps of Newton's iteration."""
    half = (a + _TOP + 1) // 2
    x = 1515870810 + _times(half, -1010580540)
    for _ in range(3):
        x = x + _shift(_times(x, (1 << 29) - _times(half, x)), 2)
    return _shift(x, 1)


def softmax_by_gemmlowp(codes, scale):
    """Return softmax along the last axis of (R, N); refuse rows of which the engine dies.

    Source: tensorflow/lite/kernels/internal/reference/softmax.h, Softmax; gemmlowp fixedpoint.h, exp_on_negative_values, one_over_one_plus_x_for_x_in_0_1.
    """
    mult, left = (int(v) for v in quantized_multiplier(min(float(_F(scale)) * 2.0**26, _TOP)))
    lowest = -int(31.0 * 2**26 / 2.0**left)
    steps = codes.astype(np.int64) - codes.max(1, keepdims=True)
    inside = steps >= lowest
    # Of a scale below 2**-26 the multiplier has no left shift.
    e = np.where(inside, _exponential(_times(_shift(np.where(inside, steps, 0), left), mult)), 0)
    total = round_shift(e, 12, Round.HALF_AWAY)
    total = np.where(inside, total, 0).sum(1, keepdims=True)
    if np.any(total >= 1 << 28):
        raise UnsupportedError("softmax: exponentials of a row add up to 512 and more, where the kernel shifts by more than 31 bits and ends the process; make rows shorter or scales larger")
    zeros = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    inverse = _inverse_of_one_and((total << zeros) - (1 << 31))
    y = round_shift(_times(inverse, e), 12 - zeros + 31 - 8, Round.HALF_AWAY)
    return np.where(inside, y - 128, -128)


def softmax_by_table(codes, scale):
    """Return softmax along the last axis of (R, N): exponentials of float32 from a table, summed in order, one product with the inverse of sum and scale.

    Source: tensorflow/lite/kernels/internal/optimized/optimized_ops.h, PopulateSoftmaxLookupTable, Softmax of int8.
    """
    table = glibc_exp(-_F(scale) * np.arange(256).astype(_F))
    e = table[codes.max(1, keepdims=True).astype(np.int64) - codes]
    inverse = _F(1) / (np.add.accumulate(e, axis=1, dtype=_F)[:, -1:] * _F(1 / 256))
    return np.trunc(e * inverse + _F(0.5)).astype(np.int64) - 128
