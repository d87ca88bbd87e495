"""Functions of one number, and softmax."""

import math

import numpy as np

__all__ = ["LOWERINGS"]


def _function(op, **attributes):
    """An operator that takes one value; `attributes` are (ONNX's name, ONNX's default) by ours."""

    def rule(low, node):
        attrs = {ours: float(np.float32(node.attrs.get(theirs, usual))) for ours, (theirs, usual) in attributes.items()}
        return low.add(node.name, op, [low.value(node, 0)], attrs)

    return rule


def _relu(low, node):
    x, qparams = low.any_value(node, 0)
    return low.add(node.name, "relu", [x], qparams=qparams)


def _hard_sigmoid(low, node):
    if abs(node.attrs.get("alpha", 0.2) - 1 / 6) > 1e-7 or node.attrs.get("beta", 0.5) != 0.5:
        low.refuse(node, f"has alpha={node.attrs.get('alpha', 0.2)}, beta={node.attrs.get('beta', 0.5)}; PyTorch's has 1/6 and 1/2")
    return low.add(node.name, "hardsigmoid", [low.value(node, 0)])


def _limits(low, node):
    """Return the limits of a Clip, which were attributes before version 11."""
    inputs = [low.constant(node, i, "limit") for i in (1, 2)]
    given = [node.attrs.get(name) if v is None else v.reshape(-1)[0] for name, v in zip(("min", "max"), inputs)]
    return [None if v is None or not math.isfinite(v) else float(v) for v in given]


def _clip(low, node):
    least, most = _limits(low, node)
    x, qparams = low.any_value(node, 0)
    if qparams is not None:
        if least != qparams.zero_point or most is not None:
            low.refuse(node, f"clips codes to {least} … {most}")
        return low.add(node.name, "relu", [x], qparams=qparams)
    if least is most is None:
        return low.add(node.name, "identity", [x])
    if (least, most) == (0.0, 6.0):
        return low.add(node.name, "relu6", [x])
    if (least, most) == (0.0, None):
        return low.add(node.name, "relu", [x])
    return low.add(node.name, "clamp", [x], {"min": least, "max": most})


def _softmax(op):
    def rule(low, node):
        shape = low.shape(node, 0)
        axis = int(node.attrs.get("axis", -1 if node.opset >= 13 else 1))
        if not -len(shape) <= axis < len(shape):
            low.refuse(node, f"has axis={axis} but {len(shape)} dimensions")
        behind = shape[axis % len(shape) + 1 :]
        if node.opset < 13 and any(n != 1 for n in behind):
            low.refuse(node, f"normalizes all axes from {axis} on at once, as before version 13")
        return low.add(node.name, op, [low.value(node, 0)], {"dim": axis})

    return rule


def _prelu(low, node):
    slope, shape = low.constant(node, 1, "slope"), low.shape(node, 0)
    if slope.size > 1 and slope.reshape(slope.shape[0], -1).shape != (shape[1], 1):
        low.refuse(node, f"has slopes of shape {slope.shape}")
    return low.add(node.name, "prelu", [low.value(node, 0)], {}, {"weight": slope.reshape(-1)})


def _gelu(low, node):
    return low.add(node.name, "gelu", [low.value(node, 0)], {"approximate": node.attrs.get("approximate", "none") or "none"})


def _swish(low, node):
    if node.attrs.get("alpha", 1.0) != 1:
        low.refuse(node, f"has alpha={node.attrs['alpha']}")
    return low.add(node.name, "silu", [low.value(node, 0)])


LOWERINGS = {
    "Relu": _relu, "Clip": _clip, "Sigmoid": _function("sigmoid"), "Tanh": _function("tanh"), "HardSwish": _function("hardswish"), "HardSigmoid": _hard_sigmoid,
    "Elu": _function("elu", alpha=("alpha", 1.0)), "LeakyRelu": _function("leaky_relu", negative_slope=("alpha", 0.01)), "PRelu": _prelu, "Gelu": _gelu,
    ("com.microsoft", "Gelu"): _gelu, "Swish": _swish, "Softmax": _softmax("softmax"), "LogSoftmax": _softmax("log_softmax"),
}  # fmt: skip
