"""The dot-product instructions: AVX512-VNNI, AVX-VNNI and AVX-VNNI-INT8, four bytes or two words a lane.

    vpdp  b  us  d  s       b: four bytes of a times four bytes of b; w: two words
          |  |   |  |       us, ss, su, uu: signs of a and of b
          |  |   |  '- the sum saturates (once, after all products); without it, it wraps
          |  |   '- added to 32-bit lanes
          |  '- signs
          '- width of the factors

The saturating forms add accumulator and products exactly and clamp the total: intermediate sums cannot saturate. `uu` forms
accumulate unsigned numbers.

Source: Intel SDM volume 2 (VPDPBUSD, VPDPBUSDS, VPDPWSSD, VPDPWSSDS), Intel Architecture Instruction Set Extensions
Programming Reference (VPDPB[SU,UU,SS]D[,S]).
"""

from refquant.isa.registers import TYPES, X86, in_groups, registers, saturate_to, widen, wrap_to

__all__ = [
    "vpdpbusd", "vpdpbusds", "vpdpwssd", "vpdpwssds",
    "vpdpbssd", "vpdpbssds", "vpdpbsud", "vpdpbsuds", "vpdpbuud", "vpdpbuuds",
]  # fmt: skip


def _dot(place, acc, a, b, types, finish):
    acc, a, b = registers(place, X86, acc=(acc, types[0]), a=(a, types[1]), b=(b, types[2]))
    factors = acc.itemsize // a.itemsize
    acc, a, b = widen(acc, a, b)
    return finish(acc + in_groups(a * b, factors).sum(axis=-1), TYPES[types[0]])


def vpdpbusd(acc, a, b):
    """Add four products of unsigned and signed bytes to each 32-bit lane, modulo 2**32.

    ``out[i] = acc[i] + Σ_{j<4} a[4i+j] * b[4i+j]``

    Parameters
    ----------
    acc : ndarray of int32, (..., n)
    a : ndarray of uint8, (..., 4 n)
    b : ndarray of int8, (..., 4 n)

    Returns
    -------
    ndarray of int32, (..., n)

    Exactness
    ---------
    Exact modulo 2**32; no 16-bit step, unlike `vpmaddubsw`.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.full(16, 255, np.uint8), np.full(16, 127, np.int8)
    >>> vpdpbusd(np.array([0, 1, 2, 2**31 - 1], np.int32), a, b).tolist()
    [129540, 129541, 129542, -2147354109]
    """
    return _dot("vpdpbusd", acc, a, b, ("s32", "u8", "s8"), wrap_to)


def vpdpbusds(acc, a, b):
    """`vpdpbusd` with signed saturation of the total.

    Examples
    --------
    >>> import numpy as np
    >>> vpdpbusds(np.full(4, 2**31 - 1, np.int32), np.full(16, 255, np.uint8), np.full(16, 127, np.int8))[0]
    np.int32(2147483647)
    """
    return _dot("vpdpbusds", acc, a, b, ("s32", "u8", "s8"), saturate_to)


def vpdpwssd(acc, a, b):
    """Add two products of signed words to each 32-bit lane, modulo 2**32.

    ``out[i] = acc[i] + a[2i] * b[2i] + a[2i+1] * b[2i+1]``

    Parameters
    ----------
    acc : ndarray of int32, (..., n)
    a, b : ndarray of int16, (..., 2 n)

    Returns
    -------
    ndarray of int32, (..., n)

    Examples
    --------
    >>> import numpy as np
    >>> vpdpwssd(np.zeros(4, np.int32), np.full(8, -300, np.int16), np.full(8, 200, np.int16))[0]
    np.int32(-120000)
    """
    return _dot("vpdpwssd", acc, a, b, ("s32", "s16", "s16"), wrap_to)


def vpdpwssds(acc, a, b):
    """`vpdpwssd` with signed saturation of the total.

    Examples
    --------
    >>> import numpy as np
    >>> vpdpwssds(np.zeros(4, np.int32), np.full(8, -32768, np.int16), np.full(8, -32768, np.int16))[0]
    np.int32(2147483647)
    """
    return _dot("vpdpwssds", acc, a, b, ("s32", "s16", "s16"), saturate_to)


def vpdpbssd(acc, a, b):
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
    >>> import numpy as np
    >>> vpdpbssd(np.zeros(4, np.int32), np.full(16, -128, np.int8), np.full(16, -128, np.int8))[0]
    np.int32(65536)
    """
    return _dot("vpdpbssd", acc, a, b, ("s32", "s8", "s8"), wrap_to)


def vpdpbssds(acc, a, b):
    """`vpdpbssd` with signed saturation of the total.

    Examples
    --------
    >>> import numpy as np
    >>> vpdpbssds(np.full(4, -(2**31), np.int32), np.full(16, -128, np.int8), np.full(16, 1, np.int8))[0]
    np.int32(-2147483648)
    """
    return _dot("vpdpbssds", acc, a, b, ("s32", "s8", "s8"), saturate_to)


def vpdpbsud(acc, a, b):
    """Add four products of signed and unsigned bytes to each 32-bit lane, modulo 2**32.

    Parameters
    ----------
    acc : ndarray of int32, (..., n)
    a : ndarray of int8, (..., 4 n)
    b : ndarray of uint8, (..., 4 n)

    Returns
    -------
    ndarray of int32, (..., n)

    Examples
    --------
    >>> import numpy as np
    >>> vpdpbsud(np.zeros(4, np.int32), np.full(16, -1, np.int8), np.full(16, 255, np.uint8))[0]
    np.int32(-1020)
    """
    return _dot("vpdpbsud", acc, a, b, ("s32", "s8", "u8"), wrap_to)


def vpdpbsuds(acc, a, b):
    """`vpdpbsud` with signed saturation of the total.

    Examples
    --------
    >>> import numpy as np
    >>> vpdpbsuds(np.full(4, -(2**31), np.int32), np.full(16, -1, np.int8), np.full(16, 255, np.uint8))[0]
    np.int32(-2147483648)
    """
    return _dot("vpdpbsuds", acc, a, b, ("s32", "s8", "u8"), saturate_to)


def vpdpbuud(acc, a, b):
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
    >>> import numpy as np
    >>> vpdpbuud(np.zeros(4, np.uint32), np.full(16, 255, np.uint8), np.full(16, 255, np.uint8))[0]
    np.uint32(260100)
    """
    return _dot("vpdpbuud", acc, a, b, ("u32", "u8", "u8"), wrap_to)


def vpdpbuuds(acc, a, b):
    """`vpdpbuud` with unsigned saturation of the total: nothing exceeds 2**32 − 1.

    Examples
    --------
    >>> import numpy as np
    >>> vpdpbuuds(np.full(4, 2**32 - 1, np.uint32), np.full(16, 255, np.uint8), np.full(16, 255, np.uint8))[0]
    np.uint32(4294967295)
    """
    return _dot("vpdpbuuds", acc, a, b, ("u32", "u8", "u8"), saturate_to)
