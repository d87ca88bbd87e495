"""inverse_root: one over the square root of an integer, as an integer multiplier, by TensorFlow Lite's Newton iteration on fixed points."""

import numpy as np

from refquant.core.epilogue import gemmlowp_multiply
from refquant.core.rounding import Round, round_shift

__all__ = ["inverse_root"]

_TOP = 2**31 - 1
# 1 and 3/2 with three bits before the point, sqrt(2) / 2 with none.
_ONE, _THREE_HALVES, _ROOT_HALF = 1 << 28, (1 << 28) + (1 << 27), 1518500250
_ITERATIONS = 5


def _times(a, b):
    return gemmlowp_multiply(a, b, 0)


def _left(x, bits):
    return np.clip(x << bits, -_TOP - 1, _TOP)


def inverse_root(x, places=0):
    """Return (mult, exponent) with ``mult · 2**(exponent − 31) ≈ 2**places / sqrt(x)``.

    Parameters
    ----------
    x : ndarray of int64
        1 … 2**31 − 1.
    places : int

    Returns
    -------
    mult, exponent : ndarray of int64

    Source
    ------
    TensorFlow Lite internal/common.h, ``GetInvSqrtQuantizedMultiplierExp``.

    Examples
    --------
    >>> mult, exponent = inverse_root(np.array([4, 100]))
    >>> (mult * 2.0 ** (exponent - 31)).round(6).tolist()
    [0.5, 0.1]
    """
    x = np.asarray(x, np.int64)
    bits = np.frexp(x.astype(np.float64))[1].astype(np.int64)
    # Numbers from 2**29 on are divided by 4 until they are below, others shifted by pairs of bits into 2**27 … 2**29.
    quarters = np.maximum(bits - 28, 0) // 2
    pairs = np.where(quarters > 0, 0, np.maximum((31 - bits) // 2 - 1, 0))
    scaled = np.where(quarters > 0, x >> (2 * quarters), x << (2 * pairs))
    half = round_shift(scaled >> 1, 1, Round.HALF_AWAY)
    y = np.full(x.shape, _ONE, np.int64)
    for _ in range(_ITERATIONS):
        cube = _left(_times(_times(y, y), y), 6)
        y = _left(_times(np.full(x.shape, _THREE_HALVES), y) - _times(half, cube), 3)
    shift = 11 + quarters - pairs
    mult = _times(y, np.full(x.shape, _ROOT_HALF)) << np.maximum(-shift, 0)
    mult, shift = np.where(x <= 1, _TOP, mult), np.where(x <= 1, 0, np.maximum(shift, 0))
    return mult, places - shift
