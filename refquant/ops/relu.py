"""relu: on codes it is a maximum with the zero point, in every engine."""

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.ops.arguments import check_qtensor

__all__ = ["relu"]


def relu(x, *, numerics="fbgemm"):
    """Replace negative numbers by 0: ``max(code, zero_point)``.

    Parameters
    ----------
    x : QTensor
    numerics : str or Numerics
        All profiles agree.

    Returns
    -------
    QTensor
        With the parameters and the memory format of `x`.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> relu(rq.QTensor(np.array([3, 9], np.uint8), rq.QParams(1.0, 5, "uint8"))).values
    array([5, 9], dtype=uint8)
    """
    check_qtensor(x, "x", "relu")
    return QTensor(np.maximum(x.values, x.values.dtype.type(x.qparams.zero_point)), x.qparams)
