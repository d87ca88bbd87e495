"""What X86InductorQuantizer annotates: chains of layers first, then operations that hand codes on.

Each function takes ``(nodes of a chain, configuration)`` and writes annotations; `annotate_with` goes through all of them in torchao's order.

Source
------
torchao 0.18, quantization/pt2e/quantizer/x86_inductor_quantizer.py.
"""

import warnings

from refquant.errors import UnsupportedError
from refquant.workflow.pt2e.quantization_spec import ANNOTATION, QuantizationAnnotation, SharedQuantizationSpec

__all__ = ["annotate_with", "annotate_outputs", "DEFAULT_QUANTIZABLE", "QUANTIZABLE"]

CODES_IN_CODES_OUT = ("max_pool2d", "cat", "avg_pool2d", "adaptive_avg_pool2d", "flatten")
DEFAULT_QUANTIZABLE = (*CODES_IN_CODES_OUT, "conv1d", "conv2d", "linear", "mul", "mul_scalar")
"""What the global configuration reaches."""
QUANTIZABLE = (*DEFAULT_QUANTIZABLE, "matmul")
"""What a configuration by type can reach."""

_CONV_UNARY = (("nn.Conv2d", "nn.ReLU"), ("nn.Conv2d", "nn.Hardtanh"), ("nn.Conv2d", "nn.Hardswish"), ("nn.Conv2d", "nn.ReLU6"), ("nn.Conv2d", "nn.SiLU"), ("nn.Conv1d", "nn.ReLU"))
_LINEAR_UNARY = ("nn.ReLU", "nn.LeakyReLU", "nn.Tanh", "nn.GELU")
_ADD = "operator.add"


def annotated(node):
    """Whether a node has been visited."""
    return node.annotation is not None and node.annotation._annotated


def annotate_with(graph, sources, config, accepts):
    """Annotate what is not annotated yet and what a filter accepts.

    Parameters
    ----------
    graph : AnnotationGraph
    sources : Sources
    config : QuantizationConfig or None
        None marks nodes as not to be quantized.
    accepts : callable
        From the nodes of a chain to bool.
    """
    work = _Recipe(graph, sources, config, accepts)
    if config is None or config.is_qat:
        work.conv_norm_chains()
    work.conv_add(unary=True)
    work.conv_add(unary=False)
    work.conv_unary()
    work.conv_alone()
    work.linear_add(unary=True)
    work.linear_add(unary=False)
    work.linear_unary()
    work.linear_alone()
    work.products_of_values()
    for node in graph.nodes:
        if node.op in CODES_IN_CODES_OUT and not annotated(node) and accepts([node]):
            work.hand_on(node)


def annotate_outputs(graph):
    """Let operations that hand codes on share their output's parameters with their input."""
    for node in graph.nodes:
        if node.op in CODES_IN_CODES_OUT and annotated(node) and node.annotation._is_output_of_quantized_pattern:
            node.annotation.output_qspec = SharedQuantizationSpec((node.args[0], node))


class _Recipe:
    def __init__(self, graph, sources, config, accepts):
        self.graph, self.sources, self.config, self.accepts = graph, sources, config, accepts

    def skips(self, nodes):
        return any(annotated(n) for n in nodes) or not self.accepts(nodes)

    def mark(self, node, specs=None, ends=False):
        node.meta[ANNOTATION] = QuantizationAnnotation(specs or {}, _annotated=True, _is_output_of_quantized_pattern=ends)

    def layer(self, node, ends):
        """Annotate the input, the weight and the bias of a convolution or a linear layer."""
        if self.config is None:
            self.mark(node)
            return
        specs = {node.inputs[0]: self.config.input_activation, node.params["weight"]: self.config.weight}
        if "bias" in node.params:
            specs[node.params["bias"]] = self.config.bias
        self.mark(node, specs, ends)

    def chain(self, nodes, other=None):
        """Annotate a chain: its layer, a sum with `other` perhaps, a function perhaps."""
        if self.config is None:
            for node in nodes:
                self.mark(node)
            return
        self.layer(nodes[0], False)
        for node in nodes[1:]:
            self.mark(node, {other: self.config.input_activation} if other is not None and node is nodes[1] else None, node is nodes[-1])

    def conv_norm_chains(self):
        """Batch norms that are still there: before training they are, and without a configuration torchao marks their chains too."""
        relu = ("nn.Conv2d", "nn.BatchNorm2d", _ADD, "nn.ReLU")
        unary = [("nn.Conv2d", "nn.BatchNorm2d", kind) for _, kind in _CONV_UNARY[:5]]
        for kinds in (relu, relu[:3], *unary, relu[:2]):
            for chain in self.sources.chains(*kinds):
                nodes, other = [_output(p) for p in chain], None
                if _ADD in kinds:
                    if len(nodes[1].users) != 1:
                        continue
                    other = _other(nodes[1], nodes[2])
                if nodes[0].op == "conv2d" and not self.skips(nodes):
                    self.norm_chain(chain, nodes, other)

    def norm_chain(self, chain, nodes, other):
        """Annotate a convolution with its batch norm and what follows; the output of the last is rounded too."""
        if self.config is not None:
            self.layer(nodes[0], False)
            if other is not None:
                self.mark(nodes[2], {other: self.config.input_activation})
            specs = {} if other is None or nodes[2] is not nodes[-1] else nodes[2].annotation.input_qspec_map
            nodes[-1].meta[ANNOTATION] = QuantizationAnnotation(specs, self.config.output_activation, _annotated=True, _is_output_of_quantized_pattern=True)
        for node in [node for part in chain for node in part.nodes]:
            if self.config is None or node.annotation is None:
                self.mark(node)

    def conv_add(self, unary):
        for chain in self.sources.chains("nn.Conv2d", _ADD, *(["nn.ReLU"] if unary else [])):
            nodes = [_output(p) for p in chain]
            if len(nodes[0].users) != 1:
                continue
            other = _other(nodes[0], nodes[1])
            if nodes[0].op == "conv2d" and not self.skips(nodes):
                self.chain(nodes, other)

    def conv_unary(self):
        for chain in [chain for kinds in _CONV_UNARY for chain in self.sources.chains(*kinds)]:
            nodes = [_output(p) for p in chain]
            if nodes[0].op in ("conv1d", "conv2d") and not self.skips(nodes):
                self.chain(nodes)

    def conv_alone(self):
        for part in self.sources.of("nn.Conv2d", "F.conv2d"):
            node = _output(part)
            if not self.skips([node]):
                self.layer(node, True)

    def linear_add(self, unary):
        for chain in self.sources.chains("nn.Linear", _ADD, *(["nn.ReLU"] if unary else [])):
            if any(len(p.outputs) > 1 for p in chain):
                continue
            nodes = [_output(p) for p in chain]
            if len(nodes[0].users) != 1:
                continue
            _other(nodes[0], nodes[1])
            if not self.skips(nodes):
                self.chain(nodes)  # the other input stays as it is: torchao found that its codes cost accuracy

    def linear_unary(self):
        for chain in [chain for kind in _LINEAR_UNARY for chain in self.sources.chains("nn.Linear", kind)]:
            if any(len(p.outputs) > 1 for p in chain):
                continue
            nodes = [_output(p) for p in chain]
            if not self.skips(nodes):
                self.chain(nodes)

    def linear_alone(self):
        for node in [node for part in self.sources.of("nn.Linear", "F.linear") for node in part.outputs]:
            if not self.skips([node]):
                self.layer(node, True)

    def products_of_values(self):
        """matmul, then products of two values of one shape."""
        for op in ("matmul", "mul"):
            for node in self.graph.nodes:
                if node.op != op and not (op == "mul" and node.op == "mul_scalar") or self.skips([node]):
                    continue
                if self.config is None:
                    self.mark(node)
                elif node.op == "matmul" or node.op == "mul" and node.inputs[0].shape == node.inputs[1].shape:
                    self.mark(node, dict.fromkeys(node.inputs, self.config.input_activation), True)

    def hand_on(self, node):
        """Annotate what works on codes if it gets codes."""
        if self.config is None:
            self.mark(node)
            return
        if node.op == "flatten" and node.users and not any(user.op in QUANTIZABLE for user in node.users):
            return
        first = node.inputs[0]
        if not all(_ends_pattern(i) for i in (node.inputs if node.op == "cat" else [first])):
            if node.op == "max_pool2d":
                warnings.warn(f"X86InductorQuantizer: the input of {node.name!r} is not quantized; the pool stays float", stacklevel=2)
            return
        specs = {first: self.config.input_activation}
        if node.op == "cat":
            for other in node.inputs[1:]:
                specs.setdefault(other, SharedQuantizationSpec((first, node)))
        self.mark(node, specs, True)


def _ends_pattern(node):
    return annotated(node) and node.annotation._is_output_of_quantized_pattern


def _output(part):
    """Return the one node of a layer that others read."""
    if len(part.outputs) == 1:
        return part.outputs[0]
    names = ", ".join(n.name for n in part.nodes)
    if not part.outputs:
        raise UnsupportedError(f"X86InductorQuantizer: nobody reads {names}, and torchao stops there; leave it out of the model")
    raise UnsupportedError(
        f"X86InductorQuantizer: {names} stand for one layer of the source, because one module is used several times, or sums were written in two ways (a + b and torch.add),"
        " and torchao stops there; give each call a module of its own, write sums in one way, or prepare with strict=True, as torch.export(..., strict=True) would"
    )


def _other(layer, add):
    """Return the input of a sum beside a layer's output."""
    if len(add.inputs) == 1:
        raise UnsupportedError(f"X86InductorQuantizer: {add.name!r} adds a number to the output of {layer.name!r}, and torchao stops there; add it to the bias instead")
    if layer not in add.inputs:
        raise UnsupportedError(
            f"X86InductorQuantizer: {add.name!r} is taken for the sum that reads {layer.name!r}, because sums were written in two ways (a + b and torch.add), and torchao stops there;"
            " write sums in one way, or prepare with strict=True, as torch.export(..., strict=True) would"
        )
    return add.inputs[1] if add.inputs[0] is layer else add.inputs[0]
