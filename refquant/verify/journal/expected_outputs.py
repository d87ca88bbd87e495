"""How many outputs a case has, told from its line: a bound that is met except where `ceil_mode` adds a window."""

import math

__all__ = ["expected_outputs"]

_PRODUCTS = ("linear", "matmul_integer")
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_POOLS = ("max_pool2d", "avg_pool2d")
_ELEMENTWISE = (
    "quantize", "dequantize", "fake_quantize", "add", "mul", "relu", "sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "leaky_relu", "gelu", "cat",
)  # fmt: skip


def _sides(value, count):
    return value if isinstance(value, tuple) else (value,) * count


def _windows(case, letters):
    """Return the number of positions of a window along the sides that `letters` name."""
    n = len(letters)
    parts = zip(letters, _sides(case["k"], n), _sides(case["s"] or case["k"], n), _sides(case["p"], n), _sides(dict(case.shape).get("d", 1), n))
    extra = 1 if case.has("ceil") else 0
    return math.prod(max((case[side] + 2 * p - d * (k - 1) - 1) // s + 1 + extra, 0) for side, k, s, p, d in parts)


def expected_outputs(case):
    """Return the most outputs that a case's problem can have.

    Parameters
    ----------
    case : Case

    Returns
    -------
    int or None
        None for an operator of which that is not told here; its cases are then tried one after the other.

    Examples
    --------
    >>> from refquant.verify import Case
    >>> expected_outputs(Case.parse("conv2d/fbgemm/n2c3h9w11-oc5k3s2p1/random/seed=0"))
    300
    """
    shape = dict(case.shape)
    if case.op in _PRODUCTS:
        return case["m"] * case["n"]
    if case.op in _CONVOLUTIONS:
        return case["n"] * case["oc"] * _windows(case, [letter for letter in "thw" if letter in shape])
    if case.op in _POOLS:
        return case["n"] * case["c"] * _windows(case, "hw")
    if case.op == "adaptive_avg_pool2d":
        return case["n"] * case["c"] * math.prod(_sides(case["o"], 2))
    if case.op not in _ELEMENTWISE:
        return None
    channels = sum(_sides(case["c"], 1)) if case.op == "cat" else shape.get("c", 0)
    return math.prod(side for side in (case["n"], channels, shape.get("h", 0), shape.get("w", 0)) if side)
