"""PPQ's KL observer: the threshold of magnitudes with the least divergence, in whole multiples of the codes."""

import numpy as np

from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase
from refquant.observers.span_histogram import SpanHistogram
from refquant.observers.value_histogram import checked_bins

__all__ = ["PpqKlObserver"]


class PpqKlObserver(SearchedRangeObserverBase):
    """The threshold ``i * width`` of ``[-t, t]``, i a multiple of half the codes, with the least ``KL(P || Q)``.

    P: the first i bins with all others added to the last; Q: their sums in ``codes / 2`` parts, spread over those bins that are not empty. The first
    0.2 % of the bins count as empty, the bin behind them as 1.

    Parameters
    ----------
    num_bins : int
        Of the histogram of magnitudes, `refquant.observers.span_histogram.SpanHistogram`.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Notes
    -----
    PPQ takes this for symmetric quantization alone and its scale is ``t / (codes / 2)``. Exactness: the densities are float32 as there, the
    divergence ``sum(P * (log10(P + 1e-30) - log10(Q + 1e-30)))`` is double.

    Source: PPQ 0.6.6, ppq/quantization/observer/range.py, ``TorchHistObserver.hist_to_scale_offset``; measure/statistic.py, ``torch_KL_divergence``.

    Examples
    --------
    >>> obs = PpqKlObserver(dtype="int8", qscheme="per_tensor_symmetric")
    >>> _ = obs(np.append(np.random.default_rng(0).standard_normal(200000), 20).astype(np.float32))
    >>> float(obs.max_val)
    5.625
    """

    def __init__(
        self, num_bins=4096, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None, *, eps=EPS, is_dynamic=False
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        self.num_bins = checked_bins(num_bins, "num_bins", type(self).__name__)
        self.histogram = SpanHistogram(self.num_bins, magnitudes=True)

    def _update(self, x):
        self.histogram.add(x)

    def _search(self):
        half = (self.quant_max - self.quant_min + 1) // 2
        counts = self.histogram.counts.astype(np.float32)
        empty = int(counts.size * 0.002)
        counts[:empty], counts[empty] = 0, 1
        counts = np.append(counts, np.zeros(-counts.size % half, np.float32))
        losses = [_loss(counts, i, half) for i in range(half, counts.size + 1, half)]
        t = (int(np.argmin(losses)) + 1) * half * self.histogram.width
        return -t, t


def _loss(counts, i, half):
    p = counts[:i].copy()
    p[-1] += counts[i:].sum(dtype=np.float32)
    p = p / counts.sum(dtype=np.float32)
    q = counts[:i].reshape(half, -1)
    filled = q > 0
    level = q.sum(axis=1, keepdims=True) / np.maximum(filled.sum(axis=1, keepdims=True), 1).astype(np.float32)
    q = (level * filled).reshape(-1)
    q = q / q.sum(dtype=np.float32) if q.any() else q
    p, q = p.astype(np.float64), q.astype(np.float64)
    return float(p @ (np.log10(p + 1e-30) - np.log10(q + 1e-30)))
