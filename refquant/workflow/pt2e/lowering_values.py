"""What stands between layers: copies of dequantize nodes, quantize nodes before reshapes, pools and concatenations on codes."""

import math

from refquant.graph.node import Node

__all__ = ["drop_dropouts", "floor_max_pools", "lift_quantize", "promote_dequantize", "values_on_codes"]

_VIEWS = ("permute", "transpose", "reshape")


def drop_dropouts(graph):
    """Remove dropouts: they do nothing, and no program that is compiled has them."""
    for node in graph:
        if node.op == "dropout":
            graph.skip(node)


def lift_quantize(graph):
    """Move each quantize node before the reshapes and permutations that it follows, where nothing else reads their values."""
    for name in list(graph.nodes):
        node, views = graph.nodes[name], []
        if node.op != "quantize" or graph.input(node).op not in _VIEWS:
            continue
        before = graph.input(node)
        while before.op in _VIEWS:
            views.insert(0, before)
            before = graph.input(before)
        if not all(graph.alone(n) for n in (before, *views)):
            continue
        _lift(graph, before, views, node)


def _lift(graph, before, views, quantize):
    lifted = Node(quantize.name, "quantize", [before.name], dict(quantize.attrs), path=quantize.path)
    items = []
    for key, node in graph.nodes.items():
        if node is views[0]:
            items += [(lifted.name, lifted), (key, node.replace(inputs=[lifted.name]))]
        elif node is not quantize:
            inputs = [views[-1].name if i == quantize.name else i for i in node.inputs]
            items.append((key, node.replace(inputs=inputs)))
    graph.nodes = dict(items)


def promote_dequantize(graph):
    """Give each reader of a dequantize node one of its own, so that each can be fused."""
    for node in list(graph):
        if node.op != "dequantize":
            continue
        for k, user in enumerate([u for u in graph.users(node) if u != "output"][1:], 1):
            graph.copy_for(node, user, _free(graph, f"{node.name}_{k}"))


def _free(graph, name):
    while name in graph.nodes:
        name += "_"
    return name


def values_on_codes(graph, passes):
    """Let pools, concatenations and reshapes between dequantize and quantize nodes work on codes."""
    kinds = {"max_pool2d": "qmaxpool2d", "cat": "qcat", "reshape": "qreshape", "flatten": "qreshape"}
    for quantize in graph:
        if quantize.op != "quantize":
            continue
        node = graph.input(quantize)
        before = [graph.nodes[i] for i in node.inputs]
        if kinds.get(node.op) not in passes or not graph.alone(node) or any(n.op != "dequantize" or not graph.alone(n) for n in before):
            continue
        codes = [graph.input(n) for n in before]
        out = quantize.attrs["out"]
        if all(_close(_parameters(graph, n), out) for n in codes):
            graph.replace(kinds[node.op], [*before, node, quantize], node.replace(inputs=[n.name for n in codes]))


def floor_max_pools(graph):
    """Let max pools on codes forget their ``ceil_mode``."""
    for node in graph:
        if node.op == "max_pool2d" and graph.input(node).op != "dequantize":
            graph.nodes[node.name] = node.replace(attrs={**node.attrs, "ceil_mode": False})


def _parameters(graph, node):
    """Return the QParams of a node's codes, None where they are chosen at run time."""
    while node.op != "quantize_dynamic" and node.attrs.get("out") is None:
        node = graph.input(node)
    return node.attrs.get("out")


def _close(a, b):
    return a is not None and a.zero_point == b.zero_point and math.isclose(a.scale, b.scale, rel_tol=1e-5)
