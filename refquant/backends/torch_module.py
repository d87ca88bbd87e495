"""A model of refquant as a torch.nn.Module, so that PyTorch can run and quantize the very same network. Imports torch when imported."""

import operator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from refquant.errors import UnsupportedError

__all__ = ["to_torch"]


def _tensor(array):
    return torch.from_numpy(np.array(array, np.float32))


def _fill(module, node):
    """Copy a node's arrays into a module, under the same names."""
    with torch.no_grad():
        for key, array in node.params.items():
            getattr(module, key).copy_(_tensor(array))
    return module


def _conv(kind):
    def build(node):
        a, weight = node.attrs, node.params["weight"]
        geometry = {k: a[k] for k in ("stride", "padding", "dilation", "groups")}
        return _fill(kind(weight.shape[1] * a["groups"], weight.shape[0], weight.shape[2:], bias="bias" in node.params, **geometry), node)

    return build


def _linear(node):
    out, k = node.params["weight"].shape
    return _fill(nn.Linear(k, out, bias="bias" in node.params), node)


def _batch_norm(node):
    kind = nn.BatchNorm1d if node.target == "nn.BatchNorm1d" else nn.BatchNorm2d
    return _fill(kind(len(node.params["weight"]), eps=node.attrs["eps"]), node)


def _layer_norm(node):
    return _fill(nn.LayerNorm(len(node.params["weight"]), eps=node.attrs["eps"]), node)


_MODULES = {
    "conv1d": _conv(nn.Conv1d),
    "conv2d": _conv(nn.Conv2d),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": lambda node: nn.ReLU(),
    "max_pool2d": lambda node: nn.MaxPool2d(**node.attrs),
    "avg_pool2d": lambda node: nn.AvgPool2d(**node.attrs),
    "adaptive_avg_pool2d": lambda node: nn.AdaptiveAvgPool2d(node.attrs["output_size"]),
    "layer_norm": _layer_norm,
    "softmax": lambda node: nn.Softmax(node.attrs["dim"]),
    "gelu": lambda node: nn.GELU(),
    "dropout": lambda node: nn.Dropout(),
    "identity": lambda node: nn.Identity(),
}

_CALLS = {
    "add": lambda node, a, b: (operator.add, (a, b), {}),
    "cat": lambda node, *xs: (torch.cat, (list(xs), node.attrs["dim"]), {}),
    "flatten": lambda node, x: (torch.flatten, (x, node.attrs["start_dim"]), {}),
    "reshape": lambda node, x: (torch.reshape, (x, tuple(-1 if n is None else n for n in node.attrs["shape"])), {}),
    "matmul": lambda node, a, b: (torch.matmul, (a, b), {}),
    "permute": lambda node, x: (torch.permute, (x, tuple(node.attrs["dims"])), {}),
    "scale": lambda node, x: (operator.mul, (x, node.attrs["factor"]), {}),
    "relu": lambda node, x: (functional.relu, (x,), {}),
}


def to_torch(model):
    """Return a model on float32 arrays as a PyTorch module.

    Parameters
    ----------
    model : Model

    Returns
    -------
    torch.fx.GraphModule
        In evaluation mode, with modules under the nodes' paths; `torch.ao.quantization` can trace and quantize it.

    Raises
    ------
    UnsupportedError
        A node of a quantized model, or one that PyTorch has no counterpart for.
    """
    graph, root, values = torch.fx.Graph(), nn.Module(), {}
    for node in model.nodes:
        inputs = [values[name] for name in node.inputs]
        if node.op == "input":
            values[node.name] = graph.placeholder(node.name)
        elif node.op in _MODULES and node.is_module:
            path = node.path.replace(".", "_") or node.name
            root.add_module(path, _MODULES[node.op](node))
            values[node.name] = graph.call_module(path, (inputs[0],))
        elif node.op in _CALLS:
            function, args, kwargs = _CALLS[node.op](node, *inputs)
            values[node.name] = graph.call_function(function, args, kwargs)
        else:
            raise UnsupportedError(f"to_torch: node {node.name!r} is a {node.op}, which has no counterpart; convert a model on float32 arrays")
    outputs = tuple(values[name] for name in model.outputs)
    graph.output(outputs[0] if len(outputs) == 1 else outputs)
    return torch.fx.GraphModule(root, graph).eval()
