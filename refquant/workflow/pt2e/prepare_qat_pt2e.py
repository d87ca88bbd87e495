"""`prepare_qat_pt2e`: a float model becomes what PT2E trains: fake-quantizers where a quantizer wants them, convolutions scaled by their batch norms."""

import numpy as np

from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.graph.node import Node
from refquant.observers.qparams_from_range import plain_name
from refquant.ops import real
from refquant.workflow.pt2e.annotation_graph import as_exported
from refquant.workflow.pt2e.batch_norm_state import BatchNormState
from refquant.workflow.pt2e.fuse_conv_bn_qat import fuse_conv_bn_qat
from refquant.workflow.pt2e.prepare_pt2e import PreparedPT2E, annotated_graph, check_preparable, observed
from refquant.workflow.pt2e.quantization_spec import CODES

__all__ = ["PreparedQatPT2E", "prepare_qat_pt2e", "QAT_DEFECTS"]

QAT_DEFECTS = ("fixed_eps",)
"""What torchao's training does against the model that it is given."""


class PreparedQatPT2E(PreparedPT2E):
    """A model with fake-quantizers; made by `prepare_qat_pt2e`.

    Call it with batches: it simulates INT8 in float32 while fake-quantizers observe. In training, which it begins in, batch norms normalize by the batch and their
    running statistics follow, as in the forward passes of PyTorch's training; there are no gradients, so weights stay.

    Attributes
    ----------
    training : bool
    norms : dict of str to BatchNormState
        By batch norm.
    fused : dict of str to str
        The batch norm behind each convolution whose weights it scales.
    """

    def __init__(self, model, parameters, graph, norms, fused, defects):
        super().__init__(model, parameters, graph)
        self.norms, self.fused, self.training, self._defects = norms, fused, True, defects
        self._layer_of = {norm: layer for layer, norm in fused.items()}

    def train(self, mode=True):
        """Normalize by batches from now on, or by running statistics; return self."""
        self.training = bool(mode)
        return self

    def eval(self):
        """Normalize by running statistics from now on; return self."""
        return self.train(False)

    def _observed_model(self):
        """Let the fake-quantizers of parameters see them as they are now, and return what runs."""
        rounded = {}
        for parameter in self.parameters:
            value = self._value(parameter)
            seen = parameter.observer(value)
            for node, key in parameter.readers:
                rounded[node, key] = value if seen is None else seen
        return self.model.with_nodes([n for node in self.model.nodes for n in self._simulated(node, rounded)])

    def _value(self, parameter):
        """Return what the fake-quantizer of a parameter sees: of a fused convolution the scaled weight, and a bias of zeros."""
        layer, key = parameter.readers[0]
        return self._scaled(self.model.node(layer))[key] if layer in self.fused else parameter.value

    def _scaled(self, layer):
        weight = layer.params["weight"]
        along = [1] * weight.ndim
        along[_output_axis(layer)] = -1
        factor = self.norms[self.fused[layer.name]].factor()
        return {"weight": weight * factor.reshape(along), "bias": np.zeros(len(factor), np.float32)}

    def _simulated(self, node, rounded):
        """Yield what computes a node in one run."""
        params = {**node.params, **(self._scaled(node) if node.name in self.fused else {})}
        params.update({key: value for (name, key), value in rounded.items() if name == node.name})
        if node.op != "batch_norm":
            yield node.replace(params=params)
            return
        source = node.inputs[0]
        if node.name in self._layer_of:
            *scaling, source = self._unscaled(node)
            yield from scaling
        state = self.norms[node.name]
        if self.training:
            yield Node(node.name, "observe", [source], {"observer": state}, path=node.path)
        else:
            yield node.replace(inputs=[source], params=state.params, attrs={**node.attrs, "eps": self._eps(state)})

    def _unscaled(self, norm):
        """Yield the division by the factor and the addition of the bias between a scaled convolution and its norm, then the name of the result."""
        layer = self.model.node(self._layer_of[norm.name])
        along, base, bias = (1, -1, *[1] * (layer.params["weight"].ndim - 2)), norm.name, layer.params.get("bias")
        yield Node(f"{base}_factor", "constant", params={"value": self.norms[norm.name].factor().reshape(along)}, path=layer.path)
        yield Node(f"{base}_divided", "div", [norm.inputs[0], f"{base}_factor"], path=layer.path)
        if bias is None:
            yield f"{base}_divided"
            return
        yield Node(f"{base}_bias", "constant", params={"value": bias.reshape(along)}, path=layer.path)
        yield Node(f"{base}_with_bias", "add", [f"{base}_divided", f"{base}_bias"], path=layer.path)
        yield f"{base}_with_bias"

    def _eps(self, state):
        return 1e-5 if "fixed_eps" in self._defects else state.eps

    def folded(self):
        """Return ``(model, parameters)`` for conversion: batch norms in the weights that they scale, the others by running statistics."""
        codes = {place for p in self.parameters if plain_name(p.observer.dtype) in CODES for place in p.readers}
        gone, params = {}, {}
        for layer, norm in self.fused.items():
            if (layer, "weight") in codes and self.model.node(norm).inputs[0] == layer:
                gone[norm], params[layer] = layer, self._folded(self.model.node(layer))
        was, self.training = self.training, False
        try:
            nodes = [n for node in self.model.nodes if node.name not in gone for n in ([node] if node.name in params else self._simulated(node, {}))]
        finally:
            self.training = was
        nodes = [n.replace(inputs=[gone.get(i, i) for i in n.inputs], params={**n.params, **params.get(n.name, {})}) for n in nodes]
        values = [p._replace(value=params.get(p.readers[0][0], {}).get(p.readers[0][1], self._value(p))) for p in self.parameters if p.readers]
        return self.model.with_nodes(nodes, outputs=[gone.get(o, o) for o in self.model.outputs]), values

    def _folded(self, layer):
        norm = self.norms[self.fused[layer.name]]
        fold = real.fold_conv_transpose_bn if layer.op.startswith("conv_transpose") else real.fold_conv_bn
        p = norm.params
        weight, bias = fold(layer.params["weight"], layer.params.get("bias"), p["running_mean"], p["running_var"], p["weight"], p["bias"], norm.eps)
        return {"weight": weight, "bias": bias}


def _output_axis(layer):
    return 1 if layer.op.startswith("conv_transpose") else 0


def prepare_qat_pt2e(model, quantizer, *, momentum=0.1, defects=()):
    """Let a quantizer annotate the graph, fuse convolutions with batch norms, and insert fake-quantizers, as torchao's function of this name does before training.

    A convolution with a batch norm behind it computes ``(conv(x, w · f) / f + b)``, ``f = γ / sqrt(running_var + eps)``, so that the weights on their grid are those of the
    folded layer; then the norm.

    Parameters
    ----------
    model : Model
        On float32 arrays, not fused.
    quantizer : Quantizer
        Such as ``X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True))``.
    momentum : float
        Of running statistics.
    defects : sequence of str
        Of `QAT_DEFECTS`, what torchao does wrongly and the result is to do too. ``fixed_eps``: each fused batch norm computes with eps 1e-5 and momentum 0.1, whatever it had
        before; the others with eps 1e-5 once they are moved to evaluation.

    Returns
    -------
    PreparedQatPT2E
        In training; `model` itself does not change. `convert_pt2e` takes it.

    Raises
    ------
    ArgumentError
        As `prepare_pt2e`.
    UnsupportedError
        What torchao stops at, with the nodes and a way round; one batch norm that is called several times.

    Source
    ------
    torchao 0.18, quantization/pt2e/quantize_pt2e.py, qat_utils.py and export_utils.py.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config
    >>> x, labels = load_split("digits", "calibration")
    >>> quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    >>> prepared = prepare_qat_pt2e(zoo.load("digits_resnet"), quantizer)
    >>> for batch in x.reshape(4, 50, 1, 8, 8):
    ...     _ = prepared(batch)
    >>> simulated, = prepared.eval()(x[:50])
    >>> int8, = convert_pt2e(prepared)(x[:50])
    >>> bool((int8.argmax(1) == simulated.argmax(1)).mean() > 0.9)
    True
    """
    check_preparable("prepare_qat_pt2e", model, quantizer)
    for name in defects:
        choose("prepare_qat_pt2e", "defect", name, QAT_DEFECTS)
    if not 0 <= momentum <= 1:
        raise ArgumentError(f"prepare_qat_pt2e: momentum={momentum!r} must be between 0 and 1; PyTorch's default is 0.1")
    graph = annotated_graph(as_exported(model, unread=True), quantizer, model)
    if any(node.op == "batch_norm" for node in graph.nodes):
        graph.drop_unread()
    fused = fuse_conv_bn_qat(graph)
    prepared, parameters = observed(graph, quantizer, is_qat=True)
    return PreparedQatPT2E(prepared, parameters, graph, _norms(prepared, fused, momentum, defects), fused, defects)


def _norms(model, fused, momentum, defects):
    states, behind = {}, set(fused.values())
    paths = [n.path for n in model.nodes if n.op == "batch_norm" and n.is_module]
    for node in model.nodes:
        if node.op != "batch_norm":
            continue
        if paths.count(node.path) > 1:
            raise UnsupportedError(f"prepare_qat_pt2e: the batch norm {node.path!r} is called several times, and its statistics change within one pass; give each call a module of its own")
        fixed = "fixed_eps" in defects and node.name in behind
        states[node.name] = BatchNormState(node.params, *((1e-5, 0.1) if fixed else (node.attrs["eps"], momentum)))
    return states
