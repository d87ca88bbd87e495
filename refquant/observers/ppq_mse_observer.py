"""PPQ's MSE observer: the range with the least squared error, in whole bins of a histogram."""

import numpy as np

from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase
from refquant.observers.span_histogram import SpanHistogram
from refquant.observers.value_histogram import checked_bins

__all__ = ["PpqMseObserver", "bin_errors"]


class PpqMseObserver(SearchedRangeObserverBase):
    """The range of ``codes * step`` bins from `start` on with the least error, for whole steps, and starts in intervals of 8 bins at or below 0.

    The error of a bin is its distance, in bins and from its middle, to the nearer end of its step; squared and weighted by its count.

    Parameters
    ----------
    num_bins : int
        Of the histogram, of magnitudes where qscheme is symmetric, which begins at 0 then.
    interval : int
        Between starts.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Notes
    -----
    The symmetric search steps through ``codes`` steps of the positive half alone, as there: its steps are half as wide as those of the scale that
    comes of it. Exactness: errors are multiples of 1/4 and counts integers, summed in double.

    Source: PPQ 0.6.6, ppq/quantization/observer/range.py, ``TorchMSEObserver``.

    Examples
    --------
    >>> obs = PpqMseObserver()
    >>> _ = obs(np.append(np.linspace(-1, 1, 100001), 9).astype(np.float32))
    >>> float(obs.min_val), float(obs.max_val)
    (-1.0, 7.75)
    """

    def __init__(
        self, num_bins=2048, interval=8, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None,
        *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        place = type(self).__name__
        self.num_bins, self.interval = checked_bins(num_bins, "num_bins", place), checked_bins(interval, "interval", place)
        self.histogram = SpanHistogram(self.num_bins, magnitudes=self.qscheme.endswith("symmetric"))

    def _update(self, x):
        self.histogram.add(x)

    def _search(self):
        h, codes = self.histogram, self.quant_max - self.quant_min + 1
        bins = h.counts.size
        candidates = [(0, bins // codes + 1)]
        starts = [0] if h.magnitudes else [s for s in range(0, bins, self.interval) if s * h.width + h.low <= 0]
        candidates += [(s, step) for s in starts for step in range(1, bins // codes + 1) if s + codes * step <= bins + codes]
        start, step = min(candidates, key=lambda c: bin_errors(bins, *c, c[0] + codes * c[1]) @ h.counts)
        end = start + codes * step
        if h.magnitudes:
            return -end * h.width, end * h.width
        return start * h.width + h.low, end * h.width + h.low


def bin_errors(bins, start, step, end):
    """Return the squared error of every bin, in units of a bin's width.

    Examples
    --------
    >>> bin_errors(8, 1, 3, 7).tolist()
    [0.25, 0.25, 1.5625, 0.25, 0.25, 1.5625, 0.25, 0.25]
    """
    i = np.arange(bins)
    left = (i - start) % step
    right = step - left - 1
    error = np.where(left == right, left + 0.25, np.minimum(left, right) + 0.5)
    error = np.where(i < start, start - i - 0.5, np.where(i > end, i - end + 0.5, error))
    return error * error
