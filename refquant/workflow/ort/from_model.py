"""A `refquant.graph.Model` in ONNX's vocabulary: which operator of ONNX each operation is, and which constants its parameters become."""

from typing import NamedTuple

import numpy as np

from refquant.errors import ArgumentError
from refquant.workflow.ort.onnx_graph import OnnxGraph, OpNode

__all__ = ["OnnxForm", "ONNX_FORMS", "onnx_form", "separate_activations", "graph_of_model"]


class OnnxForm(NamedTuple):
    """What an operation is in ONNX.

    Attributes
    ----------
    op : str
    params : tuple of str
        The parameters in the order in which ONNX takes them as inputs, behind the activations.
    attrs : dict
        Attributes that decide how it is quantized.
    """

    op: str
    params: tuple = ()
    attrs: dict = {}


_WEIGHT = ("weight", "bias")

ONNX_FORMS = {
    "adaptive_avg_pool2d": OnnxForm("GlobalAveragePool"),
    "add": OnnxForm("Add"),
    "avg_pool2d": OnnxForm("AveragePool"),
    "batch_norm": OnnxForm("BatchNormalization", (*_WEIGHT, "running_mean", "running_var")),
    "cat": OnnxForm("Concat"),
    "clamp": OnnxForm("Clip"),
    "conv1d": OnnxForm("Conv", _WEIGHT),
    "conv2d": OnnxForm("Conv", _WEIGHT),
    "conv3d": OnnxForm("Conv", _WEIGHT),
    "conv_transpose2d": OnnxForm("ConvTranspose", _WEIGHT),
    "flatten": OnnxForm("Flatten"),
    "hardtanh": OnnxForm("Clip"),
    "instance_norm": OnnxForm("InstanceNormalization", _WEIGHT),
    "layer_norm": OnnxForm("LayerNormalization", _WEIGHT),
    "leaky_relu": OnnxForm("LeakyRelu"),
    # As ONNX Runtime's MatMulAddFusion makes of a product and a sum.
    "linear": OnnxForm("Gemm", _WEIGHT, {"transB": 1}),
    "matmul": OnnxForm("MatMul"),
    "max_pool2d": OnnxForm("MaxPool"),
    "mul": OnnxForm("Mul"),
    "permute": OnnxForm("Transpose"),
    "relu": OnnxForm("Relu"),
    "relu6": OnnxForm("Clip"),
    "reshape": OnnxForm("Reshape"),
    "sigmoid": OnnxForm("Sigmoid"),
    "softmax": OnnxForm("Softmax"),
    "transpose": OnnxForm("Transpose"),
}
"""Operations that ONNX Runtime quantizes. Others, and the forms of these that ONNX has not, stay in float32."""


def onnx_form(node):
    """Return the `OnnxForm` of a node, or one of an operator that nobody quantizes, under the operation's own name."""
    form = ONNX_FORMS.get(node.op, OnnxForm(node.op))
    if node.op == "adaptive_avg_pool2d" and node.attrs["output_size"] not in (1, (1, 1), [1, 1]):
        return OnnxForm(node.op)
    return form


def separate_activations(model):
    """Return a model in which fused ReLUs are nodes of their own: the layer is called ``NAME_before_relu`` then, and the ReLU as the layer was."""
    nodes = []
    for node in model.nodes:
        activation = node.attrs.get("activation")
        if activation is None:
            nodes.append(node)
            continue
        if activation != "relu":
            raise ArgumentError(f"quantize_static: {node.name!r} is fused with {activation!r}, which ONNX Runtime's path does not know; pass the unfused model")
        before = f"{node.name}_before_relu"
        nodes.append(node.replace(name=before, attrs={**node.attrs, "activation": None}, target=None, sources=node.sources))
        nodes.append(type(node)(node.name, "relu", [before], path=node.path))
    return model.with_nodes(nodes)


def graph_of_model(model):
    """Return the `OnnxGraph` of a float model: values are called as the nodes that make them, constants ``NODE.PARAMETER``.

    Parameters
    ----------
    model : Model
        From `separate_activations`.
    """
    nodes, constants = [], {}
    for node in model.nodes:
        if node.op == "input":
            continue
        form, inputs = onnx_form(node), list(node.inputs)
        for key in form.params:
            if node.params.get(key) is not None:
                constants[f"{node.name}.{key}"] = np.asarray(node.params[key])
                inputs.append(f"{node.name}.{key}")
        nodes.append(OpNode(node.name, form.op, inputs, [node.name], dict(form.attrs), "", node))
    return OnnxGraph(nodes, constants, model.inputs, model.outputs, opset=17)
