"""quantize_dynamic: codes and parameters from the data at hand."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.core.wrap import saturate
from refquant.ops.choose_qparams import choose_qparams
from refquant.ops.quantize import quantize, real_array

__all__ = ["quantize_dynamic"]

_F = np.float32


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
    Bit-exact: `choose_qparams`, then `quantize`; OpenVINO has another order, see `refquant.numerics.special_forms.DynamicForm`.

    Examples
    --------
    >>> import numpy as np
    >>> q = quantize_dynamic(np.float32([-1, 0, 3]), numerics="onnxruntime")
    >>> q.values, q.qparams.zero_point
    (array([  0,  64, 255], dtype=uint8), 64)
    """
    qparams = choose_qparams(x, numerics=numerics, dtype=dtype, symmetric=symmetric, reduce_range=reduce_range)
    if getattr(profiles.get(numerics).dynamic, "parameters", "") == "span":
        return QTensor(_by_span(real_array(x, "quantize_dynamic"), qparams), qparams)
    return quantize(x, qparams, numerics=numerics)


def _by_span(x, qparams):
    """Codes by the width of the range: OpenVINO multiplies by 255 and by the inverse of the width."""
    width = max(x.max(), _F(0)) - min(x.min(), _F(0))
    codes = round_real((x * _F(255)) * (_F(1) / width), Round.HALF_EVEN).astype(np.int64) + qparams.zero_point
    return saturate(codes, qparams.qmin, qparams.qmax).astype(qparams.storage)
