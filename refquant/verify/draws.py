"""Drawing codes, zero points and scales that bring out numerical effects.

Scales are *solved*, not drawn: two orders of the same float32 product differ by an ulp or two, and an output changes only where a
rounding tie lies between them. So a multiplier is put on ``odd / d * 2**-s`` with a small odd `d`, where one accumulator in ``d * 2**s``
is a tie, and then up to four ulp beside. With `d` = 1 the product is exact in float32 and shows how the multiplier was rounded; with another
`d` the multiplier itself is inexact and shows how the product was.
"""

import math
import sys
from zlib import crc32

import numpy as np

from refquant.core.dtypes import int_type
from refquant.verify.powers import power_of_two

__all__ = ["generator", "draw_scale", "uniform", "tie_ratio", "solve_scales", "draw_zero", "draw_codes", "draw_weights", "pick"]


def generator(case):
    """Return the random generator of a case: PCG64, seeded by the operator, shape, strategy and seed."""
    text = str(case.replace(profile="any", options=())).encode()
    return np.random.Generator(np.random.PCG64([case.seed, crc32(text)]))


def pick(rng, items):
    """Return one of `items`."""
    return items[int(rng.integers(len(items)))]


def draw_scale(rng, low=2.0**-9, high=2.0**-2):
    """Draw a scale: a power of two, a float32, or (half of the time) a double that is no float32."""
    scale = power_of_two(rng.uniform(math.log2(low), math.log2(high)))
    kind = rng.integers(4)
    if kind == 0:
        return math.ldexp(0.5, math.frexp(scale)[1])
    return float(np.float32(scale)) if kind == 1 else scale


def tie_ratio(rng, shift, count=None):
    """Return ``odd / d`` times ``2**-shift``, between 1/2 and 2 times it: multipliers under which every odd multiple of ``d * 2**(shift - 1)`` is a tie.

    Parameters
    ----------
    rng : numpy.random.Generator
    shift : int or ndarray of int
    count : int, optional
        How many; None asks for a scalar.
    """
    size = count or 1
    d = rng.choice([1, 1, 1, 3, 5, 7, 9], size)
    odd = d + 2 * rng.integers(-(d // 4), d // 2 + 2, size)
    ratio = odd / d * power_of_two(-np.asarray(shift, np.float64))
    return float(ratio[0]) if count is None else ratio


def solve_scales(rng, ratio, other, count=None):
    """Return scales `s` with ``s / other`` on `ratio`, or up to four ulp of float32 beside.

    Parameters
    ----------
    rng : numpy.random.Generator
    ratio : float or ndarray
        What ``s / other`` should be.
    other : float
    count : int, optional
        How many; None asks for a scalar.

    Returns
    -------
    float, or ndarray of float64
        A quarter of the scalars and channels is left unrounded in float64.
    """
    size = count or 1
    exact = np.broadcast_to(np.asarray(ratio, np.float64) * other, (size,))
    single = exact.astype(np.float32)
    ulps = rng.choice([0, 0, 0, 1, -1, 1, -1, 2, -2, 3, -3, 4, -4], size)
    moved = (single.view(np.int32) + ulps.astype(np.int32)).view(np.float32).astype(np.float64)
    moved = np.where(rng.random(size) < 0.25, exact * (1 + ulps * 2.0**-24), moved)
    return float(moved[0]) if count is None else moved


def draw_zero(rng, dtype, strategy):
    """Draw a zero point: odd and in the middle for near-ties, at the ends for saturation, anywhere else."""
    kind = int_type(dtype)
    low, high = (kind.qmin, kind.qmax) if kind.storage.itemsize < 4 else (-1000, 1000)
    middle = (low + high + 1) // 2
    if strategy == "saturate":
        return pick(rng, (low, high, low + 1, high - 1))
    if strategy in ("neartie", "edges") and rng.random() < 0.8:
        return middle + pick(rng, (-3, -1, 0, 1, 2, 5))
    return pick(rng, (low, high, low + 1, middle, int(rng.integers(low, high + 1))))


def uniform(rng, low, high, shape):
    """Return the integers of ``rng.integers(low, high + 1, shape)``; many of a span of 256 by their uppermost bits, twice as fast.

    NumPy makes two of them of 64 random bits, the lower half first, and keeps a half that is left over.

    Examples
    --------
    >>> a, b = (np.random.default_rng(1) for _ in "ab")
    >>> np.array_equal(uniform(a, -128, 127, (64, 64)), b.integers(-128, 128, (64, 64))), a.random() == b.random()
    (True, True)
    """
    size = int(np.prod(shape))
    if high - low != 255 or size < 4096 or size % 2 or sys.byteorder != "little" or rng.bit_generator.state["has_uint32"]:
        return rng.integers(low, high + 1, shape)
    codes = rng.bit_generator.random_raw(size // 2).view(np.uint8)[3::4]
    return (codes + np.int16(low)).reshape(shape)


def draw_codes(rng, shape, dtype, zero, strategy):
    """Draw activation codes.

    ``neartie``: the whole dtype, or a band around the zero point that keeps accumulators small (always for ``offset``); ``saturate``: ends of the dtype;
    ``pairs`` and ``wrap``: almost all at the top; ``edges``: both ends of the dtype, the zero point, and their neighbours.
    """
    kind = int_type(dtype)
    low, high = (kind.qmin, kind.qmax) if kind.storage.itemsize < 4 else (-(2**20), 2**20)
    if strategy == "saturate":
        codes = rng.choice(np.array([low, low, low + 1, high - 1, high, high, zero]).astype(kind.storage), shape)
    elif strategy in ("pairs", "wrap"):
        top = rng.random(shape) < 0.9
        codes = rng.integers(low, high + 1, shape).astype(kind.storage)
        codes[top] = high
    elif strategy == "edges":
        near = [c for c in (zero - 1, zero, zero + 1) if low <= c <= high]
        codes = rng.choice(np.array([low, low + 1, *near, high - 1, high]).astype(kind.storage), shape)
    elif strategy in ("neartie", "offset"):
        width = pick(rng, (3, 15, high - low, high - low)) if strategy == "neartie" else 2
        codes = uniform(rng, max(low, zero - width), min(high, zero + width), shape)
    else:
        codes = uniform(rng, low, high, shape)
    return codes.astype(kind.storage)


def draw_weights(rng, shape, dtype, strategy):
    """Draw weight codes, output channels first; for ``pairs`` and ``wrap`` whole channels lie at one end of the dtype."""
    kind = int_type(dtype)
    low, high = kind.qmin, kind.qmax
    if strategy in ("saturate", "edges"):
        codes = rng.choice([low, low + 1, -1 if low else 127, 0 if low else 128, 1 if low else 129, high - 1, high], shape)
    elif strategy in ("pairs", "wrap"):
        end = np.where(np.arange(shape[0]) % 2, low, high).reshape(-1, *[1] * (len(shape) - 1))
        codes = np.where(rng.random(shape) < 0.9, end, rng.integers(low, high + 1, shape))
    elif strategy in ("neartie", "offset"):
        width = pick(rng, (2, 7, 127, 127)) if strategy == "neartie" else 2
        middle = (low + high + 1) // 2
        codes = uniform(rng, max(low, middle - width), min(high, middle + width), shape)
    else:
        codes = uniform(rng, low, high, shape)
    return codes.astype(kind.storage)
