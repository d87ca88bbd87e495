"""MQBench's MSE observer: each batch's range is shrunk until quantization costs least."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.arguments import as_integer, as_real
from refquant.errors import RangeError
from refquant.observers.qparams_from_range import EPS, qparams_from_range
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase

__all__ = ["LpNormObserver", "shrunk_range"]

_F = np.float32


class LpNormObserver(SearchedRangeObserverBase):
    """Of each batch the range ``(1 - i / 100) * [min(x), max(x)]``, i = 0 … `steps` − 1, with the least ``mean(abs(fake_quantize(x) - x) ** p)``; over
    batches the extremes of these, or their moving averages.

    Parameters
    ----------
    p : float
        2 for the mean squared error.
    ema_ratio : float, optional
        r of ``low = r * low + (1 - r) * new``; without, the extremes.
    steps : int
        1 … 100.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Notes
    -----
    Exactness: ranges and differences are float32 as there, powers and their mean double (float32 there), so that the choice between two ranges
    of nearly equal loss can fall otherwise. Equal losses: the wider range.

    Source: MQBench, mqbench/observer.py, ``MSEObserver`` and ``EMAMSEObserver``.

    Examples
    --------
    >>> obs = LpNormObserver()
    >>> _ = obs(np.append(np.linspace(-1, 1, 100001), 9).astype(np.float32))
    >>> float(obs.min_val), float(obs.max_val)
    (-0.9599999785423279, 8.639999389648438)
    """

    def __init__(
        self, p=2.0, ema_ratio=None, steps=95, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None,
        *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        place = type(self).__name__
        if not 0 < as_real(p, "p", place) < np.inf:
            raise RangeError(f"{place}: p={p} must be positive and finite; 2 is the mean squared error")
        if ema_ratio is not None and not 0 <= as_real(ema_ratio, "ema_ratio", place) <= 1:
            raise RangeError(f"{place}: ema_ratio={ema_ratio} must lie in 0 … 1, or be None")
        self.p, self.ema_ratio, self.steps = float(p), ema_ratio, as_integer(steps, "steps", place, least=1, most=100)
        self._kept = None

    def _update(self, x):
        new = shrunk_range(x, self._limits, self.qscheme, self.eps, self.p, self.steps)
        if self._kept is None:
            self._kept = new
        elif self.ema_ratio is None:
            self._kept = min(self._kept[0], new[0]), max(self._kept[1], new[1])
        else:
            r, s = _F(self.ema_ratio), _F(1.0 - self.ema_ratio)
            self._kept = tuple(o * r + n * s for o, n in zip(self._kept, new))

    def _search(self):
        return self._kept


def shrunk_range(x, limits, qscheme, eps, p=2.0, steps=95):
    """Return the range of one batch that `LpNormObserver` describes.

    Parameters
    ----------
    x : ndarray of float32, (N,)
    limits : QuantLimits
    qscheme : str
    eps, p : float
    steps : int
    """
    form, formula = profiles.get("fbgemm").fake_quantize, profiles.get("fbgemm").dequantize.formula
    how = {"scaling": form.scaling, "add": form.zero_point, "rounding": form.rounding, "overflow": form.overflow, "nan": form.nan}
    low, high, best, least = x.min(), x.max(), None, np.inf
    for i in range(steps):
        factor = _F(1.0 - i * 0.01)
        q = qparams_from_range(low * factor, high * factor, limits, qscheme, eps, place="LpNormObserver")
        codes = quantize_real(x, q.scale, q.zero_point, q.qmin, q.qmax, **how)
        loss = float(np.mean(np.abs(dequantize_codes(codes, q.scale, q.zero_point, formula) - x).astype(np.float64) ** p))
        if loss < least:
            best, least = (low * factor, high * factor), loss
    return (low, high) if best is None else best
