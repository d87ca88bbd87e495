"""From a case to its problem."""

from refquant.verify.case import Case
from refquant.verify.draws import generator
from refquant.verify.elementwise_data import build_add, build_cat, build_dequantize, build_fake_quantize, build_mul, build_quantize, build_unary
from refquant.verify.pool_data import build_adaptive_avg_pool2d, build_avg_pool2d, build_max_pool2d
from refquant.verify.product_data import build_conv, build_conv_transpose, build_linear, build_matmul_integer

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
    "add": build_add,
    "mul": build_mul,
    **{op: build_unary for op in ("relu", "sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "leaky_relu", "gelu")},
    "max_pool2d": build_max_pool2d,
    "avg_pool2d": build_avg_pool2d,
    "adaptive_avg_pool2d": build_adaptive_avg_pool2d,
    "cat": build_cat,
}


def build(case):
    """Return the problem of a case; the same line gives the same bits.

    Parameters
    ----------
    case : Case or str

    Returns
    -------
    Problem

    Examples
    --------
    >>> problem = build("linear/fbgemm/m2k3n4/neartie/seed=0")
    >>> problem["x"].shape, problem["w"].shape, problem["bias"].dtype.name
    ((2, 3), (4, 3), 'float32')
    """
    case = case if isinstance(case, Case) else Case.parse(case)
    return BUILDERS[case.op](case, generator(case))
