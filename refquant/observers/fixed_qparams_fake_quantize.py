"""`FixedQParamsFakeQuantize`: onto a grid that is known before any data."""

import numpy as np

from refquant.errors import ArgumentError
from refquant.observers.fake_quantize import FakeQuantize
from refquant.observers.fixed_qparams_observer import FixedQParamsObserver

__all__ = ["FixedQParamsFakeQuantize"]


class FixedQParamsFakeQuantize(FakeQuantize):
    """Round to the grid of a `FixedQParamsObserver`, as for the outputs of sigmoid and tanh.

    Parameters
    ----------
    observer : factory
        Such as ``FixedQParamsObserver.with_args(scale=1 / 256, zero_point=0)``.

    Notes
    -----
    Source: PyTorch 2.13, ``torch/ao/quantization/fake_quantize.py``, ``FixedQParamsFakeQuantize``.

    Examples
    --------
    >>> fake = FixedQParamsFakeQuantize(FixedQParamsObserver.with_args(scale=1 / 256, zero_point=0))
    >>> fake(np.float32([0.5, 0.999, 2])).tolist()
    [0.5, 0.99609375, 0.99609375]
    """

    def __init__(self, observer):
        super().__init__(observer)
        held = self.activation_post_process
        if type(held) is not FixedQParamsObserver or self.is_per_channel:
            raise ArgumentError(f"{type(self).__name__}: observer makes a {type(held).__name__} but must be a per-tensor FixedQParamsObserver; use its with_args")
        self.scale, self.zero_point = np.float32([held.scale]), np.int64([held.zero_point])
