"""The right-hand side of a product, packed once and used often.

    plain       [N][K]                                one column of B after the other
    the tiles   [N / 64][K / depth][64][depth]        see `refquant.kernels.tile`

uint8 codes are stored as int8, 128 less; the products account for it in the zero point.
"""

from typing import NamedTuple

import numpy as np

from refquant.kernels.columns import column_sums, pack_columns, signed_codes
from refquant.kernels.signature import as_input
from refquant.kernels.tile import PLAIN, choose_rung

__all__ = ["PackedB", "PackedConv", "pack_b"]


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
    bundles : dict
        Columns in bundles, see `refquant.kernels.bundles`, by the identity of the columns they are made of.
    """

    data: np.ndarray
    k: int
    n: int
    sums: np.ndarray
    offset: int
    rung: str
    no_zeros: np.ndarray
    bundles: dict


class PackedConv(NamedTuple):
    """Packed weights of a convolution; build them with `refquant.kernels.conv.pack_conv`.

    Attributes
    ----------
    codes : ndarray of int8, (OC, *kernel, IC / groups), read-only
    shape : tuple of int
        (OC, IC / groups, *kernel)
    groups : int
    sums : ndarray of int32, (OC,), read-only
        Sums of the stored int8 codes.
    offset : int
        What was subtracted from each code: 128 for uint8, 0 for int8.
    rung : str
    no_zeros : ndarray of int32, (OC,), read-only
        Zeros.
    columns : dict
        Packed columns, by the number of groups that are one and of runs that a window is read in; for depthwise weights by the
        number of pixels in a cell.
    bundles : dict
        As in `PackedB`.
    """

    codes: np.ndarray
    shape: tuple
    groups: int
    sums: np.ndarray
    offset: int
    rung: str
    no_zeros: np.ndarray
    columns: dict
    bundles: dict

    @classmethod
    def of(cls, w, groups, rung=None):
        """The codes alone; columns are packed when a product first asks for them."""
        codes, offset = signed_codes(np.moveaxis(w, 1, -1))
        sums = column_sums(codes.reshape(w.shape[0], -1))
        chosen = choose_rung(rung)
        return cls(
            as_input(codes), w.shape, int(groups), as_input(sums), offset, PLAIN if chosen is None else chosen.name,
            as_input(np.zeros_like(sums)), {}, {},
        )  # fmt: skip


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
    sums = column_sums(codes)
    chosen = choose_rung(rung)
    data = codes if chosen is None else pack_columns(codes[None, :, None, :], chosen)
    return PackedB(
        as_input(data), *b.shape, as_input(sums), offset, PLAIN if chosen is None else chosen.name,
        as_input(np.zeros_like(sums)), {},
    )  # fmt: skip
