"""The histogram of all batches, and the range that quantizes it best."""

import warnings

import numpy as np

from refquant.core.arguments import check_room
from refquant.core.dtypes import int_type
from refquant.errors import ArgumentError, RangeError, UnsupportedError
from refquant.observers.histogram_reference import outer_edges
from refquant.observers.min_max_observer import bounds
from refquant.observers.observer_base import as_batch, unsupported_dynamic
from refquant.observers.qparams_from_range import EPS
from refquant.observers.uniform_quantization_observer_base import PER_TENSOR, UniformQuantizationObserverBase

__all__ = ["HistogramObserver"]


class HistogramObserver(UniformQuantizationObserverBase):
    """A histogram over all batches; the quantized range is the one whose quantization error over the histogram is least.

    The range of the histogram grows with the data: a batch that widens it moves the old counts into the wider bins. In
    the end the search cuts both tails, quantile by quantile, until the squared error grows.

    Parameters
    ----------
    bins : int
        The number of bins.
    dtype : str
        ``"quint8"``, ``"qint8"``, ``"uint8"``, ``"int8"``, or a 16-bit dtype.
    qscheme : str
        ``"per_tensor_affine"`` or ``"per_tensor_symmetric"``.
    reduce_range, quant_min, quant_max, eps
        As in `MinMaxObserver`. The search always counts with all codes of the dtype.
    is_dynamic : bool
        Not supported.

    Attributes
    ----------
    histogram : ndarray of float32, (bins,)
    min_val, max_val : numpy.float32
        The range of the histogram; ``inf`` and ``-inf`` before the first batch.

    Notes
    -----
    Infinities in a batch are dropped, with a warning. A NaN is an error, and so is a range that float32 cannot divide
    into bins (about 1.7e35 with 2048 bins; PyTorch counts such elements in a wrong bin). A batch must be float32:
    PyTorch would bin another dtype in that dtype's arithmetic.

    Exactness: see `refquant.observers.histogram_reference`. The result does not depend on the number of threads. (PyTorch's
    does for more than 2**24 equal elements: a float32 counter stops there, and each of its threads has its own.)

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``HistogramObserver``.

    Examples
    --------
    >>> obs = HistogramObserver(dtype="uint8", reduce_range=True)
    >>> x = np.linspace(0, 1, 10001, dtype=np.float32)
    >>> _ = obs(x)
    >>> obs.calculate_qparams()
    QParams(scale=0.007870171219110489, zero_point=0, dtype='uint8', quant_min=0, quant_max=127)
    >>> _ = obs(x * 4)
    >>> float(obs.max_val), obs.histogram[:4].tolist()
    (4.0, [25.0, 25.0, 24.0, 25.0])
    """

    def __init__(
        self,
        bins=2048,
        dtype="quint8",
        qscheme="per_tensor_affine",
        reduce_range=False,
        quant_min=None,
        quant_max=None,
        *,
        eps=EPS,
        is_dynamic=False,
    ):
        place = type(self).__name__
        unsupported_dynamic(is_dynamic, place)
        if isinstance(bins, bool) or not hasattr(bins, "__index__") or bins < 1:
            raise ArgumentError(f"{place}: bins={bins!r} must be a positive int; 2048 is the default")
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic, PER_TENSOR)
        kind = int_type(self.dtype)
        self._levels = kind.qmax - kind.qmin + 1
        if self._levels not in (1 << 8, 1 << 16):
            raise UnsupportedError(f"{place}: dtype={self.dtype!r} has {self._levels} codes; choose a dtype of 8 or 16 bits")
        self.bins = bins.__index__()
        check_room((self.bins,), "bins", place, itemsize=4)
        self.histogram = np.zeros(self.bins, np.float32)
        self.min_val, self.max_val = np.float32(np.inf), np.float32(-np.inf)

    def _record(self, x):
        x = self._vector(x)
        if x.size == 0:
            return
        low, high = bounds(x)
        if low == -np.inf or high == np.inf:
            warnings.warn(f"{type(self).__name__}: an infinity in the batch was dropped", stacklevel=3)
            x = x[~np.isinf(x)]
            if x.size == 0:
                return
            low, high = bounds(x)
        if self._batches:
            low, high = np.minimum(low, self.min_val), np.maximum(high, self.max_val)
        self._check_bounds(low, high)
        counts = _maths().histogram_counts(x, *outer_edges(low, high), self.bins)
        self.histogram = self._moved(low, high) + counts if self._batches else counts
        self.min_val, self.max_val = low, high
        self._seen(low, high)

    def _vector(self, x):
        x = as_batch(x, type(self).__name__)
        if x.dtype != np.float32:
            raise ArgumentError(f"{type(self).__name__}: the batch has dtype {x.dtype}; a histogram is taken of float32, convert it first")
        return x.ravel("K")

    def _check_bounds(self, low, high):
        place = f"{type(self).__name__}: batch {self._batches + 1}"
        if np.isnan(low) or np.isnan(high):
            raise RangeError(f"{place} holds a NaN; a histogram needs numbers, drop it from the data")
        first, last = outer_edges(low, high)
        with np.errstate(over="ignore"):
            widest = (last - first) * np.float32(self.bins)
        if not np.isfinite(widest):
            raise RangeError(
                f"{place}: the range [{low}, {high}] times {self.bins} bins must stay within float32; scale the data,"
                " drop the outliers or use MinMaxObserver"
            )

    def _moved(self, low, high):
        """The histogram so far, in the range ``[low, high]`` that contains its own."""
        if low == self.min_val and high == self.max_val:
            return self.histogram
        if self.min_val == self.max_val:
            alone = np.array([self.min_val])
            return _maths().histogram_counts(alone, low, high, self.bins) * _maths().sum_float32(self.histogram)
        return _maths().rescaled_histogram(self.histogram, self.min_val, self.max_val, low, high)

    def calculate_qparams(self):
        """Return the QParams of the best range; before any batch, scale 1 and zero point 0 with a warning."""
        return self._qparams(*self.best_range())

    def best_range(self):
        """Return the range that the search finds; ``(inf, -inf)`` before any batch."""
        if not self._batches:
            return self.min_val, self.max_val
        start, end = _maths().search_bins(self.histogram, self.min_val, self.max_val, self._levels)
        width = (self.max_val - self.min_val) / np.float32(self.bins)
        return self.min_val + width * np.float32(start), self.min_val + width * np.float32(end + 1)


def _maths():
    """The kernels; imported when they are first needed, because they import Numba."""
    from refquant.kernels import histogram

    return histogram
