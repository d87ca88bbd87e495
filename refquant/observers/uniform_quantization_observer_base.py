"""The observers with a range: their common parameters and the way from the range to QParams."""

import math
import warnings

import numpy as np

from refquant.core.qparams import QParams
from refquant.errors import ArgumentError, RangeError, UnsupportedError, choose
from refquant.observers.observer_base import ObserverBase, known_dtype
from refquant.observers.qparams_from_range import EPS, QSCHEMES, plain_name, qparams_from_range, quant_limits

__all__ = ["UniformQuantizationObserverBase", "PER_TENSOR", "PER_CHANNEL"]

PER_TENSOR = tuple(name for name in QSCHEMES if name.startswith("per_tensor"))
PER_CHANNEL = tuple(name for name in QSCHEMES if name.startswith("per_channel"))
_DTYPES = ("quint8", "qint8", "uint8", "int8", "uint16", "int16", "qint32", "int32", "quint4x2", "uint4")


class UniformQuantizationObserverBase(ObserverBase):
    """Base of the observers that keep ``min_val`` and ``max_val``.

    Parameters
    ----------
    dtype : str or dtype
        ``"quint8"``, ``"qint8"``, ``"uint8"``, ``"int8"``, ``"uint16"``, ``"int16"``, ``"qint32"``, ``"int32"``, ``"quint4x2"``.
    qscheme : str
        One of `allowed`.
    reduce_range : bool
        Use one bit less, so that ``vpmaddubsw`` cannot saturate.
    quant_min, quant_max : int, optional
        The codes to use, both or neither.
    eps : float
        The least scale.
    is_dynamic : bool
        See `ObserverBase`.
    allowed : tuple of str
        The qschemes of the subclass.

    Notes
    -----
    PyTorch knows quint8 and uint8 as two dtypes and refuses a symmetric reduced range for the first alone; the
    spelling of `dtype` decides here too. With uint8 the zero point is then 128, outside of 0 … 127.

    PyTorch warns that ``reduce_range`` will go away; refquant does not.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``UniformQuantizationObserverBase``.
    """

    def __init__(self, dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic, allowed):
        place = type(self).__name__
        super().__init__(known_dtype(dtype, _DTYPES, place), is_dynamic)
        self._spelling = plain_name(dtype)
        self._limits = quant_limits(self.dtype, quant_min, quant_max, reduce_range, place)
        self.qscheme = choose(place, "qscheme", plain_name(qscheme), allowed)
        self.reduce_range = bool(reduce_range)
        self.eps = _epsilon(eps, place)
        self._batches = 0
        self._spoilt = None

    @property
    def quant_min(self):
        """The smallest code, reduced range and custom limits considered."""
        return self._limits.qmin

    @property
    def quant_max(self):
        """The largest code."""
        return self._limits.qmax

    def reset_min_max_vals(self):
        """Forget all batches; not every observer can."""
        raise UnsupportedError(f"{type(self).__name__}: reset_min_max_vals is not supported; make a new observer")

    def _refuse_symmetric_reduced_quint8(self):
        if self.qscheme.endswith("symmetric") and self.reduce_range and self._spelling == "quint8":
            raise UnsupportedError(
                f"{type(self).__name__}: reduce_range with qscheme={self.qscheme!r} is not supported for quint8;"
                " use an affine qscheme, qint8, or quant_min and quant_max"
            )

    def _seen(self, low, high):
        """Count a batch and remember the first whose bounds are not finite, for the message that it will lead to."""
        self._batches += 1
        if self._spoilt is None and not (np.isfinite(low).all() and np.isfinite(high).all()):
            self._spoilt = self._batches

    def _qparams(self, low, high, axis=None):
        """QParams of a range, or (1, 0) with a warning if there is none yet."""
        place = type(self).__name__
        if not self._batches:
            warnings.warn(f"{place}: calculate_qparams before any batch; returning scale 1 and zero point 0", stacklevel=3)
            return QParams(1.0, 0, self.dtype, quant_min=self.quant_min, quant_max=self.quant_max)
        if self._spoilt is not None:
            place += f" (batch {self._spoilt} holds a NaN or an infinity)"
        return qparams_from_range(low, high, self._limits, self.qscheme, self.eps, axis, place)

    def __repr__(self):
        text = f"{type(self).__name__}(dtype={self.dtype!r}, qscheme={self.qscheme!r}, quant_min={self.quant_min}, quant_max={self.quant_max}"
        if not self._batches:
            return text + ")"
        return text + f", min_val={_brief(self.min_val)}, max_val={_brief(self.max_val)})"


def _epsilon(eps, place):
    try:
        value = float(eps)
    except (TypeError, ValueError):
        raise ArgumentError(f"{place}: eps={eps!r} is no real number; give the least scale, such as {EPS}") from None
    if not (math.isfinite(value) and value >= 0):
        raise RangeError(f"{place}: eps={eps!r} must be finite and not negative; it is the least scale, {EPS} by default")
    return np.float32(value)


def _brief(value):
    return str(value) if np.ndim(value) == 0 else f"<{np.size(value)}: {np.min(value)} … {np.max(value)}>"
