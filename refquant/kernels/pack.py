"""The right-hand matrix of a product, packed once and used often.

    portable    [N][K]           one column of B after the other, each contiguous: a dot product reads two straight lines

uint8 codes are stored as int8, 128 less; the products account for it in the zero point.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["PackedB", "pack_b"]


class PackedB(NamedTuple):
    """A packed (K, N) matrix of 8-bit codes; build it with `pack_b`.

    Attributes
    ----------
    data : ndarray of int8, read-only
    k, n : int
    sums : ndarray of int32, (N,), read-only
        Column sums of the stored int8 codes.
    offset : int
        What was subtracted from each code: 128 for uint8, 0 for int8.
    rung : str
        The kernel that the layout is made for.
    """

    data: np.ndarray
    k: int
    n: int
    sums: np.ndarray
    offset: int
    rung: str


def pack_b(b, rung=None):
    """Pack the right-hand matrix of a product.

    Parameters
    ----------
    b : ndarray of int8 or uint8, (K, N)
        Any strides; weights (OC, K) are given as ``w.T``.
    rung : str, optional
        A kernel by name, for tests; the best that this processor has without it.

    Returns
    -------
    PackedB
        A copy: later writes to `b` do not reach it.
    """
    k, n = b.shape
    offset = 128 if b.dtype == np.uint8 else 0
    codes = np.array(b.T, order="C", copy=True)
    if offset:
        codes ^= 0x80
    data = codes.view(np.int8)
    sums = data.sum(axis=1, dtype=np.int32)
    for array in (data, sums):
        array.setflags(write=False)
    return PackedB(data, k, n, sums, offset, "portable")
