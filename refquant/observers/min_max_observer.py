"""The running minimum and maximum of a tensor."""

import numpy as np

from refquant.observers.observer_base import as_batch
from refquant.observers.qparams_from_range import EPS
from refquant.observers.uniform_quantization_observer_base import PER_TENSOR, UniformQuantizationObserverBase

__all__ = ["MinMaxObserver"]


class MinMaxObserver(UniformQuantizationObserverBase):
    """The running minimum and maximum of all batches: ``min_val = min(min_val, min(x))``, ``max_val`` likewise.

    Parameters
    ----------
    dtype : str
        ``"quint8"``, ``"qint8"``, ``"uint8"``, ``"int8"``, …
    qscheme : str
        ``"per_tensor_affine"`` or ``"per_tensor_symmetric"``.
    reduce_range : bool
        Use one bit less.
    quant_min, quant_max : int, optional
        The codes to use.
    eps : float
        The least scale.
    is_dynamic : bool
        Kept for the conversion.

    Attributes
    ----------
    min_val, max_val : numpy.float32
        ``inf`` and ``-inf`` before the first batch. A NaN stays, as in PyTorch, and `calculate_qparams` reports it.

    Notes
    -----
    Exactness: no step rounds, except that a batch of another dtype is first rounded to float32. A bound of zero is
    +0.0; in PyTorch its sign depends on the order of the vector lanes.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``MinMaxObserver``.

    Examples
    --------
    >>> obs = MinMaxObserver(dtype="uint8")
    >>> for batch in ([0.5, 1.0], [-1.0, 3.0]):
    ...     _ = obs(np.float32(batch))
    >>> obs.calculate_qparams()
    QParams(scale=0.01568627543747425, zero_point=64, dtype='uint8')
    """

    def __init__(
        self,
        dtype="quint8",
        qscheme="per_tensor_affine",
        reduce_range=False,
        quant_min=None,
        quant_max=None,
        *,
        eps=EPS,
        is_dynamic=False,
    ):
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic, PER_TENSOR)
        self._refuse_symmetric_reduced_quint8()
        self.reset_min_max_vals()

    def reset_min_max_vals(self):
        """Forget all batches."""
        self.min_val, self.max_val = np.float32(np.inf), np.float32(-np.inf)
        self._batches, self._spoilt = 0, None

    def _record(self, x):
        x = as_batch(x, type(self).__name__)
        if x.size == 0:
            return
        low, high = bounds(x)
        self._seen(low, high)
        self.min_val, self.max_val = self._update(low, high)

    def _update(self, low, high):
        return np.minimum(low, self.min_val), np.maximum(high, self.max_val)

    def calculate_qparams(self):
        """Return the QParams of the range so far; before any batch, scale 1 and zero point 0 with a warning."""
        return self._qparams(self.min_val, self.max_val)


def bounds(x, axes=None):
    """Return minimum and maximum as float32, over all axes or some; NaN if there is one, and never −0.0."""
    with np.errstate(over="ignore"):
        low, high = np.float32(x.min(axis=axes)), np.float32(x.max(axis=axes))
    return low + np.float32(0), high + np.float32(0)
