"""quantize_dynamic: codes and parameters from the data at hand."""

from refquant.ops.choose_qparams import choose_qparams
from refquant.ops.quantize import quantize

__all__ = ["quantize_dynamic"]


def quantize_dynamic(x, *, numerics="fbgemm", dtype="uint8", symmetric=False, reduce_range=False):
    """Choose parameters from the data and quantize them: ``torch.quantize_per_tensor_dynamic``, ONNX's DynamicQuantizeLinear.

    Parameters
    ----------
    x : array_like of float
    numerics : str or Numerics
    dtype, symmetric, reduce_range
        As for `choose_qparams`.

    Returns
    -------
    QTensor

    Exactness
    ---------
    Bit-exact: `choose_qparams`, then `quantize`.

    Examples
    --------
    >>> import numpy as np
    >>> q = quantize_dynamic(np.float32([-1, 0, 3]), numerics="onnxruntime")
    >>> q.values, q.qparams.zero_point
    (array([  0,  64, 255], dtype=uint8), 64)
    """
    return quantize(x, choose_qparams(x, numerics=numerics, dtype=dtype, symmetric=symmetric, reduce_range=reduce_range), numerics=numerics)
