"""Operators on float32 arrays: what a network computes before it is quantized.

Observers look at these numbers, so a quantized network has the scales of another framework only if its float32 forward has
the same bits. A float32 sum depends on its order; three orders are defined here, chosen by the argument `order`:

``"torch_avx512"``
    What PyTorch 2.13 computes on an x86-64 CPU with AVX-512, on one thread, for contiguous batches of 16 images and more:
    oneDNN's and MKL's chains of fused multiply-adds. The same definition holds here for every batch size.
``"float64"``
    Products are exact in float64, sums run in the order of memory in float64, and the result is rounded once to
    float32: independent of the CPU, and within a millionth of all cases the correctly rounded result.
``"inductor"``
    What the C++ computes that TorchInductor generates for a model quantized by PT2E, on one thread of a CPU with AVX2: averages, batch
    norms, smooth functions and softmax, images channels last. Layers that it leaves to a library, and norms over groups and rows, are refused.

>>> import numpy as np
>>> x = np.float32([[1, 2**-24, -1]])
>>> [float(linear(x, np.ones((1, 3), np.float32), order=order)[0, 0]) for order in ("torch_avx512", "float64")]
[0.0, 5.960464477539063e-08]
"""

from refquant.ops.real.activations import (
    clamp, elu, hardsigmoid, hardswish, hardtanh, leaky_relu, log_softmax, prelu, relu6, sigmoid, silu, tanh,
)  # fmt: skip
from refquant.ops.real.attention import gelu, layer_norm, matmul, permute, softmax
from refquant.ops.real.conv import conv1d, conv2d, conv3d
from refquant.ops.real.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from refquant.ops.real.elementwise import add, add_scalar, cat, div, flatten, mul, mul_scalar, relu, sub
from refquant.ops.real.group_norm import group_norm, instance_norm, local_response_norm
from refquant.ops.real.linear import linear
from refquant.ops.real.norm import batch_norm, fold_conv_bn, fold_conv_transpose_bn, fold_linear_bn
from refquant.ops.real.order import ORDERS
from refquant.ops.real.pool import (
    adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d, adaptive_max_pool2d, avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d, mean,
)  # fmt: skip
from refquant.ops.real.resize import interpolate, pad

__all__ = [
    "ORDERS", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "matmul",
    "batch_norm", "fold_conv_bn", "fold_conv_transpose_bn", "fold_linear_bn", "layer_norm", "group_norm", "instance_norm", "local_response_norm",
    "relu", "relu6", "hardtanh", "clamp", "hardswish", "hardsigmoid", "sigmoid", "tanh", "elu", "leaky_relu", "silu", "prelu", "gelu", "softmax", "log_softmax",
    "add", "sub", "mul", "div", "add_scalar", "mul_scalar", "cat", "flatten", "permute", "pad", "interpolate",
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "mean",
]  # fmt: skip
