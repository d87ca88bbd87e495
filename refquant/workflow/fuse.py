"""`fuse`: chains of layers become one node, batch norms go into weights."""

import numpy as np

from refquant.graph.match import find_chains
from refquant.ops import real
from refquant.workflow.patterns import FUSIONS

__all__ = ["fuse", "FUSED_PARTS"]

FUSED_PARTS = {row.target: (row.targets[0], "nn.ReLU") for row in FUSIONS if row.target.startswith("nni.")}
"""What a fused layer is made of, for the rules by object type."""

_FOLDS = {"conv": real.fold_conv_bn, "linear": real.fold_linear_bn}


def fuse(model):
    """Fuse chains of a float model by the table `refquant.workflow.patterns.FUSIONS`.

    Parameters
    ----------
    model : Model

    Returns
    -------
    Model
        The fused node has the name and path of the first of its chain, and all of them as ``sources``.

    Examples
    --------
    >>> from refquant import zoo
    >>> [n.name for n in fuse(zoo.load("digits_resnet")).nodes][:4]
    ['x', 'stem_conv', 'block1_conv1', 'block1_conv2']
    """
    matches = find_chains(model, FUSIONS)
    gone = {node.name: match.nodes[0].name for match in matches.values() for node in match.nodes[1:]}
    nodes = []
    for node in model.nodes:
        match = matches.get(node.name)
        if match is not None and node is not match.nodes[-1]:
            continue
        # Where the last of the chain stood: the order of nodes is the order in which a shared observer sees their values.
        node = node if match is None else _fused(match.pattern, match.nodes)
        nodes.append(node.replace(inputs=[gone.get(i, i) for i in node.inputs]))
    return model.with_nodes(nodes, outputs=[gone.get(o, o) for o in model.outputs])


def _fused(pattern, chain):
    first, params = chain[0], dict(chain[0].params)
    if pattern.fold:
        norm = chain[1]
        p = norm.params
        weight, bias = params["weight"], params.get("bias")
        weight, bias = _FOLDS[pattern.fold](weight, bias, p["running_mean"], p["running_var"], p["weight"], p["bias"], norm.attrs["eps"])
        params.update(weight=np.ascontiguousarray(weight), bias=bias)
    attrs = {**first.attrs, "activation": pattern.activation}
    sources = [name for node in chain for name in node.sources]
    return first.replace(attrs=attrs, params=params, target=pattern.target, sources=sources)
