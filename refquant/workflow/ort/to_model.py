"""Back from a quantized `OnnxGraph` to a `refquant.graph.Model` whose layers work on codes where ONNX Runtime fuses them."""

import numpy as np

from refquant import ops
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.graph.node import Node
from refquant.workflow.ort.from_model import onnx_form
from refquant.workflow.ort.scales import codes_of

__all__ = ["model_of_graph"]

_PRODUCTS = ("conv1d", "conv2d", "linear")
_FUSED = (*_PRODUCTS, "matmul", "add", "mul", "cat", "avg_pool2d", "adaptive_avg_pool2d", "sigmoid", "leaky_relu", "softmax")
# These give the same codes as the codes that go in, whoever computes them.
_PASSING = ("max_pool1d", "max_pool2d", "flatten", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "slice", "select", "dropout", "identity")


def model_of_graph(graph, model, numerics, fuse=True):
    """Return a model that runs a graph from `refquant.workflow.ort.qdq.place_qdq`.

    Parameters
    ----------
    graph : OnnxGraph
    model : Model
        What the graph was made from.
    numerics : Numerics
    fuse : bool
        Compute "dequantize, operation, quantize" on codes where ONNX Runtime does and the operation has a form on codes.
    """
    work = _Building(graph, model)
    for node in graph.nodes:
        work.add(node)
    nodes, outputs = work.nodes, [work.place[name] for name in graph.outputs]
    made = model.with_nodes(nodes, outputs=outputs, numerics=numerics)
    return _fused(_norms_in_steps(made), work.codes) if fuse else made


def _norms_in_steps(model):
    """Write each batch norm as ONNX Runtime computes it: one product and one sum, each rounded to float32."""
    shapes, nodes, one = model.shapes(), [], np.float32(1)
    for node in model.nodes:
        if node.op != "batch_norm" or node.inputs[0] not in shapes:
            nodes.append(node)
            continue
        p, along = node.params, (1, -1, *[1] * (len(shapes[node.inputs[0]]) - 2))
        factor = p["weight"] * (one / np.sqrt(p["running_var"] + np.float32(node.attrs["eps"])))
        addend, base = p["bias"] - p["running_mean"] * factor, node.name
        nodes += [Node(f"{base}_{key}", "constant", params={"value": v.reshape(along)}, path=node.path) for key, v in (("factor", factor), ("addend", addend))]
        nodes.append(Node(f"{base}_scaled", "mul", [node.inputs[0], f"{base}_factor"], path=node.path))
        nodes.append(Node(base, "add", [f"{base}_scaled", f"{base}_addend"], {"activation": node.attrs["activation"]}, path=node.path, sources=node.sources))
    return model.with_nodes(nodes)


class _Building:
    """The nodes so far, the node that makes each value, and the codes of constants."""

    def __init__(self, graph, model):
        self.graph = graph
        self.nodes = [node for node in model.nodes if node.op == "input"]
        self.place = {node.name: node.name for node in self.nodes}
        self.constants, self.codes = {}, {}

    def add(self, node):
        if node.op == "QuantizeLinear" and node.source is None:
            self._quantize(node)
        elif node.op == "DequantizeLinear" and node.source is None:
            self._dequantize(node)
        else:
            self._operation(node)

    def _qparams(self, node):
        scale, zero = (self.graph.constants[name] for name in node.inputs[1:])
        axis = node.attrs.get("axis")
        return QParams(scale if axis is not None else float(scale.reshape(-1)[0]), zero if axis is not None else int(zero.reshape(-1)[0]), zero.dtype, axis)

    def _quantize(self, node):
        qparams, name = self._qparams(node), node.inputs[0]
        if name in self.graph.constants:
            codes = codes_of(self.graph.constants[name], qparams.scale, qparams.zero_point, qparams.dtype, qparams.axis)
            self.constants[node.outputs[0]] = QTensor(codes, qparams)
        else:
            self._append(node, "quantize", {"out": qparams})

    def _dequantize(self, node):
        name = node.inputs[0]
        if name in self.graph.constants:
            self.constants[node.outputs[0]] = QTensor(self.graph.constants[name], self._qparams(node))
        elif name in self.constants:
            self.constants[node.outputs[0]] = self.constants[name]
        else:
            self._append(node, "dequantize", {})

    def _append(self, node, op, attrs):
        self.nodes.append(Node(node.name, op, [self.place[node.inputs[0]]], attrs))
        self.place[node.outputs[0]] = node.name

    def _operation(self, node):
        source, form, count = node.source, onnx_form(node.source), len(node.source.inputs)
        params, codes = dict(source.params), {}
        arrays, values = (node.inputs[:-count], node.inputs[-count:]) if form.first else (node.inputs[count:], node.inputs[:count])
        for key, name in zip([k for k in form.params if source.params.get(k) is not None], arrays):
            if name in self.constants:
                codes[key] = _turned(self.constants[name]) if node.op == "MatMul" else self.constants[name]
                params[key] = np.asarray(ops.dequantize(codes[key], numerics="onnxruntime"))
        self.codes[node.name] = codes
        sources = [*source.sources, *node.merged]
        self.nodes.append(source.replace(inputs=[self._value(n) for n in values], params=params, sources=sources))
        self.place[node.outputs[0]] = node.name

    def _value(self, name):
        """Return the node that makes a value; constants become nodes, quantized ones on their grid."""
        if name in self.place:
            return self.place[name]
        if name in self.constants:
            q, base = self.constants[name], name.removesuffix("_DequantizeLinear_Output")
            self.nodes.append(Node(base, "constant", (), {}, {"value": np.asarray(ops.dequantize(q, numerics="onnxruntime"))}))
            self.nodes.append(Node(f"{base}_QuantizeLinear", "quantize", [base], {"out": q.qparams}))
            self.nodes.append(Node(f"{base}_DequantizeLinear", "dequantize", [f"{base}_QuantizeLinear"]))
            self.place[name] = f"{base}_DequantizeLinear"
        else:
            self.nodes.append(Node(name, "constant", (), {}, {"value": self.graph.constants[name]}))
            self.place[name] = name
        return self.place[name]


def _turned(q):
    """Return a matrix of codes the other way round."""
    p = q.qparams
    return QTensor(np.ascontiguousarray(q.values.T), QParams(p.scale, p.zero_point, p.dtype, None if p.axis is None else 1 - p.axis))


def _fused(model, codes):
    """Replace every operation between dequantizers and a quantizer by its form on codes, if it has one."""
    nodes, order = {n.name: n for n in model.nodes}, [n.name for n in model.nodes]
    users = {}
    for node in model.nodes:
        for name in node.inputs:
            users.setdefault(name, []).append(node.name)
    for name in order:
        node = nodes.get(name)
        if node is None or node.op not in (*_FUSED, *_PASSING):
            continue
        before = [nodes[i] for i in node.inputs]
        if not before or any(b.op != "dequantize" for b in before):
            continue
        behind = users.get(name, [])
        quantize = nodes[behind[0]] if len(behind) == 1 and name not in model.outputs and nodes[behind[0]].op == "quantize" else None
        xs = [_qparams_of(nodes, b.inputs[0]) for b in before]
        layer = _on_codes(node, codes[name], xs, None if quantize is None else quantize.attrs["out"])
        if layer is None:
            continue
        layer = layer.replace(inputs=[b.inputs[0] for b in before])
        if quantize is None:
            nodes[name] = layer
            continue
        # The layer stands under its own name where its quantizer stood.
        del nodes[quantize.name]
        nodes[name] = layer
        for user in users.get(quantize.name, []):
            nodes[user] = nodes[user].replace(inputs=[name if i == quantize.name else i for i in nodes[user].inputs])
        users[name] = users.get(quantize.name, [])
    alive = set(model.outputs)
    for node in reversed([nodes[n] for n in order if n in nodes]):
        if node.name in alive:
            alive.update(node.inputs)
    return model.with_nodes([nodes[n] for n in order if n in nodes and (n in alive or nodes[n].op == "input")])


def _qparams_of(nodes, name):
    """Return the parameters of the codes that a node makes."""
    node = nodes[name]
    return node.attrs["out"] if node.attrs.get("out") is not None else _qparams_of(nodes, node.inputs[0])


def _on_codes(node, codes, xs, out):
    """Return an operation in its form on codes, or None where ONNX Runtime computes it in float32."""
    dtype = xs[0].dtype
    if any(x.dtype != dtype for x in xs) or (out is not None and out.dtype != dtype):
        return None
    if node.op in _PASSING:
        return node if out == xs[0] else None
    if dtype not in ("uint8", "int8") or (out is None and node.op not in ("linear", "matmul")) or "out" not in node.attrs and out != xs[0]:
        return None
    attrs = {**node.attrs, "out": out} if "out" in node.attrs else dict(node.attrs)
    if node.op not in _PRODUCTS:
        return node.replace(attrs=attrs)
    weight, bias = codes.get("weight"), codes.get("bias")
    if weight is None or weight.dtype not in ("uint8", "int8") or (dtype == "int8" != weight.dtype) or (node.params.get("bias") is not None and bias is None):
        return None
    params = {"weight": ops.pack_weights(weight, groups=attrs.get("groups", 1))}
    if bias is not None:
        if bias.dtype != "int32":
            return None
        params["bias"] = np.array(bias.values)
        params["bias"].flags.writeable = False
    return node.replace(attrs=attrs, params=params)
