"""The two histograms of ONNX Runtime's calibrators, which grow by whole bins: around zero, and of magnitudes.

Source
------
onnxruntime 1.32, python/tools/quantization/calibrate.py, ``HistogramCollector``: ``collect_value``, ``merge_histogram``, ``collect_absolute_value``.
Counts and edges are NumPy's: ``numpy.histogram``.
"""

import numpy as np

from refquant.core.arguments import check_room
from refquant.errors import ArgumentError, RangeError

__all__ = ["CenteredHistogram", "MagnitudeHistogram", "checked_bins"]

_F = np.float32


def checked_bins(value, name, place):
    """Return a positive number of bins, or raise."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ArgumentError(f"{place}: {name}={value!r} must be a positive int; give the number of bins, such as 2048")
    check_room((value.__index__(),), name, place, itemsize=8)
    return value.__index__()


def _histogram(x, bins, range=None):
    """``numpy.histogram``, which refuses ranges that float32 cannot divide into so many bins, or that overflow."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            counts, edges = np.histogram(x, bins, range)
    except ValueError as error:
        raise RangeError(f"histogram: {error}; scale the data, or take fewer bins") from None
    if not np.isfinite(edges).all():
        raise RangeError(f"histogram: a range of {range} overflows float32; scale the data, or drop the outliers")
    return counts, edges


class _Histogram:
    """Counts between edges, and the least and largest value seen."""

    def __init__(self, bins):
        self.bins = bins
        self.counts = self.edges = self.threshold = self._fixed = None
        self.low, self.high = _F(np.inf), _F(-np.inf)

    def add(self, x):
        """Count a batch of finite float32, along one axis; an empty one changes nothing."""
        if not x.size:
            return
        low, high = x.min(), x.max()
        self._count(x, low, high)
        self.low, self.high = min(self.low, low), max(self.high, high)


class CenteredHistogram(_Histogram):
    """A histogram of ``[-t, t]``. A batch that goes further adds bins of the same width on both sides.

    Parameters
    ----------
    bins : int
        At first.

    Attributes
    ----------
    counts : ndarray of int64, edges : ndarray of float32
        None before the first batch.
    threshold : numpy.float32
        t.

    Examples
    --------
    >>> h = CenteredHistogram(4)
    >>> h.add(np.float32([-1, 0.25, 1]))
    >>> h.add(np.float32([1.25]))
    >>> h.counts.tolist(), h.edges.tolist()
    ([0, 1, 0, 1, 1, 1], [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    """

    def fix(self, low, high):
        """Lay out the bins for a range that is known before any batch, so that batches give what all data at once would."""
        self.threshold = np.array(max(abs(low), abs(high)), _F)
        counts, self.edges = _histogram(np.zeros(0, _F), self.bins, range=(-self.threshold, self.threshold))
        self.counts = np.zeros_like(counts)

    def _count(self, x, low, high):
        threshold = np.array(max(abs(low), abs(high)), _F)
        if self.counts is None:
            self.threshold = threshold
            self.counts, self.edges = _histogram(x, self.bins, range=(-threshold, threshold))
        elif threshold <= self.threshold:
            self.counts = self.counts + _histogram(x, len(self.counts), range=(-self.threshold, self.threshold))[0]
        elif self.threshold == 0:
            counts, self.edges = _histogram(x, len(self.counts), range=(-threshold, threshold))
            self.counts, self.threshold = counts + self.counts, threshold
        else:
            self._widen(x, threshold)

    def _widen(self, x, threshold):
        old, bins = self.threshold, len(self.counts)
        stride = 2 * old / bins
        added = int((threshold - old) // stride + 1)
        self.threshold = added * stride + old
        counts, self.edges = _histogram(x, bins + 2 * added, range=(-self.threshold, self.threshold))
        counts[added : added + bins] += self.counts
        self.counts = counts


class MagnitudeHistogram(_Histogram):
    """A histogram of ``abs(x)`` from the least magnitude of the first batch on; larger ones add bins, smaller ones are not counted.

    Examples
    --------
    >>> h = MagnitudeHistogram(2)
    >>> h.add(np.float32([-1, 2, 3]))
    >>> h.add(np.float32([0, 4]))
    >>> h.counts.tolist(), h.edges.tolist()
    ([1, 2, 1], [1.0, 2.0, 3.0, 4.0])
    """

    def fix(self, low, high):
        """Lay out the bins for magnitudes that are known before any batch."""
        self._fixed = (_F(low), _F(high))
        counts, self.edges = _histogram(np.zeros(0, _F), self.bins, range=self._fixed)
        self.counts = np.zeros_like(counts)

    def _count(self, x, low, high):
        x = np.abs(x)
        if self._fixed is not None:
            self.counts = self.counts + _histogram(x, self.bins, range=self._fixed)[0]
        elif self.counts is None:
            counts, edges = _histogram(x, self.bins)
            self.counts, self.edges = counts, edges.astype(_F)
        else:
            edges, largest = self.edges, x.max()
            if largest > edges[-1]:
                width = edges[1] - edges[0]
                edges = np.hstack((edges, np.arange(edges[-1] + width, largest + width, width)))
            counts, edges = _histogram(x, edges)
            counts[: len(self.counts)] += self.counts
            self.counts, self.edges = counts, edges.astype(_F)
