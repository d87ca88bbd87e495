"""A dtype without statistics."""

from refquant.observers.observer_base import ObserverBase, known_dtype
from refquant.observers.placeholder_observer import PASSED_DTYPES

__all__ = ["NoopObserver"]


class NoopObserver(ObserverBase):
    """Records nothing: for tensors that become float16 and need no range.

    Parameters
    ----------
    dtype : str
        ``"float16"``, …
    custom_op_name : str
        An operator that needs no observation.

    Notes
    -----
    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``NoopObserver``.

    Examples
    --------
    >>> NoopObserver()
    NoopObserver(dtype='float16', is_dynamic=False)
    """

    def __init__(self, dtype="float16", custom_op_name=""):
        super().__init__(known_dtype(dtype, PASSED_DTYPES, type(self).__name__))
        self.custom_op = custom_op_name
