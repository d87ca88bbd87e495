"""The orders in which real sums are computed, and the checks that real operators share."""

import numpy as np

from refquant.core.layout import empty_channels_last, is_channels_last
from refquant.errors import ArgumentError, ShapeError, UnsupportedError, choose

__all__ = ["ORDERS", "check_order", "real_input", "in_format_of", "bias_vector", "activate"]

ORDERS = ("torch_avx512", "float64", "inductor")


def check_order(order, place, generated=False):
    """Return `order` if it is known, and if `place` has that order: ``inductor`` only where TorchInductor generates the code."""
    if choose(place, "order", order, ORDERS) == "inductor" and not generated:
        raise UnsupportedError(f"{place}: order='inductor', but what a compiled program computes here in float32 is not described; quantize the layer, or take order='float64'")
    return order


def real_input(x, name, place):
    """Return `x` as a contiguous float32 array, or say why not."""
    x = np.asarray(x)
    if x.dtype != np.float32:
        raise ArgumentError(f"{place}: {name} has dtype {x.dtype} but must be float32; convert it with {name}.astype(np.float32)")
    return np.ascontiguousarray(x)


def in_format_of(y, *inputs):
    """Return `y` channels last if all inputs are, as PyTorch's layers hand the memory format on; the numbers are the same."""
    if is_channels_last(y) or not all(is_channels_last(np.asarray(x)) for x in inputs):
        return y
    out = empty_channels_last(y.shape, y.dtype)
    out[...] = y
    return out


def bias_vector(bias, channels, place):
    """Return the bias, zeros where there is none."""
    if bias is None:
        return np.zeros(channels, np.float32)
    bias = real_input(bias, "bias", place)
    if bias.shape != (channels,):
        raise ShapeError(f"{place}: bias has shape {bias.shape} but there are {channels} output channels; give one number a channel")
    return bias


def activate(y, activation, place):
    """Apply the activation that follows a product: None, a name, or a name and its parameters; a ReLU in place."""
    name, *parameters = activation if isinstance(activation, tuple) else (activation,)
    if choose(place, "activation", name, [None, *_FUSED]) is None:
        return y
    # NaN stays, as in PyTorch: np.maximum propagates it.
    return np.maximum(y, np.float32(0), out=y) if name == "relu" else _function(name)(y, *parameters)


_FUSED = ("relu", "leaky_relu", "hardtanh", "hardswish", "tanh", "gelu", "swish")


def _function(name):
    from refquant.ops.real import activations, attention  # which take this module's checks

    return attention.gelu if name == "gelu" else getattr(activations, {"swish": "silu"}.get(name, name))
