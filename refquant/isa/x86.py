"""The SSE, AVX2 and AVX-512 instructions of INT8 inference without VNNI: products, packs, conversion.

Each function is one instruction on whole registers of 128, 256 or 512 bits. The VEX and EVEX forms (`vp…`) and the
legacy SSE forms (`p…`) compute the same; the shorter name stands for all.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, "Operation" of each instruction.
"""

import numpy as np

from refquant.core.epilogue import to_int32
from refquant.core.rounding import Round, round_shift
from refquant.errors import choose
from refquant.isa.registers import X86, in_groups, registers, saturate_to, widen, wrap_to

__all__ = ["vpmaddubsw", "vpmaddwd", "vpaddd", "pmulhrsw", "packssdw", "packsswb", "packuswb", "cvtps2dq"]

_MXCSR = (Round.HALF_EVEN, Round.FLOOR, Round.CEIL, Round.TRUNCATE)


def vpmaddubsw(a, b):
    """Multiply unsigned by signed bytes and add neighbours, saturated to int16.

    ``out[i] = saturate_int16(a[2i] * b[2i] + a[2i+1] * b[2i+1])``

    Parameters
    ----------
    a : ndarray of uint8, (..., n)
    b : ndarray of int8, (..., n)

    Returns
    -------
    ndarray of int16, (..., n / 2)

    Exactness
    ---------
    Each product is exact; the sum saturates from 32,768 and from −32,769 on. This is why INT8 on processors without VNNI
    can differ from the integers that it stands for.

    Examples
    --------
    >>> a, b = np.full(16, 255, np.uint8), np.full(16, 127, np.int8)
    >>> int(vpmaddubsw(a, b)[0]), 2 * 255 * 127
    (32767, 64770)
    """
    a, b = registers("vpmaddubsw", X86, a=(a, "u8"), b=(b, "s8"))
    a, b = widen(a, b)
    products = a * b
    return saturate_to(products[..., 0::2] + products[..., 1::2], np.int16)


def vpmaddwd(a, b):
    """Multiply signed 16-bit lanes and add neighbours in 32 bits.

    ``out[i] = a[2i] * b[2i] + a[2i+1] * b[2i+1]``, modulo 2**32

    Parameters
    ----------
    a, b : ndarray of int16, (..., n)

    Returns
    -------
    ndarray of int32, (..., n / 2)

    Exactness
    ---------
    Exact, but for the one case that all four lanes are −32,768, which gives −2**31.

    Examples
    --------
    >>> vpmaddwd(np.full(8, -32768, np.int16), np.full(8, -32768, np.int16)).tolist()
    [-2147483648, -2147483648, -2147483648, -2147483648]
    """
    a, b = registers("vpmaddwd", X86, a=(a, "s16"), b=(b, "s16"))
    a, b = widen(a, b)
    products = a * b
    return wrap_to(products[..., 0::2] + products[..., 1::2], np.int32)


def vpaddd(a, b):
    """Add 32-bit lanes, modulo 2**32.

    Parameters
    ----------
    a, b : ndarray of int32, (..., n)

    Returns
    -------
    ndarray of int32, (..., n)

    Examples
    --------
    >>> vpaddd(np.full(4, 2**31 - 1, np.int32), np.ones(4, np.int32))[0]
    np.int32(-2147483648)
    """
    a, b = registers("vpaddd", X86, a=(a, "s32"), b=(b, "s32"))
    a, b = widen(a, b)
    return wrap_to(a + b, np.int32)


def pmulhrsw(a, b):
    """Multiply signed 16-bit fractions: the high half of the doubled product, rounded half up.

    ``out[i] = ((a[i] * b[i] >> 14) + 1) >> 1``, modulo 2**16

    Parameters
    ----------
    a, b : ndarray of int16, (..., n)

    Returns
    -------
    ndarray of int16, (..., n)

    Exactness
    ---------
    One rounding of ``a * b / 2**15``, ties up. −32,768 squared wraps to −32,768: unlike NEON's `sqrdmulh` nothing saturates.

    Examples
    --------
    >>> pmulhrsw(np.array([16384, -16384, 1, -32768] * 2, np.int16), np.array([1, 1, 16384, -32768] * 2, np.int16))[:4].tolist()
    [1, 0, 1, -32768]
    """
    a, b = registers("pmulhrsw", X86, a=(a, "s16"), b=(b, "s16"))
    a, b = widen(a, b)
    return wrap_to(round_shift(a * b, 15, Round.HALF_UP), np.int16)


def _pack(place, a, b, source, target):
    a, b = registers(place, X86, a=(a, source), b=(b, source))
    a, b = np.broadcast_arrays(a, b)
    lanes = 16 // a.itemsize
    both = np.concatenate([in_groups(a, lanes), in_groups(b, lanes)], axis=-1)
    return saturate_to(both.reshape(*a.shape[:-1], 2 * a.shape[-1]), target)


def packssdw(a, b):
    """Narrow two registers of int32 to one of int16, with saturation.

    In each 128-bit block: the four lanes of `a`, then the four of `b`. On 256 and 512 bits the lanes of `a` and `b` therefore
    alternate by blocks.

    Parameters
    ----------
    a, b : ndarray of int32, (..., n)

    Returns
    -------
    ndarray of int16, (..., 2 n)

    Examples
    --------
    >>> packssdw(np.arange(8, dtype=np.int32), np.full(8, 70000, np.int32))[:12].tolist()
    [0, 1, 2, 3, 32767, 32767, 32767, 32767, 4, 5, 6, 7]
    """
    return _pack("packssdw", a, b, "s32", np.int16)


def packsswb(a, b):
    """Narrow two registers of int16 to one of int8, with saturation; blocks as in `packssdw`.

    Parameters
    ----------
    a, b : ndarray of int16, (..., n)

    Returns
    -------
    ndarray of int8, (..., 2 n)

    Examples
    --------
    >>> packsswb(np.full(8, 200, np.int16), np.full(8, -200, np.int16))[6:10].tolist()
    [127, 127, -128, -128]
    """
    return _pack("packsswb", a, b, "s16", np.int8)


def packuswb(a, b):
    """Narrow two registers of int16 to one of uint8, with saturation; blocks as in `packssdw`.

    Parameters
    ----------
    a, b : ndarray of int16, (..., n)
        Signed: negative lanes become 0.

    Returns
    -------
    ndarray of uint8, (..., 2 n)

    Examples
    --------
    >>> packuswb(np.full(8, 300, np.int16), np.full(8, -1, np.int16))[6:10].tolist()
    [255, 255, 0, 0]
    """
    return _pack("packuswb", a, b, "s16", np.uint8)


def cvtps2dq(a, mode=Round.HALF_EVEN):
    """Convert float32 lanes to int32.

    Parameters
    ----------
    a : ndarray of float32, (..., n)
    mode : Round or str
        MXCSR's rounding mode: ``half_even`` (the default), ``floor``, ``ceil`` or ``truncate``.

    Returns
    -------
    ndarray of int32, (..., n)
        NaN and everything that does not fit give −2**31, the "integer indefinite".

    Examples
    --------
    >>> cvtps2dq(np.array([2.5, -0.5, 3e9, np.nan], np.float32)).tolist()
    [2, 0, -2147483648, -2147483648]
    """
    (a,) = registers("cvtps2dq", X86, a=(a, "f32"))
    choose("cvtps2dq", "mode", str(mode), _MXCSR)
    return to_int32(a, mode).astype(np.int32)
