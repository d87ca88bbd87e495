"""ONNX Runtime's entropy calibrator: the range whose histogram loses least information in a few bins."""

import numpy as np

from refquant.errors import ArgumentError, RangeError
from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase
from refquant.observers.value_histogram import CenteredHistogram, checked_bins

__all__ = ["EntropyObserver", "entropy_range", "smoothed", "divergence"]


class EntropyObserver(SearchedRangeObserverBase):
    """The range whose distribution P has the least Kullback-Leibler divergence ``sum(P * log(P / Q))`` from itself in a few bins, Q.

    A candidate is the ``2 * i + 1`` bins in the middle of the histogram, `num_quantized_bins` of them or more; what lies outside is added to the
    outermost. Q has the same counts in `num_quantized_bins` bins, spread over those bins of P that are not empty.

    Parameters
    ----------
    num_bins : int
        Of the histogram at first; it grows with the data, see `refquant.observers.value_histogram.CenteredHistogram`.
    num_quantized_bins : int
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Attributes
    ----------
    min_val, max_val : numpy.float32
        The range found; ``inf`` and ``-inf`` before the first batch.

    Notes
    -----
    With the defaults of 128 and 128 there is one candidate, all bins, as long as no batch exceeds the first: then the range is that of the data.

    Exactness: the divergence is computed in float32 with NumPy's logarithm and sum, as there. Every batch is one ``collect`` of ONNX Runtime
    (``CalibStridedMinMax=1``); `refquant.workflow.quantize_static` collects as it does by default, all at once.

    Source: onnxruntime 1.32, calibrate.py, ``HistogramCollector.get_entropy_threshold``; S. Migacz, 8-bit inference with TensorRT, GTC 2017.

    Examples
    --------
    >>> obs = EntropyObserver(num_bins=512, num_quantized_bins=64)
    >>> _ = obs(np.append(np.linspace(-1, 1, 10001), 8).astype(np.float32))
    >>> float(obs.min_val), float(obs.max_val)
    (-1.0, 2.96875)
    """

    def __init__(
        self, num_bins=128, num_quantized_bins=128, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None,
        *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        place = type(self).__name__
        self.num_bins, self.num_quantized_bins = checked_bins(num_bins, "num_bins", place), checked_bins(num_quantized_bins, "num_quantized_bins", place)
        if self.num_quantized_bins > self.num_bins:
            raise ArgumentError(f"{place}: num_quantized_bins={num_quantized_bins} exceeds num_bins={num_bins}; there must be a candidate")
        self.histogram = CenteredHistogram(self.num_bins)

    def _update(self, x):
        self.histogram.add(x)

    def _search(self):
        return entropy_range(self.histogram, self.num_quantized_bins)


def entropy_range(histogram, quantized_bins):
    """Return the range of a `CenteredHistogram` that `EntropyObserver` describes, not wider than the data.

    Parameters
    ----------
    histogram : CenteredHistogram
    quantized_bins : int

    Returns
    -------
    tuple of numpy.float32
    """
    counts, edges = histogram.counts, histogram.edges
    middle, half = counts.size // 2, quantized_bins // 2
    best, found = None, (np.float32(0), np.float32(0))
    for i in range(half, middle + 1):
        start, end = middle - i, min(middle + i + 1, counts.size)
        loss = _loss(counts, start, end, quantized_bins)
        if best is None or loss < best:  # as numpy.argmin: the first of the least
            best, found = loss, (edges[start], edges[end])
    return max(found[0], histogram.low), min(found[1], histogram.high)


def _loss(counts, start, end, quantized_bins):
    inside = counts[start:end]
    p = inside.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[end:].sum()
    merged = inside.size // quantized_bins
    body = quantized_bins * merged
    sums = inside[:body].reshape(quantized_bins, merged).sum(axis=1)
    sums[-1] += inside[body:].sum()
    filled = (p[:body] != 0).reshape(quantized_bins, merged).sum(axis=1)
    level = np.trunc(np.divide(sums, filled, out=np.zeros(quantized_bins), where=filled > 0)).astype(np.int64)
    q = np.zeros(p.size, np.int64)
    q[:body] = np.repeat(level, merged)
    p, q = smoothed(p), smoothed(q)
    return np.inf if p is None or q is None else float(divergence(p, q))


def smoothed(counts, eps=0.0001):
    """Return counts as float32 with `eps` in place of zeros, taken off the others evenly; None if all are zero."""
    empty = (counts == 0).astype(np.float32)
    zeros = empty.sum()
    others = counts.size - zeros
    if not others:
        return None
    off = eps * float(zeros) / float(others)
    if off >= 1:
        raise RangeError(f"EntropyObserver: {int(zeros)} of {counts.size} bins are empty, too many to be smoothed; take fewer bins")
    return counts.astype(np.float32) + (eps * empty + (-off) * (1 - empty))


def divergence(p, q):
    """Return ``sum(p * log(p / q))`` of two distributions, scaled to a sum of 1, in float32.

    Examples
    --------
    >>> float(divergence(np.float32([1, 1]), np.float32([1, 3])))
    0.14384105801582336
    """
    p, q = 1.0 * p / np.sum(p), 1.0 * q / np.sum(q)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = p * np.log(p / q)
    terms[(p == 0) & (q >= 0)] = 0
    terms[~((p > 0) & (q > 0))] = np.inf
    return np.sum(terms)
