"""MLAS's float32 functions, as ONNX Runtime's kernels take them on a CPU with FMA: each step one float32 operation."""

import numpy as np

from refquant.core.fma import fma32

__all__ = ["mlas_logistic", "mlas_tanh", "mlas_erf", "mlas_gelu", "mlas_sum_exp", "mlas_softmax"]

_F = np.float32

# mlas/lib/logistic.cpp and tanh.cpp: odd numerator and even denominator, highest power of x² first.
_LOGISTIC_P = (4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03, 2.48287947061529e-01)
_LOGISTIC_Q = (6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03, 1.16817656904453e-01, 9.93151921023180e-01)
_TANH_P = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
# mlas/lib/erf.cpp
_ERF_SMALL = (-5.99104969e-4, 4.99339588e-3, -2.67667342e-2, 1.12818025e-1, -3.76124859e-1, 1.28379151e-1)
_ERF_BIG = (1.72948930e-5, -3.83208680e-4, 3.88393435e-3, -2.42545605e-2, 1.06777847e-1, 6.34846687e-1, 1.28717512e-1)
_ERF_EXP = (1.38319808e-3, 8.37550033e-3, 4.16689515e-2, 1.66664466e-1, 4.99999851e-1, 1.0, 1.0)
_ERF_MOST, _ERF_SPLIT = _F(3.925), _F(0.921875)
# mlas/lib/compute.cpp
_EXP = tuple(float.fromhex(v) for v in ("0x1.694000p-10", "0x1.125edcp-7", "0x1.555b5ap-5", "0x1.555450p-3", "0x1.fffff6p-2", "0x1p0", "0x1p0"))
_EXP_LEAST = _F(-88.3762626647949)
_PER_LN2, _LN2_HIGH, _LN2_LOW = _F(1.44269504088896341), _F(-6.93145752e-1), _F(-1.42860677e-6)
_ROUNDING = _F(12582912.0)
# core/providers/cpu/tensor/gelu.cc: √(2/π) and 0.044715 times it
_GELU_SLOPE, _GELU_CUBE = _F(0.7978845608028654), _F(0.035677408136300125)


def _horner(coefficients, x):
    """Evaluate a polynomial by fused steps, highest power first."""
    y = np.full_like(x, _F(coefficients[0]))
    for c in coefficients[1:]:
        y = fma32(y, x, _F(c))
    return y


def _rational(x, most, p, q):
    """``x · P(x²) / Q(x²)`` of numbers that are clamped to ±most; NaN stays, as the second operand of MINPS and MAXPS does."""
    x = np.asarray(x, _F)
    d = np.where(x > -most, x, np.where(np.isnan(x), x, -most))
    d = np.where(d < most, d, np.where(np.isnan(d), d, most)).astype(_F)
    square = d * d
    return (d * _horner(p, square)) / _horner(q, square)


def mlas_logistic(x):
    """Return ``1 / (1 + exp(-x))`` of float32 numbers by a rational function; it may exceed 1 by an ulp: ``MlasComputeLogisticF32KernelFma3``.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact on a CPU with FMA.

    Source
    ------
    ONNX Runtime 1.32, core/mlas/lib/logistic.cpp, x86_64/LogisticKernelFma3.S.

    Examples
    --------
    >>> float(mlas_logistic(np.float32(17.807888)))
    1.0000001192092896
    """
    y = _rational(x, _F(18), _LOGISTIC_P, _LOGISTIC_Q) + _F(0.5)
    return np.where(y < 0, _F(0), y).astype(_F)[()]


def mlas_tanh(x):
    """Return the hyperbolic tangent of float32 numbers by a rational function: ``MlasComputeTanhF32KernelFma3``.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact on a CPU with FMA.

    Source
    ------
    ONNX Runtime 1.32, core/mlas/lib/tanh.cpp, x86_64/TanhKernelFma3.S.

    Examples
    --------
    >>> float(mlas_tanh(np.float32(-20.0))), float(mlas_tanh(np.float32(0.5)))
    (-1.0, 0.46211716532707214)
    """
    return _rational(x, _F(9), _TANH_P, _TANH_Q).astype(_F)[()]


def _exponent(x):
    """Return (m, r) with ``x = m · ln 2 + r``, m rounded by a large addend."""
    m = fma32(x, _PER_LN2, _ROUNDING) - _ROUNDING
    return m, fma32(m, _LN2_LOW, fma32(m, _LN2_HIGH, x))


def mlas_erf(x):
    """Return the error function of float32 numbers: ``MlasErfKernelFma3``.

    Up to 0.921875 a polynomial of x², beyond it ``1 − exp(−P(|x|))``, with |x| clamped to 3.925.

    Parameters
    ----------
    x : ndarray of float32
        Without NaN.

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact on a CPU with FMA.

    Source
    ------
    ONNX Runtime 1.32, core/mlas/lib/erf.cpp, x86_64/ErfKernelFma3.S.

    Examples
    --------
    >>> mlas_erf(np.float32([-4.0, 0.0, 0.5])).tolist()
    [-1.0, 0.0, 0.5204998850822449]
    """
    x = np.asarray(x, _F)
    a = np.minimum(np.abs(x), _ERF_MOST)
    small = fma32(_horner(_ERF_SMALL, a * a), a, a)
    m, r = _exponent(-fma32(_horner(_ERF_BIG, a), a, a))
    big = _F(1) - _horner(_ERF_EXP, np.atleast_1d(r)).reshape(np.shape(r)) * np.ldexp(_F(1), np.asarray(m).astype(np.int32))
    return np.copysign(np.where(a >= _ERF_SPLIT, big, small), x).astype(_F)[()]


def mlas_gelu(x, approximate="none"):
    """Return ``x / 2 · (1 + erf(x / √2))`` of float32 numbers, or the form with tanh: ``Gelu``.

    Parameters
    ----------
    x : ndarray of float32
    approximate : {"none", "tanh"}

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact on a CPU with FMA.

    Source
    ------
    ONNX Runtime 1.32, core/providers/cpu/tensor/gelu.cc.

    Examples
    --------
    >>> mlas_gelu(np.float32([-1.0, 1.0])).tolist(), mlas_gelu(np.float32([-1.0, 1.0]), "tanh").tolist()
    ([-0.15865525603294373, 0.8413447141647339], [-0.15880796313285828, 0.8411920070648193])
    """
    x = np.asarray(x, _F)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if approximate == "tanh":
            return (_F(0.5) * x) * (mlas_tanh(x * (_GELU_CUBE * x * x + _GELU_SLOPE)) + _F(1))
        return (x * _F(0.5)) * (mlas_erf(x * _F(np.sqrt(0.5))) + _F(1))


def mlas_sum_exp(x):
    """Return the exponential of float32 numbers that are not positive, 0 below about −87.7: ``MlasComputeSumExpF32KernelFma3``.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact on a CPU with FMA.

    Source
    ------
    ONNX Runtime 1.32, core/mlas/lib/compute.cpp, x86_64/TransKernelFma3.S.

    Examples
    --------
    >>> mlas_sum_exp(np.float32([0.0, -1.0])).tolist()
    [1.0, 0.3678794503211975]
    """
    m, r = _exponent(np.maximum(np.atleast_1d(np.asarray(x, _F)), _EXP_LEAST))
    # The power of two is made by a shift of the exponent's bits, which have no subnormals.
    power = np.where(m < -126, _F(0), np.ldexp(_F(1), np.nan_to_num(m).astype(np.int32)))
    return (_horner(_EXP, r) * power).reshape(np.shape(x)).astype(_F)[()]


def mlas_softmax(x):
    """Return the softmax of float32 rows, (..., N): exponentials in eight lanes whose sums are added in pairs, then products with the inverse: ``MlasComputeSoftmax``.

    Parameters
    ----------
    x : ndarray of float32, (..., N)
        Not empty.

    Returns
    -------
    ndarray of float32, (..., N)

    Exactness
    ---------
    Bit-exact on a CPU with AVX2 and FMA; the kernel for AVX-512 has more lanes.

    Source
    ------
    ONNX Runtime 1.32, core/mlas/lib/compute.cpp, x86_64/TransKernelFma3.S.

    Examples
    --------
    >>> mlas_softmax(np.float32([[0.0, 1.0]])).tolist()
    [[0.2689414322376251, 0.7310585975646973]]
    """
    x = np.asarray(x, _F)
    with np.errstate(invalid="ignore", over="ignore"):
        e = mlas_sum_exp(x + -x.max(-1, keepdims=True))
    lanes = np.zeros((*e.shape[:-1], -(-e.shape[-1] // 8) * 8), _F)
    lanes[..., : e.shape[-1]] = e
    total = np.add.accumulate(lanes.reshape(*e.shape[:-1], -1, 8), axis=-2, dtype=_F)[..., -1, :]
    while total.shape[-1] > 1:
        total = total[..., 0::2] + total[..., 1::2]
    return e * (_F(1) / total)
