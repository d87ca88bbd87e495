"""From a range of real numbers to scale and zero point: the two formulas of PyTorch.

The Python observers compute in float32 (`qparams_from_range`); dynamic quantization and the fused observer of
quantization-aware training compute in double, in C++ (`choose_qparams`). On the same range they give different scales.
"""

from typing import NamedTuple

import numpy as np

from refquant.core.arguments import as_real, as_reals
from refquant.core.choose_qparams import check_range, choose_qparams, first_bad
from refquant.core.dtypes import int_type
from refquant.core.qparams import QParams
from refquant.core.rounding import Round, round_real, round_shift
from refquant.core.wrap import saturate, wrap_int32
from refquant.errors import ArgumentError, RangeError, ShapeError, choose

__all__ = ["QSCHEMES", "EPS", "FloatQParams", "QuantLimits", "plain_name", "quant_limits", "qparams_from_range", "choose_qparams"]

QSCHEMES = (
    "per_tensor_affine",
    "per_tensor_symmetric",
    "per_channel_affine",
    "per_channel_symmetric",
    "per_channel_affine_float_qparams",
)
EPS = float(np.finfo(np.float32).eps)
"""The smallest scale by default: 2**-23."""

# What calculate_qmin_qmax falls back on: 32- and 16-bit dtypes have no reduced range, 4-bit codes are 0 … 15.
_REDUCED = {"int8": (-64, 63), "uint8": (0, 127)}
_MIDDLE = {"uint8": 128, "uint16": 32768}


class QuantLimits(NamedTuple):
    """The codes that an observer may use."""

    dtype: str
    qmin: int
    qmax: int
    custom: bool


class FloatQParams(NamedTuple):
    """What ``per_channel_affine_float_qparams`` yields: a zero point that is a real number, ``code = x / scale + zero_point``.

    `scale` and `zero_point` are float32 vectors along `axis`.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    dtype: str
    axis: int
    quant_min: int
    quant_max: int


def plain_name(value):
    """Return the bare name of a string, a PyTorch dtype or a PyTorch qscheme.

    Examples
    --------
    >>> plain_name("torch.per_tensor_affine"), plain_name("quint8"), plain_name(np.uint8)
    ('per_tensor_affine', 'quint8', 'uint8')
    """
    if isinstance(value, type) and issubclass(value, np.generic):
        return np.dtype(value).name
    return str(value).rpartition(".")[2]


def quant_limits(dtype, quant_min=None, quant_max=None, reduce_range=False, place="quant_limits"):
    """Return the range of codes that dtype, custom limits and `reduce_range` leave.

    Parameters
    ----------
    dtype : str or dtype
        ``"quint8"``, ``"qint8"``, ``"uint8"``, ``"int8"``, ``"int16"``, ``"uint16"``, ``"int32"``, ``"quint4x2"``, …
    quant_min, quant_max : int, optional
        Both or neither. The codes between them must lie within the dtype and include 0.
    reduce_range : bool
        One bit less: −64 … 63 for int8, 0 … 127 for uint8; custom limits are halved, rounding down.
        The other dtypes have no reduced range, as in PyTorch.
    place : str
        Who asks, for messages.

    Returns
    -------
    QuantLimits

    Raises
    ------
    ArgumentError
        Only one limit is given (PyTorch would ignore it), or a limit is no integer.
    RangeError
        A limit outside of the dtype, limits in the wrong order or without 0.

    Notes
    -----
    Source: PyTorch 2.13, ``torch/ao/quantization/utils.py``, ``calculate_qmin_qmax`` and ``validate_qmin_qmax``.
    PyTorch lets limits for uint8 exceed the dtype; here that is an error.

    Examples
    --------
    >>> quant_limits("qint8", reduce_range=True)
    QuantLimits(dtype='int8', qmin=-64, qmax=63, custom=False)
    >>> quant_limits("int8", -127, 127, reduce_range=True)[1:3]
    (-64, 63)
    """
    name = plain_name(dtype)
    kind = int_type("uint4" if name == "quint4x2" else name, place)
    if (quant_min is None) != (quant_max is None):
        given, missing = ("quant_min", "quant_max") if quant_max is None else ("quant_max", "quant_min")
        raise ArgumentError(f"{place}: {given} is given without {missing}, and would have no effect; give both or neither")
    if quant_min is None:
        qmin, qmax = _REDUCED.get(kind.name, kind[2:]) if reduce_range else kind[2:]
        return QuantLimits(kind.name, qmin, qmax, False)
    for label, value in (("quant_min", quant_min), ("quant_max", quant_max)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ArgumentError(f"{place}: {label}={value!r} is a {type(value).__name__}; it must be an int")
        if not kind.qmin <= value <= kind.qmax:
            raise RangeError(f"{place}: {label}={value} lies outside of {kind.name} [{kind.qmin}, {kind.qmax}]; choose a code of that dtype")
    qmin, qmax = int(quant_min), int(quant_max)
    if not qmin <= 0 <= qmax or qmin == qmax:
        raise RangeError(f"{place}: quant_min={qmin}, quant_max={qmax} must be two codes with 0 between them; widen the limits")
    if reduce_range:
        qmin, qmax = (int(round_shift(q, 1, Round.FLOOR)) for q in (qmin, qmax))
    return QuantLimits(kind.name, qmin, qmax, True)


def qparams_from_range(min_val, max_val, limits, qscheme="per_tensor_affine", eps=EPS, axis=None, place="qparams_from_range"):
    """Return scale and zero point for a range, as PyTorch's observers compute them.

    With ``lo = min(min_val, 0)``, ``hi = max(max_val, 0)``:

    - affine: ``scale = max((hi - lo) / (qmax - qmin), eps)``, ``zero_point = clip(qmin - rne(lo / scale))``;
    - symmetric: ``scale = max(max(-lo, hi) / ((qmax - qmin) / 2), eps)``, zero point 0; for uint8 128, or the
      middle of custom limits, rounded down;
    - float_qparams: ``scale = (max_val - min_val) / (qmax - qmin)``, 1 unless above eps; ``zero_point = -min_val / scale``.

    Parameters
    ----------
    min_val, max_val : float or ndarray, float32
        The range, or one a channel.
    limits : QuantLimits
        From `quant_limits`.
    qscheme : str
        One of `QSCHEMES`.
    eps : float
        The least scale.
    axis : int, optional
        The axis of the channels where `min_val` and `max_val` are vectors.
    place : str
        Who asks, for messages.

    Returns
    -------
    QParams or FloatQParams
        Scales are float32 values. QParams carries the limits.

    Raises
    ------
    RangeError
        A range that is not finite, or that ends before it begins; a scale that is 0 or overflows.

    Notes
    -----
    Exactness: all in float32, every operation rounded on its own, true divisions; ``rne`` rounds half to even. The
    difference of the bounds overflows above 3.4e38, which is an error here and a scale of inf in PyTorch.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``,
    ``UniformQuantizationObserverBase._calculate_qparams``.

    Examples
    --------
    >>> qparams_from_range(-1.0, 3.0, quant_limits("uint8"))
    QParams(scale=0.01568627543747425, zero_point=64, dtype='uint8')
    >>> qparams_from_range(-1.0, 3.0, quant_limits("int8"), "per_tensor_symmetric")
    QParams(scale=0.0235294122248888, zero_point=0, dtype='int8')
    """
    choose(place, "qscheme", qscheme, QSCHEMES)
    low, high = as_reals(min_val, "min_val", place), as_reals(max_val, "max_val", place)
    if not isinstance(limits, QuantLimits):
        raise ArgumentError(f"{place}: limits must be QuantLimits, not {type(limits).__name__}; make them with quant_limits")
    if low.shape != high.shape or low.ndim != (axis is not None):
        raise ShapeError(
            f"{place}: min_val has shape {low.shape}, max_val {high.shape}, axis={axis};"
            " give two scalars, or axis= and two vectors of one length"
        )
    check_range(low, high, place)
    steps = limits.qmax - limits.qmin
    eps = np.float32(as_real(eps, "eps", place))
    zero = np.float32(0)
    below, above = np.minimum(low, zero), np.maximum(high, zero)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        if qscheme == "per_channel_affine_float_qparams":
            scale = (high - low) / np.float32(steps)
            scale = np.where(scale > eps, scale, np.float32(1))
            _check_scale(scale, place)
            return FloatQParams(scale, -low / scale, limits.dtype, axis, limits.qmin, limits.qmax)
        if qscheme.endswith("symmetric"):
            scale = np.maximum(np.maximum(-below, above) / np.float32(steps / 2), eps)
            zero_point = np.full(scale.shape, _symmetric_zero_point(limits))
        else:
            scale = np.maximum((above - below) / np.float32(steps), eps)
            zero_point = _affine_zero_point(below / scale, limits)
    _check_scale(scale, place)
    return QParams(scale, zero_point, limits.dtype, axis, quant_min=limits.qmin, quant_max=limits.qmax)


def _symmetric_zero_point(limits):
    if limits.dtype == "uint8" and limits.custom:
        return int(round_shift(limits.qmin + limits.qmax, 1, Round.FLOOR))
    return _MIDDLE.get(limits.dtype, 0)


def _affine_zero_point(steps_below, limits):
    """``clip(qmin - int32(rne(steps_below)))``, the difference modulo 2**32; x86 converts what int32 cannot hold to -2**31."""
    steps = round_real(steps_below.astype(np.float64), Round.HALF_EVEN)
    steps = np.where(np.abs(steps) < 2.0**31, steps, -(2.0**31)).astype(np.int64)
    return saturate(wrap_int32(limits.qmin - steps).astype(np.int64), limits.qmin, limits.qmax)


def _check_scale(scale, place):
    bad = ~(np.isfinite(scale) & (scale > 0))
    if bad.any():
        where, value = first_bad(bad, scale)
        raise RangeError(
            f"{place}: the scale{where} {value} must be positive and finite; the range is wider than float32 can express,"
            " or empty with eps=0: scale the data, or give a positive eps"
        )
