"""Quantization parameters that are known before any data."""

from refquant.core.arguments import as_reals
from refquant.core.qparams import QParams
from refquant.errors import choose
from refquant.observers.observer_base import ObserverBase, unsupported_dynamic
from refquant.observers.qparams_from_range import QSCHEMES, plain_name, quant_limits

__all__ = ["FixedQParamsObserver"]


class FixedQParamsObserver(ObserverBase):
    """Fixed scale and zero point, for operators with a known range of outputs: sigmoid ``(1/256, 0)``, tanh ``(2/256, 128)``.

    Parameters
    ----------
    scale : float
    zero_point : int
    dtype : str
        ``"quint8"``, …
    qscheme : str
        Kept for the conversion.
    quant_min, quant_max : int
        The codes.
    is_dynamic : bool
        Not supported.

    Notes
    -----
    Exactness: the scale is rounded to float32.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``FixedQParamsObserver``.

    Examples
    --------
    >>> FixedQParamsObserver(1 / 256, 0).calculate_qparams()
    QParams(scale=0.00390625, zero_point=0, dtype='uint8')
    """

    def __init__(self, scale, zero_point, dtype="quint8", qscheme="per_tensor_affine", quant_min=0, quant_max=255, is_dynamic=False):
        place = type(self).__name__
        unsupported_dynamic(is_dynamic, place)
        limits = quant_limits(dtype, quant_min, quant_max, place=place)
        super().__init__(limits.dtype, is_dynamic)
        self.qscheme = choose(place, "qscheme", plain_name(qscheme), QSCHEMES)
        self.quant_min, self.quant_max = limits.qmin, limits.qmax
        self._fixed = QParams(as_reals(scale, "scale", place), zero_point, limits.dtype, quant_min=limits.qmin, quant_max=limits.qmax)

    @property
    def scale(self):
        """The scale, a float32 value."""
        return self._fixed.scale

    @property
    def zero_point(self):
        """The zero point."""
        return self._fixed.zero_point

    def calculate_qparams(self):
        """Return the QParams, the same whatever was observed."""
        return self._fixed
