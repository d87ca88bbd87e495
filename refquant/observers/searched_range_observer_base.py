"""The observers that keep statistics and search a range in them when asked."""

import numpy as np

from refquant.errors import RangeError
from refquant.observers.observer_base import as_batch, unsupported_dynamic
from refquant.observers.qparams_from_range import EPS
from refquant.observers.uniform_quantization_observer_base import PER_TENSOR, UniformQuantizationObserverBase

__all__ = ["SearchedRangeObserverBase"]


class SearchedRangeObserverBase(UniformQuantizationObserverBase):
    """Base of observers with a search: a subclass has ``_update(x)``, for a batch, and ``_search()``, which returns the range.

    Parameters
    ----------
    dtype, qscheme, reduce_range, quant_min, quant_max, eps
        As in `MinMaxObserver`; from the range come scale and zero point as there.
    is_dynamic : bool
        Not supported.

    Attributes
    ----------
    min_val, max_val : numpy.float32
        The range; ``inf`` and ``-inf`` before the first batch. Searched when asked for, once after each batch.

    Notes
    -----
    A batch is rounded to float32. One with a NaN or an infinity is refused and leaves no trace; an empty one changes nothing.
    """

    def __init__(self, dtype="quint8", qscheme="per_tensor_affine", reduce_range=False, quant_min=None, quant_max=None, eps=EPS, is_dynamic=False):
        unsupported_dynamic(is_dynamic, type(self).__name__)
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic, PER_TENSOR)
        self._found = None

    def _record(self, x):
        place = type(self).__name__
        with np.errstate(over="ignore"):
            x = as_batch(x, place).astype(np.float32, copy=False).reshape(-1)
        if not x.size:
            return
        if not np.isfinite(x).all():
            raise RangeError(f"{place}: batch {self._batches + 1} holds a NaN or an infinity; a range is searched among numbers, drop it from the data")
        self._update(x)
        self._batches += 1
        self._found = None

    def _range(self):
        if not self._batches:
            return np.float32(np.inf), np.float32(-np.inf)
        if self._found is None:
            self._found = tuple(np.float32(v) for v in self._search())
        return self._found

    @property
    def min_val(self):
        """The lower end of the range."""
        return self._range()[0]

    @property
    def max_val(self):
        """The upper end of the range."""
        return self._range()[1]

    def calculate_qparams(self):
        """Return the QParams of the range; before any batch, scale 1 and zero point 0 with a warning."""
        return self._qparams(*self._range())
