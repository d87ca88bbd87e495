"""squared_difference: the square of the difference of two quantized tensors."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.epilogue import gemmlowp_multiply, half_up_multiply
from refquant.core.qtensor import QTensor
from refquant.core.wrap import saturate
from refquant.errors import UnsupportedError
from refquant.ops.output_stage import quantized_multiplier
from refquant.ops.pairwise import check_pair, of_pairs

__all__ = ["squared_difference", "squared_difference_reference"]

# Bits by which codes are shifted left before they are scaled.
_BITS = 7


def _squared_difference(a, b, out, numerics, by_table):
    profile = profiles.get(numerics)
    place = f"squared_difference[{profile.name}]"
    form = profile.section("squared_difference", "squared_difference")
    check_pair(a, b, out, place)
    sa, sb, so = (np.float64(np.float32(q.scale)) for q in (a.qparams, b.qparams, out))
    twice = 2 * max(sa, sb)
    last = twice * twice / (2.0 ** (2 * _BITS) * so)
    if last >= 1:
        raise UnsupportedError(f"{place}: (2 * max(a.scale, b.scale))**2 / 2**14 is {last:g} times out.scale, but the kernel's multiplier must be below 1; use a larger out.scale")
    multiply = gemmlowp_multiply if form.multiply == "gemmlowp" else half_up_multiply
    first, second, last = (quantized_multiplier(m) for m in (sa / twice, sb / twice, last))

    def function(u, v):
        u, v = (multiply((c.astype(np.int64) - q.zero_point) << _BITS, *m) for c, q, m in ((u, a.qparams, first), (v, b.qparams, second)))
        return saturate(multiply((u - v) ** 2, *last) + out.zero_point, out.qmin, out.qmax)

    return QTensor(of_pairs(function, a, b, out.storage, by_table=by_table), out)


def squared_difference(a, b, *, out, numerics="tflite_ref"):
    """Square the difference of two quantized tensors: ``round((sa · (a − za) − sb · (b − zb))² / sy) + zy``, by integer multipliers.

    Parameters
    ----------
    a, b : QTensor
        int8, per tensor, of shapes that broadcast.
    out : QParams
        int8.
    numerics : str or Numerics
        TensorFlow Lite's profiles.

    Returns
    -------
    QTensor
        Channels last where both inputs are.

    Raises
    ------
    ShapeError
        Shapes that do not broadcast.
    UnsupportedError
        The engine has no such operator, or not of this dtype, or refuses the scales: ``(2 · max(sa, sb))² / 2¹⁴`` must be below ``sy``.

    Exactness
    ---------
    Bit-exact. Both inputs, shifted left by 7 bits, become multiples of ``2 · max(sa, sb) / 2⁷``, the difference is squared as an integer, the
    square scaled back; each product with a multiplier is rounded twice, half away from zero.

    Source
    ------
    TensorFlow Lite kernels/squared_difference.cc, one kernel for all resolvers.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> a = rq.QTensor(np.array([3, -9], np.int8), rq.QParams(0.5, 1, "int8"))
    >>> b = rq.QTensor(np.array([9, 9], np.int8), rq.QParams(0.25, 0, "int8"))
    >>> squared_difference(a, b, out=rq.QParams(0.5, 0, "int8")).values
    array([  3, 105], dtype=int8)
    """
    return _squared_difference(a, b, out, numerics, True)


def squared_difference_reference(a, b, *, out, numerics="tflite_ref"):
    """Same result as `squared_difference`, without tables."""
    return _squared_difference(a, b, out, numerics, False)
