"""A `refquant.graph.Model` in ONNX's vocabulary: which operator of ONNX each operation is, and which constants its parameters become."""

from typing import NamedTuple

import numpy as np

from refquant.errors import ArgumentError
from refquant.workflow.ort.onnx_graph import OnnxGraph, OpNode

__all__ = ["OnnxForm", "ONNX_FORMS", "onnx_form", "with_plain_layers", "graph_of_model"]


class OnnxForm(NamedTuple):
    """What an operation is in ONNX.

    Attributes
    ----------
    op : str
    params : tuple of str
        The parameters in the order in which ONNX takes them as inputs, behind the activations.
    attrs : dict
        Attributes that decide how it is quantized.
    first : bool
        The parameters stand before the activations.
    """

    op: str
    params: tuple = ()
    attrs: dict = {}
    first: bool = False


_WEIGHT = ("weight", "bias")

ONNX_FORMS = {
    **{f"adaptive_avg_pool{d}d": OnnxForm("GlobalAveragePool") for d in (1, 2, 3)},
    "add": OnnxForm("Add"),
    **{f"avg_pool{d}d": OnnxForm("AveragePool") for d in (1, 2, 3)},
    "batch_norm": OnnxForm("BatchNormalization", (*_WEIGHT, "running_mean", "running_var")),
    "cat": OnnxForm("Concat"),
    "clamp": OnnxForm("Clip"),
    **{f"conv{d}d": OnnxForm("Conv", _WEIGHT) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": OnnxForm("ConvTranspose", _WEIGHT) for d in (1, 2, 3)},
    "embedding": OnnxForm("Gather", ("weight",), {}, True),
    "flatten": OnnxForm("Flatten"),
    "hardtanh": OnnxForm("Clip"),
    "instance_norm": OnnxForm("InstanceNormalization", _WEIGHT),
    "layer_norm": OnnxForm("LayerNormalization", _WEIGHT),
    "leaky_relu": OnnxForm("LeakyRelu"),
    "linear": OnnxForm("Gemm", _WEIGHT, {"transB": 1}),
    "matmul": OnnxForm("MatMul"),
    **{f"max_pool{d}d": OnnxForm("MaxPool") for d in (1, 2, 3)},
    "mul": OnnxForm("Mul"),
    "pad": OnnxForm("Pad"),
    "permute": OnnxForm("Transpose"),
    "relu": OnnxForm("Relu"),
    "relu6": OnnxForm("Clip"),
    "reshape": OnnxForm("Reshape"),
    "sigmoid": OnnxForm("Sigmoid"),
    "softmax": OnnxForm("Softmax"),
    "select": OnnxForm("Gather"),
    "slice": OnnxForm("Slice"),
    "squeeze": OnnxForm("Squeeze"),
    "transpose": OnnxForm("Transpose"),
    "unsqueeze": OnnxForm("Unsqueeze"),
}
"""Operations that ONNX Runtime quantizes. Others, and the forms of these that ONNX has not, stay in float32."""


# Of constant nodes that stand for a constant of the ONNX graph, which is quantized as such.
_INITIALIZER = "initializer"


def onnx_form(node):
    """Return the `OnnxForm` of a node, or one of an operator that nobody quantizes, under the operation's own name."""
    if node.op.startswith("adaptive_avg_pool") and set(np.ravel(node.attrs["output_size"])) != {1}:
        return OnnxForm(node.op)
    return ONNX_FORMS.get(node.op, OnnxForm(node.op))


def with_plain_layers(model):
    """Return a model in which every node is one operator of ONNX.

    Fused ReLUs become nodes of their own: the layer is called ``NAME_before_relu`` then, and the ReLU as the layer was. A sum or product with a number
    takes it from a constant node. A SiLU becomes a sigmoid, ``NAME_gate``, and a product. A linear layer with a bias on other than rows (N, K) becomes a product, ``NAME_product``, and a sum.
    """
    ranks = {name: len(shape) for name, shape in _shapes(model).items()}
    nodes = []
    for node in model.nodes:
        for part in _without_activation(node):
            nodes.extend(_plain(part, ranks.get(part.inputs[0], 2) if part.inputs else 0))
    return model.with_nodes(nodes)


def _shapes(model):
    known = all(model.node(name).attrs["shape"] is not None for name in model.inputs)
    return model.shapes() if known else {}


def _without_activation(node):
    activation = node.attrs.get("activation")
    if activation is None:
        return [node]
    if activation != "relu":
        raise ArgumentError(f"quantize_static: {node.name!r} is fused with {activation!r}, which ONNX Runtime's path does not know; pass the unfused model")
    before = f"{node.name}_before_relu"
    layer = node.replace(name=before, attrs={**node.attrs, "activation": None}, target=None, sources=node.sources)
    return [layer, type(node)(node.name, "relu", [before], path=node.path)]


def _plain(node, rank):
    make = type(node)
    if node.op in ("add_scalar", "mul_scalar"):
        number = make(f"{node.name}_number", "constant", (), {}, {"value": np.float32(node.attrs["number"])}, target=_INITIALIZER)
        return [number, make(node.name, node.op.removesuffix("_scalar"), [*node.inputs, number.name], path=node.path)]
    if node.op == "silu":
        return [make(f"{node.name}_gate", "sigmoid", node.inputs, path=node.path), make(node.name, "mul", [*node.inputs, f"{node.name}_gate"], path=node.path)]
    if node.op == "linear" and rank != 2 and node.params.get("bias") is not None:
        product = make(f"{node.name}_product", "linear", node.inputs, {}, {"weight": node.params["weight"]}, path=node.path)
        bias = make(f"{node.name}_bias", "constant", (), {}, {"value": np.asarray(node.params["bias"])}, target=_INITIALIZER)
        return [product, bias, make(node.name, "add", [product.name, bias.name], path=node.path)]
    return [node]


def graph_of_model(model):
    """Return the `OnnxGraph` of a float model: values are called as the nodes that make them, constants ``NODE.PARAMETER``.

    Parameters
    ----------
    model : Model
        From `with_plain_layers`.
    """
    nodes, constants, ranks = [], {}, {name: len(shape) for name, shape in _shapes(model).items()}
    for node in model.nodes:
        if node.op == "input":
            continue
        if node.op == "constant" and node.target == _INITIALIZER:
            constants[node.name] = np.asarray(node.params["value"])
            continue
        if node.op == "constant":  # a value like others, as `to_onnx` writes it
            constants[f"{node.name}.value"] = np.asarray(node.params["value"])
            nodes.append(OpNode(node.name, "Identity", [f"{node.name}.value"], [node.name], {}, "", node))
            continue
        form = onnx_form(node)
        arrays = {f"{node.name}.{key}": np.asarray(node.params[key]) for key in form.params if node.params.get(key) is not None}
        if node.op == "linear" and ranks.get(node.inputs[0], 2) != 2:
            form, arrays = OnnxForm("MatMul"), {name: array.T for name, array in arrays.items()}
        if node.op == "pad" and node.attrs["value"]:
            constants[f"{node.name}.value"] = np.float32(node.attrs["value"])
            nodes.append(OpNode(node.name, form.op, [*node.inputs, "", f"{node.name}.value"], [node.name], {}, "", node))
            continue
        constants.update(arrays)
        inputs = [*arrays, *node.inputs] if form.first else [*node.inputs, *arrays]
        nodes.append(OpNode(node.name, form.op, inputs, [node.name], dict(form.attrs), "", node))
    return OnnxGraph(nodes, constants, model.inputs, model.outputs, opset=17)
