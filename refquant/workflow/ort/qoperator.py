"""The QOperator form: operators on codes in place of operators on real numbers."""

import numpy as np

from refquant.errors import ArgumentError
from refquant.workflow.ort.codes import Codes
from refquant.workflow.ort.onnx_graph import OpNode
from refquant.workflow.ort.parameters import (
    TensorParameters, activation_parameters, adjusted_ranges, constant_parameters, int32_bias, weight_scale_for_bias,
)  # fmt: skip
from refquant.workflow.ort.qoperator_rules import rule_of
from refquant.workflow.ort.scales import codes_of

__all__ = ["place_operators", "MICROSOFT"]

MICROSOFT = "com.microsoft"


def place_operators(graph, ranges, options):
    """Return a graph of operators on codes, with quantizers and dequantizers where others are between.

    Parameters
    ----------
    graph : OnnxGraph
        Not changed.
    ranges : dict of str to (low, high)
        As for `refquant.workflow.ort.qdq.place_qdq`.
    options : QuantizationOptions

    Source
    ------
    onnxruntime 1.32, python/tools/quantization/onnx_quantizer.py, ``ONNXQuantizer``.
    """
    work = OperatorPlacement(graph.copy(), ranges, options)
    work.convert_all()
    return work.graph


class OperatorPlacement:
    """The graph at work and which values exist as codes. The rules of `qoperator_rules` call its public methods."""

    def __init__(self, graph, ranges, options):
        self.graph, self.options = graph, options
        self.ranges = adjusted_ranges(graph, ranges, options)
        self.parameters = activation_parameters(self.ranges, options)
        self.codes, self.nodes, self._real = {}, [], set(graph.inputs)

    def convert_all(self):
        """Convert node by node, in order."""
        for node in self.graph.nodes:
            first = len(self.nodes)
            rule = rule_of(node.op)
            if rule is None or not self._wants(node) or rule(self, node) is False:
                self.keep(node)
            for made in self.nodes[first:]:
                self._real.update(made.outputs)
        for name in self.graph.outputs:
            self._dequantize(name)
        self.graph.nodes = self.nodes
        self.graph.drop_unused_constants()
        self.graph.sort()

    def _wants(self, node):
        if node.op == "Where":
            return True
        if not self.options.wants(node):
            return False
        if node.op == "Gather":
            return self.graph.is_real(node.inputs[0])
        if node.op in ("MatMul", "Gemm"):
            constant = not self.options["MatMulConstBOnly"] or node.inputs[1] in self.graph.constants
            return constant and any(self.is_real(name) for name in node.inputs[:2])
        return self.is_real(node.inputs[0])

    def is_real(self, name):
        """Whether a value is of float32."""
        return self.graph.is_real(name) or name in self.ranges

    def keep(self, node):
        """Leave a node as it is; inputs that exist as codes alone are dequantized for it."""
        for name in node.inputs:
            self._dequantize(name)
        self.nodes.append(node)

    def _dequantize(self, name):
        found = self.codes.get(name)
        if found is None or name in self._real or any(n.name == f"{name}_DequantizeLinear" for n in self.nodes):
            return
        attrs = {} if found.axis is None else {"axis": found.axis}
        self.nodes.append(OpNode(f"{name}_DequantizeLinear", "DequantizeLinear", found.triple, [name], attrs))

    def add(self, node, op, inputs, output, *, domain=MICROSOFT, attrs=None):
        """Append an operator in place of a node."""
        attrs = dict(node.attrs) if attrs is None else attrs
        self.nodes.append(OpNode(f"{node.name}_quant" if node.name else "", op, list(inputs), [output], attrs, domain, node.source))

    def output_of(self, name, fixed=None):
        """Return (scale name, zero point name) of what a value is to be quantized to, or None without a range; `fixed` is (scale, zero point)."""
        p = self.parameters.get(name)
        if p is None:
            return None
        if fixed is not None:
            p = TensorParameters(np.asarray(fixed[0], np.float32), np.asarray(fixed[1], self.options.activation_type), self.options.activation_type)
        return self.graph.add_constant(f"{name}_scale", p.scale), self.graph.add_constant(f"{name}_zero_point", p.zero_point)

    def quantized(self, name):
        """Return the `Codes` of an activation, adding a quantizer where there are none yet; None without a range."""
        if name in self.codes or not name:
            return self.codes.get(name, Codes("", "", ""))
        if name in self.graph.constants:
            # a constant of the weights' type follows the weights' rule, also where it is no weight
            return self.constant(name, self.options.activation_type, reduced=False)
        out = self.output_of(name)
        if out is None:
            return None
        self.nodes.append(OpNode(f"{name}_QuantizeLinear", "QuantizeLinear", [name, *out], [f"{name}_quantized"]))
        self.codes[name] = Codes(f"{name}_quantized", *out)
        return self.codes[name]

    def weight(self, name, *, reduced):
        """Return the `Codes` of a weight that is quantized as a whole; what is no constant is an activation."""
        if name in self.codes or name not in self.graph.constants:
            return self.quantized(name)
        return self.constant(name, self.options.weight_type, reduced=reduced)

    def constant(self, name, dtype, *, reduced, axis=None):
        """Quantize a constant and return its `Codes`."""
        if name in self.codes:
            return self.codes[name]
        options, array = self.options, self.graph.constants[name]

        def symmetric(kind):
            return options.weight_symmetric(kind) if axis is not None or kind == options.weight_type else options["ActivationSymmetric"]

        p = constant_parameters(name, array, dtype, options, axis=axis, symmetric=symmetric, reduced=options.reduce_range and reduced)
        return self._store(name, p)

    def _store(self, name, p):
        self.graph.constants[f"{name}_scale"], self.graph.constants[f"{name}_zero_point"] = p.scale, p.zero_point
        self.graph.constants[f"{name}_quantized"] = codes_of(self.graph.constants[name], p.scale, p.zero_point, p.dtype, p.axis)
        self.codes[name] = Codes(f"{name}_quantized", f"{name}_scale", f"{name}_zero_point", p.axis)
        return self.codes[name]

    def bias(self, node, index, beta=1.0):
        """Return the name of the int32 codes of a bias; its weight's scale grows where they would not fit."""
        name, x, weight = node.inputs[index], self.codes[node.inputs[0]], self.codes[node.inputs[1]]
        if name in self.codes:
            return self.codes[name].codes
        if not self.graph.is_real(name):
            raise ArgumentError(f"quantize_static: bias {name!r} of {node.name!r} is no float32 constant; exclude the node")
        constants = self.graph.constants
        x_scale, w_scale, zero = constants[x.scale], constants[weight.scale], constants[weight.zero_point]
        if not zero.any() and self.options.weight_type == "int8":
            scale, changed = weight_scale_for_bias(constants[name], x_scale, w_scale, self.options.per_channel)
            if changed:
                w_scale = scale
                if node.inputs[1] in constants:
                    self._store(node.inputs[1], TensorParameters(scale, zero, self.options.weight_type, weight.axis))
        codes, scale = int32_bias(constants[name], x_scale, w_scale, beta, f"quantize_static: {name!r}")
        names = [f"{name}_quantized", f"{name}_quantized_scale", f"{name}_quantized_zero_point"]
        for key, array in zip(names, (codes, scale, np.zeros(scale.shape if scale.size > 1 else (), np.int32))):
            self.graph.add_constant(key, array)
        self.codes[name] = Codes(*names, 0 if scale.size > 1 else None)
        return names[0]
