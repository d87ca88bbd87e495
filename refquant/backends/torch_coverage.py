"""PyTorch's ``quantized::`` operators, and what refquant has of each: ``python -m refquant.backends.torch_coverage``.

The list of operators is PyTorch's own, asked of the installed version; the table below says what becomes of each name. Imports torch when asked.
"""

from refquant.backends.coverage_entry import Entry, apart, by_name, cells, print_table
from refquant.errors import BackendMissing

__all__ = ["COVERAGE", "NAMESPACE", "schemas", "unclassified", "coverage_table"]

NAMESPACE = "quantized"


def _sides(pattern):
    return " ".join(pattern.format(d) for d in (1, 2, 3))


_FIELDS = "dilation groups output_padding padding stride transpose"
_NO_ARITHMETIC = "not arithmetic: "

COVERAGE = (
    Entry("add add_relu add_out add_relu_out", "add add_scalar", "with a number: add_scalar"),
    Entry("add_scalar add_scalar_relu add_scalar_out add_scalar_relu_out", "add_scalar"),
    Entry("mul mul_relu mul_out mul_relu_out", "mul mul_scalar", "with a number: mul_scalar"),
    Entry("mul_scalar mul_scalar_relu mul_scalar_out mul_scalar_relu_out", "mul_scalar"),
    Entry("batch_norm batch_norm_relu " + _sides("batch_norm{0}d batch_norm{0}d_relu"), "batch_norm"),
    Entry("layer_norm", "layer_norm"),
    Entry("group_norm", "group_norm"),
    Entry("instance_norm", "instance_norm"),
    Entry("cat cat_relu cat_out cat_relu_out", "cat"),
    Entry("clamp", "clamp hardtanh"),
    Entry("relu6", "relu6"),
    Entry("threshold", "threshold"),
    Entry("prelu", "prelu"),
    Entry("celu", "celu"),
    Entry("elu", "elu", "scale and input_scale of 1"),
    Entry("hardswish", "hardswish"),
    Entry("leaky_relu", "leaky_relu"),
    Entry("sigmoid", "sigmoid"),
    Entry("softmax", "softmax"),
    Entry("max_pool1d", "max_pool1d"),
    Entry("max_pool2d", "max_pool2d"),
    Entry("linear linear_relu linear_prepack linear_prepack_legacy", "linear pack_weights"),
    Entry("linear_dynamic linear_relu_dynamic", "linear_dynamic"),
    Entry("linear_with_input_q_dq_qweight_dq_output_fp32 linear_with_input_q_dq_qweight_dq_relu_output_fp32", "quantize linear", "quantize, then linear with out=None"),
    Entry(_sides("conv{0}d conv{0}d_relu conv{0}d_prepack") + " conv_prepack", "conv1d conv2d conv3d pack_weights"),
    Entry(_sides("conv{0}d_dynamic"), "conv1d_dynamic conv2d_dynamic conv3d_dynamic"),
    Entry(_sides("conv_transpose{0}d conv_transpose{0}d_prepack"), "conv_transpose1d conv_transpose2d conv_transpose3d"),
    Entry("embedding_bag_byte_prepack embedding_bag_4bit_prepack embedding_bag_2bit_prepack", "quantize_embedding pack_embedding", "without optimized_qparams"),
    Entry(
        "embedding_byte embedding_4bit embedding_bag_byte embedding_bag_4bit embedding_bag_byte_rowwise_offsets embedding_bag_4bit_rowwise_offsets"
        " embedding_bag_2bit_rowwise_offsets", "embedding_bag", "without pruned_weights",
    ),
    Entry("conv2d_add conv2d_add_relu", "conv2d", "with other="),
    Entry("linear_leaky_relu linear_tanh", "linear", "with activation="),
    Entry(_sides("conv_transpose{0}d_dynamic"), "", "not described: as conv2d_dynamic, around a transposed convolution"),
    Entry("quantized_lstm_cell_dynamic quantized_gru_cell_dynamic quantized_rnn_relu_cell_dynamic quantized_rnn_tanh_cell_dynamic", "", "not described: linear_dynamic, then gates in float32"),
    Entry("matmul", "", "not described: dequantizes, multiplies in float32 in an order of MKL's own, quantizes"),
    Entry(
        "embedding_bag_byte_prepack_with_rowwise_min_max embedding_bag_4bit_prepack_with_rowwise_min_max embedding_bag_2bit_prepack_with_rowwise_min_max"
        " embedding_bag_byte_unpack embedding_bag_4bit_unpack embedding_bag_2bit_unpack", "", "not described: rows by a given range, and back to numbers",
    ),
    Entry("int4mm_packed_weight_cpu", "", "not an INT8 operator: 4-bit weights with real activations"),
    Entry(
        "linear_dynamic_fp16 linear_relu_dynamic_fp16 linear_dynamic_fp16_unpacked_weight linear_prepack_fp16 linear_prepack_fp16_legacy linear_unpack_fp16"
        " make_quantized_cell_params_fp16", "", "not an INT8 operator: float16 weights",
    ),
    Entry("dropout", "", _NO_ARITHMETIC + "hands its input on, but in training, where it draws at random"),
    Entry("make_quantized_cell_params make_quantized_cell_params_dynamic embedding_bag_prepack", "", _NO_ARITHMETIC + "packs parameters that are quantized already"),
    Entry(
        _sides("conv{0}d_unpack conv_transpose{0}d_unpack") + " conv_unpack conv2d_unpack_sizes linear_unpack embedding_bag_unpack", "", _NO_ARITHMETIC + "takes packed parameters apart"
    ),
    Entry(
        " ".join(f"{conv}{d}d_{field}" for conv, sides in (("conv", (2, 3)), ("conv_transpose", (2, 3))) for d in sides for field in _FIELDS.split()), "",
        _NO_ARITHMETIC + "tells a field of packed parameters",
    ),
)  # fmt: skip


def schemas():
    """Return the schemas of the namespace in the installed PyTorch, as text, sorted.

    Raises
    ------
    BackendMissing
        PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise BackendMissing(f"coverage: needs PyTorch, which cannot be imported ({error}); pip install 'refquant[torch]'") from error
    return sorted(str(schema) for schema in torch._C._jit_get_all_schemas() if schema.name.split("::")[0] == NAMESPACE)


def _name(schema):
    return schema.split("::", 1)[1].split("(", 1)[0].split(".", 1)[0]


def unclassified(coverage=COVERAGE):
    """Return (names of PyTorch's that the table lacks, names of the table that PyTorch lacks)."""
    return apart(map(_name, schemas()), coverage)


def coverage_table():
    """Return a Markdown table: each schema, and what refquant has of it."""
    entries = by_name(COVERAGE)
    rows = ["| schema | refquant.ops | |", "|---|---|---|"]
    for schema in schemas():
        short = schema.removeprefix(f"{NAMESPACE}::").replace("__torch__.torch.classes.quantized.", "").replace("|", "\\|")
        rows.append(f"| `{short}` | {cells(entries, _name(schema))}")
    return "\n".join(rows)


if __name__ == "__main__":
    print_table(coverage_table)
