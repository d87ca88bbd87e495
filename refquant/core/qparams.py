"""Quantization parameters: scale, zero point and dtype, checked once."""

import numpy as np

from refquant.core.arguments import as_array, as_integer
from refquant.core.dtypes import int_type
from refquant.errors import ArgumentError, RangeError, ShapeError

__all__ = ["QParams"]


class QParams:
    """Scale, zero point and dtype of a quantized tensor: ``real = scale * (code - zero_point)``.

    Parameters
    ----------
    scale : float or array_like
        Positive and finite, and positive as a float32 too. Held in float64: each engine rounds it in its own way.
    zero_point : int or array_like of int
        The code of the real number 0; within the dtype. A scalar stands for all channels.
    dtype : str or numpy.dtype
        ``"uint8"``, ``"int8"``, ``"int32"``, …; PyTorch's ``"quint8"`` works too.
    axis : int, optional
        With vectors: the axis of the tensor that they run along (per channel).
    quant_min, quant_max : int, optional
        A narrower range of codes, such as 0 … 127 for ``reduce_range``.
    unchecked : bool
        Skip the checks of scale and zero point, to ask what an engine does with a scale of 0, a NaN or an infinity.

    Raises
    ------
    RangeError
        A scale that is not positive and finite, a zero point outside of the dtype.
    ShapeError
        Vectors of different lengths, vectors without `axis`.
    ArgumentError
        An unknown dtype, a zero point that is no integer.

    Examples
    --------
    >>> QParams(0.05, 128, "uint8")
    QParams(scale=0.05, zero_point=128, dtype='uint8')
    >>> QParams([0.1, 0.2], [0, 0], "int8", axis=0).per_channel
    True
    """

    __slots__ = ("scale", "zero_point", "_type", "axis", "qmin", "qmax")

    def __init__(self, scale, zero_point, dtype, axis=None, *, quant_min=None, quant_max=None, unchecked=False):
        put = object.__setattr__
        kind = int_type(dtype, "QParams")
        put(self, "_type", kind)
        put(self, "qmin", kind.qmin if quant_min is None else _limit("quant_min", quant_min, kind))
        put(self, "qmax", kind.qmax if quant_max is None else _limit("quant_max", quant_max, kind))
        if self.qmin >= self.qmax:
            raise RangeError(f"QParams: quant_min={self.qmin} must be below quant_max={self.qmax}; swap or widen them")
        scale = _numbers("scale", scale, np.float64)
        zero_point = _integers(zero_point)
        if axis is None:
            if scale.ndim or zero_point.ndim:
                raise ShapeError(
                    f"QParams: scale has shape {scale.shape} and zero_point {zero_point.shape} but axis is None;"
                    " give axis= for per-channel parameters, or scalars"
                )
        else:
            axis = _axis(axis)
            scale, zero_point = _vectors(scale, zero_point)
        if not unchecked:
            _check_scale(scale)
            _check_zero_point(zero_point, kind)
        put(self, "axis", axis)
        put(self, "scale", float(scale) if axis is None else _frozen(scale))
        put(self, "zero_point", int(zero_point) if axis is None else _frozen(zero_point))

    def __setattr__(self, name, value):
        raise AttributeError(f"QParams is immutable; build a new one instead of setting {name!r}")

    @property
    def dtype(self):
        """The name of the dtype, such as ``"uint8"``."""
        return self._type.name

    @property
    def storage(self):
        """The NumPy dtype that holds the codes."""
        return self._type.storage

    @property
    def per_channel(self):
        """Whether scale and zero point are vectors along `axis`."""
        return self.axis is not None

    @property
    def symmetric(self):
        """Whether every zero point is 0."""
        return not np.any(self.zero_point)

    def along(self, ndim, axis=None):
        """Return (scale, zero_point) shaped to broadcast against a tensor of `ndim` dimensions."""
        if self.axis is None:
            return np.float64(self.scale), np.int64(self.zero_point)
        shape = [1] * ndim
        shape[self.axis if axis is None else axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)

    def _key(self):
        s, z = np.asarray(self.scale), np.asarray(self.zero_point)
        return (self.dtype, self.axis, self.qmin, self.qmax, s.shape, s.tobytes(), z.tobytes())

    def __eq__(self, other):
        return isinstance(other, QParams) and self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def __reduce__(self):
        return _rebuild, (self.scale, self.zero_point, self.dtype, self.axis, self.qmin, self.qmax)

    def __repr__(self):
        scale, zero = self.scale, self.zero_point
        if self.per_channel:
            scale = f"<{len(scale)}: {scale.min():.6g} … {scale.max():.6g}>" if len(scale) else "<0>"
            zero = "0" if self.symmetric else f"<{len(zero)}: {zero.min()} … {zero.max()}>"
        text = f"QParams(scale={scale}, zero_point={zero}, dtype={self.dtype!r}"
        if self.per_channel:
            text += f", axis={self.axis}"
        if (self.qmin, self.qmax) != (self._type.qmin, self._type.qmax):
            text += f", quant_min={self.qmin}, quant_max={self.qmax}"
        return text + ")"


def _rebuild(scale, zero_point, dtype, axis, qmin, qmax):
    return QParams(scale, zero_point, dtype, axis, quant_min=qmin, quant_max=qmax, unchecked=True)


def _frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def _limit(name, value, kind):
    code = as_integer(value, name, "QParams")
    if not kind.qmin <= code <= kind.qmax:
        raise RangeError(f"QParams: {name}={value!r} lies outside of {kind.name} [{kind.qmin}, {kind.qmax}]; choose a code of that dtype")
    return code


def _numbers(name, value, dtype):
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError
        array = array.astype(dtype)
    except (TypeError, ValueError):
        raise ArgumentError(f"QParams: {name} must be a real number or a vector of them, not {value!r}") from None
    if array.ndim > 1:
        raise ShapeError(f"QParams: {name} has shape {array.shape}; give a scalar, or one vector along axis")
    return array


def _integers(value):
    array = as_array(value, "zero_point", "QParams")
    if array.dtype.kind == "f" and array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ArgumentError(f"QParams: zero_point must be an integer, not {value!r} (dtype {array.dtype}); round it first")
    if array.ndim > 1:
        raise ShapeError(f"QParams: zero_point has shape {array.shape}; give a scalar, or one vector along axis")
    return array.astype(np.int64)


def _axis(axis):
    axis = as_integer(axis, "axis", "QParams")
    if axis < 0:
        raise ArgumentError(f"QParams: axis={axis!r} must be a non-negative integer; count axes from the front")
    return axis


def _vectors(scale, zero_point):
    length = max(scale.size if scale.ndim else 1, zero_point.size if zero_point.ndim else 1)
    if scale.ndim and zero_point.ndim and scale.size != zero_point.size:
        raise ShapeError(f"QParams: {scale.size} scales but {zero_point.size} zero points; give as many of one as of the other")
    if scale.ndim:
        length = scale.size
    return np.broadcast_to(scale, (length,)), np.broadcast_to(zero_point, (length,))


def _check_scale(scale):
    as_float32 = scale.astype(np.float32) if not np.any(np.abs(scale) > 3.4028235677973366e38) else scale
    bad = ~(np.isfinite(scale) & (scale > 0) & (as_float32 > 0) & (scale < 3.4028235677973366e38))
    if not bad.any():
        return
    where = f"[{int(np.flatnonzero(bad)[0])}]" if scale.ndim else ""
    value = float(scale[bad][0]) if scale.ndim else float(scale)
    raise RangeError(
        f"QParams: scale{where}={value!r} must be positive and finite (also as a float32);"
        " check the range that it came from, or pass unchecked=True to ask what an engine does with it"
    )


def _check_zero_point(zero_point, kind):
    bad = (zero_point < kind.qmin) | (zero_point > kind.qmax)
    if not bad.any():
        return
    where = f"[{int(np.flatnonzero(bad)[0])}]" if zero_point.ndim else ""
    value = int(zero_point[bad][0]) if zero_point.ndim else int(zero_point)
    raise RangeError(
        f"QParams: zero_point{where}={value} lies outside of {kind.name} [{kind.qmin}, {kind.qmax}];"
        " clamp it, choose another dtype, or pass unchecked=True"
    )
