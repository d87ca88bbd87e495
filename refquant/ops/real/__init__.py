"""Operators on float32 arrays: what a network computes before it is quantized.

Observers look at these numbers, so a quantized network has the scales of another framework only if its float32 forward has
the same bits. A float32 sum depends on its order; two orders are defined here, chosen by the argument `order`:

``"torch_avx512"``
    What PyTorch 2.13 computes on an x86-64 CPU with AVX-512, on one thread, for contiguous batches of 16 images and more:
    oneDNN's and MKL's chains of fused multiply-adds. The same definition holds here for every batch size.
``"float64"``
    Products are exact in float64, sums run in the order of memory in float64, and the result is rounded once to
    float32: independent of the CPU, and within a millionth of all cases the correctly rounded result.

>>> import numpy as np
>>> x = np.float32([[1, 2**-24, -1]])
>>> [float(linear(x, np.ones((1, 3), np.float32), order=order)[0, 0]) for order in ORDERS]
[0.0, 5.960464477539063e-08]
"""

from refquant.ops.real.attention import gelu, layer_norm, matmul, permute, scale, softmax
from refquant.ops.real.conv import conv1d, conv2d
from refquant.ops.real.elementwise import add, cat, flatten, relu
from refquant.ops.real.linear import linear
from refquant.ops.real.norm import batch_norm, fold_conv_bn, fold_linear_bn
from refquant.ops.real.order import ORDERS
from refquant.ops.real.pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d

__all__ = [
    "ORDERS", "conv1d", "conv2d", "linear", "batch_norm", "fold_conv_bn", "fold_linear_bn",
    "relu", "add", "cat", "flatten", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d",
    "layer_norm", "softmax", "gelu", "matmul", "permute", "scale",
]  # fmt: skip
