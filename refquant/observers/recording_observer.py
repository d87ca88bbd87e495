"""Every batch, kept."""

import numpy as np

from refquant.observers.observer_base import ObserverBase, known_dtype
from refquant.observers.placeholder_observer import PASSED_DTYPES

__all__ = ["RecordingObserver"]


class RecordingObserver(ObserverBase):
    """Keeps a copy of every batch, empty ones too: to look at intermediate values.

    Parameters
    ----------
    dtype : str
        Kept for the conversion.

    Attributes
    ----------
    tensor_val : list of ndarray

    Notes
    -----
    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``RecordingObserver``.

    Examples
    --------
    >>> obs = RecordingObserver()
    >>> _ = obs(np.float32([1.0, 2.0]))
    >>> [v.tolist() for v in obs.get_tensor_value()]
    [[1.0, 2.0]]
    """

    def __init__(self, dtype="quint8"):
        super().__init__(known_dtype(dtype, PASSED_DTYPES, type(self).__name__))
        self.tensor_val = []

    def _record(self, x):
        self.tensor_val.append(np.array(x))

    def get_tensor_value(self):
        """Return the list of batches."""
        return self.tensor_val
