"""`RefquantBackend`: refquant as an ``onnx.backend.base.Backend``, for ONNX's conformance tests."""

from onnx import checker
from onnx.backend.base import Backend, BackendRep, namedtupledict

from refquant import numerics as profiles
from refquant.errors import ArgumentError, choose
from refquant.interop.onnx.checks import checked_opsets, node_of
from refquant.interop.onnx.load import from_onnx
from refquant.interop.onnx.model import run_node
from refquant.interop.onnx.rules import rules_of
from refquant.interop.onnx.table import NEWEST

__all__ = ["RefquantBackend", "PreparedModel"]


class PreparedModel(BackendRep):
    """A model that `RefquantBackend.prepare` made ready."""

    def __init__(self, model):
        self.model = model

    def run(self, inputs, **kwargs):
        """Run the model; return its outputs, by position and by name."""
        outputs = self.model.run(*(inputs if isinstance(inputs, (list, tuple)) else [inputs]))
        return namedtupledict("Outputs", self.model.outputs)(*outputs)


class RefquantBackend(Backend):
    """Execute ONNX models node by node under a profile.

    ``prepare``, ``run_model`` and ``run_node`` take ``numerics=`` beside ONNX's arguments.

    Examples
    --------
    >>> import numpy as np, onnx
    >>> node = onnx.helper.make_node("QuantizeLinear", ["x", "s"], ["y"])
    >>> y, = RefquantBackend.run_node(node, [np.float32([0.5, 1.5]), np.float32(1.0)])
    >>> y
    array([0, 2], dtype=uint8)
    """

    @classmethod
    def is_compatible(cls, model, device="CPU", **kwargs):
        """Whether every operator of a model is supported."""
        try:
            opsets = checked_opsets(model)
            for i, node in enumerate(model.graph.node):
                node_of(node, i, opsets)
        except NotImplementedError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model, device="CPU", *, numerics="onnx", **kwargs):
        """Check a model and make it ready to run again and again."""
        choose("RefquantBackend", "device", device.partition(":")[0], ["CPU"])
        try:
            checker.check_model(model)
        except checker.ValidationError as error:
            raise ArgumentError(f"RefquantBackend: onnx.checker refuses the model: {str(error)[:300]}; export it again") from error
        return PreparedModel(from_onnx(model, numerics=numerics, as_graph=False, fuse_qdq=False))

    @classmethod
    def run_node(cls, node, inputs, device="CPU", outputs_info=None, *, numerics="onnx", opset_version=NEWEST[""], **kwargs):
        """Run one node on a list of arrays, one for each named input."""
        opsets = {"": opset_version, "com.microsoft": NEWEST["com.microsoft"]}
        made = node_of(node, 0, opsets)
        profile = profiles.get(numerics)
        given = list(inputs)
        values = [given.pop(0) if name and given else None for name in made.inputs]
        outputs = run_node(made, values, profile, rules_of(profile))
        return namedtupledict("Outputs", [n or f"_{i}" for i, n in enumerate(made.outputs)])(*outputs[: len(made.outputs)])

    @classmethod
    def supports_device(cls, device):
        """Whether a device is the CPU."""
        return device.partition(":")[0] == "CPU"
