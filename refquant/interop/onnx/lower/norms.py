"""Norms."""

import numpy as np

__all__ = ["LOWERINGS"]


def _epsilon(node):
    return float(np.float32(node.attrs.get("epsilon", 1e-5)))


def _batch_norm(low, node):
    if node.attrs.get("training_mode", 0) or not node.attrs.get("spatial", 1):
        low.refuse(node, "is in training mode, or has statistics for every point")
    names = ("weight", "bias", "running_mean", "running_var")
    params = {name: low.constant(node, i + 1, name) for i, name in enumerate(names)}
    return low.add(node.name, "batch_norm", [low.value(node, 0)], {"eps": _epsilon(node)}, params)


def _instance_norm(low, node):
    params = {"weight": low.constant(node, 1, "weight"), "bias": low.constant(node, 2, "bias")}
    return low.add(node.name, "instance_norm", [low.value(node, 0)], {"eps": _epsilon(node)}, params)


def _layer_norm(low, node):
    weight, bias, rank = low.constant(node, 1, "weight"), low.constant(node, 2, "bias"), len(low.shape(node, 0))
    axis = int(node.attrs.get("axis", -1))
    if weight.ndim != rank - axis % rank:
        low.refuse(node, f"has weights of shape {weight.shape} behind axis {axis}")
    params = {"weight": weight, "bias": np.zeros_like(weight) if bias is None else bias}
    return low.add(node.name, "layer_norm", [low.value(node, 0)], {"eps": _epsilon(node)}, params)


def _group_norm(low, node):
    weight, bias, channels = low.constant(node, 1, "weight"), low.constant(node, 2, "bias"), low.shape(node, 0)[1]
    groups = int(node.attrs["num_groups"])
    if weight.size != channels:  # before version 21, one entry a group
        weight, bias = (np.repeat(v, channels // groups) for v in (weight, bias))
    return low.add(node.name, "group_norm", [low.value(node, 0)], {"eps": _epsilon(node), "num_groups": groups}, {"weight": weight, "bias": bias})


def _lrn(low, node):
    if node.attrs["size"] % 2 == 0:
        low.refuse(node, f"has the even size {node.attrs['size']}, whose window PyTorch places otherwise")
    usual = {"alpha": ("alpha", 1e-4), "beta": ("beta", 0.75), "k": ("bias", 1.0)}
    attrs = {ours: float(np.float32(node.attrs.get(theirs, default))) for ours, (theirs, default) in usual.items()}
    return low.add(node.name, "local_response_norm", [low.value(node, 0)], {"size": int(node.attrs["size"]), **attrs})


LOWERINGS = {
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm, "GroupNormalization": _group_norm, "LRN": _lrn,
}  # fmt: skip
