"""Packed weights: laid out once for the kernels, reused by every call."""

import numpy as np

from refquant.core.arguments import as_array, as_integer
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError
from refquant.kernels.conv import pack_conv
from refquant.kernels.pack import pack_b
from refquant.ops.memo import Memo

__all__ = ["PackedWeights", "pack_weights"]

_MOST_PLANS = 64


class PackedWeights:
    """Weights in the kernels' own layout; made by `pack_weights`, immutable.

    Attributes
    ----------
    values : ndarray
        The codes as they were given.
    qparams : QParams or None
        None for the integer operators.
    groups : int
    packed : object
        What the kernels read.
    transposed : bool
        Whether they are those of a transposed convolution.
    memo : Memo
        What operators have worked out for these weights.
    kept : dict
        What a variant such as ``qnnpack+stale_multipliers`` keeps of an earlier call; see `refquant.ops.kept`.
    """

    __slots__ = ("values", "qparams", "groups", "packed", "transposed", "_tensor", "memo", "kept")

    def __init__(self, values, qparams, groups, packed, transposed=False):
        tensor = None if qparams is None else QTensor(values, qparams)
        for name, value in zip(self.__slots__, (values, qparams, groups, packed, transposed, tensor, Memo(_MOST_PLANS), {})):
            object.__setattr__(self, name, value)

    def __setattr__(self, name, value):
        raise AttributeError(f"PackedWeights is immutable; pack anew instead of setting {name!r}")

    def __reduce__(self):
        """Copies are packed anew, for the processor that reads them."""
        w = self.values if self.qparams is None else QTensor(self.values, self.qparams)
        return _pack_again, (w, self.groups, self.transposed)

    shape = property(lambda self: self.values.shape, doc="The shape of the codes.")
    ndim = property(lambda self: self.values.ndim, doc="The number of dimensions.")
    dtype = property(lambda self: self.values.dtype.name, doc="The name of the dtype.")

    def __repr__(self):
        return f"PackedWeights(shape={self.shape}, dtype={self.dtype!r}, groups={self.groups})"


def is_reusable(x, w, bias):
    """Whether what is worked out for these arguments can be remembered: packed weights, codes, and a bias that is an array."""
    return isinstance(w, PackedWeights) and isinstance(x, QTensor) and (bias is None or isinstance(bias, np.ndarray))


def bias_key(bias):
    """Return what tells one bias from another: (objects, values). One that can still be changed is told by its numbers."""
    if bias is None or (not bias.flags.writeable and bias.flags.owndata):
        return (bias,), ()
    return (), (bias.dtype.str, bias.shape, bias.tobytes())


def pack_weights(w, *, groups=1, transposed=False):
    """Lay weights out for the kernels, to be used again and again.

    Parameters
    ----------
    w : QTensor or array_like of int8 or uint8
        A QTensor (OC, K) for `linear`, (OC, IC / groups, KH, KW) for `conv2d`, (IC, OC / groups, KH, KW) for `conv_transpose2d`;
        a plain array (K, N) for `matmul_integer`.
    groups : int
        Of a convolution.
    transposed : bool
        Whether `w` is meant for a transposed convolution.

    Returns
    -------
    PackedWeights
        Accepted wherever `w` (or `b`) is.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> b = rq.ops.pack_weights(np.eye(3, dtype=np.int8))
    >>> rq.ops.matmul_integer(np.array([[1, 2, 3]], np.uint8), b)
    array([[1, 2, 3]], dtype=int32)
    """
    if isinstance(w, PackedWeights):
        return w
    qparams = w.qparams if isinstance(w, QTensor) else None
    values = w.values if isinstance(w, QTensor) else as_array(w, "w", "pack_weights")
    groups = as_integer(groups, "groups", "pack_weights", least=1)
    if values.dtype not in (np.uint8, np.int8):
        raise ArgumentError(f"pack_weights: w has dtype {values.dtype} but kernels take int8 or uint8; convert the codes")
    if values.ndim < 2:
        raise ShapeError(f"pack_weights: w has shape {values.shape}; give at least two dimensions")
    if qparams is None:
        if values.ndim != 2:
            raise ShapeError(f"pack_weights: a plain array must be (K, N) but has shape {values.shape}; give a QTensor for convolutions")
        return PackedWeights(values, None, 1, pack_b(values))
    if values.ndim == 2:
        return PackedWeights(values, qparams, 1, pack_b(values.T))
    if transposed and values.shape[0] % groups:
        raise ShapeError(f"pack_weights: w has IC={values.shape[0]}, which is no multiple of groups={groups}; give (IC, OC / groups, kernel)")
    return PackedWeights(values, qparams, groups, pack_conv(flipped_weights(values, groups) if transposed else values, groups), transposed)


def _pack_again(w, groups, transposed):
    return pack_weights(w, groups=groups, transposed=transposed)


def flipped_weights(w, groups):
    """Return the weights (OC, IC / groups, kernel) of the convolution that a transposed one is, on an input with zeros in between."""
    ic, oc, *kernel = w.shape
    apart = w.reshape(groups, ic // groups, oc, *kernel)[(..., *(slice(None, None, -1) for _ in kernel))]
    return np.ascontiguousarray(np.swapaxes(apart, 1, 2)).reshape(groups * oc, ic // groups, *kernel)


def as_qtensor(w, name, place):
    """Return (QTensor, PackedWeights or None) of a weight argument."""
    if isinstance(w, PackedWeights):
        if not isinstance(w.qparams, QParams):
            raise ArgumentError(f"{place}: {name} was packed without parameters; pack a QTensor")
        return w._tensor, w
    return w, None
