"""The C library's float32 exponential, as scalar loops of engines on Linux call it: in float64, by 32 powers of two and a cubic."""

import numpy as np

from refquant.core.rounding import Round, round_real

__all__ = ["glibc_exp"]

_F = np.float32
_STEPS = 32
_POWERS = np.exp2(np.arange(_STEPS) / _STEPS)
_PER_LN2 = float.fromhex("0x1.71547652b82fep+0") * _STEPS
_CUBIC, _SQUARE, _LINEAR = (
    float.fromhex(c) / _STEPS**k for c, k in (("0x1.c6af84b912394p-5", 3), ("0x1.ebfce50fac4f3p-3", 2), ("0x1.62e42ff0c52d6p-1", 1))
)


def glibc_exp(x):
    """Return the exponential of float32 numbers: ``expf`` of glibc 2.27 and later.

    ``2**(k/32) · (1 + c1·r + (c2 + c3·r)·r²)`` with k the nearest integer to ``32 · x / ln 2`` and r what is left, in float64, rounded once.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact but where fused float64 steps, which glibc takes on processors that have them, move a float32: at about one number in 10**8.

    Source
    ------
    glibc 2.36, sysdeps/ieee754/flt-32/e_expf.c, math_config.h.

    Examples
    --------
    >>> glibc_exp(np.float32([0.0, 1.0, -200.0, 100.0])).tolist()
    [1.0, 2.7182817459106445, 0.0, inf]
    """
    x = np.asarray(x, _F)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        z = np.clip(x.astype(np.float64), -150, 150) * _PER_LN2
        k = round_real(z, Round.HALF_EVEN)
        r = z - k
        n = np.nan_to_num(k).astype(np.int64)
        y = (_CUBIC * r + _SQUARE) * (r * r) + (_LINEAR * r + 1)
        return np.asarray(y * np.ldexp(_POWERS[n % _STEPS], n // _STEPS)).astype(_F)[()]
