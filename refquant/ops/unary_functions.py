"""Functions of one real number in float32, as engines compute them: in float64 rounded once, and as PyTorch's vector and scalar loops do."""

import numpy as np

from refquant.core.glibc import glibc_exp, glibc_expm1, glibc_tanh
from refquant.core.glibc_erf import glibc_erfc
from refquant.core.onednn_eltwise import onednn_gelu
from refquant.core.onednn_erf import onednn_gelu_avx512
from refquant.core.sleef import aten_erf, sleef_exp, sleef_expm1, sleef_tanh

__all__ = ["UNARY", "ATEN", "FLOAT", "TABLES", "float_gelu"]

_F = np.float32


def _erf64(x):
    # SciPy's special functions take as long to import as all other operators together.
    from scipy.special import erf

    return erf(x)


def _wide(function):
    """Evaluate in float64 and round once to float32."""

    def once(x):
        with np.errstate(over="ignore", under="ignore"):
            return function(x.astype(np.float64)).astype(_F)

    return once


_exp, _expm1, _tanh, _erf = (_wide(f) for f in (np.exp, np.expm1, np.tanh, _erf64))


def _elu_by(minus_one):
    """``alpha · minus_one(x · slope)`` where x is not positive, of (x, alpha, slope)."""

    def elu(x, alpha, slope=1.0):
        with np.errstate(over="ignore", invalid="ignore"):
            return np.where(x > 0, x, minus_one(np.minimum(x, _F(0)) * _F(slope)) * _F(alpha))

    return elu


def _celu_by(elu):
    return lambda x, alpha: elu(x, alpha, 1.0 / alpha)


def _threshold(x, limits):
    return np.where(x > _F(limits[0]), x, _F(limits[1]))


def _relu6_of(x):
    return np.minimum(np.maximum(x + _F(3), _F(0)), _F(6))


_elu = _elu_by(_expm1)
_gelu64 = _wide(lambda x: x * 0.5 * (1 + _erf64(x * np.sqrt(0.5))))

#: name: (body, tail): functions of (float32 array, parameter) in float32; what rests on an exponential is that in float64, rounded once.
UNARY = {
    "sigmoid": (lambda x, p: _F(1) / (_F(1) + _exp(-x)), lambda x, p: (1.0 / (1.0 + np.exp(-x.astype(np.float64)))).astype(_F)),
    "tanh": (lambda x, p: _tanh(x), lambda x, p: _tanh(x)),
    "hardsigmoid": (lambda x, p: _relu6_of(x) / _F(6), lambda x, p: _relu6_of(x) / _F(6)),
    "hardswish": (lambda x, p: (x * _relu6_of(x)) / _F(6), lambda x, p: (x * _relu6_of(x)) / _F(6)),
    "elu": (_elu, _elu),
    "celu": (_celu_by(_elu), _celu_by(_elu)),
    "threshold": (_threshold, _threshold),
    "leaky_relu": (lambda x, p: x * np.where(x > 0, _F(1), _F(p)), lambda x, p: x * np.where(x > 0, _F(1), _F(p))),
    "gelu": (
        lambda x, p: (x * _F(0.5)) * (_F(1) + _erf(x * _F(np.sqrt(0.5)))),
        lambda x, p: _gelu64(x),
    ),
}

_ELU = _elu_by(sleef_expm1), _elu_by(glibc_expm1)


def _vector_sigmoid(x, p):
    return _F(1) / (_F(1) + sleef_exp(-x))


def _vector_gelu(x, p):
    return (x * _F(0.5)) * (_F(1) + aten_erf(x * _F(np.sqrt(0.5))))


#: As `UNARY`, of ATen's quantized kernels: SLEEF's functions in the vector loop; in the scalar one the C library's, but gelu's, which is that in float64, rounded once.
#: Source: PyTorch 2.13, aten/src/ATen/native/quantized/cpu/kernels/QuantizedOpKernels.cpp; of elu what the engine gives beside ties.
ATEN = UNARY | {
    "sigmoid": (_vector_sigmoid, lambda x, p: (1.0 / (1.0 + glibc_exp(-x).astype(np.float64))).astype(_F)),
    "tanh": (lambda x, p: sleef_tanh(x), lambda x, p: glibc_tanh(x)),
    "elu": _ELU,
    "celu": tuple(map(_celu_by, _ELU)),
    "gelu": (_vector_gelu, lambda x, p: _gelu64(x)),
}

#: As `ATEN`, of ATen's float32 kernels; tanh is MKL's, here in float64 rounded once.
#: Source: PyTorch 2.13, aten/src/ATen/native/cpu/UnaryOpsKernel.cpp, Elu.h, Gelu.h.
FLOAT = UNARY | {
    "sigmoid": (_vector_sigmoid, lambda x, p: _F(1) / (_F(1) + glibc_exp(-x))),
    "elu": _ELU,
    "celu": tuple(map(_celu_by, _ELU)),
    "gelu": (_vector_gelu, lambda x, p: (x * _F(0.5)) * (_F(1) + _erf(x * _F(np.sqrt(0.5))))),
}

#: name: function of (float32 array, parameter), as TensorFlow Lite makes its tables: by the C library.
#: Source: TensorFlow Lite kernels/activations.cc, internal/reference/gelu.h.
TABLES = {
    "sigmoid": lambda x, p: _F(1) / (_F(1) + glibc_exp(-x)),
    "tanh": lambda x, p: glibc_tanh(x),
    "elu": lambda x, p: np.where(x > 0, x, glibc_expm1(np.minimum(x, _F(0)))),
    "gelu": lambda x, p: _F(0.5) * x * glibc_erfc(x * _F(-np.sqrt(0.5))),
}


def _older_gelu(x, p):
    return onednn_gelu(x)


def _newer_gelu(x, p):
    return onednn_gelu_avx512(x)


_OLDER = ("sse41", "avx2", "avx_vnni", "avx_vnni_int8")


def float_gelu(isa):
    """Return oneDNN's gelu on a processor level, which PyTorch takes for contiguous float32 arrays of two elements and more.

    Examples
    --------
    >>> float_gelu("avx2")(np.float32([-10.0, 1.0]), None).tolist()
    [0.0, 0.8413447141647339]
    """
    return _older_gelu if isa in _OLDER else _newer_gelu
