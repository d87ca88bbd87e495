"""ONNX Runtime's quantized operators, and what refquant has of each: ``python -m refquant.backends.onnxruntime_coverage``.

The list is ONNX Runtime's own: the kernels and schemas that the installed version registers. The table below says what becomes of each name. Imports onnxruntime when asked.
"""

import re
from typing import NamedTuple

from refquant.backends.coverage_entry import Entry, apart, by_name, cells, print_table
from refquant.errors import BackendMissing

__all__ = ["COVERAGE", "Operator", "quantized_operators", "unclassified", "coverage_table"]

MICROSOFT = "com.microsoft"
_STANDARD = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MaxPool", "Resize")
_NAMED = re.compile(r"Q[A-Z]|.*([Qq]uant|Integer|NBits|Bnb4|FpQ4|Float8|BFP|Fp4|Fp8)")
_CODES = re.compile(r"tensor\((u?int[248]|float8\w+|float4\w+)\)")
_NO_KERNEL = "ONNX Runtime has no CPU kernel for it"
_FEW_BITS = "not an INT8 operator: "

COVERAGE = (
    Entry("QuantizeLinear ms.QuantizeLinear", "quantize", "8 bits; of 16 and 4 bits, and by blocks, interop.from_onnx runs it"),
    Entry("DequantizeLinear ms.DequantizeLinear", "dequantize", "8 bits and int32; of 16 and 4 bits, and by blocks, interop.from_onnx runs it"),
    Entry("DynamicQuantizeLinear", "quantize_dynamic choose_qparams"),
    Entry("QLinearMatMul", "matmul linear", "linear where the second factor is constant, per tensor or by its columns"),
    Entry("MatMulInteger", "matmul_integer"),
    Entry("ms.MatMulIntegerToFloat", "matmul linear", "with out=None"),
    Entry("ms.DynamicQuantizeMatMul", "linear_dynamic"),
    Entry("ms.QGemm", "gemm linear", "linear with an int32 bias; alpha, transposed factors and an addend of any shape: gemm"),
    Entry("QLinearConv ms.QLinearConv", "conv1d conv2d conv3d", "channels_last: strides"),
    Entry("ConvInteger", "conv_integer"),
    Entry("ms.QLinearAdd", "add", "broadcast too"),
    Entry("ms.QLinearMul", "mul", "broadcast too"),
    Entry("ms.QLinearWhere", "where"),
    Entry("ms.QLinearConcat", "cat", "each input with parameters of its own"),
    Entry("ms.QLinearAveragePool", "avg_pool2d avg_pool3d", "channels_last: strides"),
    Entry("ms.QLinearGlobalAveragePool", "global_avg_pool2d adaptive_avg_pool2d adaptive_avg_pool3d", "channels_last: strides"),
    Entry("MaxPool ms.NhwcMaxPool", "max_pool1d max_pool2d max_pool3d", "of codes; NhwcMaxPool: strides"),
    Entry("Resize", "interpolate", "of codes"),
    Entry("ms.QLinearLeakyRelu", "leaky_relu"),
    Entry("ms.QLinearSigmoid", "sigmoid"),
    Entry("ms.QLinearSoftmax", "softmax"),
    Entry("ms.QLinearReduceMean ms.MulInteger ms.ReduceSumInteger", "", _NO_KERNEL),
    Entry("ms.QAttention", "attention", "with past keys, a scale or a mask value of its own interop.from_onnx runs it; no rotary embedding"),
    Entry("ms.QEmbedLayerNormalization", "embed_layer_norm", "its second output counts a mask's ones"),
    Entry("ms.DynamicQuantizeLSTM", "lstm_dynamic", "without peepholes, clipping and lengths of sequences; on one thread, since more cut the batch and quantize each piece of the states by itself"),
    Entry("ms.GatherBlockQuantized", "", "rows of codes, dequantized by blocks: of 2, 4 and 8 bits interop.from_onnx runs it; of float8 and float4 not described"),
    Entry("ms.GatherPacked", "", "no arithmetic: it moves bytes"),
    Entry("ms.GroupQueryAttention", "", "not described: attention in float32, with keys and values that may be kept as codes"),
    Entry("ms.MatMulInteger16", "", _FEW_BITS + "factors of 16 bits"),
    Entry("ms.MatMulNBits", "", "rows that become int8 in blocks, weights of 4 and 8 bits: interop.from_onnx runs it, on AVX2 to the bit"),
    Entry("ms.QMoE", "", _FEW_BITS + "weights of 2, 4 and 8 bits by blocks, with real activations"),
    Entry("ms.MatMulBnb4 ms.MatMulFpQ4", "", _FEW_BITS + "weights of 4 bits, with real activations"),
    Entry(
        "ms.DequantizeBFP ms.QuantizeBFP ms.DequantizeWithOrder ms.QuantizeWithOrder ms.QOrderedAttention ms.QOrderedGelu ms.QOrderedLayerNormalization ms.QOrderedLongformerAttention"
        " ms.QOrderedMatMul ms.GemmFloat8 ms.MatMulBlockQuantizedFp4Weight ms.MatMulBlockQuantizedFp8Weight ms.MatMulNBitsMlp ms.MatMulNBitsQLoRA ms.MatMulNBitsQkv", "",
        _NO_KERNEL + ": GPUs alone, or no provider at all",
    ),
)  # fmt: skip


class Operator(NamedTuple):
    """A quantized operator of the installed ONNX Runtime.

    Attributes
    ----------
    name : str
        That of the domain com.microsoft with ``ms.`` before it.
    on_cpu : bool
        Whether the CPU provider has a kernel.
    """

    name: str
    on_cpu: bool


def _registered():
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise BackendMissing(f"coverage: needs onnxruntime, which cannot be imported ({error}); pip install 'refquant[onnxruntime]'") from error
    kernels = [kernel for kernel in state.get_all_opkernel_def() if kernel.provider == "CPUExecutionProvider"]
    return kernels, [schema for schema in state.get_all_operator_schema() if schema.domain == MICROSOFT]


def _takes_codes(kernel):
    """Whether a kernel's types are codes, and not simply everything."""
    types = {t for allowed in kernel.type_constraints.values() for t in allowed}
    return any(map(_CODES.fullmatch, types)) and not types & {"tensor(string)", "tensor(bool)", "tensor(uint64)"}


def quantized_operators():
    """Return the quantized operators of the installed version, sorted: a list of `Operator`.

    Of the domain com.microsoft whatever is called quantized, and every CPU kernel that takes codes of 8 bits and fewer; of ONNX's own domain those that
    compute with codes.

    Raises
    ------
    BackendMissing
        onnxruntime is not installed.
    """
    kernels, schemas = _registered()
    own = {kernel.op_name for kernel in kernels if kernel.domain == MICROSOFT}
    names = {f"ms.{name}" for name in (*own, *(schema.name for schema in schemas)) if _NAMED.match(name)}
    names |= {f"ms.{kernel.op_name}" for kernel in kernels if kernel.domain == MICROSOFT and _takes_codes(kernel)}
    standard = {kernel.op_name for kernel in kernels if kernel.domain == ""}
    names |= {name for name in _STANDARD if name in standard}
    return sorted(Operator(name, name in standard or name.removeprefix("ms.") in own) for name in names)


def unclassified(coverage=COVERAGE):
    """Return (names of ONNX Runtime's that the table lacks, names of the table that ONNX Runtime lacks)."""
    return apart((operator.name for operator in quantized_operators()), coverage)


def coverage_table():
    """Return a Markdown table: each operator, and what refquant has of it."""
    entries = by_name(COVERAGE)
    rows = ["| operator | CPU | refquant.ops | |", "|---|---|---|---|"]
    for operator in quantized_operators():
        name = operator.name.replace("ms.", f"{MICROSOFT}.")
        rows.append(f"| {name} | {'yes' if operator.on_cpu else '–'} | {cells(entries, operator.name)}")
    return "\n".join(rows)


if __name__ == "__main__":
    print_table(coverage_table)
