"""Rounding: every mode has a name, and this file is its only home."""

from enum import Enum

import numpy as np

__all__ = ["Round", "round_real", "round_shift", "rounding_code"]


class Round(str, Enum):
    """How a real number becomes an integer.

    ===============  =====  =====  ====  ====  ====
    mode             −1.5   −0.5   0.5   1.5   2.5
    ===============  =====  =====  ====  ====  ====
    HALF_EVEN        −2     0      0     2     2
    HALF_AWAY        −2     −1     1     2     3
    HALF_UP          −1     0      1     2     3
    HALF_DOWN        −2     −1     0     1     2
    HALF_TO_ZERO     −1     0      0     1     2
    TRUNCATE         −1     0      0     1     2
    FLOOR            −2     −1     0     1     2
    CEIL             −1     0      1     2     3
    ===============  =====  =====  ====  ====  ====

    Examples
    --------
    >>> x = np.array([-1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    >>> for mode in Round:
    ...     print(f"{mode.name:12}", round_real(x, mode).astype(int).tolist())
    HALF_EVEN    [-2, 0, 0, 2, 2]
    HALF_AWAY    [-2, -1, 1, 2, 3]
    HALF_UP      [-1, 0, 1, 2, 3]
    HALF_DOWN    [-2, -1, 0, 1, 2]
    HALF_TO_ZERO [-1, 0, 0, 1, 2]
    TRUNCATE     [-1, 0, 0, 1, 2]
    FLOOR        [-2, -1, 0, 1, 2]
    CEIL         [-1, 0, 1, 2, 3]
    """

    HALF_EVEN = "half_even"
    HALF_AWAY = "half_away"
    HALF_UP = "half_up"
    HALF_DOWN = "half_down"
    HALF_TO_ZERO = "half_to_zero"
    TRUNCATE = "truncate"
    FLOOR = "floor"
    CEIL = "ceil"

    def __str__(self):
        return self.value


def rounding_code(mode):
    """Return the small integer by which kernels know a mode: its position in `Round`.

    Examples
    --------
    >>> rounding_code("half_even"), rounding_code(Round.HALF_UP)
    (0, 2)
    """
    return list(Round).index(Round(mode))


def round_real(x, mode):
    """Round real numbers to integers, exactly.

    Parameters
    ----------
    x : ndarray of float32 or float64
        NaN and infinities pass through.
    mode : Round or str

    Returns
    -------
    ndarray of the dtype of `x`
        Integral values. No step rounds: ``x - trunc(x)`` is exact (``x - floor(x)`` is not, just below −0.5).

    Examples
    --------
    >>> round_real(np.float32(0.49999997), "half_up")
    np.float32(0.0)
    """
    mode = Round(mode)
    x = np.asarray(x)[()]
    if mode is Round.HALF_EVEN:
        return np.rint(x)
    if mode is Round.TRUNCATE:
        return np.trunc(x)
    if mode is Round.CEIL:
        return np.ceil(x)
    if mode is Round.FLOOR:
        return np.floor(x)
    whole = np.trunc(x)
    with np.errstate(invalid="ignore"):
        part = np.abs(x - whole)
    half = part == 0.5
    away = {Round.HALF_AWAY: half, Round.HALF_UP: half & (x > 0), Round.HALF_DOWN: half & (x < 0), Round.HALF_TO_ZERO: False}[mode]
    return np.where((part > 0.5) | away, whole + np.copysign(x.dtype.type(1), x), whole)[()]


def round_shift(x, shift, mode):
    """Divide integers by ``2**shift`` and round.

    Parameters
    ----------
    x : ndarray of int64
    shift : int or ndarray of int
        0 … 62.
    mode : Round or str

    Returns
    -------
    ndarray of int64
        Exact for every `x` (no intermediate can overflow).

    Examples
    --------
    >>> [int(round_shift(np.int64(v), 1, "half_away")) for v in (-3, -1, 1, 3, 5)]
    [-2, -1, 1, 2, 3]
    """
    mode = Round(mode)
    x = np.asarray(x, np.int64)
    shift = np.asarray(shift, np.int64)
    below = x >> shift
    rest = x - (below << shift)
    if mode is Round.FLOOR:
        return below
    if mode is Round.CEIL:
        return below + (rest != 0)
    if mode is Round.TRUNCATE:
        return below + ((rest != 0) & (x < 0))
    one = np.int64(1)
    half_value = np.where(shift > 0, one << np.maximum(shift - 1, 0), 0)
    half = (shift > 0) & (rest == half_value)
    more = (shift > 0) & (rest > half_value)
    up = {
        Round.HALF_EVEN: half & ((below & 1) == 1),
        Round.HALF_UP: half,
        Round.HALF_DOWN: np.zeros_like(half),
        Round.HALF_AWAY: half & (x > 0),
        Round.HALF_TO_ZERO: half & (x < 0),
    }[mode]
    return below + (more | up)
