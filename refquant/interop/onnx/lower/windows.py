"""Strides, dilations and padding of convolutions and pools."""

__all__ = ["positive", "padding_of", "padded"]


def positive(low, node, name, dims):
    """Return strides or dilations, one a spatial axis."""
    values = tuple(int(v) for v in node.attrs.get(name) or [1] * dims)
    if len(values) != dims or min(values) < 1:
        low.refuse(node, f"has {name}={list(values)}")
    return values


def padding_of(low, node, kernel, strides, dilations):
    """Return (before, after) of each spatial axis."""
    dims, auto = len(kernel), node.attrs.get("auto_pad", "NOTSET") or "NOTSET"
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sides = low.shape(node, 0)[2:]
        if None in sides:
            low.refuse(node, f"pads by {auto}, but the size of its input is not known")
        total = [max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, k, s, d in zip(sides, kernel, strides, dilations)]
        less = [t // 2 for t in total]
        more = [t - t // 2 for t in total]
        return (less, more) if auto == "SAME_UPPER" else (more, less)
    pads = [0] * (2 * dims) if auto == "VALID" else [int(p) for p in node.attrs.get("pads") or [0] * (2 * dims)]
    if auto not in ("NOTSET", "VALID") or len(pads) != 2 * dims or min(pads, default=0) < 0:
        low.refuse(node, f"pads by {auto if auto not in ('NOTSET', 'VALID') else pads}")
    return pads[:dims], pads[dims:]


def padded(low, node, x, before, after, value):
    """Return (input, padding) of a window operator: where both sides are not alike, a node of its own pads real numbers."""
    if list(before) == list(after):
        return x, tuple(before)
    if x in low.qparams:
        low.refuse(node, f"pads codes by {list(before)} before and {list(after)} behind")
    pad = [n for sides in zip(reversed(before), reversed(after)) for n in sides]
    return low.add(f"{node.name}_pad", "pad", [x], {"pad": tuple(pad), "value": value}), (0,) * len(before)
