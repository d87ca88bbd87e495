"""Operators on quantized tensors: QTensor in, QTensor out, under the arithmetic of a profile.

`OPS` lists each operator once with its reference; contract tests iterate over it.
"""

from typing import Callable, NamedTuple

from refquant.errors import ArgumentError
from refquant.ops.add import add, add_reference
from refquant.ops.avg_pool import adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d
from refquant.ops.cat import cat
from refquant.ops.conv import conv1d, conv2d, conv3d, conv_reference
from refquant.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d, conv_transpose_reference
from refquant.ops.dequantize import dequantize, dequantize_reference
from refquant.ops.fake_quantize import fake_quantize, fake_quantize_reference
from refquant.ops.linear import linear, linear_reference
from refquant.ops.matmul_integer import matmul_integer, matmul_integer_reference
from refquant.ops.max_pool import max_pool2d, max_pool2d_reference
from refquant.ops.mul import mul, mul_reference
from refquant.ops.pack_weights import PackedWeights, pack_weights
from refquant.ops.quantize import quantize, quantize_reference
from refquant.ops.relu import relu
from refquant.ops.reshape import flatten, reshape
from refquant.ops.unary import elu, gelu, hardsigmoid, hardswish, leaky_relu, sigmoid, tanh

__all__ = [
    "Op", "OPS", "PackedWeights", "pack_weights",
    "quantize", "dequantize", "fake_quantize", "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "matmul_integer",
    "add", "mul", "relu", "sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "leaky_relu", "gelu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "global_avg_pool2d", "cat", "reshape", "flatten",
]  # fmt: skip


class Op(NamedTuple):
    """An operator, its readable NumPy reference (itself, where the operator is NumPy), and the profile sections that it reads."""

    name: str
    fast: Callable
    reference: Callable
    sections: tuple


OPS = (
    Op("quantize", quantize, quantize_reference, ("quantize", "quantize_channel", "quantize_int32")),
    Op("dequantize", dequantize, dequantize_reference, ("dequantize", "dequantize_channel")),
    Op("fake_quantize", fake_quantize, fake_quantize_reference, ("fake_quantize", "fake_quantize_channel")),
    Op("linear", linear, linear_reference, ("linear", "linear_int8", "linear_real")),
    Op("conv1d", conv1d, conv_reference, ("conv", "conv_real")),
    Op("conv2d", conv2d, conv_reference, ("conv", "conv_real")),
    Op("conv3d", conv3d, conv_reference, ("conv", "conv_real")),
    *(Op(f.__name__, f, conv_transpose_reference, ("conv_transpose",)) for f in (conv_transpose1d, conv_transpose2d, conv_transpose3d)),
    Op("matmul_integer", matmul_integer, matmul_integer_reference, ()),
    Op("add", add, add_reference, ("add",)),
    Op("mul", mul, mul_reference, ("mul",)),
    *(Op(f.__name__, f, f, ("unary",)) for f in (sigmoid, tanh, hardsigmoid, hardswish, elu, leaky_relu, gelu)),
    Op("relu", relu, relu, ()),
    Op("max_pool2d", max_pool2d, max_pool2d_reference, ()),
    Op("avg_pool2d", avg_pool2d, avg_pool2d, ("avg_pool",)),
    Op("adaptive_avg_pool2d", adaptive_avg_pool2d, adaptive_avg_pool2d, ("adaptive_avg_pool",)),
    Op("cat", cat, cat, ("cat",)),
    Op("reshape", reshape, reshape, ()),
    Op("flatten", flatten, flatten, ()),
)

if len({op.name for op in OPS}) != len(OPS):
    raise ArgumentError("ops: two operators share a name; rename one")
