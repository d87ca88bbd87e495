"""max_pool2d: on codes it is an integer maximum, in every engine; over which pixels, a form says."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.layout import empty_channels_last, is_channels_last, is_dense_channels_last, to_channels_last
from refquant.core.qtensor import QTensor
from refquant.kernels.pool import max_windows
from refquant.numerics.dispatch import resolve_call
from refquant.ops.arguments import check_qtensor
from refquant.ops.windows import pool_geometry

__all__ = ["max_pool2d", "max_pool2d_reference"]


def _plan(x, kernel_size, stride, padding, dilation, ceil_mode, numerics):
    """Return the geometry, the lowest code, and the image that windows are taken of."""
    profile = profiles.get(numerics)
    place = f"max_pool2d[{profile.name}]"
    check_qtensor(x, "x", place)
    g, values = pool_geometry(x.shape, kernel_size, stride, padding, dilation, ceil_mode, place), x.values
    form = resolve_call(profile.section("max_pool", "max_pool2d"), dtype=x.dtype, even=not ceil_mode)
    if form.outside == "nearest" and max(g.dilation) > 1:
        g, values = _with_edges_repeated(g, values)
    # QNNPACK copies what has gaps; ATen's kernel for channels-last images takes dense ones alone.
    if form.outside != "nearest" and is_channels_last(values) and not is_dense_channels_last(values):
        values = np.ascontiguousarray(values)
    return g, np.iinfo(values.dtype).min, values


def _with_edges_repeated(g, values):
    """Return a geometry without padding, and the image with its edges repeated there, so that a tap outside reads the nearest pixel."""
    for axis, (n, o, s, k, d, p) in enumerate(zip(values.shape[2:], g.out, g.stride, g.kernel, g.dilation, g.padding), 2):
        last = is_channels_last(values)
        values = values.take(np.clip(np.arange((o - 1) * s + (k - 1) * d + 1) - p, 0, n - 1), axis=axis)
        values = to_channels_last(values) if last else values
    return g._replace(padding=(0, 0)), values


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, numerics="fbgemm"):
    """Take the maximum over windows; padding does not count.

    Parameters
    ----------
    x : QTensor, (N, C, H, W)
    kernel_size, stride, padding, dilation : int or pair of int
        `stride` is `kernel_size` unless given.
    ceil_mode : bool
        Keep a last window that hangs over the edge, if it starts inside of the input or its left padding.
    numerics : str or Numerics
        All profiles agree. Where both padding and dilation are asked for, QNNPACK itself gives ``qnnpack+nearest_pixels``, see `refquant.numerics.forms.MaxPoolForm`
        (indirection.c, ``pytorch_qnnp_indirection_init_maxpool2d``).

    Returns
    -------
    QTensor
        With the parameters and the memory format of `x`.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4), rq.QParams(1.0, 0, "uint8"))
    >>> max_pool2d(x, 2).values[0, 0].tolist()
    [[5, 7], [13, 15]]
    """
    g, _, values = _plan(x, kernel_size, stride, padding, dilation, ceil_mode, numerics)
    return QTensor(max_windows(values, g.kernel, g.stride, g.padding, g.dilation, g.out), x.qparams)


def max_pool2d_reference(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, numerics="fbgemm"):
    """Same result as `max_pool2d`, in NumPy."""
    g, low, values = _plan(x, kernel_size, stride, padding, dilation, ceil_mode, numerics)
    hang = [max((o - 1) * s + (k - 1) * d + 1 - n - p, p) for o, s, k, d, n, p in zip(g.out, g.stride, g.kernel, g.dilation, values.shape[2:], g.padding)]
    padded = np.pad(np.moveaxis(values, 1, -1), ((0, 0), (g.padding[0], hang[0]), (g.padding[1], hang[1]), (0, 0)), constant_values=low)
    shape = (x.shape[0], x.shape[1], *g.out)
    y = empty_channels_last(shape, x.values.dtype)
    inner = np.moveaxis(y, 1, -1)
    inner[...] = low
    for i in range(g.kernel[0]):
        for j in range(g.kernel[1]):
            np.maximum(inner, g.tap(padded, i, j), out=inner)
    return QTensor(y if is_channels_last(values) else np.ascontiguousarray(y), x.qparams)
