"""What moves numbers, on real numbers and on codes; sizes become constants."""

import math

import numpy as np

__all__ = ["LOWERINGS"]


def _moved(low, node, op, attrs, text=None):
    x, qparams = low.any_value(node, 0)
    return low.add(text or node.name, op, [x], attrs, qparams=qparams)


def _listed(low, node, name, index, what):
    """Return integers that stand in an attribute or, in later versions, in an input; None where they are left out."""
    if name in node.attrs:
        return [int(v) for v in np.reshape(node.attrs[name], -1)]
    given = low.constant(node, index, what)
    return None if given is None else [int(v) for v in given.reshape(-1)]


def _flatten(low, node):
    axis = int(node.attrs.get("axis", 1))
    shape = low.shape(node, 0)
    if axis % max(len(shape), 1) == 1:
        return _moved(low, node, "flatten", {"start_dim": 1})
    if None in shape:
        low.refuse(node, f"flattens from axis {axis} on a value of shape {shape}")
    axis = axis if axis >= 0 else axis + len(shape)
    return _moved(low, node, "reshape", {"shape": (math.prod(shape[:axis]), math.prod(shape[axis:]))})


def _reshape(low, node):
    shape = _listed(low, node, "shape", 1, "shape")
    known = low.shapes[low.any_value(node, 0)[0]]
    if shape == [0, -1] or (known and shape == [known[0], -1] and -1 not in shape[:1] and len(known) > 1):
        return _moved(low, node, "flatten", {"start_dim": 1})
    if node.attrs.get("allowzero", 0) and 0 in shape:
        low.refuse(node, f"reshapes to the empty {shape}")
    return _moved(low, node, "reshape", {"shape": tuple(None if n == 0 else n for n in shape)})


def _transpose(low, node):
    rank = len(low.shape(node, 0))
    return _moved(low, node, "permute", {"dims": tuple(int(d) for d in node.attrs.get("perm") or range(rank)[::-1])})


def _squeeze(low, node):
    axes, shape = _listed(low, node, "axes", 1, "axis list"), low.shape(node, 0)
    if axes is None:
        axes = [i for i, n in enumerate(shape) if n == 1]
    return _moved(low, node, "squeeze", {"dim": tuple(a % len(shape) for a in axes)})


def _unsqueeze(low, node):
    x, qparams = low.any_value(node, 0)
    axes = _listed(low, node, "axes", 1, "axis list")
    rank = len(low.shape(node, 0)) + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = low.add(node.name, "unsqueeze", [x], {"dim": axis}, qparams=qparams)
    return x


def _slice(low, node):
    starts, ends = (_listed(low, node, name, i, name) for i, name in ((1, "starts"), (2, "ends")))
    axes, steps = _listed(low, node, "axes", 3, "axis list") or range(len(starts)), _listed(low, node, "steps", 4, "steps") or [1] * len(starts)
    x, qparams = low.any_value(node, 0)
    for start, end, axis, step in zip(starts, ends, axes, steps):
        if step < 1:
            low.refuse(node, f"goes backwards, by {step}")
        stop = None if end >= 2**31 - 1 else end
        if (start, stop, step) != (0, None, 1):
            x = low.add(node.name, "slice", [x], {"dim": int(axis), "start": start or None, "stop": stop, "step": step}, qparams=qparams)
    return x


def _split(low, node):
    axis, shape = int(node.attrs.get("axis", 0)), low.shape(node, 0)
    sizes, total = _listed(low, node, "split", 1, "sizes"), shape[axis]
    if total is None:
        low.refuse(node, "splits an axis of unknown size")
    if sizes is None:
        each = -(-total // len(node.outputs))
        sizes = [min(each, total - k) for k in range(0, total, each)]
    if sum(sizes) != total or len(sizes) != len(node.outputs):
        low.refuse(node, f"splits {total} into {sizes} for {len(node.outputs)} outputs")
    ends = np.cumsum(sizes).tolist()
    return tuple(_moved(low, node, "slice", {"dim": axis, "start": end - size or None, "stop": end}) for size, end in zip(sizes, ends))


def _gather(low, node):
    index, axis = low.constant(node, 1, "index") if node.inputs[0] not in low.constants else None, int(node.attrs.get("axis", 0))
    if index is None:
        return low.add(node.name, "embedding", [low.place_of[node.inputs[1]]], {}, {"weight": low.real_constant(node, node.inputs[0])})
    if index.ndim:
        low.refuse(node, f"gathers {index.size} entries")
    return _moved(low, node, "select", {"dim": axis, "index": int(index)})


def _pad(low, node):
    pads, mode = _listed(low, node, "pads", 1, "padding"), node.attrs.get("mode", "constant")
    value, axes, rank = low.constant(node, 2, "value"), low.constant(node, 3, "axis list"), len(low.shape(node, 0))
    if mode != "constant":
        low.refuse(node, f"pads by mode={mode}")
    value = float(node.attrs.get("value", 0.0) if value is None else value.reshape(-1)[0])
    axes = range(rank) if axes is None else [int(a) % rank for a in axes]
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[len(axes) + i]
    first = next((i for i in range(rank) if before[i] or after[i]), rank - 1)
    pad = [n for i in range(rank - 1, first - 1, -1) for n in (before[i], after[i])]
    return low.add(node.name, "pad", [low.value(node, 0)], {"pad": tuple(pad), "value": value})


def _expand(low, node):
    shape, known = _listed(low, node, "shape", 1, "shape"), low.shape(node, 0)
    if len(shape) < len(known):
        shape = [1] * (len(known) - len(shape)) + shape
    own = [*[1] * (len(shape) - len(known)), *known]
    return _moved(low, node, "expand", {"shape": tuple(-1 if n == 1 and m != 1 else n for n, m in zip(shape, own))})


def _resize(low, node):
    mode, newer = node.attrs.get("mode", "nearest"), node.op == "Resize" and node.opset >= 11
    place = node.attrs.get("coordinate_transformation_mode", "half_pixel" if newer else "asymmetric")
    scales = low.constant(node, 2 if newer else 1, "scales")
    scales = node.attrs.get("scales") if scales is None and "scales" in node.attrs else scales
    sizes, shape = low.constant(node, 3, "sizes"), low.shape(node, 0)
    axes = node.attrs.get("axes") or range(len(shape))
    if mode == "nearest" and (place != "asymmetric" or newer and node.attrs.get("nearest_mode", "round_prefer_floor") != "floor"):
        low.refuse(node, f"resizes by nearest, {place}, {node.attrs.get('nearest_mode', 'round_prefer_floor')}; PyTorch's is asymmetric, floor")
    if mode not in ("nearest", "linear") or mode == "linear" and place not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        low.refuse(node, f"resizes by {mode}, {place}")
    given = dict(zip((int(a) % len(shape) for a in axes), sizes if sizes is not None and sizes.size else scales))
    lead, tail = [given.get(i, 1 if sizes is None else shape[i]) for i in (0, 1)], tuple(given.get(i) for i in range(2, len(shape)))
    if len(shape) != 4 or None in tail or any(v not in (1, n) for v, n in zip(lead, shape)):
        low.refuse(node, f"resizes {shape} by other axes than height and width")
    attrs = {"size": tuple(int(v) for v in tail)} if sizes is not None and sizes.size else {"scale_factor": tuple(float(v) for v in tail)}
    return _moved(low, node, "interpolate", {**attrs, "mode": "bilinear" if mode == "linear" else mode, "align_corners": place == "align_corners"})


def _shape(low, node):
    shape = low.shape(node, 0)
    if None in shape:
        low.refuse(node, f"asks for a size of {shape}, which is open")
    return np.int64(shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))])


def _same(op):
    return lambda low, node: _moved(low, node, op, {})


def _cast(low, node):
    if node.attrs.get("to") != 1 or low.any_value(node, 0)[1] is not None:
        low.refuse(node, f"casts to type {node.attrs.get('to')}")
    return _moved(low, node, "identity", {})


LOWERINGS = {
    "Flatten": _flatten, "Reshape": _reshape, "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Slice": _slice, "Split": _split,
    "Gather": _gather, "Pad": _pad, "Expand": _expand, "Resize": _resize, "Upsample": _resize, "Shape": _shape, "Dropout": _same("dropout"),
    "Identity": _same("identity"), "Cast": _cast,
}  # fmt: skip
