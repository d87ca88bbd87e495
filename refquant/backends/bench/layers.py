"""Layers to time: codes, scales and packed weights, the same for both sides.

Activations stay below 128, as PyTorch's default qconfigs of x86 keep them (``reduce_range``): then no processor saturates inside a
product, and bits agree with and without VNNI. Scales spread the outputs over their codes.
"""

import math
from typing import NamedTuple

import numpy as np

import refquant as rq
from refquant.backends.bench.engines import torch_engine
from refquant.core.layout import to_channels_last
from refquant.core.rounding import Round, round_real

__all__ = ["Layer", "dense_layer", "conv_layer", "torch_call", "codes_of"]

_SPREAD = 40


class Layer(NamedTuple):
    """One quantized layer.

    Attributes
    ----------
    op : {"linear", "conv2d"}
    x, w : QTensor
    bias : ndarray
    out : QParams or None
        None where the integer product alone is asked for.
    geometry : dict
        Of a convolution.
    activation : {None, "relu"}
    """

    op: str
    x: rq.QTensor
    w: rq.QTensor
    bias: np.ndarray
    out: rq.QParams
    geometry: dict = {}
    activation: str = None

    def arguments(self):
        """Return the keywords of the operator."""
        return {"x": self.x, "w": self.w, "bias": self.bias, "out": self.out, "activation": self.activation, **self.geometry}


def dense_layer(m, n, k, *, integer_bias=False):
    """Return a fully connected layer of x (m, k) and w (n, k); with a bias in the accumulator's units, if asked."""
    return _layer("linear", (m, k), (n, k), integer_bias=integer_bias)


def conv_layer(x_shape, w_shape, activation, geometry, *, channels_last=True):
    """Return a convolution; `geometry` holds stride, padding, dilation and groups."""
    return _layer("conv2d", x_shape, w_shape, geometry, activation, channels_last)


def _layer(op, x_shape, w_shape, geometry=None, activation=None, channels_last=False, integer_bias=False):
    rng = np.random.default_rng([7, *x_shape, *w_shape])
    x = rng.integers(0, 128, x_shape, np.uint8)
    w = rng.integers(-127, 128, w_shape, np.int8)
    channels, sx, zero = w_shape[0], 0.0173, 61
    sw = rng.uniform(0.002, 0.004, channels).astype(np.float32)
    spread = 37.0 * 73.3 * math.sqrt(math.prod(w_shape[1:]))
    steps = rng.normal(0, spread, channels)
    bias = round_real(steps, Round.HALF_EVEN).astype(np.int32) if integer_bias else (steps * sx * sw).astype(np.float32)
    out = rq.QParams(float(np.float32(spread * sx * 0.003 / _SPREAD)), 64, "uint8")
    return Layer(
        op, rq.QTensor(to_channels_last(x) if channels_last else x, rq.QParams(sx, zero, "uint8")),
        rq.QTensor(w, rq.QParams(sw, np.zeros(channels, int), "int8", axis=0)), bias, out, geometry or {}, activation,
    )  # fmt: skip


def torch_call(layer, engine):
    """Return a call of PyTorch's quantized kernel for a layer, its weights packed beforehand."""
    torch, context = torch_engine(engine)
    from refquant.backends.torch_tensors import quantized

    operators, bias = torch.ops.quantized, torch.from_numpy(np.array(layer.bias, np.float32))
    with context:
        if layer.op == "linear":
            packed = operators.linear_prepack(quantized(layer.w), bias)
        else:
            g = layer.geometry
            sides = [_pair(g[name]) for name in ("stride", "padding", "dilation")]
            packed = operators.conv2d_prepack(quantized(layer.w), bias, *sides, g["groups"])
    name = layer.op + ("_relu" if layer.activation == "relu" else "")
    overload = "new" if layer.op == "conv2d" else "default"
    kernel = getattr(getattr(operators, name), overload)
    x, scale, zero = quantized(layer.x), float(layer.out.scale), int(layer.out.zero_point)
    return lambda: kernel(x, packed, scale, zero)


def _pair(value):
    return list(value) if isinstance(value, (tuple, list)) else [value, value]


def codes_of(tensor):
    """Return the codes of a quantized tensor of either side."""
    return tensor.values if isinstance(tensor, rq.QTensor) else tensor.int_repr().numpy()
