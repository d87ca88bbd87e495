"""Which node of a quantized model stands for which value of the float model, with the float weights it was made from."""

from typing import NamedTuple

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.drift.exact import PRODUCTS
from refquant.errors import ArgumentError
from refquant.graph.node import Node
from refquant.ops import real

__all__ = ["Layer", "pair_layers", "weight_codes", "weight_reals", "recorded"]

_PASSES = ("input", "dequantize", "observe", "relu", "max_pool2d", "flatten", "reshape", "dropout", "identity")
"""Operations that hand on codes as they are, or choose among them: they make no error of their own."""


class Layer(NamedTuple):
    """A node of the quantized model that makes an error of its own.

    Attributes
    ----------
    node : Node
        Of the quantized model.
    origin : str
        The node of the float model whose value it stands for.
    input_origins : tuple of str
        The nodes of the float model whose values go in.
    weight : ndarray of float32 or None
        The float weight, batch norm folded in.
    grids : tuple of (QParams or None)
        Of the inputs; None for inputs that are real numbers.
    out : QParams or None
    """

    node: Node
    origin: str
    input_origins: tuple
    weight: np.ndarray
    grids: tuple
    out: object

    @property
    def name(self):
        """The name of the node in the quantized model."""
        return self.node.name

    @property
    def label(self):
        """The operation with its activation, such as ``"conv2d+relu"``."""
        activation = self.node.attrs.get("activation")
        depthwise = self.node.op.startswith("conv") and self.node.attrs["groups"] > 1
        return ("dw" if depthwise else "") + self.node.op + (f"+{activation}" if activation else "")


def recorded(model, inputs, **options):
    """Run a model and return all its values: ``{node name: value}``."""
    values = {}

    def keep(node, value):
        values[node.name] = value

    model.run(*inputs, hooks=keep, **options)
    return values


def pair_layers(model, int8, values):
    """Return the `Layer`s of a quantized model in order of execution.

    Parameters
    ----------
    model, int8 : Model
        Before and after conversion.
    values : dict of str to (ndarray or QTensor)
        The quantized model's values on some batch: they say what each value's grid is.

    Raises
    ------
    ArgumentError
        A model that was not made from the other.
    """
    layers = []
    for node in int8.nodes:
        value = values[node.name]
        gridded = node.op in PRODUCTS and not np.array_equal(weight_reals(node), _float_weight(model, int8, node))
        if node.op in _PASSES or not (isinstance(value, QTensor) or gridded):
            continue
        grids = tuple(_grid(values[i]) for i in node.inputs)
        weight = _float_weight(model, int8, node) if node.op in PRODUCTS else None
        origins = tuple(_origin(model, int8, i) for i in node.inputs)
        layers.append(Layer(node, _origin(model, int8, node.name), origins, weight, grids, _grid(value)))
    if not layers:
        raise ArgumentError(f"drift: model {int8.name!r} has no quantized layer, so there is no error to explain; convert it with convert_fx first")
    return layers


def _grid(value):
    return value.qparams if isinstance(value, QTensor) else None


def _origin(model, int8, name):
    node = int8.node(name)
    if node.op in ("quantize", "dequantize"):
        return _origin(model, int8, node.inputs[0])
    known = {n.name for n in model.nodes}
    for source in reversed(node.sources):
        if source in known:
            return source
    raise ArgumentError(
        f"drift: node {name!r} of the quantized model stands for {', '.join(node.sources)}, which model {model.name!r} does not have;"
        " pass the float model that it was converted from"
    )


def _float_weight(model, int8, node):
    _origin(model, int8, node.name)
    known = {n.name for n in model.nodes}
    chain = [model.node(s) for s in node.sources if s in known]
    product = next((n for n in chain if n.op in PRODUCTS), None)
    if product is None or np.shape(product.params["weight"]) != tuple(node.params["weight"].shape):
        raise ArgumentError(
            f"drift: {node.name!r} has no counterpart with weights {node.params['weight'].shape} in model {model.name!r};"
            " pass the float model that it was converted from"
        )
    weight = product.params["weight"]
    for norm in chain:
        if norm.op == "batch_norm":
            p = norm.params
            fold = real.fold_linear_bn if node.op == "linear" else real.fold_conv_bn
            weight, _ = fold(weight, product.params.get("bias"), p["running_mean"], p["running_var"], p["weight"], p["bias"], norm.attrs["eps"])
    return weight


def weight_codes(node):
    """Return the weight of a node as a QTensor; None where it is real numbers."""
    weight = node.params["weight"]
    return None if isinstance(weight, np.ndarray) else QTensor(weight.values, weight.qparams)


def weight_reals(node):
    """Return the weight that a node of a quantized model works with, as float32; None for nodes without."""
    if node.op not in PRODUCTS:
        return None
    codes = weight_codes(node)
    if codes is None:
        return node.params["weight"]
    scale, zero = codes.qparams.along(codes.ndim)
    return ((codes.values.astype(np.int64) - zero) * scale).astype(np.float32)
