"""The observer of the tensor before."""

from refquant.observers.observer_base import ObserverBase

__all__ = ["ReuseInputObserver"]


class ReuseInputObserver(ObserverBase):
    """Says that an operator's output has the quantization parameters of its input, as after a reshape. Records nothing.

    Notes
    -----
    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``ReuseInputObserver``.

    Examples
    --------
    >>> ReuseInputObserver()
    ReuseInputObserver(dtype='uint8', is_dynamic=False)
    """

    def __init__(self):
        super().__init__("uint8")
