"""Operators on quantized tensors: QTensor in, QTensor out, under the arithmetic of a profile.

`OPS` lists each operator once with its reference; contract tests iterate over it.
"""

from typing import Callable, NamedTuple

from refquant.errors import ArgumentError
from refquant.ops.add import add, add_reference
from refquant.ops.attention import attention, attention_reference
from refquant.ops.avg_pool import adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d
from refquant.ops.batch_norm import batch_norm, batch_norm_reference
from refquant.ops.cat import cat
from refquant.ops.choose_qparams import choose_qparams
from refquant.ops.clamp import clamp, hardtanh, relu6
from refquant.ops.conv import conv1d, conv2d, conv3d, conv_reference
from refquant.ops.conv_integer import conv_integer, conv_integer_reference
from refquant.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d, conv_transpose_reference
from refquant.ops.dequantize import dequantize, dequantize_reference
from refquant.ops.embed_layer_norm import embed_layer_norm
from refquant.ops.embedding import QuantizedEmbedding, embedding_bag, pack_embedding, quantize_embedding
from refquant.ops.exp import abs, exp, log, rsqrt, sqrt
from refquant.ops.fake_quantize import fake_quantize, fake_quantize_reference
from refquant.ops.gemm import gemm, gemm_reference
from refquant.ops.interpolate import interpolate
from refquant.ops.linear import linear, linear_reference
from refquant.ops.linear_dynamic import conv1d_dynamic, conv2d_dynamic, conv3d_dynamic, conv_dynamic_reference, linear_dynamic, linear_dynamic_reference
from refquant.ops.lstm_dynamic import LstmOutput, lstm_dynamic, lstm_dynamic_reference
from refquant.ops.matmul import matmul, matmul_reference
from refquant.ops.matmul_integer import matmul_integer, matmul_integer_reference
from refquant.ops.max_pool import max_pool2d, max_pool2d_reference
from refquant.ops.mean import mean
from refquant.ops.mul import mul, mul_reference
from refquant.ops.norm import group_norm, instance_norm, layer_norm
from refquant.ops.pack_weights import PackedWeights, pack_weights
from refquant.ops.pool3d import adaptive_avg_pool3d, avg_pool3d, max_pool1d, max_pool3d
from refquant.ops.prelu import prelu, prelu_reference
from refquant.ops.quantize import quantize, quantize_reference
from refquant.ops.quantize_dynamic import quantize_dynamic
from refquant.ops.relu import relu
from refquant.ops.requantize import requantize, requantize_reference, requantize_sums, requantize_sums_reference
from refquant.ops.reshape import flatten, reshape
from refquant.ops.scalar import add_scalar, mul_scalar
from refquant.ops.softmax import softmax
from refquant.ops.squared_difference import squared_difference, squared_difference_reference
from refquant.ops.sub import sub, sub_reference
from refquant.ops.unary import celu, elu, gelu, hardsigmoid, hardswish, leaky_relu, sigmoid, tanh, threshold
from refquant.ops.where import where, where_reference

__all__ = [
    "Op", "OPS", "PackedWeights", "pack_weights", "QuantizedEmbedding",
    "quantize", "dequantize", "fake_quantize", "choose_qparams", "quantize_dynamic", "requantize", "requantize_sums",
    "linear", "linear_dynamic", "conv1d", "conv2d", "conv3d", "conv1d_dynamic", "conv2d_dynamic", "conv3d_dynamic", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "matmul_integer", "matmul", "gemm", "conv_integer",
    "add", "sub", "mul", "squared_difference", "add_scalar", "mul_scalar", "relu", "relu6", "clamp", "hardtanh", "threshold", "prelu",
    "sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "celu", "leaky_relu", "gelu", "softmax", "exp", "log", "sqrt", "rsqrt", "abs",
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "global_avg_pool2d", "mean", "interpolate",
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "quantize_embedding", "pack_embedding", "embedding_bag", "cat", "where", "attention", "lstm_dynamic", "LstmOutput", "embed_layer_norm", "reshape", "flatten",
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
    Op("linear", linear, linear_reference, ("linear", "linear_int8", "linear_real", "post")),
    Op("conv1d", conv1d, conv_reference, ("conv", "conv_real")),
    Op("conv2d", conv2d, conv_reference, ("conv", "conv_real", "post")),
    Op("conv3d", conv3d, conv_reference, ("conv", "conv_real")),
    *(Op(f.__name__, f, conv_transpose_reference, ("conv_transpose",)) for f in (conv_transpose1d, conv_transpose2d, conv_transpose3d)),
    Op("matmul_integer", matmul_integer, matmul_integer_reference, ()),
    Op("add", add, add_reference, ("add",)),
    Op("mul", mul, mul_reference, ("mul",)),
    *(Op(f.__name__, f, f, ("unary",)) for f in (sigmoid, tanh, hardsigmoid, hardswish, elu, leaky_relu, gelu)),
    Op("relu", relu, relu, ()),
    Op("max_pool2d", max_pool2d, max_pool2d_reference, ("max_pool",)),
    Op("avg_pool2d", avg_pool2d, avg_pool2d, ("avg_pool",)),
    Op("adaptive_avg_pool2d", adaptive_avg_pool2d, adaptive_avg_pool2d, ("adaptive_avg_pool",)),
    Op("cat", cat, cat, ("cat",)),
    Op("choose_qparams", choose_qparams, choose_qparams, ("dynamic",)),
    Op("quantize_dynamic", quantize_dynamic, quantize_dynamic, ("dynamic", "quantize")),
    Op("requantize", requantize, requantize_reference, ("requantize", "quantize", "dequantize")),
    Op("requantize_sums", requantize_sums, requantize_sums_reference, ("linear",)),
    Op("linear_dynamic", linear_dynamic, linear_dynamic_reference, ("dynamic", "linear_real")),
    *(Op(f.__name__, f, conv_dynamic_reference, ("dynamic", "conv")) for f in (conv1d_dynamic, conv2d_dynamic, conv3d_dynamic)),
    Op("conv_integer", conv_integer, conv_integer_reference, ()),
    Op("add_scalar", add_scalar, add_scalar, ("scalar",)),
    Op("mul_scalar", mul_scalar, mul_scalar, ("scalar",)),
    *(Op(f.__name__, f, f, ("clamp",)) for f in (relu6, clamp, hardtanh)),
    *(Op(f.__name__, f, f, ("unary",)) for f in (threshold, celu)),
    Op("prelu", prelu, prelu_reference, ("prelu",)),
    Op("softmax", softmax, softmax, ("softmax",)),
    Op("max_pool1d", max_pool1d, max_pool1d, ("max_pool",)),
    Op("max_pool3d", max_pool3d, max_pool3d, ()),
    Op("avg_pool3d", avg_pool3d, avg_pool3d, ("avg_pool3d",)),
    Op("adaptive_avg_pool3d", adaptive_avg_pool3d, adaptive_avg_pool3d, ("adaptive_avg_pool3d",)),
    Op("mean", mean, mean, ("mean",)),
    Op("interpolate", interpolate, interpolate, ("bilinear",)),
    Op("batch_norm", batch_norm, batch_norm_reference, ("batch_norm",)),
    Op("layer_norm", layer_norm, layer_norm, ("layer_norm",)),
    Op("group_norm", group_norm, group_norm, ("group_norm",)),
    Op("instance_norm", instance_norm, instance_norm, ("group_norm",)),
    Op("quantize_embedding", quantize_embedding, quantize_embedding, ()),
    Op("embedding_bag", embedding_bag, embedding_bag, ("embedding",)),
    Op("matmul", matmul, matmul_reference, ("linear", "linear_int8", "linear_real", "matmul")),
    Op("gemm", gemm, gemm_reference, ("linear", "linear_int8", "linear_real")),
    *(Op(f.__name__, f, f, ("function",)) for f in (exp, log, sqrt, rsqrt, abs)),
    Op("sub", sub, sub_reference, ("sub",)),
    Op("squared_difference", squared_difference, squared_difference_reference, ("squared_difference",)),
    Op("where", where, where_reference, ("requantize", "quantize", "dequantize")),
    Op("attention", attention, attention_reference, ("linear_real",)),
    Op("lstm_dynamic", lstm_dynamic, lstm_dynamic_reference, ("dynamic", "linear_real")),
    Op("embed_layer_norm", embed_layer_norm, embed_layer_norm, ("dequantize",)),
    Op("reshape", reshape, reshape, ()),
    Op("flatten", flatten, flatten, ()),
)

if len({op.name for op in OPS}) != len(OPS):
    raise ArgumentError("ops: two operators share a name; rename one")
