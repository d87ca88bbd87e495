"""`quantize_static`: ONNX Runtime's post-training quantization, without ONNX Runtime."""

import numpy as np

from refquant import numerics as profiles
from refquant.errors import ArgumentError, UnsupportedError
from refquant.graph.model import Model
from refquant.workflow.ort.calibrate import calibrate, calibrated_names
from refquant.workflow.ort.from_model import graph_of_model, with_plain_layers
from refquant.workflow.ort.onnx_graph import OnnxGraph, OpNode
from refquant.workflow.ort.options import QuantizationOptions
from refquant.workflow.ort.preprocess import preprocessed
from refquant.workflow.ort.qdq import place_qdq
from refquant.workflow.ort.qdq_rules import QDQ_RULES
from refquant.workflow.ort.qoperator import place_operators
from refquant.workflow.ort.qoperator_rules import OPERATOR_RULES
from refquant.workflow.ort.to_model import model_of_graph

__all__ = ["quantize_static"]

_OPERATORS = tuple(sorted({*QDQ_RULES, *OPERATOR_RULES}))


def quantize_static(
    model, calibration_batches=None, *, quant_format="QDQ", op_types_to_quantize=None, per_channel=False, reduce_range=False, activation_type="int8",
    weight_type="int8", nodes_to_quantize=None, nodes_to_exclude=None, calibrate_method="MinMax", extra_options=None, tensor_ranges=None,
    preprocess=False, numerics="onnxruntime", fuse_qdq=None,
):  # fmt: skip
    """Quantize a float model as ``onnxruntime.quantization.quantize_static`` does.

    Parameters
    ----------
    model : refquant.graph.Model or refquant.interop.onnx.OnnxModel
        A float model. Operations of a `Model` are taken for the ONNX operators of `refquant.workflow.ort.from_model.ONNX_FORMS`: a linear layer for a
        ``Gemm``, whatever the rank of its input. An `OnnxModel` (``from_onnx(path, as_graph=False)``) keeps every name of its file.
    calibration_batches : iterable
        Each an array, a tuple of arrays, one an input, or a dict by name. They are run one by one; the histogram methods run them twice.
    quant_format : {"QDQ", "QOperator"}
        Quantizers around float operators, or operators on codes. A `Model` takes the first alone.
    op_types_to_quantize : sequence of str, optional
        ONNX operators; all that there is a rule for unless given.
    per_channel : bool
        Weights by output channels.
    reduce_range : bool
        Weights with 7 bits.
    activation_type, weight_type : {"int8", "uint8", "int16", "uint16"}
        ``"QInt8"`` and ONNX Runtime's own constants work too.
    nodes_to_quantize, nodes_to_exclude : sequence of str, optional
        Names of nodes.
    calibrate_method : {"MinMax", "Entropy", "Percentile", "Distribution"}
    extra_options : dict, optional
        By ONNX Runtime's names, see `refquant.workflow.ort.options.EXTRA_OPTIONS`.
    tensor_ranges : dict of str to (low, high), optional
        In place of calibration, such as the content of ONNX Runtime's calibration cache. A tensor of an `OnnxModel` that is not among them is
        taken for integers and left alone; a `Model` needs them all.
    preprocess : bool
        Fold batch norms into convolutions before, as ONNX Runtime's ``quant_pre_process`` does; without, they are quantized as layers of their own.
    numerics : str or Numerics
        Whose arithmetic the result follows.
    fuse_qdq : bool, optional
        Compute "dequantize, operator, quantize" on codes where ONNX Runtime fuses it, as it does by default; unless given, for its profile.

    Returns
    -------
    Model or OnnxModel
        As was given.

    Raises
    ------
    ArgumentError, RangeError, ShapeError
        Options that do not exist or contradict each other, no data, data with NaN or infinities.
    UnsupportedError
        What ONNX Runtime has no kernels for, and what a `Model` cannot hold.

    Exactness
    ---------
    From the same ranges come the same nodes, scales, zero points, weights and biases, bit for bit, as ONNX Runtime's tool makes of the ONNX model.
    Ranges come from the model's own float32 run, whose sums round in another order than ONNX Runtime's: they can differ in the last bits.

    The result runs as ONNX Runtime runs it, except where it computes in float32: there each keeps an order of its own.
    A batch norm that is not folded (`preprocess`) becomes the product and the sum, each rounded to float32, that ONNX Runtime computes.

    Source
    ------
    onnxruntime 1.32, python/tools/quantization: quantize.py, calibrate.py, qdq_quantizer.py, onnx_quantizer.py, base_quantizer.py, quant_utils.py.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> x, _ = load_split("digits", "calibration")
    >>> int8 = quantize_static(zoo.load("digits_resnet"), x.reshape(4, 50, 1, 8, 8), activation_type="uint8", per_channel=True)
    >>> int8.numerics.name, [n.name for n in int8.nodes][:3]
    ('onnxruntime', ['x', 'x_QuantizeLinear', 'stem_conv'])
    >>> test, labels = load_split("digits", "test")
    >>> y, = int8(test)
    >>> bool((y.argmax(1) == labels).mean() > 0.98)
    True
    """
    options = QuantizationOptions(
        quant_format, op_types_to_quantize or _OPERATORS, per_channel, reduce_range, activation_type, weight_type, nodes_to_quantize, nodes_to_exclude,
        calibrate_method, extra_options,
    )  # fmt: skip
    profile = profiles.get(numerics)
    if isinstance(model, Model):
        return _quantize_graph(model, calibration_batches, tensor_ranges, options, profile, fuse_qdq, preprocess)
    if not hasattr(model, "requantized"):
        kind = type(model).__name__
        raise ArgumentError(f"quantize_static: model is a {kind} but must be a refquant Model or OnnxModel; load files with refquant.interop.from_onnx")
    graph = OnnxGraph(
        (OpNode(n.name, n.op, list(n.inputs), list(n.outputs), dict(n.attrs), n.domain, n) for n in model.nodes), model.constants, model.inputs,
        model.outputs, max((n.opset for n in model.nodes if not n.domain), default=13),
    )  # fmt: skip
    if preprocess:
        graph = preprocessed(graph)
        model = model.requantized(graph.nodes, graph.constants, model.numerics, False)
    ranges = _ranges(graph, calibration_batches, tensor_ranges, options, lambda batch, see: _run_onnx(model, batch, see))
    place = place_qdq if options.quant_format == "QDQ" else place_operators
    quantized = place(graph, ranges, options)
    return model.requantized(quantized.nodes, quantized.constants, profile, fuse_qdq)


def _quantize_graph(model, batches, ranges, options, profile, fuse, preprocess):
    if options.quant_format == "QOperator":
        raise UnsupportedError("quantize_static: a Model takes quant_format='QDQ', whose layers run on codes as well; load the ONNX file with as_graph=False for QOperator")
    if model.quantized:
        raise ArgumentError(f"quantize_static: model {model.name!r} is quantized already; pass the float model")
    model = with_plain_layers(model)
    graph = graph_of_model(model)
    if preprocess:
        graph = preprocessed(graph)
        model = model_of_graph(graph, model, model.numerics, fuse=False)
        graph = graph_of_model(model)
    ranges = _ranges(graph, batches, ranges, options, lambda batch, see: _run_model(model, batch, see))
    _check_ranges(graph, model, ranges, options)
    return model_of_graph(place_qdq(graph, ranges, options), model, profile, profile.name.startswith("onnxruntime") if fuse is None else fuse)


def _ranges(graph, batches, given, options, run):
    wanted = set(calibrated_names(graph, options))
    if given is not None:
        return {name: pair for name, pair in given.items() if name in wanted}
    if batches is None:
        raise ArgumentError("quantize_static: calibration_batches is missing, so no range is known; give batches, or tensor_ranges")

    def only_wanted(batch, see):
        run(batch, lambda name, x: see(name, x) if name in wanted and x.dtype == np.float32 else None)

    return calibrate(only_wanted, batches, options)


def _check_ranges(graph, model, ranges, options):
    """Refuse ranges that lack a value, which would stay float without a word. What is no float is the input of a table alone."""
    indices = {name for n in model.nodes if n.op == "embedding" for name in n.inputs}
    missing = [name for name in calibrated_names(graph, options) if name not in ranges and name not in indices]
    if missing:
        raise ArgumentError(f"quantize_static: tensor_ranges lacks {', '.join(map(repr, missing[:5]))}{' …' if len(missing) > 5 else ''}; give the range of every value, or calibrate")


def _inputs(model, batch):
    if isinstance(batch, dict):
        return [batch[name] for name in model.inputs if name in batch]
    return list(batch) if isinstance(batch, (tuple, list)) else [batch]


def _run_model(model, batch, see):
    model.run(*_inputs(model, batch), hooks=lambda node, value: see(node.name, value))


def _run_onnx(model, batch, see):
    inputs = _inputs(model, batch)
    for name, value in zip(model.inputs, inputs):
        see(name, np.asarray(value))
    seen = {}

    def hook(node, value):
        # called for each named output of a node in turn
        i = seen[node.name] = seen.get(node.name, -1) + 1
        see([name for name in node.outputs if name][i], value)

    model.run(*inputs, hooks=hook)
