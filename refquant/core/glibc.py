"""The C library's float32 exponential, exp(x) − 1, logarithm and hyperbolic tangent, as scalar loops and tables of engines on Linux call them."""

import numpy as np

from refquant.core.rounding import Round, round_real

__all__ = ["glibc_exp", "glibc_expm1", "glibc_log", "glibc_tanh"]

_F = np.float32
_STEPS = 32
_POWERS = np.exp2(np.arange(_STEPS) / _STEPS)
_PER_LN2 = float.fromhex("0x1.71547652b82fep+0") * _STEPS
_CUBIC, _SQUARE, _LINEAR = (
    float.fromhex(c) / _STEPS**k for c, k in (("0x1.c6af84b912394p-5", 3), ("0x1.ebfce50fac4f3p-3", 2), ("0x1.62e42ff0c52d6p-1", 1))
)


def glibc_exp(x):
    """Return the exponential of float32 numbers: ``expf`` of glibc 2.27 and later.

    ``2**(k/32) · (1 + c1·r + (c2 + c3·r)·r²)`` with k the nearest integer to ``32 · x / ln 2`` and r what is left, in float64, rounded once.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact but where fused float64 steps, which glibc takes on processors that have them, move a float32: at about one number in 10**8.

    Source
    ------
    glibc 2.36, sysdeps/ieee754/flt-32/e_expf.c, math_config.h.

    Examples
    --------
    >>> glibc_exp(np.float32([0.0, 1.0, -200.0, 100.0])).tolist()
    [1.0, 2.7182817459106445, 0.0, inf]
    """
    x = np.asarray(x, _F)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        z = np.clip(x.astype(np.float64), -150, 150) * _PER_LN2
        k = round_real(z, Round.HALF_EVEN)
        r = z - k
        n = np.nan_to_num(k).astype(np.int64)
        y = (_CUBIC * r + _SQUARE) * (r * r) + (_LINEAR * r + 1)
        return np.asarray(y * np.ldexp(_POWERS[n % _STEPS], n // _STEPS)).astype(_F)[()]


_LN2_HIGH, _LN2_LOW, _PER_LN2_SHORT = _F(0.693138122558594), _F(9.05800061445916e-06), _F(1.4426950216293335)
_QUINTIC = tuple(_F(c) for c in (-2.0109921195e-07, 4.0082177293e-06, -7.9365076090e-05, 1.5873016091e-03, -3.3333335072e-02, 1.0))
_HALF_LN2, _THREE_HALVES_LN2, _OVERFLOW, _LAST = np.array([0x3EB17218, 0x3F851592, 0x42B17218, 0x42B17217], np.uint32).view(_F)


def _steps(x):
    """Split x into k · ln 2 and what is left, as (k, rest, what the rest lacks)."""
    large = np.abs(x) >= _THREE_HALVES_LN2
    k = np.where(large, np.trunc(_PER_LN2_SHORT * x + np.copysign(_F(0.5), x)), np.copysign(_F(1), x)).astype(_F)
    high, low = x - k * _LN2_HIGH, k * _LN2_LOW
    rest = high - low
    return k, rest, (high - rest) - low


def _joined(k, x, e):
    """``2**k · (1 + x − e) − 1``, in the order that loses least for each k."""
    n = k.astype(np.int32)
    part = np.ldexp(_F(1), -n).astype(_F)
    below = np.ldexp(np.where(k < 23, (_F(1) - part) - (e - x), (x - (e + part)) + _F(1)), n)
    far = np.ldexp(_F(1) - (e - x), n) - _F(1)
    one = np.where(x < _F(-0.25), _F(-2) * (e - (x + _F(0.5))), _F(1) + _F(2) * (x - e))
    return np.select([k == -1, k == 1, (k <= -2) | (k > 56)], [_F(0.5) * (x - e) - _F(0.5), one, far], below)


def glibc_expm1(x):
    """Return ``exp(x) − 1`` of float32 numbers: ``expm1f`` of glibc up to 2.40, a quotient of polynomials on what k · ln 2 leaves.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact: each step is one float32 operation.

    Source
    ------
    glibc 2.36, sysdeps/ieee754/flt-32/s_expm1f.c.

    Examples
    --------
    >>> glibc_expm1(np.float32([0.0, 1.0, -1.0, 100.0])).tolist()
    [0.0, 1.7182817459106445, -0.6321205496788025, inf]
    """
    x = np.asarray(x, _F)
    with np.errstate(all="ignore"):
        inside = np.clip(np.nan_to_num(x), _F(-20), _LAST)
        k, rest, lack = _steps(inside)
        near = np.abs(inside) <= _HALF_LN2
        k, r, c = np.where(near, _F(0), k), np.where(near, inside, rest), np.where(near, _F(0), lack)
        half = _F(0.5) * r
        square = r * half
        p = _QUINTIC[0]
        for q in _QUINTIC[1:]:
            p = q + square * p
        t = _F(3) - p * half
        e = square * ((p - t) / (_F(6) - r * t))
        y = np.where(near, r - (r * e - square), _joined(k, r, (r * (e - c) - c) - square))
        y = np.where(np.abs(x) < _F(2.0**-25), x, y)
        return np.where(np.isnan(x), x, np.select([x >= _OVERFLOW, x <= _F(-18.714973)], [_F(np.inf), _F(-1)], y)).astype(_F)


def glibc_tanh(x):
    """Return the hyperbolic tangent of float32 numbers: ``tanhf`` of glibc up to 2.40, by `glibc_expm1`.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact.

    Source
    ------
    glibc 2.36, sysdeps/ieee754/flt-32/s_tanhf.c.

    Examples
    --------
    >>> glibc_tanh(np.float32([0.0, 0.5, -1.0, 30.0])).tolist()
    [0.0, 0.46211716532707214, -0.7615941762924194, 1.0]
    """
    x = np.asarray(x, _F)
    size = np.abs(x)
    with np.errstate(all="ignore"):
        t, small = glibc_expm1(_F(2) * size), glibc_expm1(_F(-2) * size)
        y = np.select([size >= _F(22), size >= _F(1)], [_F(1), _F(1) - _F(2) / (t + _F(2))], -small / (small + _F(2)))
        y = np.where(size < _F(2.0**-55), size * (_F(1) + size), y)
        return np.where(np.isnan(x), x, np.copysign(y, x)).astype(_F)


# Inverses of sixteen numbers about 1 and their logarithms.
_NEAR_ONE = np.array([
    (float.fromhex(inverse), float.fromhex(logarithm))
    for inverse, logarithm in (
        ("0x1.661ec79f8f3bep+0", "-0x1.57bf7808caadep-2"), ("0x1.571ed4aaf883dp+0", "-0x1.2bef0a7c06ddbp-2"),
        ("0x1.49539f0f010bp+0", "-0x1.01eae7f513a67p-2"), ("0x1.3c995b0b80385p+0", "-0x1.b31d8a68224e9p-3"),
        ("0x1.30d190c8864a5p+0", "-0x1.6574f0ac07758p-3"), ("0x1.25e227b0b8eap+0", "-0x1.1aa2bc79c81p-3"),
        ("0x1.1bb4a4a1a343fp+0", "-0x1.a4e76ce8c0e5ep-4"), ("0x1.12358f08ae5bap+0", "-0x1.1973c5a611cccp-4"),
        ("0x1.0953f419900a7p+0", "-0x1.252f438e10c1ep-5"), ("0x1p+0", "0x0p+0"),
        ("0x1.e608cfd9a47acp-1", "0x1.aa5aa5df25984p-5"), ("0x1.ca4b31f026aap-1", "0x1.c5e53aa362eb4p-4"),
        ("0x1.b2036576afce6p-1", "0x1.526e57720db08p-3"), ("0x1.9c2d163a1aa2dp-1", "0x1.bc2860d22477p-3"),
        ("0x1.886e6037841edp-1", "0x1.1058bc8a07ee1p-2"), ("0x1.767dcf5534862p-1", "0x1.4043057b6ee09p-2"),
    )
])  # fmt: skip
_LN2 = float.fromhex("0x1.62e42fefa39efp-1")
_LOG_QUARTIC, _LOG_CUBIC, _LOG_SQUARE = (float.fromhex(c) for c in ("-0x1.00ea348b88334p-2", "0x1.5575b0be00b6ap-2", "-0x1.ffffef20a4123p-2"))
# The bits of 0.7, from where on sixteen parts of an octave are counted.
_SEVEN_TENTHS = 0x3F330000


def glibc_log(x):
    """Return the natural logarithm of float32 numbers: ``logf`` of glibc 2.27 to 2.40.

    With ``x = 2**k · z`` and one of sixteen c beside z: ``(k · ln 2 + ln c) + r + (a1 + a2·r + a3·r²) · r²``, r what ``z / c`` is above 1, in float64, rounded once.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact but where fused float64 steps, which glibc takes on processors that have them, could move a float32; no number that was compared is one.

    Source
    ------
    glibc 2.36, sysdeps/ieee754/flt-32/e_logf.c, e_logf_data.c.

    Examples
    --------
    >>> glibc_log(np.float32([1.0, 10.0, 0.0, -1.0])).tolist()
    [0.0, 2.3025851249694824, -inf, nan]
    """
    x = np.asarray(x, _F)
    with np.errstate(all="ignore"):
        small = (x > 0) & (x < _F(2.0**-126))
        normal = np.where((x > 0) & np.isfinite(x), np.where(small, x * _F(2.0**23), x), _F(1))
        bits = normal.view(np.int32).astype(np.int64)
        above = bits - _SEVEN_TENTHS
        k = (above >> 23) - 23 * small
        z = (bits - (above >> 23 << 23)).astype(np.int32).view(_F).astype(np.float64)
        inverse, logarithm = np.moveaxis(_NEAR_ONE[(above >> 19) % 16], -1, 0)
        r = z * inverse - 1
        y = (_LOG_CUBIC * r + _LOG_SQUARE) + _LOG_QUARTIC * (r * r)
        y = (y * (r * r) + ((logarithm + k * _LN2) + r)).astype(_F)
        y = np.select([x == 0, x == np.inf, np.isnan(x) | (x < 0)], [_F(-np.inf), _F(np.inf), _F(np.nan)], y)
        return y.astype(_F)[()]
