"""QDQ models as ONNX Runtime runs them: "dequantize, operator, quantize" becomes one operator on codes.

A unit is fused only if every input of the operator comes out of a DequantizeLinear of 8-bit codes (a bias: of int32 in units of ``x_scale * w_scale``, from
which its own scale may be a hundredth away) and its output goes into one QuantizeLinear and nowhere else. What does not match is computed in float32, as there.

Before, the model is written anew: each reader of a dequantizer gets its own (`refquant.interop.onnx.qdq_unique`), two pairs of quantizers in a row become one
(`qdq_pairs`), products and sums behind them become a Gemm (`qdq_products`), pairs move past operators that move numbers (`qdq_propagation`), real weights and
biases become codes (`qdq_biases`), Transposes that undo each other go (`qdq_transposes`). That is ONNX Runtime's level "basic"; from "extended" on a ReLU or Clip
goes where the quantizer behind it cuts off the same numbers, and units fuse; "disabled" is the model as it stands.

Products of real activations with dequantized weights become MatMulNBits, see `make_blocks`.

int8 activations are taken as they are, which is what ONNX Runtime does with the session setting ``session.qdqisint8allowed=1``; by default, on x86-64,
it turns some of them into uint8 and computes the rest in float32, whose sums no one else can repeat bit for bit.

Source
------
onnxruntime/core/optimizer/qdq_transformer: selectors_actions/qdq_selectors.cc, relu_quantizelinear.cc.
"""

import numpy as np

from refquant.errors import choose
from refquant.interop.onnx.qdq_biases import quantize_biases
from refquant.interop.onnx.qdq_blocks import make_blocks
from refquant.interop.onnx.qdq_pairs import without_double_pairs
from refquant.interop.onnx.qdq_products import join_products
from refquant.interop.onnx.qdq_propagation import propagate_pairs
from refquant.interop.onnx.qdq_transposes import cancel_transposes
from refquant.interop.onnx.qdq_unique import unique_dequantizers
from refquant.interop.onnx.rules import rules_of
from refquant.interop.onnx.table import find_executor

__all__ = ["fuse_qdq", "fusion_level"]

_MICROSOFT = "com.microsoft"
_MOST_STEPS = 10
_ZERO = "zero_by_default"
_EIGHT_BIT = (np.uint8, np.int8)


class _Graph:
    """The nodes of a model and who makes and reads each value."""

    def __init__(self, nodes, outputs, constants, shapes=dict):
        self.nodes, self.outputs, self.constants, self.shapes = list(nodes), set(outputs), dict(constants), shapes
        self.index()

    def index(self):
        self.maker = {name: node for node in self.nodes for name in node.outputs if name}
        self.readers = {}
        for node in self.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def dequantized(self, name):
        """Return (codes, scale, zero point) by name where a value comes out of a plain DequantizeLinear."""
        node = self.maker.get(name)
        if node is None or node.op != "DequantizeLinear" or node.attrs.get("block_size", 0) or len(node.inputs) < 3:
            return None
        return node.inputs if all(n in self.constants for n in node.inputs[1:3]) else None

    def quantizer(self, name):
        """Return the QuantizeLinear that is the only reader of a value, and whose zero point is a constant of 8 bits."""
        readers = self.readers.get(name, [])
        if name in self.outputs or len(readers) != 1 or readers[0].op != "QuantizeLinear" or len(readers[0].inputs) < 3:
            return None
        scale, zero = (self.constants.get(n) for n in readers[0].inputs[1:3])
        return readers[0] if zero is not None and scale is not None and zero.dtype in _EIGHT_BIT and zero.size == scale.size == 1 else None

    def is_quantized(self, name):
        """Whether a QuantizeLinear reads a value."""
        return any(node.op == "QuantizeLinear" for node in self.readers.get(name, ()))

    def dtype(self, parts):
        return self.constants[parts[2]].dtype

    def scalar(self, parts):
        return self.constants[parts[1]].size == 1 == self.constants[parts[2]].size


def fusion_level(numerics, fuse):
    """Return the level that `from_onnx`'s parameter `fuse_qdq` means, or None to leave a model as it is.

    Parameters
    ----------
    numerics : Numerics
    fuse : bool, str or None

    Raises
    ------
    ArgumentError
        Anything but True, False, None, "basic" and "all".
    """
    if fuse is None:
        fuse = rules_of(numerics).kernels == "mlas"
    if isinstance(fuse, str):
        return choose("from_onnx", "fuse_qdq", fuse, ("basic", "all"))
    return "all" if fuse else None


def fuse_qdq(nodes, outputs, constants, level="all", shapes=dict):
    """Return the nodes and constants of a model with its QDQ units fused; a fused node keeps the operator's name.

    Parameters
    ----------
    nodes : sequence of OnnxNode
    outputs : sequence of str
    constants : dict of ndarray
    level : {"basic", "all"}
        ``"basic"``: written anew, but not fused.
    shapes : callable
        Without arguments; returns the shapes of values by name, as far as they are known before the model runs, None for sides that are not.
    """
    graph = _Graph(nodes, outputs, constants, shapes)
    graph.nodes = _without_identity(graph)
    graph.index()
    _rewrite(graph)
    if level == "basic":
        return _alive(graph.nodes, outputs), graph.constants
    _with_zero_points(graph)
    graph.nodes = _without_relu(graph)
    graph.index()
    make_blocks(graph)
    made = {node.name: _UNITS[node.op](graph, node) for node in graph.nodes if node.op in _UNITS and not node.domain}
    taken = {name for node in made.values() if node for name in node.outputs}
    rest = [made.get(node.name) or node for node in graph.nodes if made.get(node.name) or not taken.intersection(node.outputs)]
    return _alive(rest, outputs), graph.constants


def _rewrite(graph):
    """Repeat the steps of level "basic" until none changes anything, as there ten times at most."""
    unique_dequantizers(graph)
    for _ in range(_MOST_STEPS):
        steps = without_double_pairs, join_products, propagate_pairs, quantize_biases, unique_dequantizers, cancel_transposes
        if not any([step(graph) for step in steps]):
            return


def _with_zero_points(graph):
    """Give quantizers and dequantizers of 8 bits without a zero point that of 0, as units that fuse have it."""

    def dtype(node):
        if node.op == "QuantizeLinear":
            return np.uint8 if not node.attrs.get("output_dtype", 0) else None
        maker, codes = graph.maker.get(node.inputs[0]), graph.constants.get(node.inputs[0])
        if maker is not None and maker.op == "QuantizeLinear":
            return graph.constants[maker.inputs[2]].dtype if maker.inputs[2:] and maker.inputs[2] in graph.constants else dtype(maker)
        return None if codes is None or codes.dtype not in _EIGHT_BIT else codes.dtype

    made = {}
    for node in graph.nodes:
        if node.op in ("QuantizeLinear", "DequantizeLinear") and len(node.inputs) < 3 and not node.attrs.get("block_size", 0) and (kind := dtype(node)) is not None:
            scale = graph.constants.get(node.inputs[1])
            if scale is not None:
                graph.constants[f"{node.name}/{_ZERO}"] = np.zeros(scale.shape, kind)
                made[node.name] = node._replace(inputs=(*node.inputs, f"{node.name}/{_ZERO}"))
    graph.nodes = [made.get(node.name, node) for node in graph.nodes]
    graph.index()


def _alive(nodes, outputs):
    """Leave out nodes that nothing needs, such as a DequantizeLinear whose only reader was fused."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return kept[::-1]


def _without_identity(graph):
    """Drop Identity nodes, but for those that make an output."""
    renamed, kept = {}, []
    for node in graph.nodes:
        if node.op == "Identity" and node.outputs[0] not in graph.outputs:
            renamed[node.outputs[0]] = renamed.get(node.inputs[0], node.inputs[0])
        else:
            kept.append(node._replace(inputs=tuple(renamed.get(n, n) for n in node.inputs)))
    return kept


def _cuts_off(graph, node, quantize):
    """Whether a quantizer cuts off whatever a ReLU or Clip before it does."""
    scale, zero = (graph.constants[n].reshape(()) for n in quantize.inputs[1:3])
    limits = np.iinfo(zero.dtype)
    if node.op == "Relu":
        return int(zero) == limits.min
    ends = [np.float32(end - int(zero)) * scale for end in (limits.min, limits.max)]
    given = [graph.constants.get(name) if name else default for name, default in zip((*node.inputs[1:], "", ""), (-np.inf, np.inf))]
    if any(v is None for v in given) or set(node.attrs):
        return False
    epsilon = np.finfo(np.float32).eps
    return float(given[0]) - ends[0] <= epsilon and ends[1] - float(given[1]) <= epsilon


def _without_relu(graph):
    """Drop ReLUs and Clips whose quantizer cuts off the same numbers anyhow."""
    renamed, kept = {}, []
    for node in graph.nodes:
        q = graph.quantizer(node.outputs[0]) if node.op in ("Relu", "Clip") else None
        if q is not None and _cuts_off(graph, node, q):
            renamed[node.outputs[0]] = renamed.get(node.inputs[0], node.inputs[0])
        else:
            kept.append(node._replace(inputs=tuple(renamed.get(n, n) for n in node.inputs)))
    return kept


def _fused(node, op, domain, inputs, output, **attrs):
    executor = find_executor(op, domain, 1 if domain else node.opset)
    return node._replace(op=op, domain=domain, inputs=tuple(inputs), outputs=(output,), attrs={**node.attrs, **attrs}, run=executor.run)


def _unary(op, extra=lambda node: {}):
    def unit(graph, node):
        parts, q = graph.dequantized(node.inputs[0]), graph.quantizer(node.outputs[0])
        if parts is None or q is None or len(node.outputs) > 1 or not graph.scalar(parts) or graph.dtype(parts) != graph.constants[q.inputs[2]].dtype:
            return None
        return _fused(node, op, _MICROSOFT, [*parts[:3], *q.inputs[1:3]], q.outputs[0], **extra(node))

    return unit


def _elementwise(op):
    def unit(graph, node):
        parts, q = [graph.dequantized(n) for n in node.inputs], graph.quantizer(node.outputs[0])
        if q is None or len(parts) != 2 or not _alike(graph, parts, q):
            return None
        return _fused(node, op, _MICROSOFT, [*parts[0][:3], *parts[1][:3], *q.inputs[1:3]], q.outputs[0])

    return unit


def _alike(graph, parts, q):
    dtype = graph.constants[q.inputs[2]].dtype
    return all(p is not None and graph.scalar(p) and graph.dtype(p) == dtype for p in parts)


def _concat(graph, node):
    parts, q = [graph.dequantized(n) for n in node.inputs], graph.quantizer(node.outputs[0])
    if q is None or not _alike(graph, parts, q):
        return None
    return _fused(node, "QLinearConcat", _MICROSOFT, [*q.inputs[1:3], *(n for p in parts for n in p[:3])], q.outputs[0])


def _where(graph, node):
    parts, q = [graph.dequantized(n) for n in node.inputs[1:]], graph.quantizer(node.outputs[0])
    if q is None or not _alike(graph, parts, q):
        return None
    return _fused(node, "QLinearWhere", _MICROSOFT, [node.inputs[0], *parts[0][:3], *parts[1][:3], *q.inputs[1:3]], q.outputs[0])


def _factors(graph, node):
    """Return the parts of activation and weight, or None: codes of 8 bits, int8 activations only with int8 weights."""
    x, w = graph.dequantized(node.inputs[0]), graph.dequantized(node.inputs[1])
    if x is None or w is None or not graph.scalar(x) or graph.dtype(x) not in _EIGHT_BIT or graph.dtype(w) not in _EIGHT_BIT:
        return None
    return None if graph.dtype(x) == np.int8 != graph.dtype(w) else (x, w)


def _bias(graph, node, x, w):
    """Return the name of the int32 bias, "" without one, None if it does not fit."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return ""
    parts = graph.maker.get(node.inputs[2])
    if parts is None or parts.op != "DequantizeLinear" or any(n not in graph.constants for n in parts.inputs):
        return None
    codes, scale = (graph.constants[n] for n in parts.inputs[:2])
    product = (graph.constants[x[1]].reshape(-1) * graph.constants[w[1]].reshape(-1)).astype(np.float64)
    fits = codes.dtype == np.int32 and scale.size in (1, product.size) and (np.abs(scale.reshape(-1) - product) <= 1e-6 + 1e-2 * np.abs(product)).all()
    # of a Gemm, ONNX Runtime takes any int32 for multiples of the product of the scales, whatever the bias's own scale is
    return parts.inputs[0] if fits or (node.op == "Gemm" and codes.dtype == np.int32) else None


def _conv(graph, node):
    factors, q = _factors(graph, node), graph.quantizer(node.outputs[0])
    if factors is None or q is None:
        return None
    x, w = factors
    bias = _bias(graph, node, x, w)
    if bias is None or graph.dtype(x) != graph.constants[q.inputs[2]].dtype:
        return None
    return _fused(node, "QLinearConv", "", [*x[:3], *w[:3], *q.inputs[1:3], *([bias] if bias else [])], q.outputs[0])


def _one_reader(graph, node):
    readers = graph.readers.get(node.outputs[0], [])
    return readers[0] if len(readers) == 1 and node.outputs[0] not in graph.outputs else None


def _is_clipped(graph, node):
    """Whether the one reader of a product is a ReLU or Clip that has one reader itself: such a product stays in float32."""
    reader = _one_reader(graph, node)
    return reader is not None and reader.op in ("Relu", "Clip") and _one_reader(graph, reader) is not None


def _matmul(graph, node):
    factors, q = _factors(graph, node), graph.quantizer(node.outputs[0])
    if factors is None:
        return None
    x, w = factors
    if q is None:
        if _is_clipped(graph, node) or graph.is_quantized(node.outputs[0]):
            return None
        return _fused(node, "MatMulIntegerToFloat", _MICROSOFT, [x[0], w[0], x[1], w[1], x[2], w[2]], node.outputs[0])
    if graph.dtype(x) != graph.constants[q.inputs[2]].dtype:
        return None
    return _fused(node, "QLinearMatMul", "", [*x[:3], *w[:3], *q.inputs[1:3]], q.outputs[0])


def _gemm(graph, node):
    factors, q = _factors(graph, node), graph.quantizer(node.outputs[0])
    if factors is None:
        return None
    x, w = factors
    if x[2].endswith(f"/{_ZERO}") or w[2].endswith(f"/{_ZERO}"):
        return None  # which QGemm takes as they are
    bias = _bias(graph, node, x, w)
    if bias is None or (bias and (node.attrs.get("alpha", 1.0) != 1 or node.attrs.get("beta", 1.0) != 1)):
        return None
    if q is None:
        if _is_clipped(graph, node) or graph.is_quantized(node.outputs[0]):
            return None
        return _fused(node, "QGemm", _MICROSOFT, [*x[:3], *w[:3], *([bias] if bias else [])], node.outputs[0])
    if graph.dtype(x) != graph.constants[q.inputs[2]].dtype:
        return None
    return _fused(node, "QGemm", _MICROSOFT, [*x[:3], *w[:3], bias, *q.inputs[1:3]], q.outputs[0])


_UNITS = {
    "Add": _elementwise("QLinearAdd"),
    "AveragePool": _unary("QLinearAveragePool"),
    "Concat": _concat,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _unary("QLinearGlobalAveragePool"),
    "LeakyRelu": _unary("QLinearLeakyRelu"),
    "MatMul": _matmul,
    "Mul": _elementwise("QLinearMul"),
    "Sigmoid": _unary("QLinearSigmoid"),
    "Softmax": _unary("QLinearSoftmax", lambda node: {"opset": node.opset}),
    "Where": _where,
}
