"""reshape and flatten: codes keep their parameters."""

import numpy as np

from refquant.core.arguments import as_integer
from refquant.core.qtensor import QTensor
from refquant.errors import ShapeError
from refquant.ops.arguments import check_qtensor

__all__ = ["reshape", "flatten"]


def reshape(x, shape):
    """Give a quantized tensor another shape; the logical order of elements (N, C, H, W) stays, whatever the strides.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.zeros((2, 3, 4), np.uint8), rq.QParams(1.0, 0, "uint8"))
    >>> reshape(x, (2, -1)).shape
    (2, 12)
    """
    check_qtensor(x, "x", "reshape")
    try:
        return QTensor(np.reshape(x.values, shape), x.qparams)
    except (TypeError, ValueError):
        raise ShapeError(f"reshape: x has shape {x.shape} ({x.size} elements), which cannot become {shape}; give a tuple of integers, one of which may be -1") from None


def flatten(x, start_dim=1):
    """Merge all axes from `start_dim` on into one, as ``torch.flatten`` does.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> flatten(rq.QTensor(np.zeros((2, 3, 4), np.uint8), rq.QParams(1.0, 0, "uint8"))).shape
    (2, 12)
    """
    check_qtensor(x, "x", "flatten")
    if not 0 <= as_integer(start_dim, "start_dim", "flatten") <= x.ndim:
        raise ShapeError(f"flatten: start_dim={start_dim} but x has shape {x.shape}; choose 0 … {x.ndim}")
    merged = int(np.prod(x.shape[start_dim:], dtype=np.int64))
    return reshape(x, (*x.shape[:start_dim], merged))
