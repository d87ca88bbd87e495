"""Functions of one number on float32 arrays.

relu6, hardtanh, clamp, hardswish, hardsigmoid, leaky_relu and prelu are a few rounded operations each, in PyTorch's order: the same bits
everywhere. sigmoid, silu, tanh, elu, gelu and log_softmax rest on an exponential, for which PyTorch takes SLEEF, MKL or the C library, a
vector at a time and otherwise for what is left: here the function is worked out in float64 and rounded once, which differs from PyTorch's
number by an ulp or two at times. The order ``inductor`` is what TorchInductor's generated C++ makes of sigmoid, silu and elu; tanh is refused.
"""

import numpy as np

from refquant.errors import ArgumentError, ShapeError
from refquant.ops.real import inductor
from refquant.ops.real.order import check_order, in_format_of, real_input

__all__ = ["relu6", "hardtanh", "clamp", "hardswish", "hardsigmoid", "sigmoid", "tanh", "elu", "leaky_relu", "silu", "prelu", "log_softmax"]

_F = np.float32


def clamp(x, min=None, max=None):
    """Limit numbers to ``min … max``; NaN stays.

    Examples
    --------
    >>> clamp(np.float32([-1, 0.5, 9]), 0, 6)
    array([0. , 0.5, 6. ], dtype=float32)
    """
    if min is None and max is None:
        raise ArgumentError("clamp: neither min nor max is given; give one at least")
    y = real_input(x, "x", "clamp")
    y = y if min is None else np.maximum(y, _F(min))
    return in_format_of(y if max is None else np.minimum(y, _F(max)), x)


def hardtanh(x, min_val=-1.0, max_val=1.0):
    """Limit numbers to ``min_val … max_val``; NaN stays."""
    return clamp(x, min_val, max_val)


def relu6(x):
    """Limit numbers to 0 … 6; NaN stays."""
    return clamp(x, 0, 6)


def _gate(x):
    return np.minimum(np.maximum(x + _F(3), _F(0)), _F(6))


def hardswish(x):
    """``x * min(max(x + 3, 0), 6) / 6``, in this order.

    Examples
    --------
    >>> hardswish(np.float32([-4, 0, 1, 4]))
    array([-0.       ,  0.       ,  0.6666667,  4.       ], dtype=float32)
    """
    array = real_input(x, "x", "hardswish")
    with np.errstate(invalid="ignore", over="ignore"):
        return in_format_of(array * _gate(array) / _F(6), x)


def hardsigmoid(x):
    """``min(max(x + 3, 0), 6) / 6``.

    Examples
    --------
    >>> hardsigmoid(np.float32([-4, 0, 4]))
    array([0. , 0.5, 1. ], dtype=float32)
    """
    return in_format_of(_gate(real_input(x, "x", "hardsigmoid")) / _F(6), x)


def leaky_relu(x, negative_slope=0.01):
    """``x`` where it is positive, else ``negative_slope * x``.

    Examples
    --------
    >>> leaky_relu(np.float32([-2, 3]), 0.5)
    array([-1.,  3.], dtype=float32)
    """
    array = real_input(x, "x", "leaky_relu")
    with np.errstate(invalid="ignore", over="ignore"):
        return in_format_of(np.where(array > 0, array, array * _F(negative_slope)), x)


def prelu(x, weight):
    """``x`` where it is positive, else ``weight * x``, with one weight or one for each channel (axis 1).

    Examples
    --------
    >>> prelu(np.float32([[-2, -2]]), np.float32([0.5, 2]))
    array([[-1., -4.]], dtype=float32)
    """
    array, weight = real_input(x, "x", "prelu"), real_input(weight, "weight", "prelu").reshape(-1)
    if weight.size != 1 and (array.ndim < 2 or weight.size != array.shape[1]):
        raise ShapeError(f"prelu: weight has {weight.size} slopes but x has shape {array.shape}; give one, or one for each of axis 1")
    slopes = weight.reshape(-1, *[1] * max(array.ndim - 2, 0))
    with np.errstate(invalid="ignore", over="ignore"):
        return in_format_of(np.where(array > 0, array, array * slopes), x)


def _smooth(name, x, order, function, generated=None):
    """A function in float64, rounded once; under the order ``inductor`` what the generated code computes."""
    array = real_input(x, "x", name)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if check_order(order, name, generated is not None) == "inductor":
            return in_format_of(generated(array), x)
        return in_format_of(function(array.astype(np.float64)).astype(_F), x)


def sigmoid(x, *, order="torch_avx512"):
    """``1 / (1 + exp(-x))``.

    Examples
    --------
    >>> sigmoid(np.float32([-100, 0]))
    array([3.8e-44, 5.0e-01], dtype=float32)
    """
    return _smooth("sigmoid", x, order, lambda v: 1 / (1 + np.exp(-v)), inductor.sigmoid)


def silu(x, *, order="torch_avx512"):
    """``x / (1 + exp(-x))``.

    Examples
    --------
    >>> silu(np.float32([0, 100]))
    array([  0., 100.], dtype=float32)
    """
    return _smooth("silu", x, order, lambda v: v / (1 + np.exp(-v)), inductor.silu)


def tanh(x, *, order="torch_avx512"):
    """The hyperbolic tangent.

    Examples
    --------
    >>> tanh(np.float32([-100, 0]))
    array([-1.,  0.], dtype=float32)
    """
    return _smooth("tanh", x, order, np.tanh)


def elu(x, alpha=1.0, *, order="torch_avx512"):
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)``.

    Examples
    --------
    >>> elu(np.float32([-100, 2]))
    array([-1.,  2.], dtype=float32)
    """
    return _smooth("elu", x, order, lambda v: np.where(v > 0, v, alpha * np.expm1(np.minimum(v, 0))), lambda v: inductor.elu(v, alpha))


def log_softmax(x, dim=-1, *, order="torch_avx512"):
    """Logarithms of what `softmax` gives: ``x - max - log(sum(exp(x - max)))``.

    Examples
    --------
    >>> log_softmax(np.float32([0, 0]))
    array([-0.6931472, -0.6931472], dtype=float32)
    """
    check_order(order, "log_softmax")
    array = real_input(x, "x", "log_softmax").astype(np.float64)
    if not -array.ndim <= dim < array.ndim:
        raise ArgumentError(f"log_softmax: dim={dim} but x has shape {array.shape}; choose {-array.ndim} … {array.ndim - 1}")
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = array - array.max(dim, keepdims=True, initial=-np.inf)
        return (centred - np.log(np.exp(centred).sum(dim, keepdims=True))).astype(_F)
