"""AIMET's SQNR calibration (tf_enhanced): the grid of scales and offsets with the least noise, clipping counting more."""

import numpy as np

from refquant.core.rounding import Round, round_real
from refquant.core.arguments import as_real
from refquant.errors import RangeError
from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase
from refquant.observers.span_histogram import SpanHistogram
from refquant.observers.value_histogram import checked_bins

__all__ = ["SqnrObserver", "candidates", "noise"]

_F = np.float32


class SqnrObserver(SearchedRangeObserverBase):
    """The range ``[o * d, (o + n) * d]``, n the steps between codes, with the least noise over the middles m of a histogram's bins.

    Noise: ``counts * (d * (clip(rne(m / d - o), 0, n) + o) - m) ** 2``, times `gamma` where a middle is clipped. Candidates: with D the width of the
    data's range over n, ``d = D * k / 16`` for k = 1 … 17 and 20 offsets from −n to 0 and the observed one, cut to the observed range; symmetric:
    ``d = D * k / 100`` for k = 1 … 101 and ``o = -(n + 1) / 2``.

    Parameters
    ----------
    num_bins : int
        Of the histogram, `refquant.observers.span_histogram.SpanHistogram`; AIMET stretches its bins when data exceeds them, here bins are added.
    gamma : float
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Notes
    -----
    Exactness: float32 as there, but errors are squared and summed in double; of equal candidates the first.

    Source: AIMET 2, aimet_torch/v2/quantization/encoding_analyzer.py, ``SqnrEncodingAnalyzer``.

    Examples
    --------
    >>> obs = SqnrObserver(quant_min=0, quant_max=15)
    >>> _ = obs(np.append(np.random.default_rng(0).standard_normal(100000), 30).astype(np.float32))
    >>> -5 < float(obs.min_val) < float(obs.max_val) < 8
    True
    """

    def __init__(
        self, num_bins=2048, gamma=3.0, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None,
        *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        if not 0 < as_real(gamma, "gamma", type(self).__name__) < np.inf:
            raise RangeError(f"{type(self).__name__}: gamma={gamma} must be positive and finite; 3 is the default")
        self.num_bins, self.gamma = checked_bins(num_bins, "num_bins", type(self).__name__), float(gamma)
        self.histogram, self._low, self._high = SpanHistogram(self.num_bins), _F(np.inf), _F(-np.inf)

    def _update(self, x):
        self.histogram.add(x)
        self._low, self._high = min(self._low, x.min()), max(self._high, x.max())

    def _search(self):
        steps = self.quant_max - self.quant_min
        d, o = candidates(self._low, self._high, steps, self.qscheme.endswith("symmetric"))
        h = self.histogram
        middles = (h.low + h.width * (np.arange(h.counts.size) + 0.5)).astype(_F)
        k = int(np.argmin([noise(middles, h.counts, d[i], o[i], steps, self.gamma) for i in range(d.size)]))
        return o[k] * d[k], o[k] * d[k] + _F(steps) * d[k]


def candidates(low, high, steps, symmetric):
    """Return the scales and offsets that are tried, as two vectors of float32.

    Examples
    --------
    >>> [v.size for v in candidates(np.float32(-1), np.float32(3), 255, False)], [v.size for v in candidates(np.float32(-1), np.float32(3), 255, True)]
    ([357, 357], [101, 101])
    """
    low, n, tiny = min(low, _F(0)), _F(steps), np.finfo(_F).eps
    high = max(high, _F(0), low + tiny * n)
    if symmetric:
        d = np.maximum(2 * max(high, -low) / n * np.arange(1, 102, dtype=_F) / _F(100), tiny)
        return d, np.full(d.size, -steps // 2, _F)
    widest = (high - low) / n
    seen = round_real(low / widest, Round.HALF_EVEN).astype(_F)
    bottom = widest * seen
    top = bottom + widest * n
    some = min(steps + 2, 21)
    step = steps / (some - 2)
    offsets = np.append(round_real(np.arange(-steps, step, step).astype(_F), Round.HALF_EVEN), seen).astype(_F)
    d = (widest * np.arange(1, 18, dtype=_F) / _F(16))[:, None]
    first, last = np.maximum(bottom, d * offsets), np.minimum(top, d * offsets + d * n)
    d = np.maximum((last - first) / n, tiny)
    return d.reshape(-1), round_real(first / d, Round.HALF_EVEN).astype(_F).reshape(-1)


def noise(middles, counts, d, o, steps, gamma):
    """Return the noise of one candidate."""
    with np.errstate(over="ignore"):
        code = round_real(middles / d - o, Round.HALF_EVEN).astype(_F)
    error = ((np.clip(code, _F(0), _F(steps)) + o) * d - middles).astype(np.float64)
    clipped = (code < 0) | (code > steps)
    return float((error * error * counts * np.where(clipped, gamma, 1.0)).sum())
