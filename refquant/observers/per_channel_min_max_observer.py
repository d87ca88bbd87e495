"""The running minimum and maximum of each channel."""

import numpy as np

from refquant.errors import ArgumentError, ShapeError
from refquant.observers.min_max_observer import bounds
from refquant.observers.observer_base import as_batch, unsupported_dynamic
from refquant.observers.qparams_from_range import EPS
from refquant.observers.uniform_quantization_observer_base import PER_CHANNEL, UniformQuantizationObserverBase

__all__ = ["PerChannelMinMaxObserver"]


class PerChannelMinMaxObserver(UniformQuantizationObserverBase):
    """The running minimum and maximum of all batches, for each channel.

    Parameters
    ----------
    ch_axis : int
        The axis of the channels.
    dtype : str
        ``"quint8"``, ``"qint8"``, ``"uint8"``, ``"int8"``, …
    qscheme : str
        ``"per_channel_affine"``, ``"per_channel_symmetric"`` or ``"per_channel_affine_float_qparams"``.
    reduce_range, quant_min, quant_max, eps
        As in `MinMaxObserver`.
    is_dynamic : bool
        Not supported.

    Attributes
    ----------
    min_val, max_val : ndarray of float32
        One a channel; empty before the first batch.

    Notes
    -----
    A batch needs two axes or more, and as many channels as the ones before; PyTorch lets a single channel broadcast.

    Exactness: as in `MinMaxObserver`.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``PerChannelMinMaxObserver``.

    Examples
    --------
    >>> obs = PerChannelMinMaxObserver(dtype="qint8", qscheme="per_channel_symmetric")
    >>> _ = obs(np.float32([[1.0, -0.5], [0.25, 0.125]]))
    >>> obs.calculate_qparams().scale.tolist()
    [0.007843137718737125, 0.0019607844296842813]
    """

    def __init__(
        self,
        ch_axis=0,
        dtype="quint8",
        qscheme="per_channel_affine",
        reduce_range=False,
        quant_min=None,
        quant_max=None,
        *,
        eps=EPS,
        is_dynamic=False,
    ):
        unsupported_dynamic(is_dynamic, type(self).__name__)
        if isinstance(ch_axis, bool) or not hasattr(ch_axis, "__index__"):
            raise ArgumentError(f"{type(self).__name__}: ch_axis={ch_axis!r} is a {type(ch_axis).__name__}; it must be an int")
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic, PER_CHANNEL)
        self._refuse_symmetric_reduced_quint8()
        self.ch_axis = ch_axis.__index__()
        self.reset_min_max_vals()

    def reset_min_max_vals(self):
        """Forget all batches."""
        self.min_val = self.max_val = np.empty(0, np.float32)
        self._axis = None
        self._batches, self._spoilt = 0, None

    def _record(self, x):
        x = as_batch(x, type(self).__name__)
        if x.size == 0:
            return
        axis = self._channel_axis(x)
        low, high = bounds(x, tuple(i for i in range(x.ndim) if i != axis))
        if self._batches and (axis != self._axis or low.size != self.min_val.size):
            raise ShapeError(
                f"{type(self).__name__}: a batch of shape {x.shape} has {low.size} channels on axis {axis}, the ones before had"
                f" {self.min_val.size} on axis {self._axis}; observe tensors of one kind only, or call reset_min_max_vals"
            )
        self._axis = axis
        self.min_val, self.max_val = (low, high) if not self._batches else self._update(low, high)
        self._seen(low, high)

    def _channel_axis(self, x):
        if x.ndim < 2 or not -x.ndim <= self.ch_axis < x.ndim:
            raise ShapeError(
                f"{type(self).__name__}: a batch of shape {x.shape} with ch_axis={self.ch_axis}; a batch must have the axis of the"
                " channels and at least one more"
            )
        return self.ch_axis % x.ndim

    def _update(self, low, high):
        return np.minimum(low, self.min_val), np.maximum(high, self.max_val)

    def calculate_qparams(self):
        """Return the QParams of the ranges so far; before any batch, scale 1 and zero point 0 with a warning.

        With ``"per_channel_affine_float_qparams"``, a `FloatQParams`.
        """
        return self._qparams(self.min_val, self.max_val, self._axis)
