"""Outputs on a rounding tie, and outputs about which engines disagree."""

import numpy as np

from refquant.drift.exact import PRODUCTS, exact_value
from refquant.errors import UnsupportedError
from refquant.verify.problem import oracle

__all__ = ["ENGINES", "on_tie", "undecided", "tie_mask"]

#: The profiles whose codes are laid beside each other.
ENGINES = ("fbgemm", "onednn", "qnnpack", "onnxruntime", "onnx")


def on_tie(value, ulps=1):
    """Return which real numbers lie halfway between two integers, or within so many float32 ulps of it.

    Examples
    --------
    >>> on_tie(np.array([2.5, np.nextafter(np.float32(2.5), np.float32(3)), 2.51, -7.5])).tolist()
    [True, True, False, True]
    """
    value = np.asarray(value, np.float64)
    ulp = np.spacing(np.maximum(np.abs(value), 0.5).astype(np.float32)).astype(np.float64)
    return np.abs(np.abs(value - np.floor(value)) - 0.5) <= ulps * ulp


def tie_mask(node, inputs, out):
    """Return which outputs of a node on codes lie on a tie of its grid before they round; what the grid clips does not count.

    Parameters
    ----------
    node : Node
    inputs : list of QTensor
    out : QParams
    """
    steps = exact_value(node, inputs) / out.scale
    code = steps + out.zero_point
    kind = out._type
    low = kind.qmin if node.attrs.get("activation") != "relu" else max(kind.qmin, out.zero_point)
    return on_tie(steps) & (code > low) & (code < kind.qmax)


def undecided(problem, codes, engines=ENGINES):
    """Return for which outputs of a problem at least one engine gives another code than `codes`.

    Parameters
    ----------
    problem : Problem
    codes : ndarray
    engines : sequence of str
        Profiles; those without the operation are left out.
    """
    differ = np.zeros(codes.shape, bool)
    for name in engines:
        try:
            differ |= oracle(problem, name) != codes
        except UnsupportedError:
            continue
    return differ


def has_ties(node):
    """Whether a node's value before rounding is known exactly: products and sums."""
    return node.op in (*PRODUCTS, "add")
