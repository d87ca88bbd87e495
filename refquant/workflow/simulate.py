"""`simulate`: a quantized model as fake-quantized float; `compare_simulation`: what the difference of the two is, layer by layer."""

from typing import NamedTuple

import numpy as np

from refquant import ops
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError
from refquant.graph.node import Node
from refquant.graph.opset import Context, graph_op
from refquant.ops.pack_weights import as_qtensor

__all__ = ["simulate", "compare_simulation", "SimulatedLayer"]

# Fake-quantize is a thing of PyTorch's training.
_GRID = "fbgemm"
_KEEPS_THE_GRID = (
    "relu", "max_pool1d", "max_pool2d", "max_pool3d", "flatten", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "slice", "select", "expand",
    "channel_shuffle", "dropout", "identity",
)  # fmt: skip


class SimulatedLayer(NamedTuple):
    """How far one layer of a fake-quantized model is from the same layer on codes.

    Attributes
    ----------
    name, op : str
    qparams : QParams
        Of the output.
    outputs : int
    beyond : int
        How many codes of the layer on codes lie beyond the codes that were calibrated: kernels saturate at the ends of the dtype, the
        simulation at ``quant_min`` and ``quant_max``.
    own, own_most : int
        How many codes differ, and by how many at most, if the simulated layer gets the very inputs of the layer on codes.
    differing, most : int
        The same with all layers before simulated too.
    """

    name: str
    op: str
    qparams: QParams
    outputs: int
    beyond: int
    own: int
    own_most: int
    differing: int
    most: int


def simulate(model, *inputs, numerics=None):
    """Return a quantized model as quantization-aware training sees it: float layers, with values and weights rounded to their grids.

    Parameters
    ----------
    model : Model
        One that works on codes, such as `convert_fx`, `convert_pt2e` or `quantize_static` return.
    *inputs : ndarray of float32
        A batch; it is run once, so that each value shows its parameters.
    numerics : str or Numerics, optional
        The model's own unless given.

    Returns
    -------
    Model
        On float32 arrays alone. A layer on codes becomes the float layer, named ``..._real``, and a ``fake_quantize`` node of the layer's own name.

    Raises
    ------
    ArgumentError
        A model without codes.

    Examples
    --------
    >>> from refquant import QParams
    >>> from refquant.graph import Builder, Node
    >>> b = Builder(seed=0)
    >>> model = b.build(b.input(shape=(None, 4)).relu())
    >>> nodes = [model.nodes[0], Node("q", "quantize", ["x"], {"out": QParams(0.1, 0, "uint8")}), Node("y", "dequantize", ["q"])]
    >>> int8 = model.with_nodes(nodes, outputs=["y"], numerics="fbgemm")
    >>> [(n.name, n.op) for n in simulate(int8, np.zeros((1, 4), np.float32)).nodes]
    [('x', 'input'), ('q', 'fake_quantize'), ('y', 'identity')]
    """
    grids = {}

    def record(node, value):
        grids[node.name] = value.qparams if isinstance(value, QTensor) else None

    model.run(*inputs, hooks=record, numerics=numerics)
    if not any(grids.values()):
        raise ArgumentError(f"simulate: model {model.name!r} has no value on codes; quantize it first, such as with convert_fx")
    nodes = [made for node in model.nodes for made in _simulated(node, grids)]
    return model.with_nodes(nodes, numerics=_GRID)


def _simulated(node, grids):
    """Yield what stands for a node; `grids` are the parameters of all values on codes."""
    grid = grids[node.name]
    if node.op in ("quantize", "requantize"):
        yield node.replace(op="fake_quantize", attrs={"out": node.attrs["out"]}, target="fake_quantize")
    elif node.op == "dequantize":
        yield node.replace(op="identity", attrs={}, target="nn.Identity")
    elif grid is None or node.op in _KEEPS_THE_GRID:
        yield _real(node, grids)
    else:
        real = _real(node, grids)
        yield real.replace(name=f"{node.name}_real")
        yield Node(node.name, "fake_quantize", [f"{node.name}_real"], {"out": grid}, path=node.path, sources=node.sources)


def _real(node, grids):
    """Return a node with its weights as the real numbers of their grid, and without output parameters."""
    tensors = {key: _tensor(value, f"{node.name}.{key}") for key, value in node.params.items()}
    params = {key: ops.dequantize(v, numerics=_GRID) if isinstance(v, QTensor) else v for key, v in tensors.items()}
    bias = params.get("bias")
    if bias is not None and bias.dtype == np.int32:  # codes of the product of the two scales, as ONNX has them
        scale = np.float32(grids[node.inputs[0]].scale) * np.asarray(tensors["weight"].qparams.scale, np.float32)
        params["bias"] = bias.astype(np.float32) * scale
    return node.replace(params=params, attrs={**node.attrs, "out": None} if "out" in node.attrs else dict(node.attrs))


def _tensor(value, place):
    return value if isinstance(value, (np.ndarray, type(None))) else as_qtensor(value, place, "simulate")[0]


def compare_simulation(model, *inputs, numerics=None):
    """Run a quantized model on codes and as fake-quantized float, and compare each layer's codes.

    Parameters
    ----------
    model : Model
    *inputs : ndarray of float32
    numerics : str or Numerics, optional
        The model's own unless given.

    Returns
    -------
    list of SimulatedLayer
        Of the nodes whose value is on codes, in order.

    Raises
    ------
    ArgumentError
        A model without codes.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx
    >>> x, _ = load_split("digits", "calibration")
    >>> prepared = prepare_fx(zoo.load("digits_resnet"), get_default_qconfig_mapping("onednn"), example_inputs=(x[:50],))
    >>> _ = prepared(x[:50])
    >>> rows = compare_simulation(convert_fx(prepared), x[:50])
    >>> rows[0].op, rows[0].outputs, rows[0].own, max(row.own_most for row in rows)
    ('quantize', 3200, 0, 1)
    """
    real, codes, simulated = simulate(model, *inputs, numerics=numerics), {}, {}
    profile = model.numerics if numerics is None else numerics
    model.run(*inputs, hooks=lambda node, value: codes.__setitem__(node.name, value), numerics=numerics)
    real.run(*inputs, hooks=lambda node, value: simulated.__setitem__(node.name, value))
    context, rows = Context(_GRID, real.real, 1), []
    grids = {name: value.qparams if isinstance(value, QTensor) else None for name, value in codes.items()}
    for node in model.nodes:
        value = codes[node.name]
        if not isinstance(value, QTensor):
            continue
        given = [ops.dequantize(codes[i], numerics=profile) if isinstance(codes[i], QTensor) else codes[i] for i in node.inputs]
        for made in _simulated(node, grids):
            given = [graph_op(made.op, node.name).run(context, made, *given)]
        own, all_before = _gap(value, given[0], node), _gap(value, simulated[node.name], node)
        beyond = np.count_nonzero((value.values < value.qparams.qmin) | (value.values > value.qparams.qmax))
        rows.append(SimulatedLayer(node.name, node.op, value.qparams, value.size, int(beyond), *own, *all_before))
    return rows


def _gap(value, reals, node):
    """Return how many codes of a value differ from those of real numbers on its grid, and by how many at most."""
    if value.shape != np.shape(reals):
        raise ShapeError(f"compare_simulation: {node.name!r} has shape {value.shape} on codes but {np.shape(reals)} in float")
    theirs = ops.quantize(reals, value.qparams, numerics=_GRID).values.astype(np.int64)
    gap = np.abs(value.values.astype(np.int64) - theirs)
    return int(np.count_nonzero(gap)), int(gap.max(initial=0))
