"""TensorRT's entropy calibration, as NVIDIA's own open-source calibrator computes it."""

import numpy as np

from refquant.errors import ArgumentError
from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase
from refquant.observers.value_histogram import MagnitudeHistogram, checked_bins

__all__ = ["KlDivergenceObserver", "kl_threshold"]


class KlDivergenceObserver(SearchedRangeObserverBase):
    """The threshold t of ``[-t, t]`` whose magnitudes P, those above t added to the last bin, have the least ``KL(P || Q)`` from `levels` steps Q.

    Q of the first i bins: they are laid into `levels` equal parts, each part's counts spread evenly over those of its bins that are not empty.
    Candidates are all i from `levels` to the number of bins; of equal ones the largest wins.

    Parameters
    ----------
    num_bins : int
        Of the histogram of magnitudes at first; it grows with the data.
    levels : int, optional
        128 for signed codes of 8 bits, 256 for unsigned ones: unless given, half of the codes of a signed dtype, all of an unsigned one.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`. With ``dtype="int8", qscheme="per_tensor_symmetric"`` the scale is TensorRT's ``t / 127`` up to the half code
        that PyTorch's symmetric formula has besides.

    Notes
    -----
    The first bin, which holds the zeros after a ReLU, counts as much as the second. Exactness: counts are integers, densities and divergence double.

    Source: NVIDIA, TensorRT/tools/pytorch-quantization, calib/histogram.py, ``_compute_amax_entropy``; S. Migacz, 8-bit inference with TensorRT, 2017.

    Examples
    --------
    >>> obs = KlDivergenceObserver(dtype="int8", qscheme="per_tensor_symmetric")
    >>> _ = obs(np.append(np.random.default_rng(0).standard_normal(200000), 20).astype(np.float32))
    >>> 4 < float(obs.max_val) < 5
    True
    """

    def __init__(
        self, num_bins=2048, levels=None, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None,
        *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        place = type(self).__name__
        codes = self.quant_max - self.quant_min + 1
        self.num_bins = checked_bins(num_bins, "num_bins", place)
        self.levels = checked_bins(levels, "levels", place) if levels is not None else codes // 2 if self.quant_min < 0 else codes
        if self.levels > self.num_bins:
            raise ArgumentError(f"{place}: levels={self.levels} exceeds num_bins={num_bins}, so that there is no candidate; take more bins")
        self.histogram = MagnitudeHistogram(self.num_bins)

    def _update(self, x):
        self.histogram.add(x)

    def _search(self):
        t = kl_threshold(self.histogram.counts, self.histogram.edges, self.levels)
        return -t, t


def kl_threshold(counts, edges, levels):
    """Return the edge that `KlDivergenceObserver` describes.

    Parameters
    ----------
    counts : ndarray of int, (N,)
    edges : ndarray, (N + 1,)
    levels : int
    """
    from scipy.special import rel_entr

    bins = counts.astype(np.float64)
    bins[0] = bins[1] if bins.size > 1 else bins[0]
    best, found = None, bins.size
    for i in range(levels, bins.size + 1):
        p, filled = bins[:i].copy(), bins[:i] != 0
        part = np.digitize(np.arange(i), np.linspace(0, i, levels + 1)) - 1
        p[-1] += bins[i:].sum()
        sums, members = np.bincount(part[filled], bins[:i][filled], levels), np.bincount(part[filled], minlength=levels)
        q = np.where(filled, (sums / np.maximum(members, 1))[np.minimum(part, levels - 1)], 0.0)
        loss = np.sum(rel_entr(p / p.sum(), q / q.sum())) if q.any() else np.inf
        if best is None or loss <= best:
            best, found = loss, i
    return np.float32(edges[found])
