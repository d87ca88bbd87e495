"""NNCF's grid: a statistic of every batch for each end of the range, and how the batches' statistics are put together."""

import numpy as np

from refquant.core.arguments import as_real
from refquant.errors import ArgumentError, RangeError, choose
from refquant.observers.histogram_observer import HistogramObserver
from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase

__all__ = ["StatisticRangeObserver", "STATISTICS", "AGGREGATORS", "PRESETS"]

STATISTICS = {
    "min": lambda x, q: x.min(),
    "max": lambda x, q: x.max(),
    "abs_max": lambda x, q: np.abs(x).max(),
    "mean": lambda x, q: x.mean(),
    "quantile": lambda x, q: np.quantile(x, q),
    "abs_quantile": lambda x, q: np.quantile(np.abs(x), q),
    "raw": lambda x, q: x.copy(),
}
"""What a batch is reduced to; raw keeps all of its elements."""


def _without_outliers(function):
    def aggregate(values, probability):
        low, high = np.quantile(values, [probability, 1 - probability])
        return function(values[(values >= low) & (values <= high)])

    return aggregate


AGGREGATORS = {
    "min": lambda values, p: values.min(),
    "max": lambda values, p: values.max(),
    "mean": lambda values, p: values.mean(),
    "median": lambda values, p: np.median(values),
    "mean_no_outliers": _without_outliers(np.mean),
    "median_no_outliers": _without_outliers(np.median),
    "histogram": None,
}
"""How the statistics of all batches become one number; the last takes elements, not statistics."""

PRESETS = {
    "MINMAX": ("min", "min", "max", "max"),
    "MEAN_MINMAX": ("min", "mean", "max", "mean"),
    "MEDIAN_MINMAX": ("min", "median", "max", "median"),
    "MEAN_NO_OUTLIERS_MINMAX": ("min", "mean_no_outliers", "max", "mean_no_outliers"),
    "MEAN_QUANTILE": ("quantile", "mean", "quantile", "mean"),
    "HISTOGRAM": ("raw", "histogram", "raw", "histogram"),
}
"""NNCF's ``RangeEstimatorParametersSet``: (min_statistic, min_aggregator, max_statistic, max_aggregator)."""


class StatisticRangeObserver(SearchedRangeObserverBase):
    """The lower end is an aggregate of one statistic of the batches, the upper end of another.

    Parameters
    ----------
    min_statistic, max_statistic : str
        One of `STATISTICS`. A quantile is that of `quantile_outlier_prob` for the lower and of 1 less that for the upper end.
    min_aggregator, max_aggregator : str
        One of `AGGREGATORS`. ``"histogram"`` goes with ``"raw"``, at both ends, and is the search of `HistogramObserver`.
    clipping_value : float, optional
        Elements are cut to ``±clipping_value`` before.
    quantile_outlier_prob : float
        Of quantiles, and of the values that aggregators without outliers leave out at both ends.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Notes
    -----
    ``"raw"`` keeps every element, so that memory grows with the data. Ends that cross are swapped (a lower end of abs_max, for example).
    Exactness: NumPy's functions on float32 statistics, as NNCF's NumPy backend has them; quantiles interpolate linearly.

    Source: NNCF 2.14, nncf/quantization/range_estimator.py and nncf/experimental/common/tensor_statistics/collectors.py.

    Examples
    --------
    >>> obs = StatisticRangeObserver.preset("MEAN_MINMAX")
    >>> for batch in ([0.0, 1.0], [-1.0, 4.0]):
    ...     _ = obs(np.float32(batch))
    >>> float(obs.min_val), float(obs.max_val)
    (-0.5, 2.5)
    """

    def __init__(
        self, min_statistic="min", min_aggregator="min", max_statistic="max", max_aggregator="max", clipping_value=None, quantile_outlier_prob=1e-4,
        dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None, *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        place = type(self).__name__
        self.statistics = choose(place, "min_statistic", min_statistic, STATISTICS), choose(place, "max_statistic", max_statistic, STATISTICS)
        self.aggregators = choose(place, "min_aggregator", min_aggregator, AGGREGATORS), choose(place, "max_aggregator", max_aggregator, AGGREGATORS)
        if "histogram" in self.aggregators and (self.statistics, self.aggregators) != (("raw",) * 2, ("histogram",) * 2):
            raise ArgumentError(f"{place}: the aggregator 'histogram' takes the elements themselves, at both ends; give 'raw' and 'histogram' twice")
        if not 0 <= as_real(quantile_outlier_prob, "quantile_outlier_prob", place) < 0.5:
            raise RangeError(f"{place}: quantile_outlier_prob={quantile_outlier_prob} must lie in 0 … 0.5, the end excluded; 1e-4 is the default")
        if clipping_value is not None and not 0 < as_real(clipping_value, "clipping_value", place) < np.inf:
            raise RangeError(f"{place}: clipping_value={clipping_value} must be positive and finite, or None")
        self.clipping_value, self.quantile_outlier_prob = clipping_value, float(quantile_outlier_prob)
        self._histogram = HistogramObserver(dtype=dtype, qscheme=self.qscheme) if "histogram" in self.aggregators else None
        self._values = [], []

    @classmethod
    def preset(cls, name, **arguments):
        """Return an observer of one of `PRESETS`."""
        keys = ("min_statistic", "min_aggregator", "max_statistic", "max_aggregator")
        return cls(**dict(zip(keys, PRESETS[choose(cls.__name__, "preset", name, PRESETS)])), **arguments)

    def _update(self, x):
        if self.clipping_value is not None:
            x = np.clip(x, -np.float32(self.clipping_value), np.float32(self.clipping_value))
        if self._histogram is not None:
            self._histogram(x)
            return
        for values, statistic, q in zip(self._values, self.statistics, (self.quantile_outlier_prob, 1 - self.quantile_outlier_prob)):
            values.append(np.atleast_1d(STATISTICS[statistic](x, q)).astype(np.float32))

    def _search(self):
        if self._histogram is not None:
            return self._histogram.best_range()
        ends = [AGGREGATORS[name](np.concatenate(v), self.quantile_outlier_prob) for name, v in zip(self.aggregators, self._values)]
        return min(ends), max(ends)
