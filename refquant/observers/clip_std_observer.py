"""MQBench's range of mean and standard deviation."""

import numpy as np

from refquant.core.arguments import as_real
from refquant.errors import RangeError
from refquant.observers.qparams_from_range import EPS
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase

__all__ = ["ClipStdObserver"]


class ClipStdObserver(SearchedRangeObserverBase):
    """``mean ± k * std`` of the last batch, together with its minimum and maximum.

    Parameters
    ----------
    std_scale : float
        k.
    clip : bool
        False, as MQBench's source has it: the *wider* of the two at each end, so that nothing is ever cut off. True: the narrower, as its name says.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic
        As in `SearchedRangeObserverBase`.

    Notes
    -----
    Exactness: mean and deviation (with n − 1; 0 for one element, where PyTorch has NaN) are summed in double and rounded to float32; the rest is float32.

    Source: MQBench, mqbench/observer.py, ``ClipStdObserver``.

    Examples
    --------
    >>> x = np.append(np.zeros(999), 100).astype(np.float32)
    >>> for clip in (False, True):
    ...     obs = ClipStdObserver(clip=clip)
    ...     _ = obs(x)
    ...     print(float(obs.min_val), float(obs.max_val))
    -8.12192153930664 100.0
    0.0 8.321922302246094
    """

    def __init__(
        self, std_scale=2.6, clip=False, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None,
        *, eps=EPS, is_dynamic=False,
    ):  # fmt: skip
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic)
        if not 0 <= as_real(std_scale, "std_scale", type(self).__name__) < np.inf:
            raise RangeError(f"{type(self).__name__}: std_scale={std_scale} must be finite and not negative; 2.6 is the default")
        self.std_scale, self.clip = float(std_scale), bool(clip)
        self._last = None

    def _update(self, x):
        real = x.astype(np.float64)
        with np.errstate(over="ignore"):
            mean, std = np.float32(real.mean()), np.float32(real.std(ddof=1) if x.size > 1 else 0)
            away = np.float32(self.std_scale) * std
            below, above = mean - away, mean + away
        if not np.isfinite(below) or not np.isfinite(above):
            raise RangeError(f"{type(self).__name__}: mean {mean} and deviation {std} overflow float32; scale the data")
        narrow, wide = (max, min) if self.clip else (min, max)
        self._last = narrow(below, x.min()), wide(above, x.max())

    def _search(self):
        return self._last
