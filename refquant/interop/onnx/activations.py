"""Activations: elementwise functions with parameters, and softmax."""

import math

import numpy as np

from refquant.core.eigen import eigen_elu
from refquant.core.mlas import mlas_erf, mlas_gelu, mlas_logistic, mlas_softmax, mlas_tanh
from refquant.interop.onnx.call import axis_of, broadcast_size, need, rows_and_columns

__all__ = [
    "relu", "leaky_relu", "sigmoid", "tanh", "softmax", "log_softmax", "softmax_flat", "log_softmax_flat", "hardmax", "elu", "selu",
    "celu", "gelu", "mish", "swish", "hard_sigmoid", "hard_swish", "softplus", "softsign", "thresholded_relu", "shrink", "prelu", "erf",
]  # fmt: skip


def _as_runtime(call, x):
    """Whether ONNX Runtime's own float32 functions are in force."""
    return call.rules.kernels == "mlas" and x.dtype == np.float32


def _typed(function):
    """Make an executor whose result has the dtype of the first input."""

    def run(call, x):
        return np.asarray(function(call, x)).astype(x.dtype, copy=False)

    run.__doc__ = function.__doc__
    return run


def relu(call, x):
    """``Relu``: max(x, 0)."""
    return np.maximum(x, x.dtype.type(0))


@_typed
def leaky_relu(call, x):
    """``LeakyRelu``: x, or alpha * x where negative."""
    return np.where(x < 0, x * x.dtype.type(call.get("alpha", 0.01)), x)


def prelu(call, x, slope):
    """``PRelu``: x, or slope * x where negative; the slope broadcasts."""
    if slope.ndim == 1 and x.ndim > 2 and slope.size == x.shape[1] and call.opset < 9:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    need(call, broadcast_size(call.place, x, slope) == x.shape, f"slope {slope.shape} does not broadcast to x {x.shape}")
    return np.where(x < 0, x * slope, x).astype(x.dtype)


@_typed
def sigmoid(call, x):
    """``Sigmoid``: 1 / (1 + exp(-x)), without overflow on either side; under ONNX Runtime's rules `mlas_logistic`."""
    if _as_runtime(call, x):
        return mlas_logistic(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


@_typed
def tanh(call, x):
    """``Tanh``: the hyperbolic tangent; under ONNX Runtime's rules `mlas_tanh`."""
    return mlas_tanh(x) if _as_runtime(call, x) else np.tanh(x)


def _along(function, x, axis):
    """Apply a function of rows along another axis."""
    return np.moveaxis(function(np.ascontiguousarray(np.moveaxis(x, axis, -1))), -1, axis) if x.size else x


def _shifted(x, axis):
    return x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)


def _last_axis(call, x):
    return axis_of(call, call.get("axis", -1), x.ndim)


@_typed
def softmax(call, x):
    """``Softmax`` along one axis (version 13); under ONNX Runtime's rules `mlas_softmax`."""
    if _as_runtime(call, x):
        return _along(mlas_softmax, x, _last_axis(call, x))
    e = np.exp(_shifted(x, _last_axis(call, x)))
    return e / e.sum(_last_axis(call, x), keepdims=True)


@_typed
def log_softmax(call, x):
    """``LogSoftmax`` along one axis (version 13)."""
    axis = _last_axis(call, x)
    shifted = _shifted(x, axis)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def _flattened(function):
    def run(call, x):
        """Softmax over all axes from ``axis`` on, as versions 1 to 12 have it."""
        flat = x.reshape(rows_and_columns(call, call.get("axis", 1), x.shape))
        return function(call._replace(attrs={"axis": -1}), flat).reshape(x.shape)

    return run


softmax_flat, log_softmax_flat = _flattened(softmax), _flattened(log_softmax)


def hardmax(call, x):
    """``Hardmax``: 1 at the first greatest element along an axis."""
    if call.opset < 13:
        flat = x.reshape(rows_and_columns(call, call.get("axis", 1), x.shape))
        return _one_hot(flat, 1).reshape(x.shape)
    return _one_hot(x, _last_axis(call, x))


def _one_hot(x, axis):
    y = np.zeros_like(x)
    np.put_along_axis(y, np.expand_dims(x.argmax(axis), axis), 1, axis)
    return y


@_typed
def elu(call, x):
    """``Elu``: x, or alpha * (exp(x) - 1) where negative; under ONNX Runtime's rules `eigen_elu`, on one thread."""
    if _as_runtime(call, x):
        return eigen_elu(x, call.get("alpha", 1.0))
    return np.where(x < 0, call.get("alpha", 1.0) * np.expm1(np.minimum(x, 0)), x)


@_typed
def selu(call, x):
    """``Selu``: gamma * (x, or alpha * (exp(x) - 1) where not positive)."""
    alpha, gamma = call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    if call.opset < 6:
        alpha, gamma = call.get("alpha", 1.6732), call.get("gamma", 1.0507)
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@_typed
def celu(call, x):
    """``Celu``: max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    alpha = call.get("alpha", 1.0)
    return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x / alpha, 0)))


def erf(call, x):
    """``Erf``: the error function; under ONNX Runtime's rules `mlas_erf`."""
    if _as_runtime(call, x):
        return mlas_erf(x)
    from scipy.special import erf as function

    return function(x.astype(np.float64)).astype(x.dtype)


@_typed
def gelu(call, x):
    """``Gelu``: exact, or by tanh; under ONNX Runtime's rules `mlas_gelu`."""
    if _as_runtime(call, x):
        return mlas_gelu(x, call.get("approximate", "none"))
    if call.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    from scipy.special import erf as function

    return 0.5 * x * (1 + function(x / math.sqrt(2)))


@_typed
def mish(call, x):
    """``Mish``: x * tanh(log(1 + exp(x)))."""
    return x * np.tanh(np.logaddexp(0, x))


@_typed
def swish(call, x):
    """``Swish``: x * sigmoid(alpha * x)."""
    return x / (1 + np.exp(-call.get("alpha", 1.0) * x))


@_typed
def hard_sigmoid(call, x):
    """``HardSigmoid``: alpha * x + beta within [0, 1]."""
    return np.clip(call.get("alpha", 0.2) * x + call.get("beta", 0.5), 0, 1)


@_typed
def hard_swish(call, x):
    """``HardSwish``: x * (x / 6 + 1 / 2 within [0, 1])."""
    return x * np.clip(x / 6 + 0.5, 0, 1)


@_typed
def softplus(call, x):
    """``Softplus``: log(1 + exp(x))."""
    return np.logaddexp(0, x)


@_typed
def softsign(call, x):
    """``Softsign``: x / (1 + |x|)."""
    return x / (1 + np.abs(x))


@_typed
def thresholded_relu(call, x):
    """``ThresholdedRelu``: x where above alpha, else 0."""
    return np.where(x > call.get("alpha", 1.0), x, 0)


@_typed
def shrink(call, x):
    """``Shrink``: toward 0 by a bias outside of [-lambd, lambd], 0 inside."""
    bias, lambd = call.get("bias", 0.0), call.get("lambd", 0.5)
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0))
