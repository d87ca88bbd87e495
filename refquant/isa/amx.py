"""The tile products of AMX-INT8: 16 × 16 sums of 64 products each, one instruction.

    a      16 rows x 64 bytes     row m: activations of row m, k = 0 … 63
    b      16 rows x 64 bytes     row r: bytes 4n … 4n+3 are the weights b[4r … 4r+3, n]      (see `tile_layout`)
    c      16 rows x 16 lanes     c[m, n] += Σ_k a[m, k] * b[k, n]

The tile configuration (LDTILECFG) gives each tile its rows and its bytes a row, `colsb`. A product reads only what is
configured, and sets everything in `c` outside of its configuration to zero.

Source: Intel SDM volume 2, TDPBSSD/TDPBSUD/TDPBUSD/TDPBUUD, and chapter "Intel AMX" for the configuration.
"""

from typing import NamedTuple

import numpy as np

from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.isa.registers import TYPES, widen, wrap_to

__all__ = ["TileShape", "FULL", "tile_layout", "tdpbusd", "tdpbssd", "tdpbsud", "tdpbuud"]

ROWS, BYTES = 16, 64


class TileShape(NamedTuple):
    """The configuration of one tile.

    Attributes
    ----------
    rows : int
        1 … 16.
    colsb : int
        Bytes a row, 4 … 64 in steps of 4.
    """

    rows: int
    colsb: int


FULL = TileShape(ROWS, BYTES)


def tile_layout(b):
    """Lay a (K, N) block of weights out as the second factor of a tile product.

    Parameters
    ----------
    b : ndarray of 8 bits, (..., K, N)
        K ≤ 64, N ≤ 16.

    Returns
    -------
    ndarray of the same dtype, (..., 16, 64)
        Zero where `b` ends.

    Examples
    --------
    >>> tile_layout(np.arange(8, dtype=np.int8).reshape(4, 2))[0, :8].tolist()
    [0, 2, 4, 6, 1, 3, 5, 7]
    """
    k, n = b.shape[-2:]
    if b.itemsize != 1 or k > BYTES or n > ROWS:
        raise ShapeError(f"tile_layout: b has shape {b.shape} and {b.dtype}; it must be 8 bits wide and at most 64 by 16, cut it into blocks")
    padded = np.zeros((*b.shape[:-2], BYTES, ROWS), b.dtype)
    padded[..., :k, :n] = b
    fours = padded.reshape(*b.shape[:-2], ROWS, 4, ROWS)
    return np.swapaxes(fours, -1, -2).reshape(*b.shape[:-2], ROWS, BYTES)


def _check_shapes(place, shapes):
    c, a, b = (TileShape(*s) for s in shapes)
    for name, s in (("c", c), ("a", a), ("b", b)):
        if not (1 <= s.rows <= ROWS and 4 <= s.colsb <= BYTES and s.colsb % 4 == 0):
            raise RangeError(f"{place}: {name} is configured as rows={s.rows}, colsb={s.colsb}; rows must be 1 to 16 and colsb 4, 8, … 64")
    if c.rows != a.rows or c.colsb != b.colsb or a.colsb != 4 * b.rows:
        raise ShapeError(
            f"{place}: c {tuple(c)}, a {tuple(a)} and b {tuple(b)} (rows, colsb) do not fit; the processor raises #UD unless"
            " c.rows == a.rows, c.colsb == b.colsb and a.colsb == 4 * b.rows"
        )
    return c, a, b


def _tile(place, value, name, type_name):
    value = np.asarray(value)
    lanes = BYTES // TYPES[type_name].itemsize
    if value.dtype != TYPES[type_name]:
        raise ArgumentError(f"{place}: {name} has lanes of {value.dtype} but must have {type_name}; convert or view the array")
    if value.shape[-2:] != (ROWS, lanes):
        raise ShapeError(f"{place}: {name} has shape {value.shape} but a tile is (..., {ROWS}, {lanes}); pad it")
    return value


def _product(place, c, a, b, types, shapes):
    cs, as_, bs = _check_shapes(place, shapes)
    c, a, b = (_tile(place, v, name, t) for v, name, t in zip((c, a, b), "cab", types))
    lead = np.broadcast_shapes(c.shape[:-2], a.shape[:-2], b.shape[:-2])
    out = np.zeros((*lead, ROWS, ROWS), c.dtype)
    m, n = cs.rows, cs.colsb // 4
    wide_c, wide_a, wide_b = widen(c[..., :m, :n], a[..., :m, : as_.colsb], b[..., : bs.rows, : bs.colsb])
    by_k = np.swapaxes(wide_b.reshape(*b.shape[:-2], bs.rows, n, 4), -1, -2).reshape(*b.shape[:-2], 4 * bs.rows, n)
    out[..., :m, :n] = wrap_to(wide_c + wide_a @ by_k, c.dtype)
    return out


def tdpbusd(c, a, b, shapes=(FULL, FULL, FULL)):
    """Multiply a tile of unsigned by a tile of signed bytes and add to a tile of 32-bit lanes, modulo 2**32.

    Parameters
    ----------
    c : ndarray of int32, (..., 16, 16)
    a : ndarray of uint8, (..., 16, 64)
    b : ndarray of int8, (..., 16, 64)
        In the order of `tile_layout`.
    shapes : three TileShape
        Configuration of c, a and b.

    Returns
    -------
    ndarray of int32, (..., 16, 16)
        Zero outside of the configuration of c.

    Raises
    ------
    ShapeError
        Configurations for which the processor raises #UD.

    Exactness
    ---------
    Exact modulo 2**32.

    Examples
    --------
    >>> a, b = np.full((16, 64), 255, np.uint8), np.full((16, 64), 127, np.int8)
    >>> int(tdpbusd(np.zeros((16, 16), np.int32), a, b)[15, 15]), 64 * 255 * 127
    (2072640, 2072640)
    """
    return _product("tdpbusd", c, a, b, ("s32", "u8", "s8"), shapes)


def tdpbssd(c, a, b, shapes=(FULL, FULL, FULL)):
    """`tdpbusd` for signed and signed bytes.

    Examples
    --------
    >>> a, b = np.full((16, 64), -128, np.int8), np.full((16, 64), -128, np.int8)
    >>> int(tdpbssd(np.zeros((16, 16), np.int32), a, b)[0, 0])
    1048576
    """
    return _product("tdpbssd", c, a, b, ("s32", "s8", "s8"), shapes)


def tdpbsud(c, a, b, shapes=(FULL, FULL, FULL)):
    """`tdpbusd` for signed `a` and unsigned `b`.

    Examples
    --------
    >>> a, b = np.full((16, 64), -1, np.int8), np.full((16, 64), 255, np.uint8)
    >>> int(tdpbsud(np.zeros((16, 16), np.int32), a, b)[0, 0])
    -16320
    """
    return _product("tdpbsud", c, a, b, ("s32", "s8", "u8"), shapes)


def tdpbuud(c, a, b, shapes=(FULL, FULL, FULL)):
    """`tdpbusd` for unsigned bytes, accumulated in uint32.

    Examples
    --------
    >>> a, b = np.full((16, 64), 255, np.uint8), np.full((16, 64), 255, np.uint8)
    >>> int(tdpbuud(np.zeros((16, 16), np.uint32), a, b)[0, 0])
    4161600
    """
    return _product("tdpbuud", c, a, b, ("u32", "u8", "u8"), shapes)
