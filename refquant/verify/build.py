"""From a case to its problem."""

import numpy as np

from refquant.core.arguments import check_room
from refquant.verify.case import Case
from refquant.verify.case_outputs import elements_of
from refquant.verify.draws import generator
from refquant.verify.elementwise_data import build_add, build_cat, build_dequantize, build_fake_quantize, build_mul, build_quantize, build_root, build_squared_difference, build_unary
from refquant.verify.far import far
from refquant.verify.image_data import build_interpolate, build_mean, build_pool3d
from refquant.verify.layer_data import build_attention, build_embed_layer_norm, build_lstm_dynamic
from refquant.verify.matrix_data import build_gemm, build_matmul, build_where
from refquant.verify.pool_data import build_adaptive_avg_pool2d, build_avg_pool2d, build_max_pool2d
from refquant.verify.norm_data import build_batch_norm, build_channel_norm, build_layer_norm, build_softmax
from refquant.verify.product_data import build_conv, build_conv_transpose, build_linear, build_matmul_integer
from refquant.verify.special_data import (
    build_conv_dynamic, build_conv_integer, build_embedding_bag, build_limits, build_linear_dynamic, build_prelu, build_quantize_dynamic,
    build_quantize_embedding, build_requantize, build_scalar,
)  # fmt: skip
from refquant.verify.views import VIEWS, viewed

__all__ = ["BUILDERS", "build"]

#: Who makes the data of each operator.
BUILDERS = {
    "quantize": build_quantize,
    "dequantize": build_dequantize,
    "fake_quantize": build_fake_quantize,
    "linear": build_linear,
    "conv1d": build_conv,
    "conv2d": build_conv,
    "conv3d": build_conv,
    **{f"conv_transpose{dims}d": build_conv_transpose for dims in (1, 2, 3)},
    "matmul_integer": build_matmul_integer,
    "matmul": build_matmul,
    "gemm": build_gemm,
    "where": build_where,
    "attention": build_attention,
    "lstm_dynamic": build_lstm_dynamic,
    "embed_layer_norm": build_embed_layer_norm,
    **{op: build_add for op in ("add", "sub")},
    "squared_difference": build_squared_difference,
    "mul": build_mul,
    **{op: build_unary for op in ("relu", "sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "leaky_relu", "gelu")},
    "max_pool2d": build_max_pool2d,
    "avg_pool2d": build_avg_pool2d,
    "adaptive_avg_pool2d": build_adaptive_avg_pool2d,
    "cat": build_cat,
    "quantize_dynamic": build_quantize_dynamic,
    "linear_dynamic": build_linear_dynamic,
    **{op: build_conv_dynamic for op in ("conv1d_dynamic", "conv2d_dynamic", "conv3d_dynamic")},
    "conv_integer": build_conv_integer,
    "requantize": build_requantize,
    **{op: build_scalar for op in ("add_scalar", "mul_scalar")},
    **{op: build_limits for op in ("relu6", "clamp", "hardtanh", "threshold")},
    **{op: build_unary for op in ("celu", "exp", "log", "abs")},
    **{op: build_root for op in ("sqrt", "rsqrt")},
    "prelu": build_prelu,
    "softmax": build_softmax,
    "batch_norm": build_batch_norm,
    "layer_norm": build_layer_norm,
    **{op: build_channel_norm for op in ("group_norm", "instance_norm")},
    **{op: build_pool3d for op in ("max_pool1d", "max_pool3d", "avg_pool3d", "adaptive_avg_pool3d")},
    "mean": build_mean,
    "interpolate": build_interpolate,
    "quantize_embedding": build_quantize_embedding,
    "embedding_bag": build_embedding_bag,
}


def build(case):
    """Return the problem of a case; the same line gives the same bits.

    Parameters
    ----------
    case : Case or str

    Returns
    -------
    Problem

    Raises
    ------
    RangeError
        Data that this machine has not the memory for.

    Examples
    --------
    >>> problem = build("linear/fbgemm/m2k3n4/neartie/seed=0")
    >>> problem["x"].shape, problem["w"].shape, problem["bias"].dtype.name
    ((2, 3), (4, 3), 'float32')
    """
    case = case if isinstance(case, Case) else Case.parse(case)
    # Draws are made in 64 bits, by several arrays of that size.
    check_room((elements_of(case),), "the data", f"case {case}", itemsize=32)
    problem = BUILDERS[case.op](case, generator(case))
    if case.has("far"):
        problem = far(problem, np.random.Generator(np.random.PCG64([case.seed, 1])))
    for name in VIEWS:
        problem = viewed(problem, name) if case.has(name) else problem
    return problem
