"""Fused multiply-add in float32, exact on any machine, and what stands for it where a processor has none."""

import numpy as np

__all__ = ["fma32", "mul_add32"]


def fma32(a, b, c):
    """Return ``a * b + c``, rounded once to float32.

    The product of two float32 is exact in float64. The float64 sum is then rounded to odd
    (its last bit is set where it is inexact), which keeps 53 bits enough for the final rounding to
    24 bits to come out as if it had seen the real number.

    Parameters
    ----------
    a, b, c : array_like of float32

    Returns
    -------
    ndarray of float32

    Examples
    --------
    >>> a = np.float32(1 + 2**-12)
    >>> float(a * a - np.float32(1)), float(fma32(a, a, np.float32(-1)))
    (0.00048828125, 0.0004883408546447754)
    """
    a, b, c = (np.asarray(v, np.float32).astype(np.float64) for v in (a, b, c))
    with np.errstate(invalid="ignore", over="ignore"):
        product = a * b
        total = np.asarray(product + c)
        shift = total - product
        error = (product - (total - shift)) + (c - shift)
    bits = total.view(np.int64)
    inexact = np.isfinite(total) & (error != 0) & ((bits & 1) == 0)
    away = (error > 0) == (total > 0)
    fixed = np.where(inexact, np.where(away, bits + 1, bits - 1), bits).view(np.float64)
    with np.errstate(over="ignore"):
        return fixed.astype(np.float32)[()]


def mul_add32(a, b, c):
    """Return ``a * b + c``, the product and the sum each rounded to float32.

    Examples
    --------
    >>> a = np.float32(1 + 2**-12)
    >>> float(mul_add32(a, a, np.float32(-1)))
    0.00048828125
    """
    a, b, c = (np.asarray(v, np.float32) for v in (a, b, c))
    return (a * b + c)[()]
