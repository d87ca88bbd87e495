"""From a range to scale and zero point as PyTorch's C++ code computes them: `choose_qparams`."""

import numpy as np

from refquant.core.rounding import Round, round_real, round_shift
from refquant.core.wrap import saturate
from refquant.errors import RangeError, ShapeError, choose

__all__ = ["choose_qparams", "check_range", "first_bad"]

_SMALL_SCALE = np.float32(6.1e-5)


def check_range(low, high, place):
    """Refuse a range that is not finite, or that ends before it begins."""
    bad = ~(np.isfinite(low) & np.isfinite(high))
    if bad.any():
        where, low, high = first_bad(bad, low, high)
        raise RangeError(f"{place}: the range{where} [{low}, {high}] must be finite; a NaN or an infinity was observed, drop it from the data")
    bad = ~(low <= high)
    if bad.any():
        where, low, high = first_bad(bad, low, high)
        raise RangeError(
            f"{place}: the range{where} [{low}, {high}] must end no lower than it begins; swap the bounds, or observe data"
            " that vary by more than the rounding of a moving average"
        )


def first_bad(bad, *arrays):
    """Return (where, values) of the first bad entry, for a message."""
    if not bad.ndim:
        return ("", *(float(a) for a in arrays))
    i = int(np.flatnonzero(bad)[0])
    return (f" of channel {i}", *(float(a[i]) for a in arrays))


def choose_qparams(min_val, max_val, qmin=0, qmax=255, *, preserve_sparsity=False, reduce_range=False, library="aten"):
    """Return scale and zero point for a range, as the C++ functions ``ChooseQuantizationParams`` compute them.

    With ``lo = min(min_val, 0)``, ``hi = max(max_val, 0)``: ``scale = (hi - lo) / (qmax - qmin)`` in double, 0.1 if that
    is 0 or has no finite reciprocal in float32, and at least 6.1e-5 (`lo` and `hi` grow along). The zero point is
    ``rne(qmin - lo / scale)`` where ``|qmin| - |lo / scale| < |qmax| - |hi / scale|``, else ``rne(qmax - hi / scale)``.
    FBGEMM first rounds the scale to float32, and adds where ATen subtracts in the comparison.

    Parameters
    ----------
    min_val, max_val : float
        The range, rounded to float32.
    qmin, qmax : int
        The codes.
    preserve_sparsity : bool
        A symmetric range with the zero point in the middle of the codes, if 0 lies inside of the range: what
        the fused observer of quantization-aware training does with a symmetric qscheme.
    reduce_range : bool
        Halve `qmin` and `qmax`, toward zero.
    library : {"aten", "fbgemm"}
        ``"aten"`` for dynamic quantization, ``"fbgemm"`` for the fused observer.

    Returns
    -------
    scale : float
        A double; from FBGEMM a float32 value.
    zero_point : int

    Raises
    ------
    RangeError
        A range that is not finite or ends before it begins, ``qmin >= qmax``.

    Notes
    -----
    Exactness: differences, quotients and ATen's scale in double; the symmetric bounds, and those that grow with a small scale,
    rounded to float32. The libraries differ in zero points that lie at a tie, because FBGEMM's scale is rounded; which of
    the two formulas the comparison picks matters in the last bit of a double only.

    Source: PyTorch 2.13, ``ATen/native/quantized/cpu/QuantUtils.h``; FBGEMM, ``src/QuantUtils.cc``.

    Examples
    --------
    >>> choose_qparams(-1.0, 3.0)
    (0.01568627450980392, 64)
    >>> choose_qparams(-1.0, 1.0), choose_qparams(-1.0, 1.0, library="fbgemm")
    ((0.00784313725490196, 128), (0.007843137718737125, 127))
    >>> choose_qparams(-1.0, 3.0, -128, 127, preserve_sparsity=True)
    (0.02362204719992245, 0)
    """
    place = "choose_qparams"
    choose(place, "library", library, ("aten", "fbgemm"))
    with np.errstate(over="ignore"):
        low, high = np.float32(min_val), np.float32(max_val)
    if low.ndim or high.ndim:
        raise ShapeError(f"{place}: min_val has shape {low.shape}, max_val {high.shape}; give two scalars, one channel at a time")
    check_range(low, high, place)
    if reduce_range:
        qmin, qmax = (int(round_shift(q, 1, Round.TRUNCATE)) for q in (qmin, qmax))
    if qmin >= qmax:
        raise RangeError(f"{place}: qmin={qmin} must be below qmax={qmax}; swap or widen them")
    with np.errstate(over="ignore", divide="ignore"):
        if low < 0 < high and preserve_sparsity:
            low, high = _symmetric_bounds(low, high, qmax - qmin)
            check_range(low, high, place)
        low, high = min(low, np.float32(0)), max(high, np.float32(0))
        scale = (float(high) - float(low)) / (qmax - qmin)
        rounded = np.float32(scale)
        if rounded == 0 or np.isinf(np.float32(1) / rounded):
            scale, rounded = 0.1, np.float32(0.1)
        if library == "fbgemm":
            scale = float(rounded)
        if scale < float(_SMALL_SCALE):
            low, high = _grown(low, high, rounded, qmax - qmin)
            scale = float(_SMALL_SCALE)
    low, high = float(low), float(high)
    sign = 1 if library == "fbgemm" else -1
    if low < 0 < high and preserve_sparsity:
        zero_point = (qmin + qmax) / 2
    elif abs(qmin) + sign * abs(low / scale) < abs(qmax) + sign * abs(high / scale):
        zero_point = qmin - low / scale
    else:
        zero_point = qmax - high / scale
    return scale, int(round_real(np.float64(saturate(zero_point, qmin, qmax)), Round.HALF_EVEN))


def _symmetric_bounds(low, high, steps):
    """The least range, float32, that contains `low` and `high` and lies around 0 as the codes of a signed integer do."""
    top = int(round_shift(steps, 1, Round.TRUNCATE))
    bottom = -(top + 1)
    widest = float(max(abs(low / np.float32(bottom)), abs(high / np.float32(top))))
    return np.float32(widest * bottom), np.float32(widest * top)


def _grown(low, high, scale, steps):
    """The bounds, float32, after a scale below the threshold was raised to it."""
    if low == 0:
        return low, _SMALL_SCALE * np.float32(steps)
    if high == 0:
        return -_SMALL_SCALE * np.float32(steps), high
    factor = _SMALL_SCALE / scale
    return low * factor, high * factor
