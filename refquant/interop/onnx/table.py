"""Every operator that refquant executes: its name, its domain, the version from which on, and the function."""

from typing import Callable, NamedTuple

import numpy as np

from refquant.errors import ArgumentError
from refquant.interop.onnx import (
    activations, cast, convolution, elementwise, indexing, integer_products, microsoft_blocks, microsoft_elementwise, microsoft_layers, microsoft_nbits,
    microsoft_products, microsoft_softmax, normalization, pooling, products, quantization, reductions, resize, shaping,
)  # fmt: skip

__all__ = ["Executor", "EXECUTORS", "NEWEST", "find_executor", "supported_operators"]

NEWEST = {"": 28, "com.microsoft": 1}


class Executor(NamedTuple):
    """An operator of ONNX.

    Attributes
    ----------
    op, domain : str
    since : int
        The first version of the domain for which `run` is right; up to the next line of the same operator.
    run : callable
        ``run(call, *inputs)`` returns an array or a tuple of them; inputs left out are None.
    """

    op: str
    domain: str
    since: int
    run: Callable


EXECUTORS = (
    Executor("Abs", "", 1, elementwise.unary(np.abs)),
    Executor("Acos", "", 7, elementwise.unary(np.arccos)),
    Executor("Acosh", "", 9, elementwise.unary(np.arccosh)),
    Executor("Add", "", 1, elementwise.binary(np.add)),
    Executor("And", "", 1, elementwise.binary(np.logical_and, boolean=True)),
    Executor("ArgMax", "", 1, reductions.arg(np.argmax)),
    Executor("ArgMin", "", 1, reductions.arg(np.argmin)),
    Executor("Asin", "", 7, elementwise.unary(np.arcsin)),
    Executor("Asinh", "", 9, elementwise.unary(np.arcsinh)),
    Executor("Atan", "", 7, elementwise.unary(np.arctan)),
    Executor("Atanh", "", 9, elementwise.unary(np.arctanh)),
    Executor("AveragePool", "", 1, pooling.average_pool),
    Executor("BatchNormalization", "", 1, normalization.batch_normalization),
    Executor("BitShift", "", 11, elementwise.shift),
    Executor("BitwiseAnd", "", 18, elementwise.integer_binary(np.bitwise_and)),
    Executor("BitwiseNot", "", 18, elementwise.unary(np.bitwise_not)),
    Executor("BitwiseOr", "", 18, elementwise.integer_binary(np.bitwise_or)),
    Executor("BitwiseXor", "", 18, elementwise.integer_binary(np.bitwise_xor)),
    Executor("Cast", "", 6, cast.cast),
    Executor("CastLike", "", 15, cast.cast_like),
    Executor("Ceil", "", 1, elementwise.unary(np.ceil)),
    Executor("Celu", "", 12, activations.celu),
    Executor("Clip", "", 1, elementwise.clip),
    Executor("Compress", "", 9, indexing.compress),
    Executor("Concat", "", 1, shaping.concat),
    Executor("Constant", "", 1, shaping.constant),
    Executor("ConstantOfShape", "", 9, shaping.constant_of_shape),
    Executor("Conv", "", 1, convolution.conv),
    Executor("ConvInteger", "", 10, integer_products.conv_integer),
    Executor("ConvTranspose", "", 1, convolution.conv_transpose),
    Executor("Cos", "", 7, elementwise.unary(np.cos)),
    Executor("Cosh", "", 9, elementwise.unary(np.cosh)),
    Executor("CumProd", "", 26, reductions.cumulative(np.cumprod)),
    Executor("CumSum", "", 11, reductions.cumulative(np.cumsum)),
    Executor("DepthToSpace", "", 1, shaping.depth_to_space),
    Executor("DequantizeLinear", "", 10, quantization.dequantize_linear),
    Executor("Det", "", 11, products.det),
    Executor("Div", "", 1, elementwise.divide),
    Executor("Dropout", "", 1, shaping.dropout),
    Executor("DynamicQuantizeLinear", "", 11, quantization.dynamic_quantize_linear),
    Executor("Einsum", "", 12, products.einsum),
    Executor("Elu", "", 1, activations.elu),
    Executor("Equal", "", 1, elementwise.binary(np.equal, boolean=True)),
    Executor("Erf", "", 9, activations.erf),
    Executor("Exp", "", 1, elementwise.unary(np.exp)),
    Executor("Expand", "", 8, shaping.expand),
    Executor("EyeLike", "", 9, shaping.eye_like),
    Executor("Flatten", "", 1, shaping.flatten),
    Executor("Floor", "", 1, elementwise.unary(np.floor)),
    Executor("Gather", "", 1, indexing.gather),
    Executor("GatherElements", "", 11, indexing.gather_elements),
    Executor("GatherND", "", 11, indexing.gather_nd),
    Executor("Gelu", "", 20, activations.gelu),
    Executor("Gemm", "", 1, products.gemm),
    Executor("GlobalAveragePool", "", 1, pooling.global_average_pool),
    Executor("GlobalLpPool", "", 2, pooling.global_lp_pool),
    Executor("GlobalMaxPool", "", 1, pooling.global_max_pool),
    Executor("Greater", "", 1, elementwise.binary(np.greater, boolean=True)),
    Executor("GreaterOrEqual", "", 12, elementwise.binary(np.greater_equal, boolean=True)),
    Executor("GroupNormalization", "", 18, normalization.group_normalization),
    Executor("HardSigmoid", "", 1, activations.hard_sigmoid),
    Executor("HardSwish", "", 14, activations.hard_swish),
    Executor("Hardmax", "", 1, activations.hardmax),
    Executor("Identity", "", 1, shaping.identity),
    Executor("InstanceNormalization", "", 1, normalization.instance_normalization),
    Executor("IsInf", "", 10, elementwise.is_inf),
    Executor("IsNaN", "", 9, elementwise.unary(np.isnan, keep=False)),
    Executor("LRN", "", 1, normalization.lrn),
    Executor("LayerNormalization", "", 17, normalization.layer_normalization),
    Executor("LeakyRelu", "", 1, activations.leaky_relu),
    Executor("Less", "", 1, elementwise.binary(np.less, boolean=True)),
    Executor("LessOrEqual", "", 12, elementwise.binary(np.less_equal, boolean=True)),
    Executor("Log", "", 1, elementwise.unary(np.log)),
    Executor("LogSoftmax", "", 1, activations.log_softmax_flat),
    Executor("LogSoftmax", "", 13, activations.log_softmax),
    Executor("LpNormalization", "", 1, normalization.lp_normalization),
    Executor("LpPool", "", 2, pooling.lp_pool),
    Executor("MatMul", "", 1, products.matmul),
    Executor("MatMulInteger", "", 10, integer_products.matmul_integer),
    Executor("Max", "", 1, elementwise.variadic(np.maximum)),
    Executor("MaxPool", "", 1, pooling.max_pool),
    Executor("Mean", "", 1, elementwise.mean),
    Executor("MeanVarianceNormalization", "", 9, normalization.mean_variance_normalization),
    Executor("Min", "", 1, elementwise.variadic(np.minimum)),
    Executor("Mish", "", 18, activations.mish),
    Executor("Mod", "", 10, elementwise.modulo),
    Executor("Mul", "", 1, elementwise.binary(np.multiply)),
    Executor("Neg", "", 1, elementwise.unary(np.negative)),
    Executor("NonZero", "", 9, indexing.non_zero),
    Executor("Not", "", 1, elementwise.unary(np.logical_not)),
    Executor("OneHot", "", 9, indexing.one_hot),
    Executor("Or", "", 1, elementwise.binary(np.logical_or, boolean=True)),
    Executor("PRelu", "", 1, activations.prelu),
    Executor("Pad", "", 1, shaping.pad),
    Executor("Pow", "", 1, elementwise.power),
    Executor("QLinearConv", "", 10, integer_products.qlinear_conv),
    Executor("QLinearMatMul", "", 10, integer_products.qlinear_matmul),
    Executor("QuantizeLinear", "", 10, quantization.quantize_linear),
    Executor("RMSNormalization", "", 23, normalization.rms_normalization),
    Executor("Range", "", 11, shaping.range_),
    Executor("Reciprocal", "", 1, elementwise.unary(np.reciprocal)),
    Executor("ReduceL1", "", 1, reductions.reduction(reductions.L1)),
    Executor("ReduceL2", "", 1, reductions.reduction(reductions.L2)),
    Executor("ReduceLogSum", "", 1, reductions.reduction(reductions.LOG_SUM)),
    Executor("ReduceLogSumExp", "", 1, reductions.reduction(reductions.LOG_SUM_EXP)),
    Executor("ReduceMax", "", 1, reductions.reduction(reductions.MAX)),
    Executor("ReduceMean", "", 1, reductions.reduction(reductions.MEAN)),
    Executor("ReduceMin", "", 1, reductions.reduction(reductions.MIN)),
    Executor("ReduceProd", "", 1, reductions.reduction(reductions.PROD)),
    Executor("ReduceSum", "", 1, reductions.reduction(reductions.SUM)),
    Executor("ReduceSumSquare", "", 1, reductions.reduction(reductions.SUM_SQUARE)),
    Executor("Relu", "", 1, activations.relu),
    Executor("Reshape", "", 1, shaping.reshape),
    Executor("Resize", "", 10, resize.resize_10),
    Executor("Resize", "", 11, resize.resize),
    Executor("ReverseSequence", "", 10, indexing.reverse_sequence),
    Executor("Round", "", 11, elementwise.round_even),
    Executor("Scatter", "", 9, indexing.scatter_elements),
    Executor("ScatterElements", "", 11, indexing.scatter_elements),
    Executor("ScatterND", "", 11, indexing.scatter_nd),
    Executor("Selu", "", 1, activations.selu),
    Executor("Shape", "", 1, shaping.shape),
    Executor("Shrink", "", 9, activations.shrink),
    Executor("Sigmoid", "", 1, activations.sigmoid),
    Executor("Sign", "", 9, elementwise.unary(np.sign)),
    Executor("Sin", "", 7, elementwise.unary(np.sin)),
    Executor("Sinh", "", 9, elementwise.unary(np.sinh)),
    Executor("Size", "", 1, shaping.size),
    Executor("Slice", "", 1, shaping.slice_),
    Executor("Softmax", "", 1, activations.softmax_flat),
    Executor("Softmax", "", 13, activations.softmax),
    Executor("Softplus", "", 1, activations.softplus),
    Executor("Softsign", "", 1, activations.softsign),
    Executor("SpaceToDepth", "", 1, shaping.space_to_depth),
    Executor("Split", "", 2, shaping.split),
    Executor("Sqrt", "", 1, elementwise.unary(np.sqrt)),
    Executor("Squeeze", "", 1, shaping.squeeze),
    Executor("Sub", "", 1, elementwise.binary(np.subtract)),
    Executor("Sum", "", 1, elementwise.variadic(np.add)),
    Executor("Swish", "", 24, activations.swish),
    Executor("Tan", "", 7, elementwise.unary(np.tan)),
    Executor("Tanh", "", 1, activations.tanh),
    Executor("ThresholdedRelu", "", 10, activations.thresholded_relu),
    Executor("Tile", "", 1, shaping.tile),
    Executor("TopK", "", 1, reductions.top_k),
    Executor("Transpose", "", 1, shaping.transpose),
    Executor("Trilu", "", 14, shaping.trilu),
    Executor("Unsqueeze", "", 1, shaping.unsqueeze),
    Executor("Upsample", "", 7, resize.upsample),
    Executor("Where", "", 9, elementwise.where),
    Executor("Xor", "", 1, elementwise.binary(np.logical_xor, boolean=True)),
    Executor("DequantizeLinear", "com.microsoft", 1, quantization.dequantize_linear),
    Executor("DynamicQuantizeLSTM", "com.microsoft", 1, microsoft_layers.dynamic_quantize_lstm),
    Executor("DynamicQuantizeMatMul", "com.microsoft", 1, microsoft_products.dynamic_quantize_matmul),
    Executor("GatherBlockQuantized", "com.microsoft", 1, microsoft_blocks.gather_block_quantized),
    Executor("Gelu", "com.microsoft", 1, activations.gelu),
    Executor("MatMulIntegerToFloat", "com.microsoft", 1, microsoft_products.matmul_integer_to_float),
    Executor("MatMulNBits", "com.microsoft", 1, microsoft_nbits.matmul_nbits),
    Executor("NhwcMaxPool", "com.microsoft", 1, microsoft_elementwise.nhwc_max_pool),
    Executor("QAttention", "com.microsoft", 1, microsoft_layers.qattention),
    Executor("QEmbedLayerNormalization", "com.microsoft", 1, microsoft_layers.qembed_layer_normalization),
    Executor("QGemm", "com.microsoft", 1, microsoft_products.qgemm),
    Executor("QLinearAdd", "com.microsoft", 1, microsoft_elementwise.qlinear_add),
    Executor("QLinearAveragePool", "com.microsoft", 1, microsoft_elementwise.qlinear_average_pool),
    Executor("QLinearConcat", "com.microsoft", 1, microsoft_elementwise.qlinear_concat),
    Executor("QLinearConv", "com.microsoft", 1, microsoft_products.qlinear_conv_nhwc),
    Executor("QLinearGlobalAveragePool", "com.microsoft", 1, microsoft_elementwise.qlinear_global_average_pool),
    Executor("QLinearLeakyRelu", "com.microsoft", 1, microsoft_elementwise.qlinear_leaky_relu),
    Executor("QLinearMul", "com.microsoft", 1, microsoft_elementwise.qlinear_mul),
    Executor("QLinearSigmoid", "com.microsoft", 1, microsoft_elementwise.qlinear_sigmoid),
    Executor("QLinearSoftmax", "com.microsoft", 1, microsoft_softmax.qlinear_softmax),
    Executor("QLinearWhere", "com.microsoft", 1, microsoft_elementwise.qlinear_where),
    Executor("QuantizeLinear", "com.microsoft", 1, quantization.quantize_linear),
)


def _index():
    index = {}
    for executor in EXECUTORS:
        lines = index.setdefault((executor.domain, executor.op), [])
        if any(line.since == executor.since for line in lines):
            raise ArgumentError(f"EXECUTORS: {executor.op} since {executor.since} stands there twice; remove one")
        lines.append(executor)
    return {key: sorted(lines, key=lambda line: line.since, reverse=True) for key, lines in index.items()}


_INDEX = _index()


def find_executor(op, domain, version):
    """Return the `Executor` of an operator in a version of its domain, or None."""
    return next((line for line in _INDEX.get((domain, op), ()) if line.since <= version), None)


def supported_operators(op, domain):
    """Return a sentence on what there is instead of an operator that is not supported."""
    import difflib

    names = sorted(name for d, name in _INDEX if d == domain)
    lines = _INDEX.get((domain, op))
    if lines:
        return f"refquant has it from version {lines[-1].since} on; convert the model: onnx.version_converter"
    near = difflib.get_close_matches(op, names, 1)
    hint = f"did the exporter mean {near[0]}? " if near else ""
    return f"{hint}refquant.interop.onnx.table.EXECUTORS lists the {len(names)} operators of {domain or 'ai.onnx'!r} that there are"
