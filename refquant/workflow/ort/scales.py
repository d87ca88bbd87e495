"""From ranges and arrays to scales, zero points and codes, as ONNX Runtime's quantization tool computes them.

Source
------
onnxruntime 1.32, python/tools/quantization/quant_utils.py: ``compute_scale_zp``, ``compute_data_quant_params``, ``quantize_nparray``,
``get_qmin_qmax_for_qType``, ``snap_zero_point_to_uint8``.
"""

import numpy as np

from refquant.core.dtypes import int_type
from refquant.core.rounding import Round, round_real
from refquant.errors import RangeError

__all__ = ["TYPES", "code_range", "scale_and_zero_point", "snapped_to_uint8", "of_array", "codes_of"]

TYPES = ("int8", "uint8", "int16", "uint16")
"""The types that activations and weights can have."""

_SYMMETRIC = {"int8": (-127, 127), "int16": (-32767, 32767)}
_REDUCED = {"uint8": (0, 127), "int8": (-64, 64), "uint16": (0, 32767), "int16": (-16384, 16384)}
_F = np.float32


def code_range(dtype, *, reduced=False, symmetric=False):
    """Return the smallest and largest code that parameters are computed for. A reduced int8 has 129 codes, −64 … 64.

    Examples
    --------
    >>> code_range("int8"), code_range("int8", symmetric=True), code_range("int8", reduced=True, symmetric=True)
    ((-128, 127), (-127, 127), (-64, 64))
    """
    kind = int_type(dtype)
    if reduced:
        return _REDUCED[kind.name]
    return _SYMMETRIC[kind.name] if symmetric and kind.name in _SYMMETRIC else (kind.qmin, kind.qmax)


def scale_and_zero_point(low, high, codes, symmetric=False, minimum=None, place="scale_and_zero_point"):
    """Return scale and zero point of a range.

    With the range widened to hold 0 (and `minimum`, then made symmetric): ``scale = (high - low) / (qmax - qmin)`` and
    ``zero_point = rne(qmin - low / scale)``, or ``rne((qmin + qmax) / 2)`` of a symmetric range.

    Parameters
    ----------
    low, high : float32
    codes : tuple of int
        From `code_range`.
    symmetric : bool
    minimum : float, optional
        The least width of the range (``MinimumRealRange``).
    place : str
        Who asks, for messages.

    Returns
    -------
    tuple of (numpy.float32, int)
        A scale below the smallest normal float32 becomes 1, with zero point 0 even where the codes are unsigned and symmetric.

    Raises
    ------
    RangeError
        A bound that is no finite number; the tool fails further on.

    Notes
    -----
    Exactness: bounds are float32; difference, quotients and zero point are double; the scale is rounded to float32 in the end, after the zero
    point was computed from its unrounded value.

    Examples
    --------
    >>> scale_and_zero_point(np.float32(-1), np.float32(3), (0, 255))
    (np.float32(0.015686275), 64)
    >>> scale_and_zero_point(np.float32(0), np.float32(0), (0, 255), symmetric=True)
    (np.float32(1.0), 0)
    """
    low, high = _bounds(low, high, place)
    qmin, qmax = codes
    if minimum is not None:
        high = max(high, low + _F(minimum))
    if symmetric:
        high = np.maximum(np.abs(low), np.abs(high))
        low = -high
    scale = (float(high) - float(low)) / float(qmax - qmin)
    if scale < float(np.finfo(_F).tiny):
        return _F(1), 0
    real = (qmin + qmax) / 2.0 if symmetric else qmin - float(low) / scale
    return _F(scale), int(round_real(np.float64(real), Round.HALF_EVEN))


def _bounds(low, high, place):
    low, high = _F(low), _F(high)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RangeError(f"{place}: the range [{low}, {high}] must be finite; look for NaN and infinities in data and weights")
    return np.minimum(low, _F(0)), np.maximum(high, _F(0))


def snapped_to_uint8(low, high, codes, minimum=None, place="snapped_to_uint8"):
    """Return scale and zero point of uint8 with the zero point at the smallest code (no negative numbers) or in the middle.

    This is ``ActivationRestrictedAsymmetric``. All in double, the scale rounded in the end.

    Examples
    --------
    >>> snapped_to_uint8(-1.0, 3.0, (0, 255)), snapped_to_uint8(0.0, 3.0, (0, 255))
    ((np.float32(0.023622047), 128), (np.float32(0.011764706), 0))
    """
    low, high = (float(v) for v in _bounds(low, high, place))
    qmin, qmax = codes
    middle = (qmin + qmax + 1) // 2
    if minimum is not None and minimum > 0:
        high = max(high, low + float(minimum))
    zero = qmin if low >= 0 else middle
    if high <= low:
        scale = 1.0 / (qmax - qmin)
    elif low >= 0:
        scale = high / (qmax - qmin)
    else:
        scale = max(-low / (middle - qmin), high / (qmax - middle))
    scale = _F(scale)
    if minimum is not None and float(scale) < minimum / (qmax - qmin):
        scale = _F(minimum / (qmax - qmin))
    return scale, zero


def of_array(array, dtype, *, symmetric, reduced=False, minimum=None, low=None, high=None, place="of_array"):
    """Return scale and zero point of an array; an empty one has (1, 0)."""
    if not array.size:
        return _F(1), 0
    low, high = array.min() if low is None else low, array.max() if high is None else high
    return scale_and_zero_point(low, high, code_range(dtype, reduced=reduced, symmetric=symmetric), symmetric, minimum, place)


def codes_of(array, scale, zero_point, dtype, axis=None):
    """Return the codes of an array: ``clip(rne(x / scale) + zero_point)``, the quotient and the sum in float32, with all codes of the dtype.

    Parameters
    ----------
    array : ndarray of float32
    scale : float32, or one a channel
    zero_point : int, or one a channel
    dtype : str
    axis : int, optional
        Of the channels.

    Examples
    --------
    >>> codes_of(np.float32([-1.0, 0.25, 9.0]), np.float32(0.1), 0, "int8").tolist()
    [-10, 2, 90]
    """
    kind = int_type(dtype)
    scale, zero_point = np.asarray(scale, _F), np.asarray(zero_point, _F)
    if axis is not None:
        shape = [1] * array.ndim
        shape[axis] = -1
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        real = round_real(array.astype(_F) / scale, Round.HALF_EVEN).astype(_F) + zero_point
    return np.clip(real, _F(kind.qmin), _F(kind.qmax)).astype(kind.storage)
