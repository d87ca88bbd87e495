"""What moves numbers. Codes are moved as they are, so that both forms of a quantized model are alike here."""

import numpy as np

from refquant.graph.shapes import pair
from refquant.interop.onnx.write.emitter import Written

__all__ = ["RULES", "moved"]

_FAR = 2**63 - 1


def moved(emit, node, x, op, inputs=(), **attributes):
    """Write what moves numbers; real numbers that come out of codes are moved as codes, so that layers behind still follow a DequantizeLinear."""
    shape = emit.shapes.get(node.name)
    if x.origin is None:
        return Written(emit.node(op, [x.name, *inputs], node.name, **attributes), x.qparams, shape)
    codes = Written(emit.node(op, [x.origin.name, *inputs], emit.fresh(f"{node.name}_codes"), **attributes), x.origin.qparams, shape)
    return Written(emit.node("DequantizeLinear", [codes.name, *emit.parameters(codes.qparams)], node.name), None, shape, codes)


def _axes(emit, node, *numbers):
    return [emit.constant(f"{node.name}_{key}", np.int64(np.reshape(value, -1))) for key, value in numbers]


def _flatten(emit, node, x):
    start = node.attrs["start_dim"] % max(len(x.shape), 1)
    if start == 1:
        return moved(emit, node, x, "Flatten", axis=1)
    return moved(emit, node, x, "Reshape", _axes(emit, node, ("shape", [0] * start + [-1])))


def _reshape(emit, node, x):
    sides = list(node.attrs["shape"])
    if 0 in sides:
        emit.refuse(node, f"reshapes to the empty {tuple(sides)}")
    return moved(emit, node, x, "Reshape", _axes(emit, node, ("shape", [0 if n is None else n for n in sides])))


def _permute(emit, node, x):
    return moved(emit, node, x, "Transpose", perm=[d % len(x.shape) for d in node.attrs["dims"]])


def _transpose(emit, node, x):
    order = list(range(len(x.shape)))
    a, b = node.attrs["dim0"], node.attrs["dim1"]
    order[a], order[b] = order[b], order[a]
    return moved(emit, node, x, "Transpose", perm=order)


def _squeeze(emit, node, x):
    return moved(emit, node, x, "Squeeze", _axes(emit, node, ("axes", node.attrs["dim"])))


def _unsqueeze(emit, node, x):
    return moved(emit, node, x, "Unsqueeze", _axes(emit, node, ("axes", node.attrs["dim"])))


def _slice(emit, node, x):
    a = node.attrs
    start, stop = 0 if a["start"] is None else a["start"], _FAR if a["stop"] is None else a["stop"]
    return moved(emit, node, x, "Slice", _axes(emit, node, ("start", start), ("stop", stop), ("axis", a["dim"]), ("step", a["step"])))


def _select(emit, node, x):
    return moved(emit, node, x, "Gather", [emit.constant(f"{node.name}_index", np.int64(node.attrs["index"]))], axis=node.attrs["dim"])


def _expand(emit, node, x):
    return moved(emit, node, x, "Expand", _axes(emit, node, ("shape", [1 if n in (-1, None) else n for n in node.attrs["shape"]])))


def _turned(emit, node, x, apart, order, together):
    """A value with other axes, turned, and with its own axes again."""
    if any(shape.count(None) > 1 for shape in (apart, together)):
        emit.refuse(node, f"shuffles a value of shape {x.shape} with more than one open side", "state the shape of the model's inputs")
    numbers = lambda shape: np.int64([-1 if side is None else side for side in shape])  # noqa: E731
    split = emit.node("Reshape", [x.name, emit.constant(f"{node.name}_apart", numbers(apart))], emit.fresh(f"{node.name}_apart"))
    turned = emit.node("Transpose", [split], emit.fresh(f"{node.name}_turned"), perm=order)
    return Written(emit.node("Reshape", [turned, emit.constant(f"{node.name}_together", numbers(together))], node.name), x.qparams, together)


def _channel_shuffle(emit, node, x):
    n, c, *rest = x.shape
    groups = node.attrs["groups"]
    return _turned(emit, node, x, [n, groups, c // groups, *rest], [0, 2, 1, *range(3, len(x.shape) + 1)], tuple(x.shape))


def _pixel_shuffle(emit, node, x):
    (n, c, h, w), r = x.shape, node.attrs["upscale_factor"]
    return _turned(emit, node, x, [n, c // r**2, r, r, h, w], [0, 1, 4, 2, 5, 3], emit.shapes[node.name])


def _pixel_unshuffle(emit, node, x):
    (n, c, h, w), r = x.shape, node.attrs["downscale_factor"]
    return _turned(emit, node, x, [n, c, *(k for side in (h, w) for k in (None if side is None else side // r, r))], [0, 1, 3, 5, 2, 4], emit.shapes[node.name])


def _repeat(emit, node, x):
    sizes = node.attrs["sizes"]
    if len(sizes) != len(x.shape):
        emit.refuse(node, f"repeats a value of {len(x.shape)} axes along {len(sizes)}", "add the axes by a reshape before")
    return moved(emit, node, x, "Tile", _axes(emit, node, ("sizes", sizes)))


def _repeat_interleave(emit, node, x):
    dim, times = node.attrs["dim"] % len(x.shape), node.attrs["repeats"]
    if x.shape[dim] is None:
        emit.refuse(node, f"repeats along axis {dim}, which is open", "state the shape of the model's inputs")
    return moved(emit, node, x, "Gather", [emit.constant(f"{node.name}_index", np.repeat(np.arange(x.shape[dim]), times).astype(np.int64))], axis=dim)


def _pad(emit, node, x):
    x = x._replace(origin=None)
    if x.qparams is not None:
        emit.refuse(node, "pads codes")
    given = list(node.attrs["pad"])
    sides = [(0, 0)] * (len(x.shape) - len(given) // 2) + [tuple(given[i : i + 2]) for i in range(len(given) - 2, -1, -2)]
    pads = [before for before, _ in sides] + [after for _, after in sides]
    value = emit.constant(f"{node.name}_value", np.float32(node.attrs["value"]))
    return moved(emit, node, x, "Pad", [*_axes(emit, node, ("pads", pads)), value])


def _interpolate(emit, node, x):
    a, dims, x = node.attrs, len(x.shape) - 2, x._replace(origin=None)
    if x.qparams is not None:
        emit.refuse(node, "resizes codes, of which refquant does not know ONNX Runtime's form")
    attributes = _RESIZE.get((a["mode"], bool(a["align_corners"])))
    if attributes is None:
        emit.refuse(node, f"resizes by mode={a['mode']!r}", "use nearest or bilinear")
    if a["size"] is None:
        scales, sizes = [emit.constant(f"{node.name}_scales", np.float32([1, 1, *pair(a["scale_factor"], dims)]))], []
    else:
        axes = list(range(2, 2 + dims))
        scales, sizes = [""], _axes(emit, node, ("sizes", pair(a["size"], dims)))
        attributes = {**attributes, "axes": axes}
    return moved(emit, node, x, "Resize", ["", *scales, *sizes], **attributes)


_LINEAR = {"mode": "linear"}
_RESIZE = {
    ("nearest", False): {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    **{(f"{kind}linear", False): {**_LINEAR, "coordinate_transformation_mode": "pytorch_half_pixel"} for kind in ("", "bi", "tri")},
    **{(f"{kind}linear", True): {**_LINEAR, "coordinate_transformation_mode": "align_corners"} for kind in ("", "bi", "tri")},
}  # fmt: skip

RULES = {
    "flatten": _flatten, "reshape": _reshape, "permute": _permute, "transpose": _transpose, "squeeze": _squeeze, "unsqueeze": _unsqueeze, "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle, "repeat": _repeat, "repeat_interleave": _repeat_interleave, "slice": _slice,
    "select": _select, "expand": _expand, "channel_shuffle": _channel_shuffle, "pad": _pad, "interpolate": _interpolate,
}  # fmt: skip
