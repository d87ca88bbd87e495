"""MQBench's moving average of quantiles."""

import numpy as np

from refquant.core.arguments import as_real
from refquant.errors import RangeError
from refquant.observers.histogram_reference import histogram_counts
from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase
from refquant.observers.value_histogram import checked_bins

__all__ = ["EmaQuantileObserver"]

_F = np.float32


class EmaQuantileObserver(SearchedRangeObserverBase):
    """Moving averages ``low = r * low + (1 - r) * max(min(x), -c)``, ``high = r * high + (1 - r) * min(max(x), c)``; c cuts magnitudes off.

    With ``c = (k + 1/2) * max(x) / bins``, k the first of `bins` bins of the batch's magnitudes at which the share of elements reaches `threshold`.

    Parameters
    ----------
    ema_ratio : float
        r.
    threshold : float
    bins : int
    accumulate : bool
        False, as MQBench's source has it: a single bin must hold the share, as the sum of counts is never brought forward; nothing is cut off then,
        unless nearly all elements are in one bin. True: shares are summed up to the bin, as meant.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Notes
    -----
    The width of the bins is that of ``max(x)`` in c, but that of the largest magnitude in the histogram: where nearly all elements lie in one bin and
    ``max(x)`` is negative, the ends cross, as they do there. Exactness: float32 throughout.

    Source: MQBench, mqbench/observer.py, ``EMAQuantileObserver``.

    Examples
    --------
    >>> x = np.append(np.linspace(-1, 1, 2001), 100).astype(np.float32)
    >>> for accumulate in (False, True):
    ...     obs = EmaQuantileObserver(threshold=0.999, accumulate=accumulate)
    ...     _ = obs(x)
    ...     print(float(obs.max_val))
    100.0
    1.0009765625
    """

    def __init__(
        self, ema_ratio=0.9, threshold=0.99999, bins=2048, accumulate=False, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False,
        quant_min=None, quant_max=None, *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        for name, value in (("ema_ratio", ema_ratio), ("threshold", threshold)):
            if not 0 <= as_real(value, name, type(self).__name__) <= 1:
                raise RangeError(f"{type(self).__name__}: {name}={value} must lie in 0 … 1")
        self.ema_ratio, self.threshold, self.accumulate = float(ema_ratio), float(threshold), bool(accumulate)
        self.bins = checked_bins(bins, "bins", type(self).__name__)
        self._average = None

    def _update(self, x):
        low, high = x.min(), x.max()
        if float(max(-low, high)) * self.bins > float(np.finfo(_F).max):
            raise RangeError(f"{type(self).__name__}: {self.bins} bins of the range [{low}, {high}] overflow float32; scale the data, or take fewer bins")
        clip = self._clip(np.abs(x), max(-low, high), high)
        new = max(low, -clip), min(high, clip)
        r, s = _F(self.ema_ratio), _F(1.0 - self.ema_ratio)
        self._average = new if self._average is None else tuple(o * r + n * s for o, n in zip(self._average, new))

    def _clip(self, x, largest, high):
        counts = histogram_counts(x, _F(0), largest, self.bins) if largest > 0 else np.append(_F(x.size), np.zeros(self.bins - 1, _F))
        counts = np.cumsum(counts) if self.accumulate else counts
        reached = np.flatnonzero(counts >= _F(self.threshold * x.size))
        return _F(reached[0] + 0.5) * (high / _F(self.bins)) if reached.size else largest

    def _search(self):
        return self._average
