"""From a reference model to one on codes: each layer between dequantize and quantize nodes becomes a quantized layer."""

from refquant import ops
from refquant.core.qparams import QParams
from refquant.errors import UnsupportedError
from refquant.graph.opset import graph_op
from refquant.workflow.backend_config import SHARE
from refquant.workflow.backend_patterns import FIXED_TARGETS, get_backend_config
from refquant.workflow.convert import on_grid

__all__ = ["lower"]

_MODULES = {
    *(f"nn.Conv{d}d" for d in (1, 2, 3)), *(f"nni.ConvReLU{d}d" for d in (1, 2, 3)), "nn.Linear", "nni.LinearReLU", "nni.LinearLeakyReLU", "nni.LinearTanh",
}  # fmt: skip
_TWO_INPUTS = {"nni.ConvAdd2d", "nni.ConvAddReLU2d"}
_FUNCTIONS = {"F.linear", *(f"F.conv{d}d" for d in (1, 2, 3)), *(f"F.conv_transpose{d}d" for d in (1, 2, 3))}
_BINARY = {"operator.add", "torch.add", "operator.mul", "torch.mul", "torch.matmul"}
_RELUS = {"nn.ReLU", "F.relu", "torch.relu"}
# What takes the output's parameters; all else between two quantized values finds its own.
_WITH_OUT_MODULES = {
    *(f"nn.ConvTranspose{d}d" for d in (1, 2, 3)), "nn.ELU", "nn.LeakyReLU", "nn.Hardswish", *(f"nn.InstanceNorm{d}d" for d in (1, 2, 3)), "nn.LayerNorm",
    "nn.PReLU", "nn.Softmax", "nn.BatchNorm2d", "nn.BatchNorm3d", "nni.BNReLU2d", "nni.BNReLU3d",
}  # fmt: skip
_WITH_OUT_FUNCTIONS = {"F.elu", "F.hardswish", "F.instance_norm", "F.layer_norm", "F.leaky_relu"}
_PASSING = {c.pattern for c in get_backend_config().configs if c.observation == SHARE} | {"nn.Dropout", "F.dropout", "nn.ChannelShuffle", "F.channel_shuffle"}
_DYNAMIC = {"nn.Linear", "nni.LinearReLU", "F.linear"}


def lower(model, weights, slopes=(), skipped=(), left_alone=()):
    """Turn what stands between dequantize nodes and a quantize node into one layer on codes.

    Parameters
    ----------
    model : Model
        From `quantize_values`.
    weights : dict of str to QTensor
        From `reference_weights`.
    slopes : dict of str to QTensor
        From `quantized_slopes`.
    skipped : collection of str
        Nodes without a QConfig; pools, functions of one number and the like among them become layers on codes all the same.
    left_alone : collection of str
        Nodes that stay as they are.

    Returns
    -------
    Model
        Codes stay codes between quantized layers.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/_lower_to_native_backend.py.
    """
    model = _without_unread(model)
    work = _Lowering(model, weights, dict(slopes), skipped)
    for node in model.nodes:
        if node.op == "quantize" and node.inputs[0] not in left_alone:
            work.visit(node)
    for node in reversed(model.nodes):
        work.visit_dynamic(node)
    return model.with_nodes(work.finished(), outputs=work.outputs)


def _without_unread(model):
    """Return a model without nodes that lead to no output, as PyTorch drops them before: they hold no layer back, and are no call of a module."""
    alive = set(model.outputs)
    for node in reversed(model.nodes):
        if node.name in alive:
            alive.update(node.inputs)
    return model.with_nodes([n for n in model.nodes if n.name in alive or n.op == "input"])


class _Lowering:
    def __init__(self, model, weights, slopes, skipped):
        self.model, self.weights, self.slopes, self.skipped = model, weights, slopes, skipped
        self.nodes = {n.name: n for n in model.nodes}
        self.order = {n.name: k for k, n in enumerate(model.nodes)}
        self.readers = {n.name: {m.name for m in model.users(n.name)} for n in model.nodes}
        self.outputs, self.lowered = list(model.outputs), []

    def visit(self, quantize):
        ref = self.nodes[quantize.inputs[0]]
        relu = ref if ref.target in _RELUS else None
        layer = self.nodes[ref.inputs[0]] if relu else ref
        if not (self._weighted(layer, relu, quantize) or self._binary(layer, relu, quantize)):
            self._special(ref, quantize)

    def _weighted(self, layer, relu, quantize):
        if layer.name not in self.weights or layer.name in self.skipped or not self._on_codes(layer):
            return False
        function = layer.target in _FUNCTIONS
        if not (function or layer.target in _MODULES or layer.target in _TWO_INPUTS and relu is None):
            return False
        attrs = {"activation": "relu"} if relu and function and not layer.op.startswith("conv_transpose") else {}
        self._replace(layer, quantize, relu, attrs, late=function)
        return True

    def _binary(self, layer, relu, quantize):
        if layer.target not in _BINARY or layer.name in self.skipped or not self._on_codes(layer):
            return False
        if layer.op == "matmul":
            return False  # PyTorch's kernel dequantizes, multiplies in float32 and quantizes: just what stands there
        self._replace(layer, quantize, relu, {"activation": "relu"} if relu else {}, late=True)
        return True

    def _special(self, layer, quantize):
        with_out = layer.target in _WITH_OUT_MODULES or layer.target in _WITH_OUT_FUNCTIONS
        if not (with_out or layer.target in _PASSING or layer.target in FIXED_TARGETS) or not self._on_codes(layer):
            return
        if layer.op.startswith("conv_transpose") and not self._has_kernel(layer) or layer.op == "prelu" and layer.name not in self.slopes:
            return
        alone = layer.name not in self.model.outputs and self.readers[layer.name] == {quantize.name}
        if alone:
            self._replace(layer, quantize, None, {}, late=layer.target in _WITH_OUT_FUNCTIONS, out=self._out(layer, quantize, with_out))

    def _has_kernel(self, layer):
        weight = self.weights.get(layer.name)
        if weight is not None and weight.qparams.per_channel:
            raise UnsupportedError(
                f"convert: {layer.name!r} is a transposed convolution whose weight has parameters per channel, for which PyTorch has no kernel; observe it per"
                f" tensor: set_object_type({layer.target!r}, QConfig(..., MinMaxObserver.with_args(dtype='qint8', qscheme='per_tensor_symmetric')))"
            )
        return weight is not None

    def _out(self, layer, quantize, with_out):
        fixed = None if with_out else FIXED_TARGETS.get(layer.target)
        if fixed is not None:
            return QParams(fixed.scale, fixed.zero_point, quantize.attrs["out"].dtype)
        return quantize.attrs["out"] if with_out else None

    def _on_codes(self, layer):
        return bool(layer.inputs) and all(self.nodes[i].op == "dequantize" for i in layer.inputs)

    def _replace(self, layer, quantize, relu, attrs, late, out=Ellipsis):
        """Put a layer on codes where the layer stood, or, as PyTorch does with functions, where its codes are needed."""
        out = quantize.attrs["out"] if out is Ellipsis else out
        attrs = {**layer.attrs, **attrs, **({"out": out} if "out" in graph_op(layer.op, "lower").attrs and out is not None else {})}
        params = self._params(layer)
        sources = [s for node in filter(None, (layer, relu)) for s in node.sources]
        inputs = [self.nodes[i].inputs[0] for i in layer.inputs]
        self.nodes[layer.name] = layer.replace(inputs=inputs, attrs=attrs, params=params, sources=sources)
        for i, before in zip(layer.inputs, inputs):
            self.readers[i].discard(layer.name)
            self.readers[before].add(layer.name)
        if late:
            self.order[layer.name] = self.order[quantize.name]
        self.lowered.append(layer.name)
        for gone in filter(None, (relu, quantize)):
            del self.nodes[gone.name]
        self._rename(quantize.name, layer.name)

    def _params(self, layer):
        """Return the parameters with the weight packed, and a bias that nothing can change any more."""
        if layer.name in self.slopes:
            return {**layer.params, "weight": self.slopes[layer.name]}
        if layer.name not in self.weights:
            return layer.params
        if layer.op.startswith("conv_transpose"):
            return {**layer.params, "weight": self.weights[layer.name]}
        params = {**layer.params, "weight": ops.pack_weights(self.weights[layer.name], groups=layer.attrs.get("groups", 1))}
        if params.get("bias") is not None:
            params["bias"] = params["bias"].copy()
            params["bias"].flags.writeable = False
        return params

    def visit_dynamic(self, node):
        """A layer whose input is quantized at run time takes the input as it is."""
        if node.target in ("nn.Linear", "nni.LinearReLU"):
            self._dynamic(node, None)
        elif node.target in ("nn.ReLU", "F.relu") and node.name in self.nodes:
            layer = self.nodes[self.nodes[node.name].inputs[0]]
            if layer.target == "F.linear":
                # PyTorch does not look who else reads the layer: with a ReLU behind it, all readers get the ReLU's values.
                self._dynamic(layer, node)
        elif node.target == "F.linear":
            self._dynamic(node, None)

    def _dynamic(self, layer, relu):
        if layer.name not in self.weights or layer.name in self.skipped or layer.name in self.lowered:
            return
        before = self.nodes[layer.inputs[0]]
        quantize = self.nodes[before.inputs[0]] if before.op == "dequantize" else before
        if quantize.op != "quantize_dynamic":
            return
        # PyTorch's module takes seven bits under every engine, the function what the engine wants.
        attrs = {"activation": "relu" if relu else layer.attrs["activation"], "reduce_range": layer.is_module or quantize.attrs["reduce_range"]}
        sources = [s for n in filter(None, (layer, relu)) for s in n.sources]
        self.nodes[layer.name] = layer.replace(op="linear_dynamic", inputs=quantize.inputs, attrs=attrs, params=self._params(layer), sources=sources)
        self.lowered.append(layer.name)
        if relu:
            del self.nodes[relu.name]
            self._rename(relu.name, layer.name)

    def _rename(self, old, new):
        for name in self.readers[old]:
            node = self.nodes.get(name)
            if node is not None:
                self.nodes[name] = node.replace(inputs=[new if i == old else i for i in node.inputs])
        self.readers[new] = (self.readers[new] | self.readers[old]) - {old}
        self.outputs = [new if o == old else o for o in self.outputs]

    def finished(self):
        """Return the nodes in their new order, without those that nobody reads; weights of layers that stayed float are put on their grid."""
        self._share_modules()
        model = _without_unread(self.model.with_nodes(sorted(self.nodes.values(), key=lambda n: self.order[n.name]), outputs=self.outputs))
        left = {name: w for name, w in self.weights.items() if name not in self.lowered}
        return [on_grid(n, left) for n in model.nodes]

    def _share_modules(self):
        """Calls of one module share its output parameters, the last call's, as PyTorch swaps the module for one that holds them."""
        last = {self.nodes[name].path: name for name in sorted(self.lowered, key=self.order.get) if self.nodes[name].is_module}
        for name in self.lowered:
            node = self.nodes[name]
            other = self.nodes[last[node.path]] if node.is_module else node
            if other is not node and node.attrs.get("out") is not None:
                self.nodes[name] = node.replace(attrs={**node.attrs, "out": other.attrs["out"]})
