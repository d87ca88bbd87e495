"""`layers`: what a network asks of a processor, layer by layer: multiply-adds, bytes, geometry. In INT8 and, for comparison, in float32 as written."""

import math
from typing import NamedTuple

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError
from refquant.graph.shapes import pair
from refquant.isa.products import ConvGeometry

__all__ = ["Layer", "int8_layers", "float_layers"]

_PRODUCTS = ("conv", "linear", "matmul")
_NOTHING = {"input", "constant", "dropout", "identity", "observe", "fake_quantize"}
_VIEWS = {"flatten", "reshape", "squeeze", "unsqueeze", "slice", "select", "expand"}
# What convert_fx leaves in float32 under the default mapping of the x86 engine.
_FLOAT = {
    "matmul", "group_norm", "gelu", "silu", "log_softmax", "local_response_norm", "sub", "div", "embedding", "linear_dynamic",
}


class Layer(NamedTuple):
    """One call of one operator.

    Attributes
    ----------
    name, op : str
    dtype : {"int8", "float32"}
        What it computes on.
    kind : {"product", "moving", "view"}
        A convolution or matrix product; what reads and writes its tensors once; what only looks at them otherwise.
    multiply_adds : int
    m, n, k : int
        The matrix product that it is: for each of `groups`, (M, K) by (K, N); 0 where it is none.
    groups : int
    geometry : ConvGeometry or None
        Of a convolution.
    transposed : bool
    output_padding : tuple of int
    weight_zero_points : tuple of int
        Those that occur.
    per_channel : bool
        Of the weights.
    in_values, out_values, weight_values : int
        Numbers read and written.
    merged : tuple of str
        Operators that are computed with it, in INT8.
    """

    name: str
    op: str
    dtype: str
    kind: str
    multiply_adds: int = 0
    m: int = 0
    n: int = 0
    k: int = 0
    groups: int = 1
    geometry: ConvGeometry = None
    transposed: bool = False
    output_padding: tuple = ()
    weight_zero_points: tuple = (0,)
    per_channel: bool = True
    in_values: int = 0
    out_values: int = 0
    weight_values: int = 0
    merged: tuple = ()

    def bytes(self, width=None):
        """Return how many bytes go in, out, and are weights, at `width` bytes a number; those of the layer's dtype unless given."""
        width = width or (1 if self.dtype == "int8" else 4)
        return width * self.in_values, width * self.out_values, width * self.weight_values


def float_layers(model, batch=1):
    """Return the layers of a model as PyTorch runs it in float32: every node a call of its own.

    Parameters
    ----------
    model : Model
        With stated input shapes. Of a quantized one the layers are those that it has, on float32.
    batch : int

    Returns
    -------
    list of Layer
    """
    shapes = _shapes(model, batch)
    skipped = _NOTHING | {"quantize", "dequantize", "requantize", "quantize_dynamic"}
    return [_layer(node, shapes, "float32") for node in model.nodes if node.op not in skipped]


def int8_layers(model, batch=1):
    """Return the layers of a model in INT8: of a quantized one those that it has, of a float one those that ``convert_fx`` makes of it.

    Batch norms and ReLUs that alone follow a convolution, a linear layer or an addition are computed with it. Operators that have no
    INT8 form under the default mapping stay in float32, and a quantize or dequantize stands wherever the two meet. A slice counts as
    ``torch.chunk``, which stays on codes; ``convert_fx`` itself takes ``x[:, :n]`` to float32 and back.

    Parameters
    ----------
    model : Model
        With stated input shapes.
    batch : int

    Returns
    -------
    list of Layer

    Examples
    --------
    >>> from refquant.graph import Builder
    >>> b = Builder(seed=0)
    >>> model = b.build(b.input(shape=(None, 3, 8, 8)).conv2d(16, 3, padding=1).batch_norm().relu().flatten().linear(10))
    >>> [layer.op + "".join(f"+{op}" for op in layer.merged) for layer in int8_layers(model)]
    ['quantize', 'conv2d+batch_norm+relu', 'flatten', 'linear', 'dequantize']
    """
    shapes = _shapes(model, batch)
    if model.quantized or any(node.op == "linear_dynamic" for node in model.nodes):
        return _as_it_is(model, shapes)
    hosts = _hosts(model)
    merged = {}
    for name, host in hosts.items():
        merged.setdefault(host, []).append(model.node(name).op)
    found, coded, crossed = [], {}, set()
    for node in model.nodes:
        on_codes = coded[node.name] = _on_codes(node, coded)
        if node.name in hosts or node.op in _NOTHING:
            continue
        if node.op not in _VIEWS:
            places = [name for name in node.inputs if coded[name] != on_codes and model.node(name).op != "constant" and name not in crossed]
            found += [_moving(name, "quantize" if on_codes else "dequantize", shapes[name]) for name in dict.fromkeys(places)]
            crossed.update(places)
        found.append(_layer(node, shapes, "int8" if on_codes else "float32", tuple(merged.get(node.name, ()))))
    return found + [_moving(name, "dequantize", shapes[name]) for name in dict.fromkeys(model.outputs) if coded[name]]


def _shapes(model, batch):
    if all(node.op in _NOTHING for node in model.nodes):
        raise ArgumentError(f"simulate: {model.name!r} computes nothing; give a model with at least one layer")
    stated = {name: model.node(name).attrs["shape"] for name in model.inputs}
    for name, shape in stated.items():
        if shape is None or None in shape[1:]:
            raise ShapeError(f"simulate: input {name!r} of {model.name!r} has shape {shape}, and layers cannot be sized so; state all sizes but the batch's")
    return model.shapes(*(tuple(batch if n is None else n for n in shape) for shape in stated.values()))


def _as_it_is(model, shapes):
    """Return the layers of a quantized model: what takes codes, or makes them, computes in INT8."""
    found, coded = [], {}
    for node in model.nodes:
        reads = any(coded[name] for name in node.inputs)
        coded[node.name] = node.op == "quantize" or (reads and node.op != "dequantize")
        on_codes = reads or node.op in ("quantize", "linear_dynamic")
        if node.op not in _NOTHING:
            found.append(_layer(node, shapes, "int8" if on_codes else "float32"))
    return found


def _on_codes(node, coded):
    """Whether a node's value is codes after conversion: views and the like hand on what comes in."""
    if node.op == "input" or node.op == "constant":
        return False
    if node.op in _VIEWS or node.op in _NOTHING:
        return coded[node.inputs[0]]
    return node.op not in _FLOAT


def _hosts(model):
    """Return {node: the node that it is computed with} of the batch norms and ReLUs that fusion removes."""
    hosts = {}
    for node in model.nodes:
        if node.op not in ("batch_norm", "relu") or len(model.users(node.inputs[0])) != 1:
            continue
        before = model.node(node.inputs[0])
        host = model.node(hosts.get(before.name, before.name))
        if host.op.startswith("conv") or host.op == "linear" or (node.op == "relu" and host.op in ("add", "batch_norm", "mul", "cat")):
            hosts[node.name] = host.name
    return hosts


def _moving(name, op, shape):
    return Layer(f"{name}_{op}", op, "int8", "moving", in_values=math.prod(shape), out_values=math.prod(shape))


def _layer(node, shapes, dtype, merged=()):
    sizes = dict(in_values=sum(math.prod(shapes[name]) for name in node.inputs), out_values=math.prod(shapes[node.name]))
    if not node.op.startswith(_PRODUCTS):
        return Layer(node.name, node.op, dtype, "view" if node.op in _VIEWS else "moving", merged=merged, **sizes)
    product, weight = _as_product(node, shapes), node.params.get("weight")
    work = product["m"] * product["n"] * product["k"] * product.get("groups", 1)
    return Layer(node.name, node.op, dtype, "product", work, merged=merged, **product, **sizes, **_weights(weight))


def _weights(weight):
    if weight is None:
        return {}
    sizes = {"weight_values": math.prod(weight.shape)}
    if not isinstance(weight, QTensor):
        return sizes
    return {**sizes, "weight_zero_points": tuple(np.unique(weight.qparams.zero_point).tolist()), "per_channel": weight.qparams.per_channel}


def _as_product(node, shapes):
    """Return M, N, K, groups and the geometry of a product."""
    x, y = shapes[node.inputs[0]], shapes[node.name]
    if node.op == "matmul":
        return dict(m=y[-2], n=y[-1], k=x[-1], groups=math.prod(y[:-2]))
    w = node.params["weight"].shape
    if node.op.startswith("linear"):
        return dict(m=math.prod(y[:-1]), n=w[0], k=w[1])
    a, dims = node.attrs, len(w) - 2
    groups, transposed = a["groups"], node.op.startswith("conv_transpose")
    ic, oc = (w[0] // groups, w[1]) if transposed else (w[1], w[0] // groups)
    geometry = ConvGeometry(groups, ic, oc, tuple(w[2:]), *(tuple(pair(a[key], dims)) for key in ("stride", "padding", "dilation")), y[-1])
    positions, taps = y[0] * math.prod((x if transposed else y)[2:]), math.prod(w[2:])
    n, k = (oc * taps, ic) if transposed else (oc, ic * taps)
    return dict(m=positions, n=n, k=k, groups=groups, geometry=geometry, transposed=transposed, output_padding=tuple(pair(a.get("output_padding", 0), dims)))
