"""Eigen's float32 exponential, as ONNX Runtime's kernels take it: each step one float32 operation, products and sums rounded apart."""

import numpy as np

from refquant.core.glibc import glibc_exp
from refquant.core.rounding import Round, round_real

__all__ = ["eigen_exp", "eigen_elu"]

_F = np.float32


def eigen_exp(x):
    """Return the exponential of float32 numbers: ``pexp_float`` compiled for SSE2, without FMA.

    ``x = m · ln 2 + r`` with ln 2 in two parts; of the polynomial of r even and odd powers apart.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact for whole vectors of four; the elements that fill none go to the C library's ``expf``.

    Source
    ------
    Eigen of 2025 (as in ONNX Runtime 1.32), Eigen/src/Core/arch/Default/GenericPacketMathFunctions.h.

    Examples
    --------
    >>> eigen_exp(np.float32([0.0, 1.0, -200.0])).tolist()
    [1.0, 2.7182817459106445, 0.0]
    """
    x = np.asarray(x, _F)
    v = np.minimum(x, _F(88.723))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        m = round_real(v * _F(1.44269504088896341) + _F(0.5), Round.FLOOR).astype(_F)
        r = m * _F(2.12194440e-4) + (m * _F(-0.693359375) + v)
        square = r * r
        even = square * _F(1.37449637986719608306884765625e-3) + _F(4.166965186595916748046875e-2)
        odd = square * _F(8.36894474923610687255859375e-3) + _F(0.16666518151760101318359375)
        even = square * even + _F(0.49999988079071044921875)
        y = square * (r * odd + even) + (r + _F(1))
        y = np.ldexp(y, np.nan_to_num(m).astype(np.int32))
    return np.where(x < _F(-104), _F(0), np.maximum(y, x)).astype(_F)[()]


def eigen_elu(x, alpha=1.0, *, leftover=None):
    """Return x, or ``alpha · (exp(x) − 1)`` where negative, of float32 numbers: ``Elu``.

    Parameters
    ----------
    x : ndarray of float32
    alpha : float
    leftover : int, optional
        How many of the last elements fill no vector of four, and so go to the C library; ``x.size % 4`` unless given.

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact with glibc's ``expf``.

    Source
    ------
    ONNX Runtime 1.32, core/providers/cpu/activation/activations.h.

    Examples
    --------
    >>> eigen_elu(np.float32([-1.0, 2.0])).tolist()
    [-0.6321205496788025, 2.0]
    """
    x = np.asarray(x, _F)
    flat = x.reshape(-1)
    whole = flat.size - (flat.size % 4 if leftover is None else leftover)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        e = np.concatenate([np.atleast_1d(eigen_exp(flat[:whole])), np.atleast_1d(glibc_exp(flat[whole:]))])
        return np.where(flat >= 0, flat, _F(alpha) * (e - _F(1))).astype(_F).reshape(x.shape)
