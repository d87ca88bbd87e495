"""From an ONNX graph to a `refquant.graph.Model`, which quantization workflows take: one small rule an operator.

A model is lowered whole or not at all. What depends on constants alone is computed on the way.
"""

import re

import numpy as np

from refquant.errors import RefquantError, UnsupportedError
from refquant.graph import Model, Node
from refquant.interop.onnx.model import run_node
from refquant.interop.onnx.rules import rules_of

__all__ = ["to_graph", "LOWERINGS"]


class _Lowering:
    """The nodes made so far, and where each ONNX value is: a constant array, or a node's name."""

    def __init__(self, model):
        self.model = model
        self.nodes, self.place_of, self.constants = {}, {}, dict(model.constants)
        self.uses = {}
        for node in model.nodes:
            for name in node.inputs:
                self.uses[name] = self.uses.get(name, 0) + 1
        for name in model.outputs:
            self.uses[name] = self.uses.get(name, 0) + 2

    def refuse(self, node, what):
        raise UnsupportedError(f"from_onnx: {node.place} {what}, which refquant's graphs do not have; load the model with as_graph=False")

    def fresh(self, text):
        """Return an identifier made of a name, unique among the nodes."""
        stem = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "node"
        stem = f"_{stem}" if stem[0].isdigit() else stem
        name, i = stem, 0
        while name in self.nodes:
            i += 1
            name = f"{stem}_{i}"
        return name

    def add(self, text, op, inputs=(), attrs=None, params=None):
        name = self.fresh(text)
        self.nodes[name] = Node(name, op, inputs, attrs, params)
        return name

    def value(self, node, index):
        """Return the graph node that makes an input of `node`."""
        name = node.inputs[index]
        if name not in self.place_of:
            self.refuse(node, f"computes with the constant {name!r}")
        return self.place_of[name]

    def constant(self, node, index, what):
        """Return a constant input, or None where it is left out."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        if node.inputs[index] not in self.constants:
            self.refuse(node, f"has a {what} that is computed")
        return self.constants[node.inputs[index]]

    def run(self):
        for wanted in self.model.signature:
            if wanted.type.name != "float32":
                kind = wanted.type.name
                raise UnsupportedError(f"from_onnx: input {wanted.name!r} is {kind}, but refquant's graphs take float32; load the model with as_graph=False")
            self.place_of[wanted.name] = self.add(wanted.name, "input", (), {"shape": wanted.shape})
        for node in self.model.nodes:
            self._lower(node)
        for name in self.model.outputs:
            if name not in self.place_of:
                raise UnsupportedError(f"from_onnx: output {name!r} is constant, which refquant's graphs do not have; load the model with as_graph=False")
        return Model(self.nodes.values(), [self.place_of[name] for name in self.model.outputs], name="onnx")

    def _lower(self, node):
        if all(name in self.constants for name in node.inputs if name):
            arrays = [self.constants[name] if name else None for name in node.inputs]
            values = run_node(node, arrays, self.model.numerics, rules_of(self.model.numerics))
            self.constants.update({name: v for name, v in zip(node.outputs, values) if name})
            return
        rule = LOWERINGS.get(node.op) if not node.domain else None
        if rule is None:
            self.refuse(node, "is no operator of theirs")
        if any(self.uses.get(name) for name in node.outputs[1:]):
            self.refuse(node, "has more than one output in use")
        try:
            self.place_of[node.outputs[0]] = rule(self, node)
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            if isinstance(error, RefquantError):
                raise
            self.refuse(node, f"has attributes or inputs without sense ({error})")


def to_graph(model):
    """Return the `Model` of an `OnnxModel`.

    Raises
    ------
    UnsupportedError
        Names the first node that refquant's graphs do not have.
    """
    graph = _Lowering(model).run()
    try:
        graph.shapes()
    except RefquantError as error:
        raise UnsupportedError(f"from_onnx: {error}; load the model with as_graph=False") from error
    return graph


def _symmetric(low, node, dims):
    """Return the padding of a window operator, which must be the same on both sides."""
    auto = node.attrs.get("auto_pad", "NOTSET") or "NOTSET"
    pads = [0] * (2 * dims) if auto == "VALID" else node.attrs.get("pads") or [0] * (2 * dims)
    if auto not in ("NOTSET", "VALID") or len(pads) != 2 * dims or pads[:dims] != pads[dims:] or min(pads, default=0) < 0:
        low.refuse(node, f"pads by {auto if auto not in ('NOTSET', 'VALID') else list(pads)}")
    return tuple(pads[:dims])


def _positive(low, node, name, dims):
    """Return strides or dilations, one a spatial axis."""
    values = tuple(int(v) for v in node.attrs.get(name) or [1] * dims)
    if len(values) != dims or min(values) < 1:
        low.refuse(node, f"has {name}={list(values)}")
    return values


def _float(low, node, array, what):
    if array is not None and array.dtype != np.float32:
        low.refuse(node, f"has a {what} of {array.dtype}")
    return array


def _conv(low, node):
    weight = _float(low, node, low.constant(node, 1, "weight"), "weight")
    bias = low.constant(node, 2, "bias")
    dims = weight.ndim - 2
    if dims not in (1, 2) or node.attrs.get("group", 1) < 1:
        low.refuse(node, f"convolves over {dims} axes in {node.attrs.get('group', 1)} groups")
    kernel = tuple(node.attrs.get("kernel_shape") or weight.shape[2:])
    if kernel != weight.shape[2:]:
        low.refuse(node, f"has kernel_shape={list(kernel)} but weights {weight.shape}")
    attrs = {
        "stride": _positive(low, node, "strides", dims), "padding": _symmetric(low, node, dims),
        "dilation": _positive(low, node, "dilations", dims), "groups": int(node.attrs.get("group", 1)),
    }  # fmt: skip
    params = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    return low.add(node.name, f"conv{dims}d", [low.value(node, 0)], attrs, params)


def _gemm(low, node):
    weight = _float(low, node, low.constant(node, 1, "weight"), "weight")
    bias = low.constant(node, 2, "bias")
    plain = node.attrs.get("alpha", 1.0) == 1 and (bias is None or node.attrs.get("beta", 1.0) == 1) and not node.attrs.get("transA", 0)
    weight = weight if node.attrs.get("transB", 0) else weight.T
    if not plain or (bias is not None and bias.reshape(-1).shape != weight.shape[:1]):
        low.refuse(node, "scales, transposes or adds otherwise than a linear layer")
    params = {"weight": np.ascontiguousarray(weight)}
    if bias is not None:
        params["bias"] = bias.reshape(-1)
    return low.add(node.name, "linear", [low.value(node, 0)], {}, params)


def _matmul(low, node):
    weight = _float(low, node, low.constant(node, 1, "weight"), "weight")
    if weight.ndim != 2:
        low.refuse(node, f"multiplies by {weight.shape}")
    return low.add(node.name, "linear", [low.value(node, 0)], {}, {"weight": np.ascontiguousarray(weight.T)})


def _add(low, node):
    constant = next((i for i in (0, 1) if node.inputs[i] in low.constants), None)
    if constant is None:
        return low.add(node.name, "add", [low.value(node, 0), low.value(node, 1)])
    other, bias = node.inputs[1 - constant], low.constants[node.inputs[constant]]
    made = low.nodes[low.value(node, 1 - constant)]
    alone = low.uses[other] == 1 and bias.dtype == np.float32
    if alone and made.op == "linear" and "bias" not in made.params and bias.reshape(-1).shape == made.params["weight"].shape[:1] == bias.shape[-1:]:
        low.nodes[made.name] = made.replace(params={**made.params, "bias": bias.reshape(-1)})
        return made.name
    bias = _per_channel(low, node, bias)
    if alone and made.op == "batch_norm" and made.params["weight"].shape == bias.shape and not made.params["bias"].any():
        low.nodes[made.name] = made.replace(params={**made.params, "bias": bias})
        return made.name
    return _affine(low, node, other, np.ones_like(bias), bias)


def _mul(low, node):
    constant = next((i for i in (0, 1) if node.inputs[i] in low.constants), None)
    if constant is None:
        low.refuse(node, "multiplies two activations")
    weight = _per_channel(low, node, low.constants[node.inputs[constant]])
    return _affine(low, node, node.inputs[1 - constant], weight, np.zeros_like(weight))


def _per_channel(low, node, array):
    """Return a constant of one entry a channel of (N, C, H, W) as a vector."""
    if array.dtype != np.float32 or array.ndim < 3 or array.shape[-2:] != (1, 1) or array.size != array.shape[-3]:
        low.refuse(node, f"computes with a constant of {array.dtype} {array.shape}")
    return array.reshape(-1)


def _affine(low, node, name, weight, bias):
    """A batch norm of statistics 0 and 1: ``x * weight + bias``."""
    params = {"weight": weight, "bias": bias, "running_mean": np.zeros_like(bias), "running_var": np.ones_like(bias)}
    return low.add(node.name, "batch_norm", [low.place_of[name]], {"eps": 0.0}, params)


def _sum(low, node):
    total = low.value(node, 0)
    for i in range(1, len(node.inputs)):
        total = low.add(node.name, "add", [total, low.value(node, i)])
    return total


def _batch_normalization(low, node):
    names = ("weight", "bias", "running_mean", "running_var")
    params = {name: low.constant(node, i + 1, name) for i, name in enumerate(names)}
    return low.add(node.name, "batch_norm", [low.value(node, 0)], {"eps": float(np.float32(node.attrs.get("epsilon", 1e-5)))}, params)


def _concat(low, node):
    return low.add(node.name, "cat", [low.value(node, i) for i in range(len(node.inputs))], {"dim": int(node.attrs.get("axis", 1))})


def _pool(low, node):
    kernel = tuple(node.attrs.get("kernel_shape", ()))
    if len(kernel) != 2 or min(kernel) < 1:
        low.refuse(node, f"pools over {list(kernel)}")
    attrs = {
        "kernel_size": kernel, "stride": _positive(low, node, "strides", 2), "padding": _symmetric(low, node, 2),
        "ceil_mode": bool(node.attrs.get("ceil_mode", 0)),
    }  # fmt: skip
    dilation = _positive(low, node, "dilations", 2)
    if any(2 * p > k for p, k in zip(attrs["padding"], kernel)) or node.attrs.get("storage_order", 0):
        low.refuse(node, "pads by more than half of its window")
    if node.op == "MaxPool":
        return low.add(node.name, "max_pool2d", [low.value(node, 0)], {**attrs, "dilation": dilation})
    if dilation != (1, 1):
        low.refuse(node, "averages over a dilated window")
    return low.add(node.name, "avg_pool2d", [low.value(node, 0)], {**attrs, "count_include_pad": bool(node.attrs.get("count_include_pad", 0))})


def _global_average_pool(low, node):
    return low.add(node.name, "adaptive_avg_pool2d", [low.value(node, 0)], {"output_size": 1})


def _reduce_mean(low, node):
    axes = low.constant(node, 1, "axis list")
    axes = sorted(node.attrs.get("axes", ()) if axes is None else axes.tolist())
    if axes not in ([2, 3], [-2, -1]):
        low.refuse(node, f"averages over axes {axes}")
    pooled = _global_average_pool(low, node)
    return pooled if node.attrs.get("keepdims", 1) else low.add(f"{node.name}_flatten", "flatten", [pooled], {"start_dim": 1})


def _flatten(low, node):
    if node.attrs.get("axis", 1) != 1:
        low.refuse(node, f"flattens from axis {node.attrs['axis']} on")
    return low.add(node.name, "flatten", [low.value(node, 0)], {"start_dim": 1})


def _reshape(low, node):
    shape = node.attrs.get("shape") if len(node.inputs) < 2 else low.constant(node, 1, "shape").tolist()
    if list(shape) == [0, -1]:
        return low.add(node.name, "flatten", [low.value(node, 0)], {"start_dim": 1})
    if shape[:1] == [0] and -1 not in shape:
        shape = [-1, *shape[1:]]
    if 0 in shape:
        low.refuse(node, f"reshapes to {shape}")
    return low.add(node.name, "reshape", [low.value(node, 0)], {"shape": tuple(int(n) for n in shape)})


def _same(op):
    return lambda low, node: low.add(node.name, op, [low.value(node, 0)])


LOWERINGS = {
    "Add": _add,
    "AveragePool": _pool,
    "BatchNormalization": _batch_normalization,
    "Concat": _concat,
    "Conv": _conv,
    "Dropout": _same("dropout"),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "Identity": _same("identity"),
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _mul,
    "ReduceMean": _reduce_mean,
    "Relu": _same("relu"),
    "Reshape": _reshape,
    "Sum": _sum,
}
