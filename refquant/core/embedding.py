"""Tables of rows that have a scale and a bias of their own, and their bytes."""

from typing import NamedTuple

import numpy as np

__all__ = ["QuantizedEmbedding", "pack_embedding"]


class QuantizedEmbedding(NamedTuple):
    """A table of quantized rows: ``real = scale · code + bias``.

    Attributes
    ----------
    codes : ndarray of uint8, (R, D)
        One code a byte, whatever their bits.
    scale, bias : ndarray of float32, (R,)
        Values of float16 where codes have fewer than 8 bits.
    bits : int
        8, 4 or 2.
    """

    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    bits: int


def pack_embedding(table):
    """Return the bytes of a table as PyTorch lays them out: each row its codes, lowest bits first, then scale and bias.

    Parameters
    ----------
    table : QuantizedEmbedding

    Returns
    -------
    ndarray of uint8, (R, D · bits / 8 + 8) for 8 bits (float32 scale and bias), (R, D · bits / 8 + 4) for fewer (float16)

    Examples
    --------
    >>> pack_embedding(QuantizedEmbedding(np.uint8([[0, 15]]), np.float32([1]), np.float32([0]), 4))
    array([[240,   0,  60,   0,   0]], dtype=uint8)
    """
    per_byte = 8 // table.bits
    groups = table.codes.reshape(table.codes.shape[0], -1, per_byte)
    codes = (groups << (np.arange(per_byte, dtype=np.uint8) * np.uint8(table.bits))).sum(2, dtype=np.uint8)
    kind = np.float32 if table.bits == 8 else np.float16
    tail = np.stack([table.scale, table.bias], axis=1).astype(kind).view(np.uint8)
    return np.concatenate([codes, tail], axis=1)
