"""The ARM instructions of INT8 inference: dot products, 2 × 2 matrix products, and the steps of fixed-point requantization.

Each function is one AArch64 instruction on whole registers of 64 or 128 bits; the matrix products exist for 128 bits alone.

Source: Arm Architecture Reference Manual for A-profile architecture, "Operation" of SDOT, UDOT, USDOT (vector), SMMLA, UMMLA,
USMMLA (vector), SQRDMULH (vector), SRSHL, SQXTN and SQADD.
"""

import numpy as np

from refquant.core.rounding import Round, round_shift
from refquant.isa.registers import NEON, TYPES, in_groups, registers, saturate_to, widen, wrap_to

__all__ = ["sdot", "udot", "usdot", "smmla", "ummla", "usmmla", "sqrdmulh", "srshl", "sqxtn", "sqadd"]


def _dot(place, acc, a, b, types):
    acc, a, b = registers(place, NEON, acc=(acc, types[0]), a=(a, types[1]), b=(b, types[2]))
    acc, a, b = widen(acc, a, b)
    return wrap_to(acc + in_groups(a * b, 4).sum(axis=-1), TYPES[types[0]])


def sdot(acc, a, b):
    """Add four products of signed bytes to each 32-bit lane, modulo 2**32.

    Parameters
    ----------
    acc : ndarray of int32, (..., n)
    a, b : ndarray of int8, (..., 4 n)

    Returns
    -------
    ndarray of int32, (..., n)

    Examples
    --------
    >>> sdot(np.zeros(4, np.int32), np.full(16, -128, np.int8), np.full(16, -128, np.int8))[0]
    np.int32(65536)
    """
    return _dot("sdot", acc, a, b, ("s32", "s8", "s8"))


def udot(acc, a, b):
    """Add four products of unsigned bytes to each 32-bit lane, modulo 2**32.

    Parameters
    ----------
    acc : ndarray of uint32, (..., n)
    a, b : ndarray of uint8, (..., 4 n)

    Returns
    -------
    ndarray of uint32, (..., n)

    Examples
    --------
    >>> udot(np.zeros(4, np.uint32), np.full(16, 255, np.uint8), np.full(16, 255, np.uint8))[0]
    np.uint32(260100)
    """
    return _dot("udot", acc, a, b, ("u32", "u8", "u8"))


def usdot(acc, a, b):
    """Add four products of unsigned and signed bytes to each 32-bit lane, modulo 2**32.

    Parameters
    ----------
    acc : ndarray of int32, (..., n)
    a : ndarray of uint8, (..., 4 n)
    b : ndarray of int8, (..., 4 n)

    Returns
    -------
    ndarray of int32, (..., n)

    Examples
    --------
    >>> usdot(np.zeros(4, np.int32), np.full(16, 255, np.uint8), np.full(16, -128, np.int8))[0]
    np.int32(-130560)
    """
    return _dot("usdot", acc, a, b, ("s32", "u8", "s8"))


def _matrix(place, acc, a, b, types):
    acc, a, b = registers(place, (128,), acc=(acc, types[0]), a=(a, types[1]), b=(b, types[2]))
    acc, a, b = widen(acc, a, b)
    rows, columns = in_groups(a, 8), in_groups(b, 8)
    product = rows @ np.swapaxes(columns, -1, -2)
    return wrap_to(acc + product.reshape(*product.shape[:-2], 4), TYPES[types[0]])


def smmla(acc, a, b):
    """Multiply 2 × 8 by 8 × 2 signed bytes and add to 2 × 2 lanes of 32 bits, modulo 2**32.

    ``out[2i+j] = acc[2i+j] + Σ_{k<8} a[8i+k] * b[8j+k]``: `b` holds its columns one after the other.

    Parameters
    ----------
    acc : ndarray of int32, (..., 4)
    a, b : ndarray of int8, (..., 16)

    Returns
    -------
    ndarray of int32, (..., 4)

    Examples
    --------
    >>> a = np.repeat(np.array([1, 2], np.int8), 8)
    >>> smmla(np.zeros(4, np.int32), a, np.repeat(np.array([10, -10], np.int8), 8)).tolist()
    [80, -80, 160, -160]
    """
    return _matrix("smmla", acc, a, b, ("s32", "s8", "s8"))


def ummla(acc, a, b):
    """`smmla` for unsigned bytes, accumulated in uint32.

    Examples
    --------
    >>> ummla(np.zeros(4, np.uint32), np.full(16, 255, np.uint8), np.full(16, 255, np.uint8))[0]
    np.uint32(520200)
    """
    return _matrix("ummla", acc, a, b, ("u32", "u8", "u8"))


def usmmla(acc, a, b):
    """`smmla` for unsigned `a` and signed `b`.

    Examples
    --------
    >>> usmmla(np.zeros(4, np.int32), np.full(16, 255, np.uint8), np.full(16, -128, np.int8))[0]
    np.int32(-261120)
    """
    return _matrix("usmmla", acc, a, b, ("s32", "u8", "s8"))


def sqrdmulh(a, b):
    """Multiply signed fractions: the high half of the doubled product, rounded half up, saturated.

    ``out[i] = saturate((2 * a[i] * b[i] + 2**(w-1)) >> w)`` on lanes of w bits

    Parameters
    ----------
    a, b : ndarray of int16 or int32, (..., n)

    Returns
    -------
    ndarray of the same dtype, (..., n)

    Exactness
    ---------
    One rounding of ``a * b / 2**(w-1)``, ties up. Only the square of the least number saturates.

    Examples
    --------
    >>> low = np.full(4, -(2**31), np.int32)
    >>> sqrdmulh(low, low)[0], sqrdmulh(np.full(4, -1, np.int32), np.full(4, 2**30, np.int32))[0]
    (np.int32(2147483647), np.int32(0))
    """
    a, b = registers("sqrdmulh", NEON, a=(a, "s16/s32"), b=(b, f"s{8 * np.asarray(a).itemsize}"))
    bits, dtype = 8 * a.itemsize, a.dtype
    a, b = widen(a, b)
    return saturate_to(round_shift(a * b, bits - 1, Round.HALF_UP), dtype)


def srshl(a, shift):
    """Shift signed lanes left, or right with rounding.

    Each lane's shift is the signed low byte of the lane of `shift`: positive shifts left and drops the upper bits, negative
    divides by a power of two and rounds half up.

    Parameters
    ----------
    a : ndarray of int8, int16 or int32, (..., n)
    shift : ndarray of the same dtype, (..., n)

    Returns
    -------
    ndarray of the same dtype, (..., n)

    Exactness
    ---------
    One rounding, ties up; a shift right by the lane's width or more gives 0.

    Examples
    --------
    >>> srshl(np.array([5, -5, 5, 6], np.int32), np.array([-1, -1, 2, -2], np.int32)).tolist()
    [3, -2, 20, 2]
    """
    a, shift = registers("srshl", NEON, a=(a, "s8/s16/s32"), shift=(shift, f"s{8 * np.asarray(a).itemsize}"))
    bits, dtype = 8 * a.itemsize, a.dtype
    a, shift = widen(a, wrap_to(shift, np.int8))
    left = a << np.clip(shift, 0, 31)
    left = np.where(shift >= bits, 0, left)
    right = round_shift(a, np.clip(-shift, 0, 62), Round.HALF_UP)
    return wrap_to(np.where(shift >= 0, left, right), dtype)


def sqxtn(a):
    """Narrow signed lanes to half their width, with saturation.

    Parameters
    ----------
    a : ndarray of int16, int32 or int64, (..., n)
        A register of 128 bits.

    Returns
    -------
    ndarray of int8, int16 or int32, (..., n)
        A register of 64 bits.

    Examples
    --------
    >>> sqxtn(np.array([40000, -40000, 7, 0], np.int32)).tolist()
    [32767, -32768, 7, 0]
    """
    (a,) = registers("sqxtn", (128,), a=(a, "s16/s32/s64"))
    return saturate_to(a, np.dtype(f"i{a.itemsize // 2}"))


def sqadd(a, b):
    """Add signed lanes, with saturation.

    Parameters
    ----------
    a, b : ndarray of int8, int16 or int32, (..., n)

    Returns
    -------
    ndarray of the same dtype, (..., n)

    Examples
    --------
    >>> sqadd(np.full(16, 100, np.int8), np.full(16, 100, np.int8))[0]
    np.int8(127)
    """
    a, b = registers("sqadd", NEON, a=(a, "s8/s16/s32"), b=(b, f"s{8 * np.asarray(a).itemsize}"))
    dtype = a.dtype
    a, b = widen(a, b)
    return saturate_to(a + b, dtype)
