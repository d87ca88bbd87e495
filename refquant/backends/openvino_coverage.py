"""What OpenVINO's CPU plugin computes on codes, and what refquant has of it: ``python -m refquant.backends.openvino_coverage``.

The list is OpenVINO's own: an operator takes codes where a low precision transformation moves the dequantization behind it, and the installed library has the name of each
of these classes in it. All else runs in float32 between dequantization and FakeQuantize. Imports openvino when asked.
"""

import re
from pathlib import Path

from refquant.backends.coverage_entry import Entry, apart, by_name, cells, print_table
from refquant.errors import BackendMissing

__all__ = ["COVERAGE", "transformations", "unclassified", "coverage_table"]

_MOVES = "no arithmetic: it moves codes"
_REWRITES = "not an operator: it rewrites the graph around one"
# What C++ calls a class of this namespace: its name with the number of its letters before it.
_CLASS = re.compile(rb"N2ov4pass13low_precision(\d+)([A-Za-z]\w*?)TransformationE")
_TAIL = len("Transformation")

COVERAGE = (
    Entry("FakeQuantize", "quantize fake_quantize requantize"),
    Entry("Convolution GroupConvolution", "conv1d conv2d conv3d"),
    Entry("ConvolutionBackpropData", "conv_transpose1d conv_transpose2d conv_transpose3d"),
    Entry("MatMul", "linear matmul"),
    Entry("Add", "add"),
    Entry("Multiply MultiplyPartial", "mul"),
    Entry("Concat", "cat"),
    Entry("AvgPool", "avg_pool2d avg_pool3d"),
    Entry("MaxPool", "max_pool1d max_pool2d max_pool3d"),
    Entry("ReduceMean", "mean adaptive_avg_pool2d adaptive_avg_pool3d"),
    Entry("Interpolate", "interpolate"),
    Entry("Clamp", "clamp hardtanh relu6"),
    Entry("Relu", "relu"),
    Entry("PRelu", "prelu leaky_relu"),
    Entry("Reshape", "reshape flatten"),
    Entry("ReduceMax ReduceMin", "", "no rounding: it compares codes of one scale"),
    Entry("ReduceSum", "", "not described: sums of codes, as ReduceMean without the quotient"),
    Entry("MVN NormalizeL2", "", "not described: normalization in float32 of undequantized codes, whose scale cancels"),
    Entry("RecurrentCell", "", "not described: LSTM and GRU cells by oneDNN, with uint8 or int8 states"),
    Entry(
        "AssignAndReadValue BatchToSpace Broadcast DepthToSpace Gather Pad ShuffleChannels Slice SpaceToBatch Split Squeeze StridedSlice Transpose Unsqueeze VariadicSplit", "", _MOVES
    ),
    Entry(
        "Cleanup EliminateFakeQuantize FQStripping FakeQuantizeDecomposition FoldConvert FoldFakeQuantize FuseConvert FuseElementwiseToFakeQuantize FuseMultiplyToFakeQuantize"
        " FuseSubtractToFakeQuantize MultiplyToGroupConvolution", "", _REWRITES,
    ),
    Entry("Layer EltwiseBase ReduceBase TransparentBase WeightableLayer", "", "not an operator: a class that others are made of"),
)  # fmt: skip


def transformations():
    """Return the names of the low precision transformations in the installed library, sorted.

    Raises
    ------
    BackendMissing
        openvino is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise BackendMissing(f"coverage: needs openvino, which cannot be imported ({error}); pip install 'refquant[openvino]'") from error
    libraries = Path(openvino.__file__).parent.joinpath("libs").glob("libopenvino.so*")
    found = {match for library in libraries for match in _CLASS.findall(library.read_bytes())}
    return sorted(name.decode() for letters, name in found if int(letters) == len(name) + _TAIL)


def unclassified(coverage=COVERAGE):
    """Return (names of OpenVINO's that the table lacks, names of the table that OpenVINO lacks)."""
    return apart(transformations(), coverage)


def coverage_table():
    """Return a Markdown table: each transformation's operator, and what refquant has of it."""
    entries = by_name(COVERAGE)
    return "\n".join(["| operator | refquant.ops | |", "|---|---|---|", *(f"| {name} | {cells(entries, name)}" for name in transformations())])


if __name__ == "__main__":
    print_table(coverage_table)
