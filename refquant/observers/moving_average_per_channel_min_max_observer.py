"""The moving averages of each channel's minimum and maximum."""

from refquant.observers.moving_average_min_max_observer import averaged, averaging_factor
from refquant.observers.per_channel_min_max_observer import PerChannelMinMaxObserver
from refquant.observers.qparams_from_range import EPS

__all__ = ["MovingAveragePerChannelMinMaxObserver"]


class MovingAveragePerChannelMinMaxObserver(PerChannelMinMaxObserver):
    """Moving averages of each channel's bounds: ``min_val += c * (min(x) - min_val)``; the first batch sets them.

    Parameters
    ----------
    averaging_constant : float
        c. 1 keeps the last batch only.
    ch_axis, dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `PerChannelMinMaxObserver`.

    Attributes
    ----------
    min_val, max_val : ndarray of float32
        One a channel; empty before the first batch.

    Notes
    -----
    Exactness: the difference, its product with c (rounded to float32) and the sum each round to float32.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``MovingAveragePerChannelMinMaxObserver``.

    Examples
    --------
    >>> import numpy as np
    >>> obs = MovingAveragePerChannelMinMaxObserver(averaging_constant=0.5)
    >>> for batch in ([[0.0, 1.0], [4.0, 8.0]], [[-1.0, 3.0], [0.0, 0.0]]):
    ...     _ = obs(np.float32(batch))
    >>> obs.min_val.tolist(), obs.max_val.tolist()
    ([-0.5, 2.0], [2.0, 4.0])
    """

    def __init__(
        self,
        averaging_constant=0.01,
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
        super().__init__(ch_axis, dtype, qscheme, reduce_range, quant_min, quant_max, eps=eps, is_dynamic=is_dynamic)
        self.averaging_constant = averaging_factor(averaging_constant, type(self).__name__)

    def _update(self, low, high):
        return averaged(self.min_val, low, self.averaging_constant), averaged(self.max_val, high, self.averaging_constant)
