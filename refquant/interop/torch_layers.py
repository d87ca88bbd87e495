"""PyTorch's layers as operations of a model: one rule a layer, from a module to its settings and parameters."""

import numpy as np

from refquant.errors import ArgumentError, UnsupportedError

__all__ = ["LAYERS", "array_of"]


def array_of(tensor, place, name):
    """Return a copy of a tensor as a float32 array."""
    array = tensor.detach().cpu().numpy()
    if array.dtype != np.float32:
        raise ArgumentError(f"{place}: {name} has dtype {array.dtype} but must be float32; call module.float() first")
    return array.copy()


def _weights(module, place, *names):
    found = ((name, getattr(module, name)) for name in names or ("weight", "bias"))
    return {name: array_of(value, place, name) for name, value in found if value is not None}


def _side(value):
    """One number where all axes have the same."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def _conv(module, place):
    if module.padding_mode != "zeros":
        raise UnsupportedError(f"{place}: padding_mode={module.padding_mode!r} is not supported; pad with zeros")
    padding = module.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size)]
        if padding == "same" and any(r % 2 for r in reach):
            raise UnsupportedError(f"{place}: padding='same' with an even window pads one side more than the other, which is not supported; use an odd window")
        padding = tuple(r // 2 if padding == "same" else 0 for r in reach)
    geometry = {"stride": module.stride, "padding": padding, "dilation": module.dilation}
    if module.transposed:
        geometry["output_padding"] = module.output_padding
    return {**{key: _side(value) for key, value in geometry.items()}, "groups": module.groups}, _weights(module, place)


def _batch_norm(module, place):
    if module.running_mean is None:
        raise UnsupportedError(f"{place}: the batch norm has no running statistics; use track_running_stats=True")
    params = _weights(module, place, "weight", "bias", "running_mean", "running_var")
    params.setdefault("weight", np.ones_like(params["running_mean"]))
    params.setdefault("bias", np.zeros_like(params["running_mean"]))
    return {"eps": module.eps}, params


def _layer_norm(module, place):
    params = _weights(module, place)
    params.setdefault("weight", np.ones(module.normalized_shape, np.float32))
    params.setdefault("bias", np.zeros(module.normalized_shape, np.float32))
    return {"eps": module.eps}, params


def _instance_norm(module, place):
    if module.track_running_stats:
        raise UnsupportedError(f"{place}: the instance norm has running statistics, which is not supported; use track_running_stats=False")
    return {"eps": module.eps}, _weights(module, place)


def _plain(*names):
    """A layer without parameters; `names` are its settings, called as the operation's."""

    def convert(module, place):
        if getattr(module, "return_indices", False):
            raise UnsupportedError(f"{place}: return_indices=True is not supported; leave it out")
        return {name: getattr(module, name) for name in names}, {}

    return convert


def _flatten(module, place):
    if module.end_dim != -1:
        raise UnsupportedError(f"{place}: flatten with end_dim={module.end_dim} is not supported; flatten to the end")
    return {"start_dim": module.start_dim}, {}


def _softmax(module, place):
    if module.dim is None:
        raise UnsupportedError(f"{place}: a softmax without dim is not supported; give dim")
    return {"dim": module.dim}, {}


def _pad(module, place):
    return {"pad": tuple(module.padding), "value": float(getattr(module, "value", 0))}, {}


def _upsample(module, place):
    mode = module.mode
    if mode not in ("nearest", "bilinear"):
        raise UnsupportedError(f"{place}: mode={mode!r} is not supported; use 'nearest' or 'bilinear'")
    # A factor that PyTorch rounds again, by recompute_scale_factor, ends as a size; there the module has none.
    return {"size": module.size, "scale_factor": module.scale_factor, "mode": mode, "align_corners": bool(module.align_corners)}, {}


def _embedding(module, place):
    if module.max_norm is not None:
        raise UnsupportedError(f"{place}: max_norm is not supported; leave it out")
    return {}, _weights(module, place, "weight")


_AVG_POOL = "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"
_MAX_POOL = "kernel_size", "stride", "padding", "dilation", "ceil_mode"

LAYERS = {
    **{f"nn.{kind}{dims}d": _conv for kind in ("Conv", "ConvTranspose") for dims in (1, 2, 3)},
    **{f"nn.BatchNorm{dims}d": _batch_norm for dims in (1, 2, 3)},
    **{f"nn.InstanceNorm{dims}d": _instance_norm for dims in (1, 2, 3)},
    **{f"nn.MaxPool{dims}d": _plain(*_MAX_POOL) for dims in (1, 2, 3)},
    **{f"nn.AdaptiveAvgPool{dims}d": _plain("output_size") for dims in (1, 2, 3)},
    "nn.AvgPool1d": lambda module, place: ({name: _side(getattr(module, name)) for name in _AVG_POOL}, {}),
    "nn.AvgPool2d": _plain(*_AVG_POOL, "divisor_override"),
    "nn.AvgPool3d": _plain(*_AVG_POOL, "divisor_override"),
    "nn.AdaptiveMaxPool2d": _plain("output_size"),
    "nn.Linear": lambda module, place: ({}, _weights(module, place)),
    "nn.LayerNorm": _layer_norm,
    "nn.GroupNorm": lambda module, place: ({"num_groups": module.num_groups, "eps": module.eps}, _weights(module, place)),
    "nn.LocalResponseNorm": _plain("size", "alpha", "beta", "k"),
    "nn.Embedding": _embedding,
    "nn.PReLU": lambda module, place: ({}, _weights(module, place, "weight")),
    "nn.Hardtanh": _plain("min_val", "max_val"),
    "nn.ELU": _plain("alpha"),
    "nn.LeakyReLU": _plain("negative_slope"),
    "nn.GELU": _plain("approximate"),
    "nn.Softmax": _softmax,
    "nn.LogSoftmax": _softmax,
    **{f"nn.{name}": _plain() for name in ("ReLU", "ReLU6", "Hardswish", "Hardsigmoid", "Sigmoid", "Tanh", "SiLU", "Dropout", "Dropout2d", "Identity")},
    "nn.Flatten": _flatten,
    "nn.ChannelShuffle": _plain("groups"),
    "nn.PixelShuffle": _plain("upscale_factor"),
    "nn.PixelUnshuffle": _plain("downscale_factor"),
    "nn.Upsample": _upsample,
    **{f"nn.{name}": _pad for name in ("ZeroPad1d", "ZeroPad2d", "ConstantPad1d", "ConstantPad2d")},
}
"""``{target: rule}``; ``rule(module, place)`` returns (attrs, params)."""
