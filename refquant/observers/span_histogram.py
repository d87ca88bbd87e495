"""A histogram between the least and the largest value, counted as ``torch.histc`` counts, that grows by whole bins."""

import numpy as np

from refquant.errors import RangeError
from refquant.observers.histogram_reference import histogram_counts, outer_edges

__all__ = ["SpanHistogram"]

_F = np.float32
_MOST_BINS = 1 << 22


class SpanHistogram:
    """Counts in equal bins of ``[low, high]``; a batch outside of them adds bins of the same width.

    After one batch the counts are those of ``torch.histc(x, bins, low, high)`` with the ends of the data (`magnitudes`: of ``abs(x)`` from 0 on).
    The original calibrators see all data once for its ends and again for its counts, or stretch their bins; here a second batch adds bins.

    Parameters
    ----------
    bins : int
        At first.
    magnitudes : bool

    Attributes
    ----------
    counts : ndarray of float64
        None before the first batch.
    low, width : float
        The first edge and the width of a bin.

    Examples
    --------
    >>> h = SpanHistogram(4)
    >>> h.add(np.float32([0, 1, 3, 4]))
    >>> h.add(np.float32([-1.5, 2]))
    >>> h.counts.tolist(), h.low, h.width
    ([1.0, 0.0, 1.0, 1.0, 1.0, 2.0], -2.0, 1.0)
    """

    def __init__(self, bins, magnitudes=False):
        self.bins, self.magnitudes = bins, magnitudes
        self.counts, self.low, self.width = None, 0.0, 0.0

    def add(self, x):
        """Count a batch of finite float32, along one axis."""
        x = np.abs(x) if self.magnitudes else x
        low, high = (_F(0) if self.magnitudes else x.min()), x.max()
        if self.counts is None:
            first, last = outer_edges(low, high) if low == high else (low, high)
            if self.magnitudes and low == high:
                first, last = _F(0), _F(1)
            counts, width = np.zeros(self.bins), (float(last) - float(first)) / self.bins
            start = float(first)
        else:
            counts, start, width = self._grown(float(low), float(high))
        self._check(start, width, counts.size)
        first, last = _F(start), _F(start + width * counts.size)
        self.counts = counts + histogram_counts(np.clip(x, first, last), first, last, counts.size)
        self.low, self.width = start, width

    def _grown(self, low, high):
        before = max(0, int(np.ceil((self.low - low) / self.width)))
        behind = max(0, int(np.ceil((high - self.low) / self.width)) - self.counts.size)
        if self.counts.size + before + behind > _MOST_BINS:
            raise RangeError(f"histogram: a batch of [{low:.4g}, {high:.4g}] needs {before + behind:,} more bins of {self.width:.4g}; begin with a batch that is typical, or scale the data")
        return np.concatenate([np.zeros(before), self.counts, np.zeros(behind)]), self.low - before * self.width, self.width

    @staticmethod
    def _check(start, width, bins):
        largest = float(np.finfo(_F).max)
        if abs(start) > largest or abs(start + width * bins) > largest or width * bins * bins > largest or not _F(width) > 0:
            raise RangeError(f"histogram: {bins} bins of {width:.4g} from {start:.4g} on overflow or vanish in float32; scale the data, or take fewer bins")

    @property
    def high(self):
        """The last edge."""
        return self.low + self.width * self.counts.size
