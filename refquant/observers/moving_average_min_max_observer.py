"""The moving averages of a tensor's minimum and maximum."""

import numpy as np

from refquant.core.arguments import as_real
from refquant.errors import UnsupportedError
from refquant.observers.min_max_observer import MinMaxObserver
from refquant.observers.qparams_from_range import EPS

__all__ = ["MovingAverageMinMaxObserver"]


class MovingAverageMinMaxObserver(MinMaxObserver):
    """Moving averages of the batches' bounds: ``min_val += c * (min(x) - min_val)``, ``max_val`` likewise; the first batch sets them.

    Parameters
    ----------
    averaging_constant : float
        c. 1 keeps the last batch only.
    dtype, qscheme, reduce_range, quant_min, quant_max, eps
        As in `MinMaxObserver`.
    is_dynamic : bool
        Only with ``averaging_constant=1``.

    Attributes
    ----------
    min_val, max_val : numpy.float32
        ``inf`` and ``-inf`` before the first batch.

    Notes
    -----
    Exactness: the difference, its product with c (rounded to float32) and the sum each round to float32.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``MovingAverageMinMaxObserver``.

    Examples
    --------
    >>> obs = MovingAverageMinMaxObserver(averaging_constant=0.5)
    >>> for batch in ([0.0, 1.0], [-1.0, 3.0]):
    ...     _ = obs(np.float32(batch))
    >>> float(obs.min_val), float(obs.max_val)
    (-0.5, 2.0)
    """

    def __init__(
        self,
        averaging_constant=0.01,
        dtype="quint8",
        qscheme="per_tensor_affine",
        reduce_range=False,
        quant_min=None,
        quant_max=None,
        *,
        eps=EPS,
        is_dynamic=False,
    ):
        self.averaging_constant = averaging_factor(averaging_constant, type(self).__name__)
        if is_dynamic and self.averaging_constant != 1:
            raise UnsupportedError(
                f"MovingAverageMinMaxObserver: is_dynamic=True with averaging_constant={averaging_constant!r};"
                " dynamic quantization looks at one batch alone, give averaging_constant=1"
            )
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps=eps, is_dynamic=is_dynamic)

    def _update(self, low, high):
        if np.isposinf(self.min_val) and np.isneginf(self.max_val):
            return low, high
        return averaged(self.min_val, low, self.averaging_constant), averaged(self.max_val, high, self.averaging_constant)


def averaging_factor(value, place):
    """Return an averaging constant as a float, or raise."""
    return as_real(value, "averaging_constant", place)


def averaged(old, new, factor):
    """``old + factor * (new - old)`` in float32, three roundings."""
    with np.errstate(over="ignore", invalid="ignore"):
        return old + np.float32(factor) * (new - old)
