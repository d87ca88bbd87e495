"""The right-hand matrix of a product, packed once and used often.

    plain       [N][K]                                one column of B after the other
    the tiles   [N / 64][K / depth][64][depth]        see `refquant.kernels.tile`

uint8 codes are stored as int8, 128 less; the products account for it in the zero point.
"""

from typing import NamedTuple

import numpy as np

from refquant.kernels.product import pack_columns
from refquant.kernels.signature import as_input
from refquant.kernels.tile import PLAIN, best_rung, rung_named

__all__ = ["PackedB", "pack_b", "signed_codes"]


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
    no_zeros : ndarray of int32, (N,), read-only
        Zeros.
    groups : int
        1.
    """

    data: np.ndarray
    k: int
    n: int
    sums: np.ndarray
    offset: int
    rung: str
    no_zeros: np.ndarray
    groups: int = 1


def signed_codes(codes):
    """Return 8-bit codes as a contiguous int8 array of its own, and what was subtracted from each."""
    copy = np.array(codes, order="C", copy=True)
    if copy.dtype == np.int8:
        return copy, 0
    copy ^= 0x80
    return copy.view(np.int8), 128


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
    codes, offset = signed_codes(b.T)
    sums = codes.sum(axis=1, dtype=np.int32)
    chosen = best_rung() if rung is None else rung_named(rung)
    data = codes if chosen is None else pack_columns(codes[None, :, None, :], chosen)
    return PackedB(
        as_input(data), *b.shape, as_input(sums), offset, PLAIN if chosen is None else chosen.name,
        as_input(np.zeros_like(sums)),
    )  # fmt: skip
