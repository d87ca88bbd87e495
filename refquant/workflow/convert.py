"""From a model with observers to one on codes: quantize and dequantize pairs first, then each layer between two of them becomes a quantized layer."""

from refquant import ops
from refquant.core.qparams import QParams
from refquant.errors import ArgumentError, RefquantError, UnsupportedError
from refquant.graph.node import Node
from refquant.workflow.placement import observed_dtype, quantized_nodes
from refquant.workflow.patterns import PASSING, WEIGHTED

__all__ = ["quantize_values", "quantize_weight", "lower"]

# PyTorch quantizes weights before any engine sees them; the profiles of all its engines agree on how.
_WEIGHT_NUMERICS = "fbgemm"
# Like PyTorch's kernels, all else takes the parameters of its first input as it finds them at run time.
_HAS_OUT = (*WEIGHTED, "add")
_NOT_QUANTIZED = ("batch_norm",)


def quantize_values(model):
    """Replace each ``observe`` node by a quantize and a dequantize node with the parameters that its observer found.

    Parameters
    ----------
    model : Model

    Returns
    -------
    Model
        All layers still work on float32.
    """
    parameters, behind, nodes = {}, {}, []
    for node in model.nodes:
        node = node.replace(inputs=[behind.get(i, i) for i in node.inputs])
        if node.op != "observe":
            nodes.append(node)
            continue
        observer, value = node.attrs["observer"], node.inputs[0]
        if id(observer) not in parameters:
            parameters[id(observer)] = _qparams(observer, value)
        base = value if f"{value}_quantize" not in {n.name for n in nodes} else node.name
        nodes.append(Node(f"{base}_quantize", "quantize", [value], {"out": parameters[id(observer)]}, path=node.path))
        nodes.append(Node(f"{base}_dequantize", "dequantize", [f"{base}_quantize"], path=node.path))
        behind[node.name] = f"{base}_dequantize"
    return model.with_nodes(nodes, outputs=[behind.get(o, o) for o in model.outputs])


def _qparams(observer, value):
    try:
        qparams = observer.calculate_qparams()
    except RefquantError as error:
        raise type(error)(f"convert: the observer of {value!r}: {error}") from error
    if not isinstance(qparams, QParams) or qparams.per_channel:
        raise UnsupportedError(f"convert: {type(observer).__name__} of {value!r} gives {qparams!r}, but activations are quantized per tensor; observe them with another observer")
    return qparams


def quantize_weight(node, qconfig):
    """Return the weight of a layer as a QTensor, with the parameters that a new observer of the QConfig finds.

    Parameters
    ----------
    node : Node
    qconfig : QConfig
    """
    observer = qconfig.weight()
    observer(node.params["weight"])
    qparams = observer.calculate_qparams()
    if not isinstance(qparams, QParams):
        raise UnsupportedError(f"convert: {type(observer).__name__} of {node.name}.weight gives {qparams!r}; weights need integer zero points, choose another observer")
    return ops.quantize(node.params["weight"], qparams, numerics=_WEIGHT_NUMERICS)


def lower(model, chosen, qconfigs):
    """Turn every chain between dequantize nodes and a quantize node into one layer on codes.

    Parameters
    ----------
    model : Model
        From `quantize_values`.
    chosen : dict of str to Match
        What is to be quantized, from `refquant.workflow.placement.quantized_nodes` of the fused model.
    qconfigs : dict of str to QConfig

    Returns
    -------
    Model
        Codes stay codes between quantized layers.
    """
    work = _Lowering(model, chosen, qconfigs)
    for node in model.nodes:
        if node.op == "quantize":
            work.visit(node)
    return model.with_nodes(work.finished())


class _Lowering:
    def __init__(self, model, chosen, qconfigs):
        self.model, self.chosen, self.qconfigs = model, chosen, qconfigs
        self.nodes = {n.name: n for n in model.nodes}
        self.order = {n.name: k for k, n in enumerate(model.nodes)}

    def visit(self, quantize):
        chain = self._chain(self.nodes[quantize.inputs[0]])
        before = [self.nodes[i] for i in chain[0].inputs] if chain else []
        if not before or any(n.op != "dequantize" for n in before):
            return
        layer = self._layer(chain, quantize.attrs["out"]).replace(inputs=[n.inputs[0] for n in before])
        for node in (*chain, quantize):
            del self.nodes[node.name]
        self.nodes[layer.name] = layer
        if layer.op == "add":  # PyTorch puts a sum where its codes are needed, other layers where they stood
            self.order[layer.name] = self.order[quantize.name]
        self._rename(quantize.name, layer.name)

    def _chain(self, last):
        """Return the nodes that end at `last` and become one layer, or None."""
        match = self.chosen.get(last.name)
        if match is not None and match.nodes[0].op in _HAS_OUT:
            names = [n.name for n in match.nodes]
            if match.nodes[0].op in WEIGHTED and not self._quantizes_weight(names[0]):
                return None
            return [self.nodes[n] for n in names] if last.name == names[-1] and names[0] in self.chosen else None
        alone = last.name not in self.model.outputs and sum(last.name in n.inputs for n in self.nodes.values()) == 1
        return [last] if last.target in PASSING and alone else None

    def _quantizes_weight(self, name):
        """Whether engines have kernels for the weight's dtype; PyTorch asks only now, after the observers were placed."""
        return name in self.chosen and observed_dtype(self.qconfigs[name].weight) == "int8"

    def _layer(self, chain, out):
        """Return the chain as one node on codes; its inputs are still to be set."""
        first = chain[0]
        if first.op in _NOT_QUANTIZED:
            raise UnsupportedError(f"convert: {first.name!r} is a {first.op} that follows no convolution, which refquant cannot quantize; leave it float: set_module_name({first.path!r}, None)")
        attrs, params = dict(first.attrs), dict(first.params)
        if len(chain) > 1:
            attrs["activation"] = "relu"
        if first.op in _HAS_OUT:
            attrs["out"] = out
        if first.op in WEIGHTED:
            weight = quantize_weight(first, self.qconfigs[first.name])
            params["weight"] = ops.pack_weights(weight, groups=attrs.get("groups", 1))
            if params.get("bias") is not None:
                params["bias"] = params["bias"].copy()
                params["bias"].flags.writeable = False
        return first.replace(attrs=attrs, params=params, sources=[s for node in chain for s in node.sources])

    def _rename(self, old, new):
        for name, node in self.nodes.items():
            if old in node.inputs:
                self.nodes[name] = node.replace(inputs=[new if i == old else i for i in node.inputs])

    def finished(self):
        """Return the nodes in their old order, without those that nobody reads; weights that stayed float are put on their grid."""
        nodes = sorted(self.nodes.values(), key=lambda n: self.order[n.name])
        alive = set(self.model.outputs)
        for node in reversed(nodes):
            if node.name in alive:
                alive.update(node.inputs)
        return [self._on_grid(n) for n in nodes if n.name in alive or n.op == "input"]

    def _on_grid(self, node):
        """PyTorch quantizes the weights of every chosen layer, also where the layer itself then runs in float32."""
        weight = node.params.get("weight")
        if node.op not in WEIGHTED or hasattr(weight, "qparams") or not self._quantizes_weight(node.name):
            return node
        weight = ops.dequantize(quantize_weight(node, self.qconfigs[node.name]), numerics=_WEIGHT_NUMERICS)
        return node.replace(params={**node.params, "weight": weight})


def check_calibrated(prepared, place):
    """Refuse a prepared model that has seen no data."""
    if not prepared.batches:
        raise ArgumentError(f"{place}: the model has seen no data, so its observers know no range; call prepared(batch) with calibration data first")


def chosen_nodes(prepared):
    """Return what is to be quantized of a prepared model."""
    behind = {n.name: n.inputs[0] for n in prepared.model.nodes if n.op == "observe"}
    nodes = [n.replace(inputs=[behind.get(i, i) for i in n.inputs]) for n in prepared.model.nodes if n.op != "observe"]
    fused = prepared.model.with_nodes(nodes, outputs=[behind.get(o, o) for o in prepared.model.outputs])
    return quantized_nodes(fused, prepared.qconfigs)
