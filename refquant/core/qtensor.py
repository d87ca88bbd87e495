"""A quantized tensor: integer codes and the parameters that give them meaning."""

from refquant.core.arguments import as_array
from refquant.core.qparams import QParams
from refquant.errors import ArgumentError, RangeError, ShapeError

__all__ = ["QTensor"]


class QTensor:
    """Integer codes with their quantization parameters.

    The strides of `values` are kept, and mean what they mean in PyTorch: a four-dimensional array
    whose channels lie densest is *channels last*, and some engines round such tensors in another way.

    Parameters
    ----------
    values : array_like of int
        The codes. An array of the parameters' dtype is taken as it is, without a copy.
    qparams : QParams

    Raises
    ------
    ArgumentError
        Values of another dtype.
    RangeError
        A code outside of a dtype of fewer bits than its storage.
    ShapeError
        Per-channel parameters that do not fit the axis.

    Examples
    --------
    >>> import numpy as np
    >>> q = QTensor(np.array([[0, 3]], np.uint8), QParams(0.5, 1, "uint8"))
    >>> q.shape, q.dtype
    ((1, 2), 'uint8')
    """

    __slots__ = ("values", "qparams")

    def __init__(self, values, qparams):
        if not isinstance(qparams, QParams):
            raise ArgumentError(f"QTensor: qparams must be a QParams, not {type(qparams).__name__}; build one with refquant.QParams")
        values = as_array(values, "values", "QTensor")
        if values.dtype != qparams.storage:
            raise ArgumentError(
                f"QTensor: values have dtype {values.dtype} but the parameters say {qparams.dtype}"
                f" (stored as {qparams.storage}); convert the values, or correct the dtype"
            )
        if qparams.per_channel:
            _check_axis(values.shape, qparams)
        bits = 8 * values.dtype.itemsize
        if qparams._type.qmax - qparams._type.qmin + 1 < 2**bits and values.size:
            low, high = int(values.min()), int(values.max())
            if low < qparams._type.qmin or high > qparams._type.qmax:
                raise RangeError(f"QTensor: codes span [{low}, {high}] but {qparams.dtype} holds [{qparams._type.qmin}, {qparams._type.qmax}]; mask the spare bits")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "qparams", qparams)

    def __setattr__(self, name, value):
        raise AttributeError(f"QTensor is immutable; build a new one instead of setting {name!r}")

    shape = property(lambda self: self.values.shape, doc="The shape of the codes.")
    ndim = property(lambda self: self.values.ndim, doc="The number of dimensions.")
    size = property(lambda self: self.values.size, doc="The number of codes.")
    dtype = property(lambda self: self.qparams.dtype, doc="The name of the quantized dtype.")

    def __reduce__(self):
        return QTensor, (self.values, self.qparams)

    def __repr__(self):
        return f"QTensor(shape={self.shape}, {self.qparams!r})"


def _check_axis(shape, qparams):
    if qparams.axis >= len(shape):
        raise ShapeError(f"QTensor: axis={qparams.axis} but the values have shape {shape}; choose an axis below {len(shape)}")
    if len(qparams.scale) != shape[qparams.axis]:
        raise ShapeError(
            f"QTensor: {len(qparams.scale)} scales along axis {qparams.axis} but the values have shape {shape};"
            f" give {shape[qparams.axis]} scales"
        )
