"""The C library's float32 error function and its complement, as tables and reference kernels of engines on Linux call them."""

import numpy as np

from refquant.core.glibc import glibc_exp

__all__ = ["glibc_erf", "glibc_erfc"]

_F = np.float32


def _floats(*bits):
    return tuple(np.array(bits, np.uint32).view(_F))


# Quotients of polynomials, the highest power first: erf near 0; erf − c on [0.84375, 1.25]; exponents of erfc on [1.25, 1 / 0.35] and beyond.
_NEAR = (_floats(0xB7C756B1, 0xBBBD1489, 0xBCE9528F, 0xBEA66BEB, 0x3E0375D4),
         _floats(0xB684E21A, 0x390AEE49, 0x3BA68116, 0x3D852A63, 0x3ECBBBCE, 0x3F800000))  # fmt: skip
_MIDDLE = (_floats(0xBB0DF9C0, 0x3D1151B3, 0xBDE31CC2, 0x3EA2FE54, 0xBEBE9208, 0x3ED46805, 0xBB1ACDC6),
           _floats(0x3C445AA3, 0x3C5F6E13, 0x3E013307, 0x3D931AE7, 0x3F0A5785, 0x3DD9F331, 0x3F800000))  # fmt: skip
_FAR = (_floats(0xC11D077E, 0xC2A2932B, 0xC3389AE7, 0xC322658C, 0xC2798057, 0xC128F022, 0xBF31A0B7, 0xBC21A093),
        _floats(0xBD777F97, 0x40D23F7C, 0x42D9451F, 0x43D6810B, 0x442158C9, 0x43D9486F, 0x4309A863, 0x419D35CE, 0x3F800000))  # fmt: skip
_FURTHER = (_floats(0xC3F1C275, 0xC480230B, 0xC41F6441, 0xC320A2EA, 0xC18E104B, 0xBF4C9DD4, 0xBC21A092),
            _floats(0xC1B38712, 0x43ED43A7, 0x451F90CE, 0x4547FDBB, 0x44C01759, 0x43A2E571, 0x41F2B459, 0x3F800000))  # fmt: skip
_C, _SLOPE, _LEAST = _floats(0x3F58560B, 0x3E0375D4, 0x04000000)
_BEYOND, = _floats(0x4036DB6D)


def _horner(coefficients, x):
    y = coefficients[0]
    for c in coefficients[1:]:
        y = c + x * y
    return y


def _quotient(pair, x):
    return _horner(pair[0], x) / _horner(pair[1], x)


def _tail(size, short):
    """``erfc`` of numbers of 1.25 and more, by two exponentials, of the square of the number without its last bits and of the rest."""
    inverse = _F(1) / (size * size)
    quotient = np.where(size < _BEYOND, _quotient(_FAR, inverse), _quotient(_FURTHER, inverse))
    short = (size.view(np.uint32) & np.uint32(short)).view(_F)
    return glibc_exp(-short * short - _F(0.5625)) * glibc_exp((short - size) * (short + size) + quotient) / size


def glibc_erf(x):
    """Return the error function of float32 numbers: ``erff`` of glibc up to 2.40.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact but where `refquant.core.glibc.glibc_exp` is not.

    Source
    ------
    glibc 2.36, sysdeps/ieee754/flt-32/s_erff.c.

    Examples
    --------
    >>> glibc_erf(np.float32([0.0, 0.5, -1.0, 30.0])).tolist()
    [0.0, 0.5204998850822449, -0.8427007794380188, 1.0]
    """
    x = np.ascontiguousarray(x, _F)
    size = np.abs(x)
    with np.errstate(all="ignore"):
        square = x * x
        least = _F(0.0625) * (_F(16) * x + (_F(16) * _SLOPE) * x)
        near = np.where(size < _F(2.0**-28), x + _SLOPE * x, x + x * _quotient(_NEAR, square))
        middle = _C + _quotient(_MIDDLE, size - _F(1))
        tail = np.where(size >= _F(6), _F(1), _F(1) - _tail(size, 0xFFFFF000))
        y = np.where(size < _F(1.25), middle, tail)
        y = np.where(size < _F(0.84375), near, np.copysign(y, x))
    return np.where(np.isnan(x), x, np.where(size < _LEAST, least, y)).astype(_F)[()]


def glibc_erfc(x):
    """Return ``1 − erf(x)`` of float32 numbers: ``erfcf`` of glibc up to 2.40.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact but where `refquant.core.glibc.glibc_exp` is not.

    Source
    ------
    glibc 2.36, sysdeps/ieee754/flt-32/s_erff.c.

    Examples
    --------
    >>> glibc_erfc(np.float32([0.0, 0.5, -1.0, 30.0])).tolist()
    [1.0, 0.4795001149177551, 1.842700719833374, 0.0]
    """
    x = np.ascontiguousarray(x, _F)
    size = np.abs(x)
    with np.errstate(all="ignore"):
        near = x * _quotient(_NEAR, x * x)
        near = np.where(x < _F(0.25), _F(1) - (x + near), _F(0.5) - (near + (x - _F(0.5))))
        middle = _quotient(_MIDDLE, size - _F(1))
        middle = np.where(x >= 0, (_F(1) - _C) - middle, _F(1) + (_C + middle))
        tail = _tail(size, 0xFFFFE000)
        tail = np.where(x > 0, tail, np.where(size >= _F(6), _F(2), _F(2) - tail))
        end = np.where(x > 0, _F(0), _F(2))
        y = np.select([size < _F(2.0**-56), size < _F(0.84375), size < _F(1.25), size < _F(28)], [_F(1) - x, near, middle, tail], end)
        return np.where(np.isnan(x), x, y).astype(_F)[()]
