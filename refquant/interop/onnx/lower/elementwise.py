"""Sums, differences, products and quotients, with values, numbers and constants; concatenation."""

import numpy as np

__all__ = ["LOWERINGS"]


def _constant_side(low, node):
    return next((i for i in (0, 1) if node.inputs[i] in low.constants), None)


def _add(low, node):
    side = _constant_side(low, node)
    if side is None:
        return low.add(node.name, "add", [low.value(node, 0), low.value(node, 1)])
    other, bias = low.value(node, 1 - side), low.real_constant(node, node.inputs[side])
    made, alone = low.nodes[other], low.uses[node.inputs[1 - side]] == 1
    if alone and made.op == "linear" and "bias" not in made.params and bias.reshape(-1).shape == made.params["weight"].shape[:1] == bias.shape[-1:]:
        low.put(made.replace(params={**made.params, "bias": bias.reshape(-1)}))
        return made.name
    if bias.size == 1:
        return low.add(node.name, "add_scalar", [other], {"number": float(bias.reshape(-1)[0])})
    channels = _per_channel(low, node, 1 - side, bias)
    if channels is None:
        return low.add(node.name, "add", [other, low.value(node, side)])
    if alone and made.op == "batch_norm" and made.params["weight"].shape == channels.shape and not made.params["bias"].any():
        low.put(made.replace(params={**made.params, "bias": channels}))
        return made.name
    return _affine(low, node, other, np.ones_like(channels), channels)


def _mul(low, node):
    side = _constant_side(low, node)
    if side is None:
        return low.add(node.name, "mul", [low.value(node, 0), low.value(node, 1)])
    other, weight = low.value(node, 1 - side), low.real_constant(node, node.inputs[side])
    if weight.size == 1:
        return low.add(node.name, "mul_scalar", [other], {"number": float(weight.reshape(-1)[0])})
    channels = _per_channel(low, node, 1 - side, weight)
    if channels is None:
        return low.add(node.name, "mul", [other, low.value(node, side)])
    return _affine(low, node, other, channels, np.zeros_like(channels))


def _per_channel(low, node, index, array):
    """Return a constant of one entry a channel of (N, C, …) as a vector, or None."""
    shape = low.shape(node, index)
    one_each = array.ndim >= len(shape) - 1 >= 2 and array.shape[-len(shape) + 1 :] == (shape[1], *[1] * (len(shape) - 2)) and array.size == shape[1]
    return array.reshape(-1) if one_each else None


def _affine(low, node, other, weight, bias):
    """A batch norm of statistics 0 and 1: ``x * weight + bias``."""
    params = {"weight": weight, "bias": bias, "running_mean": np.zeros_like(bias), "running_var": np.ones_like(bias)}
    return low.add(node.name, "batch_norm", [other], {"eps": 0.0}, params)


def _sub(low, node):
    if node.inputs[1] in low.constants and low.constants[node.inputs[1]].size == 1:
        return low.add(node.name, "add_scalar", [low.value(node, 0)], {"number": -float(low.real_constant(node, node.inputs[1]).reshape(-1)[0])})
    return low.add(node.name, "sub", [low.value(node, 0), low.value(node, 1)])


def _div(low, node):
    if node.inputs[1] in low.constants and low.constants[node.inputs[1]].size == 1:
        number = float(low.real_constant(node, node.inputs[1]).reshape(-1)[0])
        if number and abs(np.frexp(number)[0]) == 0.5:  # then the product with the inverse is the quotient
            return low.add(node.name, "mul_scalar", [low.value(node, 0)], {"number": 1 / number})
    return low.add(node.name, "div", [low.value(node, 0), low.value(node, 1)])


def _sum(low, node):
    total = low.value(node, 0)
    for i in range(1, len(node.inputs)):
        total = low.add(node.name, "add", [total, low.value(node, i)])
    return total


def _neg(low, node):
    return low.add(node.name, "mul_scalar", [low.value(node, 0)], {"number": -1.0})


def _pow(low, node):
    if not np.array_equal(low.constant(node, 1, "exponent").reshape(-1), [2]):
        low.refuse(node, "takes another power than the second")
    x = low.value(node, 0)
    return low.add(node.name, "mul", [x, x])


def _concat(low, node):
    axis, made = int(node.attrs.get("axis", 1)), [low.any_value(node, i) for i in range(len(node.inputs))]
    kinds = {qparams for _, qparams in made}
    if len(kinds) > 1:
        low.refuse(node, "joins codes of different parameters")
    (qparams,) = kinds
    return low.add(node.name, "cat", [place for place, _ in made], {"dim": axis}, qparams=qparams)


LOWERINGS = {"Add": _add, "Mul": _mul, "Sub": _sub, "Div": _div, "Sum": _sum, "Neg": _neg, "Pow": _pow, "Concat": _concat}
