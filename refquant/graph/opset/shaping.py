"""What moves numbers: axes, slices, padding, resizing. Codes keep their parameters."""

import numpy as np

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.graph import shapes
from refquant.graph.opset.graph_op import GraphOp, REQUIRED, on_codes_or_reals, only_real, same_codes
from refquant.ops import real

__all__ = ["SHAPING"]


def _flatten(ctx, node, x):
    start = node.attrs["start_dim"]
    return ops.flatten(x, start) if isinstance(x, QTensor) else real.flatten(x, start)


def _reshape(ctx, node, x):
    shape = tuple(x.shape[i] if n is None else n for i, n in enumerate(node.attrs["shape"]))
    return ops.reshape(x, shape) if isinstance(x, QTensor) else np.reshape(x, shape)


def _slice(node, x):
    shapes.slice_axis(node, x.shape)
    a = node.attrs
    return np.ascontiguousarray(x[(*[slice(None)] * (a["dim"] % x.ndim), slice(a["start"], a["stop"], a["step"]))])


def _select(node, x):
    shapes.select(node, x.shape)
    return np.ascontiguousarray(x.take(node.attrs["index"], node.attrs["dim"]))


def _transpose(node, x):
    shapes.transpose(node, x.shape)
    return np.ascontiguousarray(x.swapaxes(node.attrs["dim0"], node.attrs["dim1"]))


def _squeeze(node, x):
    return x.reshape(shapes.squeeze(node, x.shape))


def _unsqueeze(node, x):
    return x.reshape(shapes.unsqueeze(node, x.shape))


def _channel_shuffle(node, x):
    n, c = shapes.channel_shuffle(node, x.shape)[:2]
    groups = node.attrs["groups"]
    return np.ascontiguousarray(x.reshape(n, groups, c // groups, *x.shape[2:]).swapaxes(1, 2)).reshape(x.shape)


def _pixel_shuffle(node, x):
    n, c, h, w = shapes.pixel_shuffle(node, x.shape)
    r = node.attrs["upscale_factor"]
    return np.ascontiguousarray(x.reshape(n, c, r, r, h // r, w // r).transpose(0, 1, 4, 2, 5, 3)).reshape(n, c, h, w)


def _pixel_unshuffle(node, x):
    n, c, h, w = shapes.pixel_unshuffle(node, x.shape)
    r = node.attrs["downscale_factor"]
    return np.ascontiguousarray(x.reshape(n, c // r**2, h, r, w, r).transpose(0, 1, 3, 5, 2, 4)).reshape(n, c, h, w)


def _repeat(node, x):
    shapes.repeat(node, x.shape)
    return np.tile(x, node.attrs["sizes"])


def _repeat_interleave(node, x):
    shapes.repeat_interleave(node, x.shape)
    return np.repeat(x, node.attrs["repeats"], node.attrs["dim"])


def _expand(node, x):
    return np.ascontiguousarray(np.broadcast_to(x, shapes.expand(node, x.shape)))


def _pad(ctx, node, x):
    return real.pad(only_real(node, x), node.attrs["pad"], node.attrs["value"])


_SHAPE = {"size": None, "scale_factor": None, "mode": "nearest", "align_corners": False}

# fmt: off
SHAPING = (
    GraphOp("flatten", (1, 1), {"start_dim": 1}, {}, ("torch.flatten", "nn.Flatten", ".flatten"), _flatten, shapes.flatten),
    GraphOp("reshape", (1, 1), {"shape": REQUIRED}, {}, (".reshape", ".view", "torch.reshape"), _reshape, shapes.reshape),
    GraphOp("permute", (1, 1), {"dims": REQUIRED}, {}, (".permute", "torch.permute"), same_codes(lambda node, x: real.permute(x, node.attrs["dims"])), shapes.permute),
    GraphOp("transpose", (1, 1), {"dim0": REQUIRED, "dim1": REQUIRED}, {}, (".transpose", "torch.transpose"), same_codes(_transpose), shapes.transpose),
    GraphOp("squeeze", (1, 1), {"dim": REQUIRED}, {}, (".squeeze", "torch.squeeze"), same_codes(_squeeze), shapes.squeeze),
    GraphOp("unsqueeze", (1, 1), {"dim": REQUIRED}, {}, (".unsqueeze", "torch.unsqueeze"), same_codes(_unsqueeze), shapes.unsqueeze),
    GraphOp("slice", (1, 1), {"dim": REQUIRED, "start": None, "stop": None, "step": 1}, {}, ("operator.getitem", "torch.narrow", ".narrow"), same_codes(_slice), shapes.slice_axis),
    GraphOp("select", (1, 1), {"dim": REQUIRED, "index": REQUIRED}, {}, ("torch.select", ".select"), same_codes(_select), shapes.select),
    GraphOp("expand", (1, 1), {"shape": REQUIRED}, {}, (".expand",), same_codes(_expand), shapes.expand),
    GraphOp("channel_shuffle", (1, 1), {"groups": REQUIRED}, {}, ("nn.ChannelShuffle", "F.channel_shuffle", "torch.channel_shuffle"), same_codes(_channel_shuffle), shapes.channel_shuffle),
    GraphOp("pixel_shuffle", (1, 1), {"upscale_factor": REQUIRED}, {}, ("nn.PixelShuffle", "F.pixel_shuffle"), same_codes(_pixel_shuffle), shapes.pixel_shuffle),
    GraphOp("pixel_unshuffle", (1, 1), {"downscale_factor": REQUIRED}, {}, ("nn.PixelUnshuffle", "F.pixel_unshuffle"), same_codes(_pixel_unshuffle), shapes.pixel_unshuffle),
    GraphOp("repeat", (1, 1), {"sizes": REQUIRED}, {}, (".repeat",), same_codes(_repeat), shapes.repeat),
    GraphOp("repeat_interleave", (1, 1), {"repeats": REQUIRED, "dim": REQUIRED}, {}, ("torch.repeat_interleave", ".repeat_interleave"), same_codes(_repeat_interleave), shapes.repeat_interleave),
    GraphOp("pad", (1, 1), {"pad": REQUIRED, "value": 0.0}, {}, ("F.pad", "nn.ZeroPad2d", "nn.ConstantPad2d", "nn.ConstantPad1d", "nn.ZeroPad1d"), _pad, shapes.pad),
    GraphOp("interpolate", (1, 1), _SHAPE, {}, ("F.interpolate", "nn.Upsample"), on_codes_or_reals(ops.interpolate, real.interpolate, *_SHAPE, order=True), shapes.interpolate),
)
# fmt: on
"""A part of a value is one node: ``slice`` along one axis, ``select`` of one index; a split or chunk is as many slices as parts. All take codes
but ``pad``, whose pairs go from the last axis to the first, as PyTorch's."""
