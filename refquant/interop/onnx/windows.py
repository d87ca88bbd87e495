"""The windows of convolutions and pools: geometry with ONNX's attributes, and the views that go with it."""

from typing import NamedTuple

import numpy as np

from refquant.errors import ShapeError, choose
from refquant.interop.onnx.call import check_size, need

__all__ = ["Geometry", "geometry_of", "pad_spatial", "window_view", "taps"]


class Geometry(NamedTuple):
    """Kernel, strides, dilations, padding before and after, and output size; one entry a spatial axis."""

    kernel: tuple
    stride: tuple
    dilation: tuple
    before: tuple
    after: tuple
    out: tuple

    @property
    def reach(self):
        """How far one window extends."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation))


def _numbers(call, name, default, dims, least):
    values = call.get(name)
    values = [default] * dims if values is None else [int(v) for v in values]
    need(call, len(values) == dims and all(least <= v < 2**31 for v in values), f"attribute {name}={values} must be {dims} integers of at least {least}")
    return tuple(values)


def geometry_of(call, spatial, kernel, *, ceil_mode=False):
    """Work out the windows of a node over an input of size `spatial`."""
    dims = len(spatial)
    stride, dilation = _numbers(call, "strides", 1, dims, 1), _numbers(call, "dilations", 1, dims, 1)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    auto = choose(call.place, "auto_pad", call.get("auto_pad", "NOTSET") or "NOTSET", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if auto.startswith("SAME"):
        out = [-(-n // s) for n, s in zip(spatial, stride)]
        total = [max((o - 1) * s + r - n, 0) for o, s, r, n in zip(out, stride, reach, spatial)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
        return Geometry(tuple(kernel), stride, dilation, tuple(before), tuple(after), tuple(out))
    pads = (0,) * (2 * dims) if auto == "VALID" else _numbers(call, "pads", 0, 2 * dims, 0)
    before, after = pads[:dims], pads[dims:]
    out = tuple(_out(call, *v, ceil_mode) for v in zip(spatial, reach, stride, before, after))
    return Geometry(tuple(kernel), stride, dilation, before, after, out)


def _out(call, n, reach, stride, before, after, ceil_mode):
    room = n + before + after - reach
    if room < 0:
        raise ShapeError(f"{call.place}: a window that extends over {reach} is larger than the padded input {before}+{n}+{after}; use a larger input")
    size = (-(-room // stride) if ceil_mode else room // stride) + 1
    return size - 1 if ceil_mode and (size - 1) * stride >= n + before else size


def pad_spatial(call, x, geometry, value, *, hang=False):
    """Pad the spatial axes of (N, C, ...); `hang` adds what windows of ceil mode look at beyond the padding."""
    need_after = [(o - 1) * s + r - n - b for o, s, r, n, b in zip(geometry.out, geometry.stride, geometry.reach, x.shape[2:], geometry.before)]
    after = [max(a, h) if hang else a for a, h in zip(geometry.after, need_after)]
    if not any(geometry.before) and not any(after):
        return x
    check_size([*x.shape[:2], *(n + b + a for n, b, a in zip(x.shape[2:], geometry.before, after))], x.dtype.itemsize, call.place)
    return np.pad(x, ((0, 0), (0, 0), *zip(geometry.before, after)), constant_values=value)


def window_view(padded, geometry):
    """Return a view (N, C, *out, *kernel) of a padded array."""
    dims = len(geometry.kernel)
    view = np.lib.stride_tricks.sliding_window_view(padded, geometry.reach, axis=tuple(range(2, 2 + dims)))
    starts = tuple(slice(0, (o - 1) * s + 1, s) for o, s in zip(geometry.out, geometry.stride))
    return view[(slice(None), slice(None), *starts, *(slice(None, None, d) for d in geometry.dilation))]


def taps(padded, geometry):
    """Yield (index, view) for each position of the kernel: what it sees, one entry an output."""
    for index in np.ndindex(*geometry.kernel):
        at = tuple(
            slice(i * d, i * d + (o - 1) * s + 1, s) for i, d, o, s in zip(index, geometry.dilation, geometry.out, geometry.stride)
        )
        yield index, padded[(slice(None), slice(None), *at)]
