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
        geometry = {k: a[k] for k in ("stride", "padding", "dilation", "groups", "output_padding") if k in a}
        channels = (weight.shape[0], weight.shape[1]) if "output_padding" in a else (weight.shape[1], weight.shape[0])
        ic, oc = (n * a["groups"] if i == ("output_padding" in a) else n for i, n in enumerate(channels))
        return _fill(kind(ic, oc, weight.shape[2:], bias="bias" in node.params, **geometry), node)

    return build


def _linear(node):
    out, k = node.params["weight"].shape
    return _fill(nn.Linear(k, out, bias="bias" in node.params), node)


def _batch_norm(node):
    kind = {"nn.BatchNorm1d": nn.BatchNorm1d, "nn.BatchNorm3d": nn.BatchNorm3d}.get(node.target, nn.BatchNorm2d)
    return _fill(kind(len(node.params["weight"]), eps=node.attrs["eps"]), node)


def _layer_norm(node):
    return _fill(nn.LayerNorm(node.params["weight"].shape, eps=node.attrs["eps"]), node)


def _group_norm(node):
    if "weight" not in node.params:
        raise UnsupportedError(f"to_torch: group norm {node.name!r} has no weight, so its number of channels is not known; give it one")
    return _fill(nn.GroupNorm(node.attrs["num_groups"], len(node.params["weight"]), eps=node.attrs["eps"]), node)


def _instance_norm(node):
    affine = "weight" in node.params
    kind = getattr(nn, node.target.removeprefix("nn."))
    return _fill(kind(len(node.params["weight"]) if affine else 1, eps=node.attrs["eps"], affine=affine), node)


def _pad_module(node):
    kind = getattr(nn, node.target.removeprefix("nn."))
    return kind(node.attrs["pad"]) if "Zero" in node.target else kind(node.attrs["pad"], node.attrs["value"])


def _with_settings(kind, *names):
    """A module without parameters, whose settings are called as the operation's."""
    return lambda node: kind(**{name: node.attrs[name] for name in names})


def _upsample(node):
    a = node.attrs
    corners = {"align_corners": a["align_corners"]} if a["mode"] != "nearest" else {}
    return nn.Upsample(a["size"], a["scale_factor"], a["mode"], **corners)


_POOL = "kernel_size", "stride", "padding", "ceil_mode"

_MODULES = {
    **{f"conv{d}d": _conv(getattr(nn, f"Conv{d}d")) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _conv(getattr(nn, f"ConvTranspose{d}d")) for d in (1, 2, 3)},
    "linear": _linear,
    "embedding": lambda node: _fill(nn.Embedding(*node.params["weight"].shape), node),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "local_response_norm": _with_settings(nn.LocalResponseNorm, "size", "alpha", "beta", "k"),
    **{f"max_pool{d}d": _with_settings(getattr(nn, f"MaxPool{d}d"), *_POOL, "dilation") for d in (1, 2, 3)},
    "avg_pool1d": _with_settings(nn.AvgPool1d, *_POOL, "count_include_pad"),
    **{f"avg_pool{d}d": _with_settings(getattr(nn, f"AvgPool{d}d"), *_POOL, "count_include_pad", "divisor_override") for d in (2, 3)},
    **{f"adaptive_avg_pool{d}d": _with_settings(getattr(nn, f"AdaptiveAvgPool{d}d"), "output_size") for d in (1, 2, 3)},
    "adaptive_max_pool2d": _with_settings(nn.AdaptiveMaxPool2d, "output_size"),
    "prelu": lambda node: _fill(nn.PReLU(len(node.params["weight"])), node),
    "hardtanh": _with_settings(nn.Hardtanh, "min_val", "max_val"),
    "elu": _with_settings(nn.ELU, "alpha"),
    "leaky_relu": _with_settings(nn.LeakyReLU, "negative_slope"),
    "gelu": _with_settings(nn.GELU, "approximate"),
    "softmax": _with_settings(nn.Softmax, "dim"),
    "log_softmax": _with_settings(nn.LogSoftmax, "dim"),
    "relu": _with_settings(nn.ReLU),
    "relu6": _with_settings(nn.ReLU6),
    "hardswish": _with_settings(nn.Hardswish),
    "hardsigmoid": _with_settings(nn.Hardsigmoid),
    "sigmoid": _with_settings(nn.Sigmoid),
    "tanh": _with_settings(nn.Tanh),
    "silu": _with_settings(nn.SiLU),
    "dropout": _with_settings(nn.Dropout),
    "identity": _with_settings(nn.Identity),
    "flatten": _with_settings(nn.Flatten, "start_dim"),
    "channel_shuffle": _with_settings(nn.ChannelShuffle, "groups"),
    "pixel_shuffle": _with_settings(nn.PixelShuffle, "upscale_factor"),
    "pixel_unshuffle": _with_settings(nn.PixelUnshuffle, "downscale_factor"),
    "pad": _pad_module,
    "interpolate": _upsample,
}


def _function(usual, *names):
    """A function of the inputs and of settings; of the functions that PyTorch has for it, the one that the node came from."""
    homes = {"F": functional, "torch": torch, "operator": operator}

    def call(node, *xs):
        home, _, name = node.target.partition(".")
        settings = {key: node.attrs[key] for key in names}
        return getattr(homes[home], name) if home in homes else usual, xs, settings

    return call


def _number(usual):
    """The form with a number of a sum or product; differences and quotients were read as such."""

    def call(node, x):
        number, kind = node.attrs["number"], node.target.rpartition(".")[2]
        number = -number if kind == "sub" else 1 / number if kind in ("truediv", "div") else number
        return _function(usual)(node)[0], (x, number), {}

    return call


def _asked(node, x):
    """Return sizes or axes as PyTorch takes them: a None, which keeps the size, is -1, or the size itself where -1 is taken."""
    sizes = node.attrs.get("shape", node.attrs.get("dims"))
    if None in sizes and -1 in sizes:
        return tuple(x.graph.call_method("size", (x, i)) if n is None else n for i, n in enumerate(sizes))
    return tuple(-1 if n is None else n for n in sizes)


def _sizes(function):
    """A function of a value and of sizes or axes."""
    return lambda node, x: (function, (x, _asked(node, x)), {})


def _slice(node, x):
    a = node.attrs
    return operator.getitem, (x, (*[slice(None)] * a["dim"], slice(a["start"], a["stop"], a["step"]))), {}


def _select(node, x):
    if node.target == "operator.getitem":
        return operator.getitem, (x, (*[slice(None)] * node.attrs["dim"], node.attrs["index"])), {}
    return torch.select, (x, node.attrs["dim"], node.attrs["index"]), {}


def _interpolate(node, x):
    a = node.attrs
    corners = {"align_corners": a["align_corners"]} if a["mode"] != "nearest" else {}
    return functional.interpolate, (x,), {"size": a["size"], "scale_factor": a["scale_factor"], "mode": a["mode"], **corners}


def _dropout(node, x):
    return functional.dropout, (x,), {"training": False}


_CALLS = {
    "add": _function(operator.add),
    "sub": _function(operator.sub),
    "mul": _function(operator.mul),
    "div": _function(operator.truediv),
    "add_scalar": _number(operator.add),
    "mul_scalar": _number(operator.mul),
    "cat": lambda node, *xs: (torch.cat, (list(xs), node.attrs["dim"]), {}),
    "stack": lambda node, *xs: (torch.stack, (list(xs), node.attrs["dim"]), {}),
    "matmul": _function(torch.matmul),
    "flatten": _function(torch.flatten, "start_dim"),
    "reshape": _sizes(torch.reshape),
    "permute": _sizes(torch.permute),
    "expand": _sizes(torch.Tensor.expand),
    "repeat": lambda node, x: (torch.Tensor.repeat, (x, *node.attrs["sizes"]), {}),
    "pixel_shuffle": _function(functional.pixel_shuffle, "upscale_factor"),
    "pixel_unshuffle": _function(functional.pixel_unshuffle, "downscale_factor"),
    "repeat_interleave": _function(torch.repeat_interleave, "repeats", "dim"),
    "transpose": _function(torch.transpose, "dim0", "dim1"),
    "squeeze": _function(torch.squeeze, "dim"),
    "unsqueeze": _function(torch.unsqueeze, "dim"),
    "select": _select,
    "slice": _slice,
    "mean": _function(torch.mean, "dim", "keepdim"),
    "pad": lambda node, x: (functional.pad, (x, tuple(node.attrs["pad"])), {"value": node.attrs["value"]}),
    "interpolate": _interpolate,
    "dropout": _dropout,
    "clamp": _function(torch.clamp, "min", "max"),
    "instance_norm": _function(functional.instance_norm, "eps"),
    **{name: _function(getattr(functional, name)) for name in ("relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "tanh", "silu")},
    "hardtanh": _function(functional.hardtanh, "min_val", "max_val"),
    "elu": _function(functional.elu, "alpha"),
    "leaky_relu": _function(functional.leaky_relu, "negative_slope"),
    "gelu": _function(functional.gelu, "approximate"),
    "softmax": _function(functional.softmax, "dim"),
    "log_softmax": _function(functional.log_softmax, "dim"),
    "channel_shuffle": _function(functional.channel_shuffle, "groups"),
    "local_response_norm": _function(functional.local_response_norm, "size", "alpha", "beta", "k"),
    **{f"max_pool{d}d": _function(getattr(functional, f"max_pool{d}d"), *_POOL, "dilation") for d in (1, 2, 3)},
    "avg_pool1d": _function(functional.avg_pool1d, *_POOL, "count_include_pad"),
    **{f"avg_pool{d}d": _function(getattr(functional, f"avg_pool{d}d"), *_POOL, "count_include_pad", "divisor_override") for d in (2, 3)},
    **{f"adaptive_avg_pool{d}d": _function(getattr(functional, f"adaptive_avg_pool{d}d"), "output_size") for d in (1, 2, 3)},
    "adaptive_max_pool2d": _function(functional.adaptive_max_pool2d, "output_size"),
}


def _method(node, inputs):
    """A method call where the source had one of the functions that PyTorch's patterns tell from methods."""
    name = node.target.removeprefix(".")
    if "shape" in node.attrs or "dims" in node.attrs:
        return name, (*inputs, *_asked(node, inputs[0])), {}
    if "sizes" in node.attrs:
        return name, (*inputs, *node.attrs["sizes"]), {}
    if "number" in node.attrs:
        return name, _number(None)(node, *inputs)[1], {}
    return name, inputs, {key: value for key, value in node.attrs.items() if key not in ("activation", "out")}


_GEOMETRY = "stride", "padding", "output_padding", "dilation", "groups"


def _weighted(node, root, x):
    """A layer that was a function of its weights, which become parameters of the module."""
    arrays = {}
    for key, array in node.params.items():
        root.register_parameter(f"{node.name}_{key}", nn.Parameter(_tensor(array)))
        arrays[key] = x.graph.get_attr(f"{node.name}_{key}")
    function, settings = getattr(functional, node.target.removeprefix("F.")), {key: node.attrs[key] for key in _GEOMETRY if key in node.attrs}
    if node.op == "layer_norm":
        return function, (x, tuple(node.params["weight"].shape)), {**arrays, "eps": node.attrs["eps"]}
    return function, (x, *arrays.values()), settings


_FUNCTIONS_OF_WEIGHTS = ("linear", "embedding", "layer_norm", *(f"{kind}{d}d" for kind in ("conv", "conv_transpose") for d in (1, 2, 3)))


def to_torch(model):
    """Return a model on float32 arrays as a PyTorch module.

    Parameters
    ----------
    model : Model

    Returns
    -------
    torch.fx.GraphModule
        In evaluation mode, with modules under the nodes' paths, dots replaced by underscores; functions and methods as the nodes' targets
        say; `torch.ao.quantization` can trace and quantize it.

    Raises
    ------
    UnsupportedError
        A node of a quantized model, or one that PyTorch has no counterpart for.
    """
    graph, root, values = torch.fx.Graph(), nn.Module(), {}
    for node in model.nodes:
        values[node.name] = _append(graph, root, node, tuple(values[name] for name in node.inputs))
    outputs = tuple(values[name] for name in model.outputs)
    graph.output(outputs[0] if len(outputs) == 1 else outputs)
    return torch.fx.GraphModule(root, graph).eval()


def _append(graph, root, node, inputs):
    """Append a node to a graph of PyTorch, and what it holds to the module."""
    if node.op == "input":
        return graph.placeholder(node.name)
    if node.op == "constant":
        root.register_parameter(node.name, nn.Parameter(_tensor(node.params["value"])))
        return graph.get_attr(node.name)
    if node.attrs.get("activation") is not None or node.attrs.get("out") is not None or node.op not in {*_MODULES, *_CALLS}:
        raise UnsupportedError(f"to_torch: node {node.name!r} is a {node.op}, fused or on codes, which has no counterpart; convert a model on float32 arrays")
    if node.op in _FUNCTIONS_OF_WEIGHTS and not node.is_module:
        return graph.call_function(*_weighted(node, root, *inputs))
    if node.op in _MODULES and (node.is_module or node.op not in _CALLS):
        path = node.path.replace(".", "_") if node.is_module and node.path else node.name
        root.add_module(path, _MODULES[node.op](node))
        return graph.call_module(path, inputs)
    if node.target.startswith(".") and node.op != "slice":
        return graph.call_method(*_method(node, inputs))
    return graph.call_function(*_CALLS[node.op](node, *inputs))
