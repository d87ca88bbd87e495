"""LiteRT's kernels, and what refquant has of each: ``python -m refquant.backends.litert_coverage``.

The list is LiteRT's own: the builtin operators that the resolver of the installed version has, asked for one by one with an empty model each. The table below says
what becomes of each name on int8. Imports ai_edge_litert when asked.
"""

from functools import cache

from refquant.backends.coverage_entry import Entry, apart, by_name, cells, print_table
from refquant.errors import BackendMissing

__all__ = ["COVERAGE", "kernels", "unclassified", "coverage_table"]

_MOVES = "no arithmetic: it moves codes"
_COMPARES = "no rounding: it compares codes of one scale"
_VERSIONS = 15
_MISSING = "find op"

COVERAGE = (
    Entry("ADD", "add", "of one shape"),
    Entry("SUB", "sub"),
    Entry("SQUARED_DIFFERENCE", "squared_difference"),
    Entry("MUL", "mul", "of one shape"),
    Entry("AVERAGE_POOL_2D", "avg_pool2d"),
    Entry("MAX_POOL_2D", "max_pool1d max_pool2d"),
    Entry("CONCATENATION", "cat"),
    Entry("CONV_2D", "conv1d conv2d", "hybrid ones, with real activations, are not described"),
    Entry("DEPTHWISE_CONV_2D", "conv1d conv2d", "groups= the input's channels; hybrid ones are not described"),
    Entry("TRANSPOSE_CONV", "conv_transpose1d conv_transpose2d"),
    Entry("FULLY_CONNECTED", "linear linear_dynamic", "hybrid: linear_dynamic"),
    Entry("BATCH_MATMUL", "matmul"),
    Entry("QUANTIZE", "quantize requantize"),
    Entry("DEQUANTIZE", "dequantize"),
    Entry("LOGISTIC", "sigmoid"),
    Entry("TANH", "tanh"),
    Entry("SOFTMAX", "softmax"),
    Entry("RELU", "relu"),
    Entry("RELU6", "relu6"),
    Entry("RELU_N1_TO_1 RELU_0_TO_1", "hardtanh"),
    Entry("EXP", "exp"),
    Entry("LOG", "log"),
    Entry("SQRT", "sqrt"),
    Entry("RSQRT", "rsqrt"),
    Entry("ABS", "abs"),
    Entry("PRELU", "prelu"),
    Entry("LEAKY_RELU", "leaky_relu"),
    Entry("ELU", "elu"),
    Entry("GELU", "gelu"),
    Entry("HARD_SWISH", "hardswish"),
    Entry("MEAN", "mean adaptive_avg_pool2d"),
    Entry("RESIZE_BILINEAR", "interpolate"),
    Entry("RESIZE_NEAREST_NEIGHBOR", "interpolate", "mode nearest"),
    Entry("RESHAPE", "reshape flatten"),
    Entry("DIV", "", "not described: a quotient of centred codes by a table of reciprocals"),
    Entry("EQUAL NOT_EQUAL LESS LESS_EQUAL GREATER GREATER_EQUAL", "", "not described: both inputs go to a common scale as in ADD, and are compared"),
    Entry("LOG_SOFTMAX L2_NORMALIZATION", "", "not described: fixed-point functions into output parameters of their own"),
    Entry("SUM REDUCE_PROD", "", "not described: sums as in MEAN, products scaled step by step"),
    Entry("LSTM UNIDIRECTIONAL_SEQUENCE_LSTM SVDF", "", "not described: recurrent layers with fixed-point gates, and hybrid ones"),
    Entry("RNN UNIDIRECTIONAL_SEQUENCE_RNN BIDIRECTIONAL_SEQUENCE_RNN BIDIRECTIONAL_SEQUENCE_LSTM", "", "not described: hybrid alone, rows quantized as in linear_dynamic"),
    Entry("EMBEDDING_LOOKUP", "", "not described: rows of codes, or dequantized"),
    Entry("REDUCE_WINDOW", "", "not described: sums and products of plain integers, and maxima"),
    Entry("MAXIMUM MINIMUM REDUCE_MAX REDUCE_MIN ARG_MAX ARG_MIN TOPK_V2", "", _COMPARES),
    Entry(
        "BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND DEPTH_TO_SPACE SPACE_TO_DEPTH GATHER GATHER_ND SCATTER_ND TRANSPOSE SQUEEZE EXPAND_DIMS STRIDED_SLICE SLICE SPLIT SPLIT_V PACK UNPACK"
        " TILE PAD PADV2 MIRROR_PAD REVERSE_V2 REVERSE_SEQUENCE SELECT SELECT_V2 WHERE FILL BROADCAST_TO DYNAMIC_UPDATE_SLICE MATRIX_DIAG MATRIX_SET_DIAG SPARSE_TO_DENSE DENSIFY DILATE"
        " ONE_HOT UNIQUE BITCAST ASSIGN_VARIABLE READ_VARIABLE VAR_HANDLE STABLEHLO_GATHER STABLEHLO_SCATTER STABLEHLO_PAD", "", _MOVES,
    ),
    Entry("SHAPE RANK", "", "no arithmetic: it tells a shape"),
    Entry("CAST NEG FLOOR_DIV FLOOR_MOD BITWISE_XOR RIGHT_SHIFT", "", "not an INT8 operator: int8 is a plain integer to it, without scale and zero point"),
    Entry("STABLEHLO_ADD STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_MINIMUM STABLEHLO_AND STABLEHLO_SHIFT_LEFT", "", "not an INT8 operator: plain integers or real numbers, without scale and zero point"),
    Entry("FAKE_QUANT", "", "not an INT8 operator: real numbers in and out, by a range"),
    Entry("CUSTOM IF WHILE CALL_ONCE STABLEHLO_CASE STABLEHLO_COMPOSITE STABLEHLO_REDUCE_WINDOW", "", "not an operator of its own: it runs others"),
    Entry(
        "FLOOR CEIL ROUND SIN COS SQUARE POW SIGN ATAN2 ADD_N CUMSUM SEGMENT_SUM UNSORTED_SEGMENT_SUM UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN"
        " L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION CONV_3D CONV_3D_TRANSPOSE RFFT2D REAL IMAG COMPLEX_ABS BUCKETIZE ZEROS_LIKE RANGE EMBEDDING_LOOKUP_SPARSE NON_MAX_SUPPRESSION_V4"
        " NON_MAX_SUPPRESSION_V5 MULTINOMIAL RANDOM_STANDARD_NORMAL RANDOM_UNIFORM STABLEHLO_RNG_BIT_GENERATOR", "", "takes no int8",
    ),
    Entry("LOGICAL_OR LOGICAL_AND LOGICAL_NOT REDUCE_ALL REDUCE_ANY BROADCAST_ARGS SKIP_GRAM LSH_PROJECTION HASHTABLE HASHTABLE_LOOKUP HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE", "", "takes no int8: truth values, shapes, texts and tables"),
)  # fmt: skip


def kernels():
    """Return {name: newest version} of the builtin operators that the installed resolver has, without delegates.

    Raises
    ------
    BackendMissing
        ai_edge_litert or flatbuffers is not installed.
    """
    try:
        import flatbuffers  # noqa: F401
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise BackendMissing(f"coverage: needs ai_edge_litert and flatbuffers, which cannot be imported ({error}); pip install 'refquant[litert]'") from error
    names = sorted(name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int))
    return {name: version for name in names if (version := _newest(name))}


@cache
def _newest(name):
    return max((version for version in range(1, _VERSIONS + 1) if _registered(name, version)), default=0)


def _registered(name, version):
    """Whether a model of one operator without tensors gets past the resolver; what fails later was found."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from refquant.backends.litert_models import build_model

    content = build_model(name, version, None, [], [], ((1,), "int8", 1.0, 0))
    try:
        Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    except (RuntimeError, ValueError) as error:
        return _MISSING not in str(error)
    return True


def unclassified(coverage=COVERAGE):
    """Return (names of LiteRT's that the table lacks, names of the table that LiteRT lacks)."""
    return apart(kernels(), coverage)


def coverage_table():
    """Return a Markdown table: each kernel, its newest version, and what refquant has of it."""
    entries = by_name(COVERAGE)
    rows = ["| operator | version | refquant.ops | |", "|---|---|---|---|"]
    return "\n".join([*rows, *(f"| {name} | {version} | {cells(entries, name)}" for name, version in kernels().items())])


if __name__ == "__main__":
    print_table(coverage_table)
