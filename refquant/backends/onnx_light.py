"""The light networks of the package onnx: published architectures whose weights are constants. Imports onnx when called."""

from pathlib import Path

import numpy as np

from refquant.errors import BackendMissing

__all__ = ["light_networks", "with_random_weights", "without_softmax"]


def light_networks():
    """Return the paths of the light networks that come with onnx, by name."""
    try:
        import onnx
    except ImportError as error:
        raise BackendMissing(f"light networks: need the package onnx, which cannot be imported ({error}); pip install 'refquant[onnxruntime]'") from error
    return {path.stem: path for path in sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx"))}


def with_random_weights(proto, seed=0):
    """Replace constant weights, which would hide most faults, by random ones of a fitting size; return the proto, changed.

    Initializers are no longer inputs, as since version 4 of the format.
    """
    from onnx import numpy_helper

    rng = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    users = {name: (node.op_type, i) for node in reversed(proto.graph.node) for i, name in enumerate(node.input)}
    nodes, weights = [], []
    for node in proto.graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            value = _draw(rng, shapes[node.input[0]].tolist(), *users.get(node.output[0], ("", 0)))
            weights.append(numpy_helper.from_array(value, node.output[0]))
        else:
            nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [t for t in proto.graph.initializer if t.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept + weights)
    inputs = [i for i in proto.graph.input if i.name in used and i.name not in shapes]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = 8
    return proto


def _draw(rng, shape, op, position):
    value = rng.standard_normal(shape, np.float32)
    if op in ("Conv", "Gemm") and position == 1:
        return value * np.float32((2 / np.prod(shape[1:])) ** 0.5)
    if op == "BatchNormalization" and position == 4:
        return np.abs(value) + np.float32(0.5)
    return value * np.float32(0.1) + np.float32(position == 1)


def without_softmax(proto):
    """Name the logits as the output where the last node is a softmax; return the proto, changed."""
    from onnx import TensorProto, helper

    last = proto.graph.node[-1]
    name = last.input[0] if last.op_type == "Softmax" else proto.graph.output[0].name
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return proto
