"""Registers as arrays: the last axis holds the lanes of one register, every axis before it counts registers.

    dtype    lanes in 128, 256 and 512 bits
    8 bit    16, 32, 64
    16 bit    8, 16, 32
    32 bit    4,  8, 16

Lane 0 is the lowest, as in memory on a little-endian machine, so that a register is what the instruction would load
from the array's bytes.
"""

import numpy as np

from refquant.core.wrap import saturate
from refquant.errors import ArgumentError, ShapeError

__all__ = ["TYPES", "X86", "NEON", "registers", "widen", "wrap_to", "saturate_to", "in_groups"]

TYPES = {
    "u8": np.dtype(np.uint8), "s8": np.dtype(np.int8), "u16": np.dtype(np.uint16), "s16": np.dtype(np.int16),
    "u32": np.dtype(np.uint32), "s32": np.dtype(np.int32), "s64": np.dtype(np.int64), "f32": np.dtype(np.float32),
}  # fmt: skip
X86 = (128, 256, 512)
NEON = (64, 128)


def registers(place, widths, **operands):
    """Check that operands are whole registers of one width and of their types.

    Parameters
    ----------
    place : str
        The instruction, for messages.
    widths : tuple of int
        The register widths that exist, in bits.
    **operands : (array, str)
        Name, value and type; ``"s16/s32"`` allows either.

    Returns
    -------
    list of ndarray

    Raises
    ------
    ArgumentError
        A lane type that the instruction does not take.
    ShapeError
        Not a whole register, or registers of different widths.

    Examples
    --------
    >>> registers("f", X86, a=(np.zeros((5, 16), np.uint8), "u8"))[0].shape
    (5, 16)
    """
    arrays, first = [], None
    for name, (value, types) in operands.items():
        value = np.asarray(value)
        if value.dtype not in [TYPES[t] for t in types.split("/")]:
            raise ArgumentError(f"{place}: {name} has lanes of {value.dtype} but must have {types}; convert or view the array")
        bits = 8 * value.itemsize * value.shape[-1] if value.ndim else 0
        if bits not in widths:
            raise ShapeError(
                f"{place}: {name} of shape {value.shape} and {value.dtype} is {bits} bits wide; the last axis must fill one register"
                f" of {' or '.join(map(str, widths))} bits"
            )
        first = first or (name, bits)
        if bits != first[1]:
            raise ShapeError(f"{place}: {first[0]} is {first[1]} bits wide but {name} {bits}; give registers of one width")
        arrays.append(value)
    return arrays


def widen(*arrays):
    """Return the lanes as int64, sign- or zero-extended by their own type."""
    return [a.astype(np.int64) for a in arrays]


def wrap_to(x, dtype):
    """Keep the low bits of integers: the result of an instruction that overflows silently.

    Examples
    --------
    >>> wrap_to(np.array([32768, -32769]), np.int16)
    array([-32768,  32767], dtype=int16)
    """
    dtype = np.dtype(dtype)
    bits = 8 * dtype.itemsize
    low = np.asarray(x, np.int64).view(np.uint64) & np.uint64(2**bits - 1)
    return low.astype(f"u{dtype.itemsize}").view(dtype)


def saturate_to(x, dtype):
    """Clamp integers to the range of `dtype` and convert them.

    Examples
    --------
    >>> saturate_to(np.array([300, -300]), np.uint8)
    array([255,   0], dtype=uint8)
    """
    info = np.iinfo(dtype)
    return saturate(np.asarray(x, np.int64), int(info.min), int(info.max)).astype(dtype)


def in_groups(a, size):
    """Split each register into groups of neighbouring lanes: (..., lanes) becomes (..., lanes / size, size)."""
    return a.reshape(*a.shape[:-1], a.shape[-1] // size, size)
