"""A costly function of each number by itself, where the numbers are few different ones: those that 8-bit codes stand for."""

import numpy as np

from refquant.kernels.jit import jit_disabled
from refquant.kernels.lookup_reals import look_up_reals, slots_of

__all__ = ["few_values"]

_LEAST, _SAMPLE, _MOST = 1 << 14, 2048, 256


def few_values(function, x):
    """Return ``function(x)``, worked out once for each of the numbers that a sample of `x` holds, if these are few.

    Parameters
    ----------
    function : callable
        Of a float32 array; each number of the result depends on one number of the array, wherever it stands.
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    The bits of ``function(x)``: a number is taken from a table only where it is, bit for bit, the one that the result was made of.

    Examples
    --------
    >>> few_values(np.sqrt, np.float32([4.0, 2.25]).repeat(10_000))[9_998:10_002]
    array([2. , 2. , 1.5, 1.5], dtype=float32)
    """
    if x.size < _LEAST or x.dtype != np.float32 or jit_disabled():
        return function(x)
    bits = np.ascontiguousarray(x).view(np.uint32).reshape(-1)
    known = np.unique(bits[:: x.size // _SAMPLE])
    if known.size > _MOST:
        return function(x)
    y = np.empty(bits.size, np.float32)
    others = look_up_reals(bits, slots_of(known, function(known.view(np.float32))), y)
    if others is not None:
        y[others] = function(bits[others].view(np.float32))
    return y.reshape(x.shape)
