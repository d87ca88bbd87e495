"""PyTorch's functions and methods as operations of a model: one rule an operation, with the arguments of the function.

A rule returns ``(op, inputs, attrs)`` or, where arrays become parameters, ``(op, inputs, attrs, params)``.
"""

import numpy as np

from refquant.errors import UnsupportedError

__all__ = ["CALLS"]


def _numbers_apart(op):
    """A sum, difference, product or quotient: with a number another operation than with a value."""

    def rule(place, a, b, *, alpha=1, rounding_mode=None, inplace=False):
        if alpha != 1 or rounding_mode is not None:
            raise UnsupportedError(f"{place}: {op} with alpha={alpha}, rounding_mode={rounding_mode} is not supported; multiply or round in a step of its own")
        if isinstance(a, (int, float)) and op in ("add", "mul"):
            a, b = b, a
        if not isinstance(b, (int, float)) or isinstance(b, bool):
            return op, [a, b], {}
        if op in ("add", "mul"):
            return f"{op}_scalar", [a], {"number": float(b)}
        if op == "sub":
            return "add_scalar", [a], {"number": -float(b)}
        if b and np.frexp(b)[0] in (0.5, -0.5):
            return "mul_scalar", [a], {"number": 1 / float(b)}
        return "div", [a, np.float32(b).reshape(1)], {}

    return rule


def _unary(op, *names, **defaults):
    """One value, then settings that are called as the operation's; `inplace` means nothing here."""

    def rule(place, x, *args, inplace=False, **settings):
        given = {**defaults, **dict(zip(names, args)), **settings}
        return op, [x], given

    return rule


def _softmax(op):
    def rule(place, x, dim=None, _stacklevel=3, dtype=None):
        if dim is None or dtype is not None:
            raise UnsupportedError(f"{place}: {op} with dim={dim} and dtype={dtype} is not supported; give dim, and no dtype")
        return op, [x], {"dim": dim}

    return rule


def _flatten(place, x, start_dim=0, end_dim=-1):
    if end_dim != -1:
        raise UnsupportedError(f"{place}: flatten with end_dim={end_dim} is not supported; flatten to the end")
    return "flatten", [x], {"start_dim": start_dim}


def _listed(args, name, settings):
    """Sizes or axes that may come as one sequence or one by one."""
    if name in settings:
        args = (settings[name],)
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else tuple(args)


def _reshape(place, x, *shape, **settings):
    return "reshape", [x], {"shape": _listed(shape, "shape", settings)}


def _permute(place, x, *dims, **settings):
    return "permute", [x], {"dims": _listed(dims, "dims", settings)}


def _expand(place, x, *sizes, **settings):
    return "expand", [x], {"shape": _listed(sizes, "size", settings)}


def _max_pool(op):
    def rule(place, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        if return_indices:
            raise UnsupportedError(f"{place}: return_indices=True is not supported; leave it out")
        return op, [x], {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}

    return rule


def _adaptive_max_pool(place, x, output_size, return_indices=False):
    if return_indices:
        raise UnsupportedError(f"{place}: return_indices=True is not supported; leave it out")
    return "adaptive_max_pool2d", [x], {"output_size": output_size}


def _dropout(place, x, p=0.5, training=True, inplace=False):
    if training:
        raise UnsupportedError(f"{place}: dropout(training=True) draws random numbers; pass training=self.training")
    return "dropout", [x], {}


def _cat(place, tensors, dim=0):
    return "cat", list(tensors), {"dim": dim}


def _stack(place, tensors, dim=0):
    return "stack", list(tensors), {"dim": dim}


def _repeat(place, x, *sizes):
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    return "repeat", [x], {"sizes": tuple(sizes)}


def _repeat_interleave(place, x, repeats, dim=None):
    if dim is None or not isinstance(repeats, int):
        raise UnsupportedError(f"{place}: repeat_interleave takes one number of repeats along one axis here; write x.repeat_interleave(2, dim=1)")
    return "repeat_interleave", [x], {"repeats": repeats, "dim": dim}


def _mean(place, x, dim=None, keepdim=False, dtype=None):
    if dim is None or dtype is not None:
        raise UnsupportedError(f"{place}: mean with dim={dim} and dtype={dtype} is not supported; name the axes, and no dtype")
    return "mean", [x], {"dim": dim, "keepdim": keepdim}


def _interpolate(place, x, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None, antialias=False):
    if mode not in ("nearest", "bilinear") or antialias or recompute_scale_factor:
        raise UnsupportedError(f"{place}: interpolate with mode={mode!r}, antialias or recompute_scale_factor is not supported; use 'nearest' or 'bilinear'")
    return "interpolate", [x], {"size": size, "scale_factor": scale_factor, "mode": mode, "align_corners": bool(align_corners)}


def _pad(place, x, pad, mode="constant", value=None):
    if mode != "constant":
        raise UnsupportedError(f"{place}: pad with mode={mode!r} is not supported; pad with a constant")
    return "pad", [x], {"pad": tuple(pad), "value": float(value or 0)}


def _weighted(op, *names, **defaults):
    """A layer whose weight and bias are arguments: arrays, or the call is not one layer."""

    def rule(place, x, weight, bias=None, *args, **settings):
        arrays = {key: value for key, value in (("weight", weight), ("bias", bias)) if value is not None}
        if not all(isinstance(value, np.ndarray) for value in arrays.values()):
            raise UnsupportedError(f"{place}: a {op} whose weight or bias is computed is not supported; make it a parameter of the module")
        return op, [x], {**defaults, **dict(zip(names, args)), **settings}, arrays

    return rule


def _embedding(place, x, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False):
    if max_norm is not None:
        raise UnsupportedError(f"{place}: max_norm is not supported; leave it out")
    return _weighted("embedding")(place, x, weight)


def _normalised(op, setting):
    """layer_norm and group_norm, whose second argument is the shape or the number of groups."""

    def rule(place, x, count, weight=None, bias=None, eps=1e-5):
        params = {key: value for key, value in (("weight", weight), ("bias", bias)) if value is not None}
        if op == "layer_norm":
            params = {"weight": np.ones(tuple(count), np.float32), "bias": np.zeros(tuple(count), np.float32), **params}
        return op, [x], {"eps": eps, **({setting: count} if setting else {})}, params

    return rule


def _instance_norm(place, x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5):
    if running_mean is not None or not use_input_stats:
        raise UnsupportedError(f"{place}: instance_norm with running statistics is not supported; leave them out")
    return "instance_norm", [x], {"eps": eps}, {key: value for key, value in (("weight", weight), ("bias", bias)) if value is not None}


_GEOMETRY = "stride", "padding", "dilation", "groups"
_AVG_POOL = "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"

CALLS = {
    **{op: _numbers_apart(op) for op in ("add", "sub", "mul", "div")},
    **{op: _unary(op) for op in ("relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "tanh", "silu", "identity")},
    "hardtanh": _unary("hardtanh", "min_val", "max_val"),
    "clamp": _unary("clamp", "min", "max"),
    "elu": _unary("elu", "alpha"),
    "leaky_relu": _unary("leaky_relu", "negative_slope"),
    "gelu": _unary("gelu", approximate="none"),
    "softmax": _softmax("softmax"),
    "log_softmax": _softmax("log_softmax"),
    "matmul": lambda place, a, b: ("matmul", [a, b], {}),
    "cat": _cat,
    "stack": _stack,
    "flatten": _flatten,
    "reshape": _reshape,
    "permute": _permute,
    "expand": _expand,
    "transpose": _unary("transpose", "dim0", "dim1"),
    "squeeze": _unary("squeeze", "dim"),
    "unsqueeze": _unary("unsqueeze", "dim"),
    "select": _unary("select", "dim", "index"),
    "channel_shuffle": _unary("channel_shuffle", "groups"),
    "pixel_shuffle": _unary("pixel_shuffle", "upscale_factor"),
    "pixel_unshuffle": _unary("pixel_unshuffle", "downscale_factor"),
    "repeat": _repeat,
    "repeat_interleave": _repeat_interleave,
    "slice": lambda place, x, dim, start, length: ("slice", [x], {"dim": dim, "start": start, "stop": start + length}),
    "mean": _mean,
    "pad": _pad,
    "interpolate": _interpolate,
    **{f"max_pool{dims}d": _max_pool(f"max_pool{dims}d") for dims in (1, 2, 3)},
    "avg_pool1d": _unary("avg_pool1d", *_AVG_POOL),
    "avg_pool2d": _unary("avg_pool2d", *_AVG_POOL, "divisor_override"),
    "avg_pool3d": _unary("avg_pool3d", *_AVG_POOL, "divisor_override"),
    **{f"adaptive_avg_pool{dims}d": _unary(f"adaptive_avg_pool{dims}d", "output_size") for dims in (1, 2, 3)},
    "adaptive_max_pool2d": _adaptive_max_pool,
    "dropout": _dropout,
    "linear": _weighted("linear"),
    **{f"conv{dims}d": _weighted(f"conv{dims}d", *_GEOMETRY) for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _weighted(f"conv_transpose{dims}d", "stride", "padding", "output_padding", "groups", "dilation") for dims in (1, 2, 3)},
    "embedding": _embedding,
    "layer_norm": _normalised("layer_norm", None),
    "group_norm": _normalised("group_norm", "num_groups"),
    "instance_norm": _instance_norm,
    "local_response_norm": _unary("local_response_norm", "size", "alpha", "beta", "k"),
}
"""``{operation: rule}``; ``rule(place, *arguments of the function)``."""
