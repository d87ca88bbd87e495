"""`FusedMovingAvgObsFakeQuantize`: the fake-quantizer of PyTorch's QAT defaults, with a scale formula of its own."""

import numpy as np

from refquant.core.choose_qparams import choose_qparams
from refquant.errors import ArgumentError, ShapeError, UnsupportedError
from refquant.observers.fake_quantize import FakeQuantize
from refquant.observers.min_max_observer import bounds
from refquant.observers.moving_average_min_max_observer import MovingAverageMinMaxObserver, averaged
from refquant.observers.moving_average_per_channel_min_max_observer import MovingAveragePerChannelMinMaxObserver

__all__ = ["FusedMovingAvgObsFakeQuantize"]


class FusedMovingAvgObsFakeQuantize(FakeQuantize):
    """Moving averages of the bounds, FBGEMM's scale and zero point for them, and the grid, in one step.

    Parameters
    ----------
    observer : observer class or factory
        A `MovingAverageMinMaxObserver` or `MovingAveragePerChannelMinMaxObserver`: holds the bounds.
    quant_min, quant_max : int
        The codes.
    **observer_kwargs
        Of the observer.

    Notes
    -----
    The grid comes from FBGEMM's ``ChooseQuantizationParams`` (`refquant.core.choose_qparams`, ``library="fbgemm"``), but
    `calculate_qparams`, which a conversion asks, is the observer's: the same bounds, another formula. So what training
    simulates and what the converted network computes with have scales of their own. For int8 from -128 to 127 and a symmetric
    qscheme the simulation divides the greater of ``|min| / 128`` and ``|max| / 127`` times 255 by 255, the conversion
    ``max(-min, max)`` by 127.5.

    A bound that is infinite is set by the next batch, each for itself. Before any batch the grid is that of the range 0 … 0. PyTorch has
    channels on axis 0 alone.

    Source: PyTorch 2.13, ``torch/ao/quantization/fake_quantize.py``; ATen/native/quantized/cpu/fused_obs_fake_quant.cpp.

    Examples
    --------
    >>> fake = FusedMovingAvgObsFakeQuantize(quant_min=-128, quant_max=127, dtype="qint8", qscheme="per_tensor_symmetric")
    >>> fake(np.float32([-1, 0.3, 1])).tolist()
    [-1.0, 0.29921260476112366, 1.0]
    >>> fake.grid().scale, fake.calculate_qparams().scale
    (0.007874015718698502, 0.007843137718737125)
    """

    def __init__(self, observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, **observer_kwargs):
        super().__init__(observer, quant_min, quant_max, **observer_kwargs)
        held = self.activation_post_process
        if not isinstance(held, (MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver)):
            raise ArgumentError(f"{type(self).__name__}: observer is a {type(held).__name__} but must keep moving averages; pass MovingAverageMinMaxObserver")
        if self.is_per_channel and self.ch_axis != 0:
            raise UnsupportedError(f"{type(self).__name__}: ch_axis={self.ch_axis}, but PyTorch's fused kernel takes channels on axis 0 alone; use FakeQuantize")

    def __call__(self, x):
        """Observe `x`, if that is enabled, and return it on the grid, if that is enabled; the grid changes only when it is used."""
        x = self._batch(x)
        if self.observer_enabled:
            self._observe(x)
        if not self.fake_quant_enabled:
            return x
        held = self.activation_post_process
        low, high = np.atleast_1d(held.min_val), np.atleast_1d(held.max_val)
        if low.size:
            chosen = [self._chosen(a, b) for a, b in zip(low, high)]
            self.scale, self.zero_point = np.float32([s for s, _ in chosen]), np.int64([z for _, z in chosen])
        return self._on_grid(x)

    def _chosen(self, low, high):
        symmetric = self.qscheme.endswith("symmetric")
        if np.isposinf(low) and np.isneginf(high):  # nothing was observed: the range is 0 alone
            low = high = np.float32(0)
        return choose_qparams(low, high, self.quant_min, self.quant_max, preserve_sparsity=symmetric, library="fbgemm")

    def _observe(self, x):
        held = self.activation_post_process
        if not x.size:
            raise ShapeError(f"{type(self).__name__}: the batch has shape {x.shape}; it must not be empty")
        axis = None
        if self.is_per_channel:
            if x.ndim < 2:
                raise ShapeError(f"{type(self).__name__}: a batch of shape {x.shape} but it must have the axis of the channels and one more; reshape it")
            axis = held._axis = 0
        low, high = bounds(x, None if axis is None else tuple(d for d in range(x.ndim) if d != axis))
        factor, first = held.averaging_constant, np.size(held.min_val) == 0
        if not first and np.shape(low) != np.shape(held.min_val):
            raise ShapeError(f"{type(self).__name__}: a batch of shape {x.shape} has {np.size(low)} channels, the ones before had {np.size(held.min_val)}")
        held._seen(low, high)
        held.min_val = low if first else np.where(np.isinf(held.min_val), low, averaged(held.min_val, low, factor))[()]
        held.max_val = high if first else np.where(np.isinf(held.max_val), high, averaged(held.max_val, high, factor))[()]
