"""`power_of_two`: 2**x for drawing scales, the same bits on every processor.

NumPy's ``exp2`` is another function on a CPU with AVX-512 than on one without, and its last bit differs now and then. A case is a line
of text that must mean the same problem everywhere, so here are sums and products alone, which IEEE 754 fixes.
"""

import math

import numpy as np

__all__ = ["power_of_two", "exponent_of"]

_LN2 = (0.6931471805599453, 2.3190468138462996e-17)
_SPLIT = 2.0**27 + 1
# 1/3!, 1/4!, ... 1/16!
_TAIL = tuple(1.0 / float(np.prod(np.arange(1, n + 1, dtype=np.float64))) for n in range(3, 17))


def _product(a, b):
    """The product of two numbers and what its rounding left (Dekker)."""
    p = a * b
    a1 = _SPLIT * a - (_SPLIT * a - a)
    b1 = _SPLIT * b - (_SPLIT * b - b)
    a2, b2 = a - a1, b - b1
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def power_of_two(x):
    """Return ``2**x`` in float64, within 0.51 ulp, by IEEE sums and products alone.

    Parameters
    ----------
    x : float or ndarray
        From −1022 to 1023.

    Returns
    -------
    float or ndarray of float64

    Examples
    --------
    >>> float(power_of_two(-3)), float(power_of_two(0.5)) == 2**0.5
    (0.125, True)
    """
    if isinstance(x, float):
        # Python's floats are the same IEEE numbers, without an array around each step.
        whole = round(x)
        return math.ldexp(_mantissa(float(x - whole), 0.0), whole)
    x = np.asarray(x, np.float64)
    whole = np.rint(x)
    return np.ldexp(_mantissa(x - whole, np.zeros_like(x)), whole.astype(np.int64))[()]


def _mantissa(part, zero):
    """Return ``2**part`` for a part in [-0.5, 0.5]."""
    t, low = _product(part, _LN2[0])
    low = low + part * _LN2[1]
    square, rest = _product(t, t)
    tail = zero
    for factor in reversed(_TAIL):
        tail = tail * t + factor
    first = 1 + t
    second = first + square / 2
    lost = ((1 - first) + t) + ((first - second) + square / 2)
    return second + (lost + (low + rest / 2 + t * low + tail * t * square))


def exponent_of(x):
    """Return ``floor(log2(x))`` of positive numbers, exactly.

    Examples
    --------
    >>> int(exponent_of(0.25)), int(exponent_of(7.9))
    (-2, 2)
    """
    return np.frexp(x)[1] - 1
