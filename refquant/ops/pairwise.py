"""Functions of two int8 codes: each output depends on its two codes alone, so that operands broadcast and large tensors look pairs up."""

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.errors import UnsupportedError
from refquant.ops.add import memory_order_of_pair
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor
from refquant.ops.broadcast import broadcast_shape, spread
from refquant.ops.lookup import pair_table, take_pairs

__all__ = ["check_pair", "of_pairs"]

# A table of all pairs has 65,536 entries.
_LARGE = 4 * 65536


def check_pair(a, b, out, place):
    """Refuse operands that are no int8 tensors, output parameters of another dtype, and shapes that do not broadcast."""
    for name, q in (("a", a), ("b", b)):
        check_eight_bit(check_qtensor(q, name, place), name, place)
    kinds = {"a": a.dtype, "b": b.dtype, **({} if out is None else {"out": check_out(out, place).dtype})}
    other = next((name for name, dtype in kinds.items() if dtype != "int8"), None)
    if other is not None:
        raise UnsupportedError(f"{place}: {other} is {kinds[other]}, but the profile describes int8 kernels; use int8")
    broadcast_shape(place, a=a, b=b)


def of_pairs(function, a, b, storage, *, by_table):
    """Return ``function(codes of a, codes of b)``, channels last where both are; of large tensors by a table if asked for.

    Parameters
    ----------
    function : callable
        Of two flat arrays of codes.
    a, b : QTensor
        That broadcast.
    storage : dtype
        Of the result.
    by_table : bool

    Returns
    -------
    ndarray
    """
    if a.shape != b.shape:
        shape = np.broadcast_shapes(a.shape, b.shape)
        a, b = (QTensor(spread(q.values, shape), q.qparams) for q in (a, b))
    u, v, back = memory_order_of_pair(a, b)
    if by_table and u.size >= _LARGE:
        return back(take_pairs(pair_table(function, u.dtype, v.dtype, storage), u, v))
    return back(function(u, v).astype(storage))
