"""ONNX Runtime's distribution calibrator: mean and deviation of a histogram, and its outermost edges."""

import numpy as np

from refquant.errors import RangeError, choose
from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase
from refquant.observers.value_histogram import CenteredHistogram, checked_bins

__all__ = ["DistributionObserver", "moments"]


class DistributionObserver(SearchedRangeObserverBase):
    """Mean and standard deviation of a histogram, from which float8 gets its scale; integers get its edges, ``±max(abs(x))``.

    Parameters
    ----------
    num_bins : int
        512 or more.
    scenario : {"same", "p3"}
        Whether the bins' middles count as they are, or their cube roots do.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Attributes
    ----------
    min_val, max_val : numpy.float32
        The outermost edges; ``inf`` and ``-inf`` before the first batch.
    avg, std : numpy.float32
        Of the bins' middles, weighted by their counts.

    Notes
    -----
    Source: onnxruntime 1.32, calibrate.py, ``HistogramCollector.compute_distribution`` and ``_avg_std``.

    Examples
    --------
    >>> obs = DistributionObserver()
    >>> _ = obs(np.linspace(-1, 3, 4001, dtype=np.float32))
    >>> float(obs.min_val), float(obs.max_val), float(obs.avg), float(obs.std)
    (-3.0, 3.0, 1.0000035762786865, 1.1549861431121826)
    """

    def __init__(
        self, num_bins=2048, scenario="same", dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None,
        *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        if checked_bins(num_bins, "num_bins", type(self).__name__) < 512:
            raise RangeError(f"{type(self).__name__}: num_bins={num_bins} must be 512 or more; 2048 is the default")
        self.num_bins, self.scenario = num_bins, choose(type(self).__name__, "scenario", scenario, ("same", "p3"))
        self.histogram = CenteredHistogram(num_bins)

    def _update(self, x):
        self.histogram.add(x)

    def _search(self):
        return self.histogram.edges.min(), self.histogram.edges.max()

    @property
    def avg(self):
        """The mean."""
        return moments(self.histogram, self.scenario)[0]

    @property
    def std(self):
        """The standard deviation."""
        return moments(self.histogram, self.scenario)[1]


def moments(histogram, scenario="same"):
    """Return mean and standard deviation of a histogram's middles, in double, rounded to float32.

    Parameters
    ----------
    histogram : CenteredHistogram
        With at least one batch.
    scenario : {"same", "p3"}
    """
    if histogram.counts is None:
        raise RangeError("DistributionObserver: no data has been seen, so there is no mean; call the observer with data first")
    counts, middles = histogram.counts, (histogram.edges[:-1] + histogram.edges[1:]) * 0.5
    if scenario == "p3":
        with np.errstate(invalid="ignore", divide="ignore"):
            sign = np.abs(middles) / middles
        sign[~np.isfinite(sign)] = 1
        middles = np.abs(middles) ** (1.0 / 3.0) * sign
    mean = (counts * middles).sum() / counts.sum()
    with np.errstate(invalid="ignore"):
        deviation = ((counts * middles**2).sum() / counts.sum() - mean**2) ** 0.5
    return np.float32(mean), np.float32(deviation)
