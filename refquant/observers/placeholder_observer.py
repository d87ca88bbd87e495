"""A configuration without statistics."""

from refquant.errors import UnsupportedError, choose
from refquant.observers.observer_base import ObserverBase, known_dtype
from refquant.observers.qparams_from_range import EPS, QSCHEMES, plain_name

__all__ = ["PlaceholderObserver", "PASSED_DTYPES"]

PASSED_DTYPES = (
    "float32",
    "float16",
    "bfloat16",
    "float64",
    "quint8",
    "qint8",
    "qint32",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "quint4x2",
    "uint4",
    "int4",
)


class PlaceholderObserver(ObserverBase):
    """Records nothing and passes its configuration on: for dynamic quantization, and for tensors that stay real numbers.

    Parameters
    ----------
    dtype : str
        ``"float32"``, ``"float16"``, ``"quint8"``, …
    custom_op_name : str
        An operator that needs no observation.
    compute_dtype : None
        PyTorch deprecates it, and ignores it but for a warning: give `is_dynamic`.
    quant_min, quant_max : int, optional
        The codes that dynamic quantization may use.
    qscheme : str, optional
        ``"per_tensor_affine"`` by default.
    eps : float, optional
        The least scale.
    is_dynamic : bool
        Whether the tensor is quantized at run time.

    Notes
    -----
    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``PlaceholderObserver``.

    Examples
    --------
    >>> PlaceholderObserver(dtype="quint8", quant_min=0, quant_max=255, is_dynamic=True)
    PlaceholderObserver(dtype='uint8', is_dynamic=True)
    """

    def __init__(
        self,
        dtype="float32",
        custom_op_name="",
        compute_dtype=None,
        quant_min=None,
        quant_max=None,
        qscheme=None,
        eps=None,
        is_dynamic=False,
    ):
        place = type(self).__name__
        if compute_dtype is not None:
            raise UnsupportedError(f"{place}: compute_dtype={compute_dtype!r} is deprecated and has no effect in PyTorch; give is_dynamic=True")
        super().__init__(known_dtype(dtype, PASSED_DTYPES, place), is_dynamic)
        self.qscheme = choose(place, "qscheme", plain_name(qscheme or "per_tensor_affine"), QSCHEMES)
        self.quant_min, self.quant_max = quant_min, quant_max
        self.eps = EPS if eps is None else eps
        self.custom_op = custom_op_name
