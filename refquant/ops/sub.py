"""sub: the difference of two quantized tensors, and its ReLU."""

from refquant import numerics as profiles
from refquant.core.qtensor import QTensor
from refquant.errors import choose
from refquant.ops.fixed_sum import fixed_sum
from refquant.ops.pairwise import check_pair, of_pairs

__all__ = ["sub", "sub_reference"]


def _sub(a, b, out, numerics, activation, by_table):
    profile = profiles.get(numerics)
    place = f"sub[{profile.name}]"
    form = profile.section("sub", "sub")
    choose(place, "activation", activation, [None, "relu"])
    check_pair(a, b, out, place)
    function = lambda u, v: fixed_sum(form, a.qparams, b.qparams, out, u, v, activation, sign=-1)  # noqa: E731
    return QTensor(of_pairs(function, a, b, out.storage, by_table=by_table), out)


def sub(a, b, *, out, numerics="tflite_ref", activation=None):
    """Subtract a quantized tensor from another: ``round((sa · (a − za) − sb · (b − zb)) / sy) + zy``, by integer multipliers.

    Parameters
    ----------
    a, b : QTensor
        int8, per tensor, of shapes that broadcast.
    out : QParams
        int8.
    numerics : str or Numerics
        TensorFlow Lite's and XNNPACK's profiles.
    activation : {None, "relu"}

    Returns
    -------
    QTensor
        Channels last where both inputs are.

    Raises
    ------
    ShapeError
        Shapes that do not broadcast.
    UnsupportedError
        The engine has no such operator, or not of this dtype.

    Exactness
    ---------
    Bit-exact: the sum of the profile's ``sub`` form with the second multiplier negated. TensorFlow Lite rounds each of its three products
    twice, half away from zero, in the optimized resolver too, whose sum has a body of its own; XNNPACK rounds once, half up.

    Source
    ------
    TensorFlow Lite kernels/sub.cc; XNNPACK src/qs8-vadd, src/microparams-init.c.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> a = rq.QTensor(np.array([3, -128], np.int8), rq.QParams(0.5, 1, "int8"))
    >>> b = rq.QTensor(np.array([9, 127], np.int8), rq.QParams(0.25, 0, "int8"))
    >>> sub(a, b, out=rq.QParams(0.5, 0, "int8")).values.tolist(), sub(a, b, out=rq.QParams(0.5, 0, "int8"), numerics="xnnpack").values.tolist()
    ([-3, -128], [-2, -128])
    """
    return _sub(a, b, out, numerics, activation, True)


def sub_reference(a, b, *, out, numerics="tflite_ref", activation=None):
    """Same result as `sub`, without tables."""
    return _sub(a, b, out, numerics, activation, False)
