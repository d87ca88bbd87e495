"""ONNX Runtime's percentile calibrator: the range that holds all but a few of the values."""

import numpy as np

from refquant.core.arguments import as_real
from refquant.errors import RangeError
from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase
from refquant.observers.value_histogram import CenteredHistogram, MagnitudeHistogram, checked_bins

__all__ = ["PercentileObserver", "percentile_range"]


class PercentileObserver(SearchedRangeObserverBase):
    """The range between the bins in which the cumulated share of a histogram reaches a percentile, not wider than the data.

    Of magnitudes (`symmetric`): ``±edge[k]`` with k the first bin at which the share reaches ``percentile / 100``. Of values: the shares
    ``(100 - percentile) / 200`` and ``1 -`` that.

    Parameters
    ----------
    percentile : float
        0 … 100.
    num_bins : int
        Of the histogram at first; it grows with the data, see `refquant.observers.value_histogram`.
    symmetric : bool
        Count magnitudes. The range is cut to the data afterwards, so that it need not be symmetric.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Attributes
    ----------
    min_val, max_val : numpy.float32
        The range found; ``inf`` and ``-inf`` before the first batch.

    Notes
    -----
    Exactness: shares are cumulated in double. The lower edge of the bin is taken at both ends. Every batch is one ``collect`` of ONNX Runtime.

    Source: onnxruntime 1.32, calibrate.py, ``HistogramCollector.compute_percentile``.

    Examples
    --------
    >>> obs = PercentileObserver(percentile=99.0, num_bins=100)
    >>> _ = obs(np.arange(1001, dtype=np.float32))
    >>> float(obs.min_val), float(obs.max_val)
    (0.0, 990.0)
    """

    def __init__(
        self, percentile=99.999, num_bins=2048, symmetric=True, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None,
        quant_max=None, *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        if not 0 <= as_real(percentile, "percentile", type(self).__name__) <= 100:
            raise RangeError(f"{type(self).__name__}: percentile={percentile} must lie in 0 … 100; 99.999 is the default")
        self.percentile, self.num_bins = float(percentile), checked_bins(num_bins, "num_bins", type(self).__name__)
        self.symmetric = bool(symmetric)
        self.histogram = (MagnitudeHistogram if self.symmetric else CenteredHistogram)(self.num_bins)

    def _update(self, x):
        self.histogram.add(x)

    def _search(self):
        return percentile_range(self.histogram, self.percentile, self.symmetric)


def percentile_range(histogram, percentile, symmetric):
    """Return the range of a histogram that `PercentileObserver` describes.

    Parameters
    ----------
    histogram : MagnitudeHistogram or CenteredHistogram
    percentile : float
    symmetric : bool
    """
    counts, edges = histogram.counts, histogram.edges
    share = np.cumsum(counts / counts.sum())
    if symmetric:
        high = edges[np.searchsorted(share, percentile / 100.0)]
        low = -high
    else:
        cut = (100.0 - percentile) / 200.0
        low, high = edges[np.searchsorted(share, cut)], edges[np.searchsorted(share, 1.0 - cut)]
    return np.float32(max(low, histogram.low)), np.float32(min(high, histogram.high))
