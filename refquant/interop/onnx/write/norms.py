"""Norms. On codes they compute between DequantizeLinear and QuantizeLinear."""

import numpy as np

from refquant.interop.onnx.write.activations import on_codes, on_reals
from refquant.interop.onnx.write.emitter import Written

__all__ = ["RULES"]


def _norm(write):
    def rule(emit, node, x):
        if x.qparams is not None:  # ONNX Runtime has no operator on codes: between DequantizeLinear and QuantizeLinear
            return on_codes(emit, node, real=lambda out: write(emit, node, Written(emit.real(x), None, x.shape), out), out=node.attrs.get("out") or x.qparams)
        return on_reals(emit, node, lambda out: write(emit, node, x, out))

    return rule


def _arrays(emit, node, *keys):
    return [emit.constant(f"{node.name}_{key}", node.params[key]) for key in keys]


def _line(emit, node, x):
    """Return weight and bias of a norm that may lack them."""
    channels = x.shape[1]
    given = [node.params.get("weight"), node.params.get("bias")]
    filled = [np.full(channels, i == 0, np.float32) if v is None else v for i, v in enumerate(given)]
    return [emit.constant(f"{node.name}_{key}", v) for key, v in zip(("weight", "bias"), filled)]


def _batch_norm(emit, node, x, out):
    names = _arrays(emit, node, "weight", "bias", "running_mean", "running_var")
    return emit.node("BatchNormalization", [x.name, *names], out, epsilon=node.attrs["eps"])


def _layer_norm(emit, node, x, out):
    return emit.node("LayerNormalization", [x.name, *_arrays(emit, node, "weight", "bias")], out, axis=-node.params["weight"].ndim, epsilon=node.attrs["eps"])


def _group_norm(emit, node, x, out):
    return emit.node("GroupNormalization", [x.name, *_line(emit, node, x)], out, num_groups=node.attrs["num_groups"], epsilon=node.attrs["eps"])


def _instance_norm(emit, node, x, out):
    return emit.node("InstanceNormalization", [x.name, *_line(emit, node, x)], out, epsilon=node.attrs["eps"])


def _local_response_norm(emit, node, x, out):
    a = node.attrs
    if a["size"] % 2 == 0:
        emit.refuse(node, f"has the even size={a['size']}, whose window PyTorch and ONNX place differently", "use an odd size")
    return emit.node("LRN", [x.name], out, size=a["size"], alpha=a["alpha"], beta=a["beta"], bias=a["k"])


RULES = {
    "batch_norm": _norm(_batch_norm), "layer_norm": _norm(_layer_norm), "group_norm": _norm(_group_norm), "instance_norm": _norm(_instance_norm),
    "local_response_norm": _norm(_local_response_norm),
}  # fmt: skip
