"""Pools and means."""

from refquant.interop.onnx.lower.windows import padded, padding_of, positive

__all__ = ["LOWERINGS", "average_attrs", "covers_all"]


def _pool_attrs(low, node, x, *, fill):
    """Return (input, settings, dilation) of a pool; `fill` is what may stand in an unequal padding, None refuses it."""
    kernel = tuple(node.attrs.get("kernel_shape", ()))
    if len(kernel) not in (1, 2, 3) or min(kernel) < 1:
        low.refuse(node, f"pools over {list(kernel)}")
    dims = len(kernel)
    stride, dilation = positive(low, node, "strides", dims), positive(low, node, "dilations", dims)
    before, after = padding_of(low, node, kernel, stride, dilation)
    if node.attrs.get("storage_order", 0):
        low.refuse(node, "counts in column order")
    if before != after and _rounds_up(low, node, kernel, stride, dilation, before, after):
        return x, {"kernel_size": kernel, "stride": stride, "padding": (0,) * dims, "ceil_mode": True}, dilation
    if before != after and fill is None:
        low.refuse(node, f"averages over a padding of {list(before)} before and {list(after)} behind")
    x, padding = padded(low, node, x, before, after, fill)
    if any(2 * p > k for p, k in zip(padding, kernel)):
        low.refuse(node, f"pads by more than half of its window {list(kernel)}")
    return x, {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": bool(node.attrs.get("ceil_mode", 0))}, dilation


def _rounds_up(low, node, kernel, stride, dilation, before, after):
    """Whether a padding behind does no more than let the last windows leave the input, which is what ceil_mode means."""
    sides = low.shape(node, 0)[2:]
    if any(before) or None in sides or node.attrs.get("count_include_pad", 0):
        return False
    room = [(n - d * (k - 1) - 1, a, s) for n, k, s, d, a in zip(sides, kernel, stride, dilation, after)]
    return all(r >= 0 and (r + a) // s == -(-r // s) and -(-r // s) * s < r + d * (k - 1) + 1 for (r, a, s), k, d in zip(room, kernel, dilation))


def _max_pool(low, node):
    x, qparams = low.any_value(node, 0)
    x, attrs, dilation = _pool_attrs(low, node, x, fill=float("-inf"))
    return low.add(node.name, f"max_pool{len(dilation)}d", [x], {**attrs, "dilation": dilation}, qparams=qparams)


def average_attrs(low, node, x):
    """Return (operation, input, settings) of an average pool."""
    x, attrs, dilation = _pool_attrs(low, node, x, fill=0.0 if node.attrs.get("count_include_pad", 0) else None)
    if max(dilation) > 1:
        low.refuse(node, "averages over a dilated window")
    attrs["count_include_pad"] = bool(node.attrs.get("count_include_pad", 0))
    if len(dilation) == 1:  # PyTorch's takes numbers
        attrs = {key: v[0] if isinstance(v, tuple) else v for key, v in attrs.items()}
    return f"avg_pool{len(dilation)}d", x, attrs


def covers_all(low, node):
    """Whether the only window of an average sees the whole input, and its padding does not count."""
    kernel, sides = tuple(node.attrs.get("kernel_shape", ())), low.shape(node, 0)[2:]
    if None in sides or len(kernel) != len(sides) or node.attrs.get("count_include_pad", 0) or node.attrs.get("ceil_mode", 0) or max(node.attrs.get("dilations") or [1]) > 1:
        return False
    stride = positive(low, node, "strides", len(kernel))
    before, after = padding_of(low, node, kernel, stride, (1,) * len(kernel))
    return all(b + n <= k <= b + n + a < k + s for n, k, s, b, a in zip(sides, kernel, stride, before, after))


def _average_pool(low, node):
    if covers_all(low, node):
        return _global("avg")(low, node)
    op, x, attrs = average_attrs(low, node, low.value(node, 0))
    return low.add(node.name, op, [x], attrs)


def _global(kind):
    def rule(low, node):
        dims = len(low.shape(node, 0)) - 2
        if dims not in ((1, 2, 3) if kind == "avg" else (2,)):
            low.refuse(node, f"pools over {dims} axes")
        return low.add(node.name, f"adaptive_{kind}_pool{dims}d", [low.value(node, 0)], {"output_size": 1})

    return rule


def _reduce_mean(low, node):
    axes, rank = low.constant(node, 1, "axis list"), len(low.shape(node, 0))
    axes = sorted(int(a) % rank for a in (node.attrs.get("axes", ()) if axes is None else axes.reshape(-1)))
    if not axes:
        low.refuse(node, "averages over everything, the batch included")
    keep = bool(node.attrs.get("keepdims", 1))
    if axes == [2, 3] and rank == 4:  # as a pool, it has kernels on codes
        pooled = low.add(node.name, "adaptive_avg_pool2d", [low.value(node, 0)], {"output_size": 1})
        return pooled if keep else low.add(f"{node.name}_flatten", "flatten", [pooled], {"start_dim": 1})
    return low.add(node.name, "mean", [low.value(node, 0)], {"dim": tuple(axes), "keepdim": keep})


LOWERINGS = {"MaxPool": _max_pool, "AveragePool": _average_pool, "GlobalAveragePool": _global("avg"), "GlobalMaxPool": _global("max"), "ReduceMean": _reduce_mean}
