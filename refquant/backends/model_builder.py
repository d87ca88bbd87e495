"""What small ONNX models are put together with. Imports onnx when imported."""

from typing import NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

__all__ = ["ModelBuilder", "SmallModel", "sides"]

_TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "int32": TensorProto.INT32, "uint16": TensorProto.UINT16, "int16": TensorProto.INT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "bool": TensorProto.BOOL}
_OPSETS = (("", 21), ("com.microsoft", 1))


class SmallModel(NamedTuple):
    """A serialized model, what to feed it, whether graph rewriting must stay off, and what to do with its output."""

    model: bytes
    feeds: dict
    literal: bool
    finish: object


class ModelBuilder:
    """Collects nodes, constants and inputs."""

    def __init__(self):
        self.nodes, self.constants, self.inputs, self.feeds = [], [], [], {}

    def feed(self, name, array):
        array = np.ascontiguousarray(array)
        self.inputs.append(helper.make_tensor_value_info(name, _TYPES[array.dtype.name], array.shape))
        self.feeds[name] = array
        return name

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def scale(self, name, p):
        return self.constant(name, np.asarray(p.scale, np.float32))

    def parameters(self, name, p):
        """Add scale and zero point as constants; return their names."""
        return [self.scale(f"{name}_scale", p), self.constant(f"{name}_zero", np.asarray(p.zero_point).astype(p.storage))]

    def node(self, op, inputs, output="y", domain="", **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    make = staticmethod(helper.make_node)

    def model(self, dtype, *, literal=False, finish=None):
        y = helper.make_tensor_value_info("y", _TYPES[np.dtype(dtype).name], None)
        graph = helper.make_graph(self.nodes, "problem", self.inputs, [y], self.constants)
        opsets = [helper.make_opsetid(*o) for o in _OPSETS]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return SmallModel(model.SerializeToString(), self.feeds, literal, finish or (lambda y: y))


def sides(value, dims):
    """Return a list of `dims` numbers, from one or from a tuple."""
    return list(value) if isinstance(value, tuple) else [value] * dims
