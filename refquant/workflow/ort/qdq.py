"""The QDQ form: a quantizer and a dequantizer around every tensor that a quantized operator reads or writes."""

from typing import Any, NamedTuple

import numpy as np

from refquant.errors import ArgumentError
from refquant.workflow.ort.onnx_graph import OpNode
from refquant.workflow.ort.parameters import activation_parameters, adjusted_ranges, constant_parameters, int32_bias, weight_scale_for_bias
from refquant.workflow.ort.qdq_rules import rule_of
from refquant.workflow.ort.scales import codes_of

__all__ = ["place_qdq"]


class _Mark(NamedTuple):
    """A tensor that is to be quantized: whether as a weight, along which axis, and whose parameters it takes over."""

    weight: bool = False
    axis: Any = None
    shares: Any = None


class _Bias(NamedTuple):
    """A bias that is to be quantized, by the names it depends on."""

    node: OpNode
    x: str
    weight: str
    beta: float


def place_qdq(graph, ranges, options):
    """Return a graph with quantizers and dequantizers, quantized weights and int32 biases.

    Parameters
    ----------
    graph : OnnxGraph
        Not changed.
    ranges : dict of str to (low, high)
        Of every float tensor that a node of `options.op_types_to_quantize` reads or writes; others are taken for integers and left alone.
    options : QuantizationOptions

    Source
    ------
    onnxruntime 1.32, python/tools/quantization/qdq_quantizer.py, ``QDQQuantizer``.
    """
    work = QdqPlacement(graph.copy(), ranges, options)
    work.mark_all()
    work.quantize_all()
    return work.graph


class QdqPlacement:
    """The graph at work, what is marked, and what is quantized already. The rules of `qdq_rules` call its public methods."""

    def __init__(self, graph, ranges, options):
        self.graph, self.options = graph, options
        self.parameters = activation_parameters(adjusted_ranges(graph, ranges, options), options)
        self.marks, self.biases = {}, {}
        self._readers, self._removed = {}, []
        self._finished, self._from_dequantizer = {}, set()

    # What rules ask and mark

    def is_marked(self, name):
        """Whether a tensor is to be quantized so far."""
        return name in self.marks or name in self.biases

    def is_constant(self, name):
        """Whether a tensor is a constant of the graph."""
        return name in self.graph.constants

    def without_output(self, node):
        """Whether the user asked not to quantize what operators of this kind give out."""
        return node.op in self.options["OpTypesToExcludeOutputQuantization"]

    def _quantizable(self, name):
        return self.graph.is_real(name) or name in self.parameters

    def mark(self, name, *, weight=False):
        """Mark a tensor, unless it is marked."""
        if name and self._quantizable(name):
            self.marks.setdefault(name, _Mark(weight))

    def mark_outputs(self, node):
        """Mark what a node gives out, unless the user excluded that."""
        if not self.without_output(node):
            for name in node.outputs:
                self.mark(name)

    def mark_like(self, name, provider):
        """Mark a tensor to take over the parameters of another."""
        if name and self._quantizable(name):
            self.marks[name] = _Mark(shares=provider)

    def mark_weight(self, name, axis, op=None):
        """Mark a weight, by channels where that was asked for."""
        per_channel, axis = self.channels_of(name, axis, op)
        if per_channel and self.graph.is_real(name):
            self.marks[name] = _Mark(True, axis)
        else:
            self.mark(name, weight=True)

    def channels_of(self, name, axis, op=None):
        """Return whether a tensor is quantized by channels, and along which axis. Constants alone can be."""
        array, given = self.graph.constants.get(name), self.options.overrides.get(name)
        if array is None or (given and "axis" not in given[0]) or not (given or self.options.per_channel):
            return False, None
        axis = self.options["QDQOpTypePerChannelSupportToAxis"].get(op, axis) if op else axis
        axis = given[0]["axis"] if given else axis
        inside = -array.ndim <= axis < array.ndim
        return inside, axis % array.ndim if inside else None

    def mark_bias(self, node, index, x, weight, beta=1.0):
        """Mark a bias; one that two nodes share is doubled, as its scale depends on their other inputs."""
        name = node.inputs[index]
        if self.options.overrides.get(name):
            per_channel, axis = self.channels_of(name, 0)
            if per_channel:
                self.marks[name] = _Mark(True, axis)
            else:
                self.mark(name, weight=True)
            return
        if not self.graph.is_real(name):
            return
        if name in self.biases:
            name = self._doubled(name)
            node.inputs[index] = name
        self.biases[name] = _Bias(node, x, weight, beta)

    def _doubled(self, name):
        ends = [other[len(name) :] for other in self.graph.constants if other.startswith(name)]
        number = max((int(end) for end in ends if end.lstrip("-").isdigit()), default=-1) + 1
        return self.graph.add_constant(f"{name}{number}", self.graph.constants[name])

    def removes(self, node):
        """Drop an activation function that the quantizer behind it makes superfluous, and say whether that was possible."""
        before, after = node.inputs[0], node.outputs[0]
        alone = len(self.graph.readers(before)) == 1 and before not in self.graph.outputs and before not in self.graph.inputs
        if after not in self.parameters or not alone:
            return False
        self.graph.maker(before).merged.append(node.name)
        self.graph.rename_output(before, after)
        self.marks.pop(before, None)
        self._removed.append(node)
        return True

    # From marks to nodes

    def mark_all(self):
        """Ask the rule of each node that is to be quantized."""
        for node in list(self.graph.nodes):
            if self.options.wants(node):
                rule_of(node.op)(self, node)
                for name in node.inputs:
                    self._readers.setdefault(name, []).append(node)
            if node.op == "DequantizeLinear":
                self._from_dequantizer.update(node.outputs)

    def quantize_all(self):
        """Replace marks by nodes."""
        self.constants = self._parameters_of_constants()
        if not self.options["QDQDisableWeightAdjustForInt32Bias"]:
            self._adjust_weights()
        self._quantize_own()
        self._quantize_sharing()
        if self.options["QuantizeBias"]:
            self._quantize_biases()
        self.graph.nodes = [node for node in self.graph.nodes if node not in self._removed]
        if not self.options["AddQDQPairToWeight"]:
            self.graph.drop_unused_constants()
        self.graph.sort()

    def _parameters_of_constants(self):
        options, found = self.options, {}
        for name, mark in self.marks.items():
            if name not in self.graph.constants:
                continue
            axis = (options.overrides.get(name) or [{}])[0].get("axis", mark.axis)

            def symmetric(dtype, mark=mark, axis=axis):
                return axis is not None or (options.weight_symmetric(dtype) if mark.weight else options["ActivationSymmetric"])

            dtype = options.weight_type if mark.weight else options.activation_type
            array = self.graph.constants[name]
            found[name] = constant_parameters(name, array, dtype, options, axis=mark.axis, symmetric=symmetric, reduced=options.reduce_range)
        return found

    def _adjust_weights(self):
        for name, bias in self.biases.items():
            w = self.constants.get(bias.weight)
            if bias.x not in self.parameters or bias.x not in self.marks or w is None or w.dtype not in ("int8", "int16") or w.zero_point.any():
                continue
            scale, changed = weight_scale_for_bias(self.graph.constants[name], self.parameters[bias.x].scale, w.scale, w.axis is not None)
            if changed:
                self.constants[bias.weight] = w._replace(scale=scale)

    def _quantize_own(self):
        for name, mark in list(self.marks.items()):
            if mark.shares is not None or name in self._finished:
                continue
            if name in self.graph.constants:
                self._quantize_constant(name, self.constants[name])
            elif name not in self._from_dequantizer:
                if name not in self.parameters:
                    raise ArgumentError(f"quantize_static: {name!r} has no range; calibrate with data that reaches it, or give it in tensor_ranges")
                self._add_parameters(name, self.parameters[name])
                self._add_pair(name, self.parameters[name], f"{name}_scale", f"{name}_zero_point")
            del self.marks[name]

    def _quantize_sharing(self):
        while self.marks:
            ready = [(name, mark.shares) for name, mark in self.marks.items() if mark.shares in self._finished]
            if not ready:
                name, mark = next(iter(self.marks.items()))
                raise ArgumentError(f"quantize_static: {name!r} takes over the parameters of {mark.shares!r}, which is not quantized; exclude the node between them")
            for name, provider in ready:
                if name in self.graph.constants:
                    raise ArgumentError(f"quantize_static: constant {name!r} cannot take over the parameters of {provider!r}; exclude the node between them")
                del self.marks[name]
                self._add_pair(name, *self._finished[provider])

    def _add_parameters(self, name, parameters):
        self.graph.add_constant(f"{name}_scale", parameters.scale)
        self.graph.add_constant(f"{name}_zero_point", parameters.zero_point)

    def _quantize_constant(self, name, p):
        self._add_parameters(name, p)
        scale, zero = f"{name}_scale", f"{name}_zero_point"
        attrs = {} if p.axis is None else {"axis": p.axis}
        behind = f"{name}_DequantizeLinear_Output"
        self.graph.rename_input(name, behind)
        if self.options["AddQDQPairToWeight"]:
            codes = f"{name}_QuantizeLinear_Output"
            self.graph.nodes.append(OpNode(f"{name}_QuantizeLinear", "QuantizeLinear", [name, scale, zero], [codes], dict(attrs)))
        else:
            codes = self.graph.add_constant(f"{name}_quantized", codes_of(self.graph.constants[name], p.scale, p.zero_point, p.dtype, p.axis))
        self.graph.nodes.append(OpNode(f"{name}_DequantizeLinear", "DequantizeLinear", [codes, scale, zero], [behind], attrs))
        self._finished[name] = p, scale, zero

    def _add_pair(self, name, p, scale, zero):
        readers = self._readers.get(name, [])
        if self.options["DedicatedQDQPair"] and len(readers) > 1:
            for i, node in enumerate(readers, 1):
                behind = f"{name}_DequantizeLinear_Output_{i}"
                self._pair(name, name, behind, scale, zero, f"_{i}")
                self.graph.rename_input(name, behind, [node])
        else:
            before, behind = name, f"{name}_DequantizeLinear_Output"
            if name in self.graph.outputs:
                before, behind = f"{name}_QuantizeLinear_Input", name
                self.graph.rename_output(name, before)
            else:
                self.graph.rename_input(name, behind)
            self._pair(name, before, behind, scale, zero)
        self._finished[name] = p, scale, zero

    def _pair(self, name, before, behind, scale, zero, end=""):
        codes = f"{name}_QuantizeLinear_Output{end}"
        self.graph.nodes.append(OpNode(f"{name}_QuantizeLinear{end}", "QuantizeLinear", [before, scale, zero], [codes]))
        self.graph.nodes.append(OpNode(f"{name}_DequantizeLinear{end}", "DequantizeLinear", [codes, scale, zero], [behind]))

    def _quantize_biases(self):
        for name, bias in self.biases.items():
            if name in self._finished:
                continue
            for other, what in ((bias.weight, "weight"), (bias.x, "input")):
                if other not in self._finished:
                    raise ArgumentError(f"quantize_static: bias {name!r} needs the scale of its {what} {other!r}, which is not quantized; exclude node {bias.node.name!r}")
            x, w = self._finished[bias.x][0], self._finished[bias.weight][0]
            codes, scale = int32_bias(self.graph.constants.pop(name), x.scale, w.scale, bias.beta, f"quantize_static: {name!r}")
            many = scale.size > 1
            names = [f"{name}_quantized", f"{name}_quantized_scale", f"{name}_quantized_zero_point"]
            self.graph.add_constant(names[0], codes)
            self.graph.add_constant(names[1], scale)
            self.graph.add_constant(names[2], np.zeros(scale.shape if many else (), np.int32))
            self.graph.nodes.append(OpNode(f"{name}_DequantizeLinear", "DequantizeLinear", names, [name], {"axis": 0} if many else {}))
            self._finished[name] = None
