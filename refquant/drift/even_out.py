"""`even_out`: the same function with channels of like size, which one grid for all of them serves better."""

import numpy as np

from refquant.errors import ArgumentError

__all__ = ["even_out"]

_CONVOLUTIONS = ("conv1d", "conv2d")
_MOST = 2.0**16


def even_out(model, batches):
    """Even out the ranges of a float model's channels by powers of two (cross-layer equalization).

    A channel is multiplied on its way out of a batch norm or convolution and divided on its way into the next convolutions. ReLUs
    in between do not mind, nor do pools, nor sums whose other side is multiplied too.

    Parameters
    ----------
    model : Model
        On float32 arrays, with one input.
    batches : sequence of ndarray of float32
        What the ranges are measured with, such as calibration images.

    Returns
    -------
    Model
        Channels that can be evened out then reach more than half of the greatest one.

    Raises
    ------
    ArgumentError
        No batches.

    Exactness
    ---------
    Powers of two change exponents alone, so the outputs keep every bit (unless a number falls below 1e-38).

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> x, _ = load_split("digits", "calibration")
    >>> model = zoo.load("digits_mobilenet")
    >>> even = even_out(model, [x])
    >>> bool((even(x)[0] == model(x)[0]).all())
    True
    """
    batches = list(batches)
    if not batches:
        raise ArgumentError("even_out: batches is empty; give at least one batch of images")
    magnitudes = _magnitudes(model, batches)
    nodes = {n.name: n for n in model.nodes}
    for node in model.nodes:
        makers, readers = _makers(model, node.name), _readers(model, node.name)
        if not makers or not readers:
            continue
        size = magnitudes[node.name]
        ratio = np.divide(size.max(), size, out=np.ones_like(size), where=size > 0)
        factor = np.exp2(np.floor(np.log2(np.minimum(ratio, _MOST)))).astype(np.float32)
        for name in makers:
            nodes[name] = _multiplied(nodes[name], factor)
        for name in readers:
            nodes[name] = _divided(nodes[name], factor)
    return model.with_nodes(nodes.values())


def _magnitudes(model, batches):
    found = {}

    def widen(node, value):
        if value.ndim >= 2:
            greatest = np.abs(value).max(tuple(a for a in range(value.ndim) if a != 1)).astype(np.float64)
            found[node.name] = np.maximum(found.get(node.name, 0.0), greatest)

    for x in batches:
        model.run(x, hooks=widen)
    return found


def _makers(model, name):
    """Return the batch norms and convolutions that make a value, through ReLUs and sums that nobody else reads; empty if others do."""
    node = model.node(name)
    if node.op in ("batch_norm", *_CONVOLUTIONS):
        return [name]
    if node.op not in ("relu", "add") or name in model.inputs:
        return []
    behind = [_makers(model, i) if len(model.users(i)) == 1 and i not in model.outputs else [] for i in node.inputs]
    return sum(behind, []) if all(behind) and len(set(node.inputs)) == len(node.inputs) else []


def _readers(model, name):
    """Return the convolutions that read a value, through pools; empty if anything else does."""
    if name in model.outputs:
        return []
    found = []
    for user in model.users(name):
        pools = user.op in ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")
        behind = [user.name] if user.op in _CONVOLUTIONS else _readers(model, user.name) if pools else []
        if not behind:
            return []
        found += behind
    return found


def _multiplied(node, factor):
    names = ("weight", "bias") if node.op == "batch_norm" else tuple(n for n in ("weight", "bias") if node.params.get(n) is not None)
    changed = {n: node.params[n] * factor.reshape(-1, *[1] * (node.params[n].ndim - 1)) for n in names}
    return node.replace(params={**node.params, **changed})


def _divided(node, factor):
    weight, groups = node.params["weight"], node.attrs["groups"]
    # Row o of a grouped weight reads channels of group o // (OC / groups).
    per_group = np.repeat(factor.reshape(groups, -1), len(weight) // groups, axis=0)
    return node.replace(params={**node.params, "weight": weight / per_group.reshape(*per_group.shape, *[1] * (weight.ndim - 2))})
