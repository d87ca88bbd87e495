"""Normalizations."""

import numpy as np

from refquant.interop.onnx.call import axes_of, axis_of, check_size, need

__all__ = [
    "batch_normalization", "instance_normalization", "layer_normalization", "group_normalization", "rms_normalization", "lrn", "lp_normalization",
    "mean_variance_normalization",
]  # fmt: skip


def _channels(v, x):
    return v.reshape(-1, *[1] * (x.ndim - 2))


def _float(x):
    return x if x.dtype == np.float64 else x.astype(np.float32)


def batch_normalization(call, x, scale, bias, mean, variance):
    """``BatchNormalization`` with given statistics: one factor and one addend a channel, rounded as ONNX Runtime rounds them."""
    if call.get("training_mode", 0) or (call.opset < 7 and not call.get("is_test", 0)) or (call.opset < 14 and call.outputs > 1):
        call.refuse("normalizes by the statistics of the batch (training)", "refquant executes inference; export the model for inference")
    need(call, x.ndim >= 2 and all(v.shape == (x.shape[1],) for v in (scale, bias, mean, variance)), f"x {x.shape} and parameters {scale.shape} do not fit")
    x_wide = _float(x)
    one, epsilon = x_wide.dtype.type(1), x_wide.dtype.type(call.get("epsilon", 1e-5))
    factor = _float(scale) * (one / np.sqrt(_float(variance) + epsilon))
    y = x_wide * _channels(factor, x) + _channels(_float(bias) - _float(mean) * factor, x)
    return y.astype(x.dtype, copy=False)


def _standard(x, axes, epsilon):
    x = _float(x)
    mean = x.mean(axes, keepdims=True)
    variance = np.square(x - mean).mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(variance + x.dtype.type(epsilon))
    return (x - mean) * inverse, mean, inverse


def instance_normalization(call, x, scale, bias):
    """``InstanceNormalization``: each channel of each image by its own mean and variance."""
    need(call, x.ndim >= 3 and scale.shape == bias.shape == (x.shape[1],), f"x {x.shape} and scale {scale.shape} do not fit")
    y, _, _ = _standard(x, tuple(range(2, x.ndim)), call.get("epsilon", 1e-5))
    return (y * _channels(scale, x) + _channels(bias, x)).astype(x.dtype)


def layer_normalization(call, x, scale, bias=None):
    """``LayerNormalization`` over the axes from ``axis`` on; also mean and inverse deviation."""
    axis = axis_of(call, call.get("axis", -1), x.ndim)
    y, mean, inverse = _standard(x, tuple(range(axis, x.ndim)), call.get("epsilon", 1e-5))
    y = y * scale if bias is None else y * scale + bias
    return y.astype(x.dtype), mean, inverse


def rms_normalization(call, x, scale):
    """``RMSNormalization``: divided by the root of the mean square over the axes from ``axis`` on."""
    axis = axis_of(call, call.get("axis", -1), x.ndim)
    wide = _float(x)
    mean = np.square(wide).mean(tuple(range(axis, x.ndim)), keepdims=True)
    return ((wide / np.sqrt(mean + wide.dtype.type(call.get("epsilon", 1e-5)))).astype(x.dtype) * scale).astype(x.dtype)


def group_normalization(call, x, scale, bias):
    """``GroupNormalization`` in groups of channels; before version 21 scale and bias were one a group."""
    groups = int(call.require("num_groups"))
    need(call, x.ndim >= 2 and groups >= 1 and x.shape[1] % groups == 0, f"num_groups={groups} does not divide the channels of x {x.shape}")
    y, _, _ = _standard(x.reshape(x.shape[0], groups, -1), (2,), call.get("epsilon", 1e-5))
    if scale.size == groups != x.shape[1]:
        scale, bias = (np.repeat(v, x.shape[1] // groups) for v in (scale, bias))
    return (y.reshape(x.shape) * _channels(scale, x) + _channels(bias, x)).astype(x.dtype)


def lrn(call, x):
    """``LRN``: divided by the squares of neighbouring channels."""
    size = int(call.require("size"))
    need(call, x.ndim >= 3 and 1 <= size < 2**20, f"x has shape {x.shape} and size={size}")
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    check_size((x.shape[0], x.shape[1] + size, *x.shape[2:]), 4, call.place)
    squares = np.pad(np.square(x), ((0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)))
    total = np.zeros_like(x)
    for i in range(min(size, x.shape[1] + size)):
        total += squares[:, i : i + x.shape[1]]
    alpha, beta, bias = (x.dtype.type(call.get(k, d)) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return x / (bias + alpha / x.dtype.type(size) * total) ** beta


def lp_normalization(call, x):
    """``LpNormalization``: divided by the 1- or 2-norm along an axis."""
    axis, p = axis_of(call, call.get("axis", -1), x.ndim), call.get("p", 2)
    norm = np.abs(x).sum(axis, keepdims=True) if p == 1 else np.sqrt(np.square(x).sum(axis, keepdims=True))
    return np.where(norm == 0, 0, x / norm).astype(x.dtype)


def mean_variance_normalization(call, x):
    """``MeanVarianceNormalization`` over given axes."""
    axes = axes_of(call, call.get("axes", [0, 2, 3]), x.ndim)
    deviation = x - x.mean(axes, keepdims=True)
    return (deviation / (np.sqrt(np.square(x).mean(axes, keepdims=True) - np.square(x.mean(axes, keepdims=True))) + x.dtype.type(1e-9))).astype(x.dtype)
