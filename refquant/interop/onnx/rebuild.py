"""An `OnnxModel` made of other nodes: what quantization gives back."""

from refquant.errors import UnsupportedError
from refquant.interop.onnx.model import OnnxModel, OnnxNode
from refquant.interop.onnx.qdq import fuse_qdq, fusion_level
from refquant.interop.onnx.table import find_executor, supported_operators

__all__ = ["rebuilt"]


def rebuilt(model, nodes, constants, numerics, fuse=None):
    """Return an `OnnxModel` with the inputs and outputs of another, see `OnnxModel.requantized`."""
    opset = max((node.opset for node in model.nodes if not node.domain), default=13)
    made = OnnxModel([_node(node, opset) for node in nodes], model.signature, model.outputs, constants, numerics)
    level = fusion_level(made.numerics, fuse)
    if level:
        nodes, constants = fuse_qdq(made.nodes, made.outputs, made.constants, level)
        made = OnnxModel(nodes, model.signature, model.outputs, constants, numerics)
    return made


def _node(node, opset):
    version = 1 if node.domain else opset
    executor = find_executor(node.op, node.domain, version)
    if executor is None:
        raise UnsupportedError(f"{node.op} {node.name!r}: refquant does not execute it; {supported_operators(node.op, node.domain)}")
    return OnnxNode(node.name, node.op, node.domain, tuple(node.inputs), tuple(node.outputs), dict(node.attrs), version, executor.run)
