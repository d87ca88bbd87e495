"""FakeQuantize: a range of real numbers cut into 255 steps, as OpenVINO writes the affine map.

With a scale `s` and a zero point `z` the range is ``low = f(s · (qmin − z))`` … ``high = f(s · (qmax − z))``, and a number becomes
``round(clip(x, low, high) · step + shift) + qmin`` with ``step = f(255 / (high − low))`` and ``shift = f(−low · step)``.
"""

from typing import NamedTuple

import numpy as np

from refquant.core.fma import fma32
from refquant.core.rounding import Round, round_real
from refquant.core.wrap import saturate

__all__ = ["Steps", "range_of", "steps_of", "range_codes"]

_F = np.float32
_SMALL = _F(1e-4)


class Steps(NamedTuple):
    """A range and its steps, float32, one of each or one a channel."""

    low: np.ndarray
    high: np.ndarray
    step: np.ndarray
    shift: np.ndarray


def range_of(scale, zero_point, qmin, qmax):
    """Return (low, high), the real numbers of the first and the last code.

    Examples
    --------
    >>> [float(v) for v in range_of(0.5, 128, 0, 255)]
    [-64.0, 63.5]
    """
    scale, zero = np.asarray(scale, np.float64).astype(_F), np.asarray(zero_point, np.int64)
    with np.errstate(over="ignore"):
        return scale * (qmin - zero).astype(_F), scale * (qmax - zero).astype(_F)


def steps_of(low, high, shift="product"):
    """Return the `Steps` of a range.

    Parameters
    ----------
    low, high : ndarray of float32
    shift : {"product", "quotient"}
        ``f(−low · step)``, or ``f(f(−low · 255) / f(high − low))``.

    Examples
    --------
    >>> steps = steps_of(np.float32(-64), np.float32(63.5))
    >>> float(steps.step), float(steps.shift)
    (2.0, 128.0)
    """
    with np.errstate(all="ignore"):
        width = high - low
        step = _F(255) / width
        return Steps(low, high, step, -low * step if shift == "product" else (-low * _F(255)) / width)


def range_codes(x, steps, qmin, qmax, *, contraction="none", reduced=True):
    """Map real numbers to codes.

    Parameters
    ----------
    x : ndarray of float32
    steps : Steps
        Broadcastable against `x`.
    qmin, qmax : int
        256 codes.
    contraction : {"none", "fma"}
        Whether ``x · step + shift`` is rounded twice or once.
    reduced : bool
        int8 whose shift is 128 within 1e-4 leaves shift and ``qmin`` out: ``round(x · step)``.

    Returns
    -------
    ndarray of int64

    Source
    ------
    OpenVINO 2026.4, src/common/snippets/src/pass/fq_decomposition.cpp.

    Examples
    --------
    >>> range_codes(np.float32([0.25, 0.75]), steps_of(*range_of(0.5, 128, 0, 255)), 0, 255)
    array([128, 130])
    """
    with np.errstate(all="ignore"):
        x = np.where(np.isnan(x), steps.low, x)
        inside = np.minimum(np.maximum(x, steps.low), steps.high)
        if reduced and _centred(steps, qmin):
            return saturate(round_real(inside * steps.step, Round.HALF_EVEN).astype(np.int64), qmin, qmax)
        v = fma32(inside, steps.step, steps.shift) if contraction == "fma" else inside * steps.step + steps.shift
        return saturate(round_real(v, Round.HALF_EVEN).astype(np.int64), 0, qmax - qmin) + qmin


def _centred(steps, qmin):
    aligned = np.abs(steps.shift - _F(128)) < _SMALL
    ends = (np.abs(steps.low * steps.step + _F(128)) <= _SMALL) & (np.abs(steps.high * steps.step - _F(127)) <= _SMALL)
    return qmin == -128 and bool(np.all(aligned) and np.all(ends))
