"""oneDNN's functions of one real number, as its post-operations compute them: each step one float32 operation, vectorized but for two.

`fma` computes ``a · b + c``: in one rounding, or as `refquant.core.fma.mul_add32`, where a processor has no such instruction, in two.
"""

import numpy as np

from refquant.core.fma import fma32
from refquant.core.glibc import glibc_exp
from refquant.core.glibc_erf import glibc_erf
from refquant.core.rounding import Round, round_real

__all__ = ["onednn_exp", "onednn_logistic", "onednn_swish", "onednn_elu", "onednn_gelu", "onednn_swish_reference", "onednn_gelu_reference"]

_F = np.float32
_PER_LN2, _LN2, _LEAST, _GREATEST = (np.uint32(bits).view(_F) for bits in (0x3FB8AA3B, 0x3F317218, 0xC2AEAC50, 0x42B17218))
_SERIES = tuple(np.uint32(bits).view(_F) for bits in (0x3D2B9D0D, 0x3E2AAD40, 0x3EFFFEE3, 0x3F7FFFFB))
_LARGEST = _F(88.72283172607421875)
_ERF = (1.421413741, -0.284496736, 0.254829592)


def onednn_exp(x, fma=fma32):
    """Return the exponential of float32 numbers; 0 below the logarithm of the least normal number.

    Exactness
    ---------
    Bit-exact: the exponent by ``floor(x · log2(e) + 0.5)``, what is left by one step with `fma`, a polynomial of degree 5 by
    more.

    Source
    ------
    oneDNN, src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp, ``exp_compute_vector_fwd``.

    Examples
    --------
    >>> onednn_exp(np.float32([0.0, 1.0, -100.0])).tolist()
    [1.0, 2.7182819843292236, 0.0]
    """
    x = np.asarray(x, _F)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        limited = np.maximum(np.minimum(x, _GREATEST), _LEAST)
        n = round_real(limited * _PER_LN2 + _F(0.5), Round.FLOOR)
        r = fma(-n, _LN2, limited)
        p = np.uint32(0x3C07CFCE).view(_F)
        for c in (*_SERIES, _F(1)):
            p = fma(p, r, c)
        # Half of 2**n is made of its exponent's bits, which are those of 0 for the least n.
        exponent = (np.nan_to_num(n) + 126).astype(np.int32)
        power = (exponent << 23).view(_F)
        return p * np.where(x < _LEAST, _F(0), power) * _F(2)


def onednn_logistic(x, fma=fma32):
    """Return ``1 / (1 + exp(-x))`` of float32 numbers; of a positive one it is one minus that of its negative.

    Source
    ------
    oneDNN, src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp, ``logistic_compute_vector_fwd``.

    Examples
    --------
    >>> onednn_logistic(np.float32([-200.0, 0.0, 2.0])).tolist()
    [0.0, 0.5, 0.8807970881462097]
    """
    x = np.asarray(x, _F)
    y = onednn_exp(-np.abs(x), fma)
    y = y / (y + _F(1))
    return np.where(np.signbit(x), y, _F(1) - y)[()]


def onednn_elu(x, alpha=1.0):
    """Return x where it is positive, else ``(exp(x) - 1) · alpha``, of float32 numbers.

    Source
    ------
    oneDNN, src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp, ``elu_compute_vector_fwd``.

    Examples
    --------
    >>> onednn_elu(np.float32([-200.0, -1.0, 2.0])).tolist()
    [-1.0, -0.6321204900741577, 2.0]
    """
    x = np.asarray(x, _F)
    return np.where(x > 0, x, (onednn_exp(x) - _F(1)) * _F(alpha))[()]


def onednn_swish(x, fma=fma32):
    """Return ``x · logistic(x)`` of float32 numbers.

    Source
    ------
    oneDNN, src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp, ``swish_compute_vector_fwd``.

    Examples
    --------
    >>> onednn_swish(np.float32([-200.0, 0.0, 2.0])).tolist()
    [-0.0, 0.0, 1.7615941762924194]
    """
    x = np.asarray(x, _F)
    return onednn_logistic(x, fma) * x


def onednn_gelu(x, fma=fma32):
    """Return ``x/2 + x/2 · erf(x / sqrt(2))`` by Abramowitz and Stegun's formula 7.1.26, as it is computed below AVX-512.

    Source
    ------
    oneDNN, src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp, ``gelu_erf_compute_vector_fwd``.

    Examples
    --------
    >>> onednn_gelu(np.float32([-10.0, 0.0, 1.0])).tolist()
    [0.0, 0.0, 0.8413447141647339]
    """
    x = np.asarray(x, _F)
    root = x * np.uint32(0x3F3504F3).view(_F)
    t = _F(1) / fma(_F(0.3275911), np.abs(root), _F(1))
    r = fma(_F(1.061405429), t, _F(-1.453152027))
    for c in _ERF:
        r = fma(r, t, _F(c))
    erf = np.copysign(_F(1), x) * fma(-onednn_exp(-(root * root), fma) * t, r, _F(1))
    half = x * _F(0.5)
    return fma(erf, half, half)


def onednn_swish_reference(x):
    """Return ``x · logistic(x)`` of float32 numbers as oneDNN's reference kernels compute it, by the C library's exponential.

    Source
    ------
    oneDNN, src/common/math_utils.hpp, ``swish_fwd`` and ``logistic_fwd``.

    Examples
    --------
    >>> onednn_swish_reference(np.float32([-200.0, 0.0, 2.0])).tolist()
    [-0.0, 0.0, 1.7615940570831299]
    """
    x = np.asarray(x, _F)
    with np.errstate(over="ignore"):
        return x * np.where(-x < _LARGEST, _F(1) / (_F(1) + glibc_exp(-x)), _F(0))


def onednn_gelu_reference(x):
    """Return ``x/2 · (1 + erf(x / sqrt(2)))`` of float32 numbers as oneDNN's reference kernels compute it, by the C library's error function.

    Source
    ------
    oneDNN, src/common/math_utils.hpp, ``gelu_erf_fwd``.

    Examples
    --------
    >>> onednn_gelu_reference(np.float32([-10.0, 0.0, 1.0])).tolist()
    [-0.0, 0.0, 0.8413447141647339]
    """
    x = np.asarray(x, _F)
    return _F(0.5) * x * (_F(1) + glibc_erf(x * _F(np.sqrt(0.5))))
