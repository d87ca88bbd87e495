"""`DerivedObserver`: parameters computed from those that other observers found."""

import numpy as np

from refquant.core.qparams import QParams
from refquant.observers.observer_base import ObserverBase
from refquant.observers.qparams_from_range import quant_limits

__all__ = ["DerivedObserver"]


class DerivedObserver(ObserverBase):
    """Records nothing; asks a function of other observers for scale and zero point.

    Parameters
    ----------
    spec : DerivedQuantizationSpec
    observers : list of ObserverBase

    Examples
    --------
    A bias in units of the products that it is added to:

    >>> from refquant.observers import FixedQParamsObserver
    >>> from refquant.workflow import DerivedQuantizationSpec
    >>> product = lambda observers: (np.prod([o.calculate_qparams().scale for o in observers]), 0)
    >>> spec = DerivedQuantizationSpec([], product, "int32", -(2**31), 2**31 - 1, "per_tensor_symmetric")
    >>> DerivedObserver(spec, [FixedQParamsObserver(0.5, 0), FixedQParamsObserver(0.25, 0)]).calculate_qparams()
    QParams(scale=0.125, zero_point=0, dtype='int32')
    """

    def __init__(self, spec, observers):
        limits = quant_limits(spec.dtype, spec.quant_min, spec.quant_max, place="DerivedQuantizationSpec")
        super().__init__(limits.dtype)
        self.spec, self.observers, self._limits = spec, list(observers), limits

    def calculate_qparams(self):
        """Return the QParams; vectors run along ``ch_axis``."""
        scale, zero = self.spec.derive_qparams_fn(self.observers)
        scale = np.asarray(scale, np.float32)
        axis = None
        if scale.ndim and (scale.size > 1 or str(self.spec.qscheme).startswith("per_channel")):
            axis = self.spec.ch_axis or 0
        else:
            scale, zero = scale.reshape(()), np.asarray(zero).reshape(())
        return QParams(scale, zero, self.dtype, axis, quant_min=self._limits.qmin, quant_max=self._limits.qmax)
