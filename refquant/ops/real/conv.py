"""conv1d, conv2d and conv3d on float32 arrays."""

import numpy as np

from refquant.errors import ShapeError
from refquant.ops.arguments import sides
from refquant.kernels.chains import chained_channels, chained_rows, summed_channels, summed_rows
from refquant.ops.real.order import activate, bias_vector, check_order, in_format_of, real_input

__all__ = ["conv1d", "conv2d", "conv3d"]


def conv2d(x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, order="torch_avx512", activation=None):
    """Compute a two-dimensional convolution of float32 arrays.

    Parameters
    ----------
    x : array_like of float32, (N, IC, H, W)
    w : array_like of float32, (OC, IC / groups, KH, KW)
    bias : array_like of float32, (OC,), optional
    stride, padding, dilation : int or pair of int
    groups : int
    order : str
        One of `refquant.ops.real.ORDERS`.
    activation : {None, "relu"}

    Returns
    -------
    ndarray of float32, (N, OC, OH, OW)
        In the memory format of `x`.

    Exactness
    ---------
    ``torch_avx512`` is oneDNN's order: *depthwise* (as many outputs as inputs) one chain of fused multiply-adds from the bias, row by row of the
    window; *1 × 1* without padding, chains over blocks of input channels whose length depends on the shape
    (`reduce_block_1x1`), the first from the bias, the others from +0 and added; *all else* one chain from +0 for each
    block of 16 input channels, in it row by row of the window, channels innermost, and ``((S0 + bias) + S1) + …``.

    Examples
    --------
    >>> conv2d(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float32), padding=1)[0, 0, 0].tolist()
    [4.0, 6.0, 4.0]
    """
    return _convolve(2, x, w, bias, stride, padding, dilation, groups, order, activation)


def conv3d(x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, order="torch_avx512", activation=None):
    """Compute a three-dimensional convolution of float32 arrays (N, IC, D, H, W) and (OC, IC / groups, KD, KH, KW).

    Under ``torch_avx512`` in `conv2d`'s order, taps going plane by plane; whether PyTorch's kernels for volumes keep it is not described.

    Examples
    --------
    >>> conv3d(np.ones((1, 1, 2, 2, 2), np.float32), np.ones((1, 1, 2, 2, 2), np.float32)).tolist()
    [[[[[8.0]]]]]
    """
    return _convolve(3, x, w, bias, stride, padding, dilation, groups, order, activation)


def _convolve(dims, x, w, bias, stride, padding, dilation, groups, order, activation):
    place, axes = f"conv{dims}d", "N, IC, H, W" if dims == 2 else "N, IC, D, H, W"
    check_order(order, place)
    given, x, w = x, real_input(x, "x", place), real_input(w, "w", place)
    if x.ndim != dims + 2 or w.ndim != dims + 2:
        raise ShapeError(f"{place}: x has shape {x.shape} and w {w.shape}; they must be ({axes}) and (OC, IC / groups, {'KD, ' * (dims == 3)}KH, KW)")
    (groups,) = sides(groups, "groups", 1, place, least=1)
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(f"{place}: x has IC={x.shape[1]}, w {w.shape} and groups={groups}; IC must be {w.shape[1]} * groups and OC a multiple of groups")
    bias = bias_vector(bias, w.shape[0], place)
    stride, dilation = sides(stride, "stride", dims, place, least=1), sides(dilation, "dilation", dims, place, least=1)
    padding = sides(padding, "padding", dims, place, least=0)
    field = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    room = [n - d * (k - 1) - 1 for n, d, k in zip(field.shape[2:], dilation, w.shape[2:])]
    if min(room) < 0:
        raise ShapeError(f"{place}: kernel {w.shape[2:]} with dilation {dilation} is larger than the padded input {field.shape[2:]}; enlarge it")
    out = tuple(r // s + 1 for r, s in zip(room, stride))
    function = _depthwise if 1 < groups == x.shape[1] == w.shape[0] else _dense
    y = function(field, w, bias, stride, dilation, groups, out, _fits_1x1(x, w, padding, stride, out, groups), order)
    return in_format_of(activate(y, activation, place), given)


def conv1d(x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, order="torch_avx512", activation=None):
    """Compute a one-dimensional convolution: `conv2d` with a height of 1.

    Examples
    --------
    >>> conv1d(np.ones((1, 1, 3), np.float32), np.ones((1, 1, 2), np.float32)).tolist()
    [[[2.0, 2.0]]]
    """
    place = "conv1d"
    x, w = real_input(x, "x", place), real_input(w, "w", place)
    if x.ndim != 3 or w.ndim != 3:
        raise ShapeError(f"{place}: x has shape {x.shape} and w {w.shape}; they must be (N, IC, W) and (OC, IC / groups, KW)")
    (s,), (p,), (d,) = (sides(v, n, 1, place, least=least) for v, n, least in ((stride, "stride", 1), (padding, "padding", 0), (dilation, "dilation", 1)))
    y = conv2d(x[:, :, None], w[:, :, None], bias, stride=(1, s), padding=(0, p), dilation=(1, d), groups=groups, order=order, activation=activation)
    return y[:, :, 0]


def _fits_1x1(x, w, padding, stride, out, groups):
    """Whether oneDNN's 1 × 1 kernel takes a convolution: strides must divide the image."""
    divides = tuple(o * s for o, s in zip(out, stride)) == x.shape[2:]
    return set(w.shape[2:]) == {1} and groups == 1 and not any(padding) and divides


def _steps(shape):
    """Return how far apart neighbours along each spatial axis lie, in pixels."""
    return [int(np.prod(shape[3 + i :])) for i in range(len(shape) - 2)]


def _reach(taps, dilation, shape):
    """Return how far from the window's first pixel each tap lies, in pixels of one plane."""
    return sum(t * d * step for t, d, step in zip(taps, dilation, _steps(shape)))


def _origins(shape, stride, out, per_image):
    """Return where the window of each output pixel begins, in pixels of one plane, `per_image` apart between images."""
    n, *places = np.indices((shape[0], *out))
    return (n * per_image + _reach(places, stride, shape)).ravel()


def _depthwise(field, w, bias, stride, dilation, groups, out, fits, order):
    pixels = np.ascontiguousarray(np.moveaxis(field, 1, -1)).reshape(-1, groups)
    offsets = _reach([v.ravel() for v in np.indices(w.shape[2:])], dilation, field.shape)
    base = _origins(field.shape, stride, out, int(np.prod(field.shape[2:])))
    run = summed_channels if order == "float64" else chained_channels
    y = run(pixels, base, offsets, np.ascontiguousarray(w.reshape(w.shape[0], -1).T), bias)
    return _channels_first(y, field.shape[0], out)


def _dense(field, w, bias, stride, dilation, groups, out, fits, order):
    n, channels, plane = field.shape[0], field.shape[1], int(np.prod(field.shape[2:]))
    oc, ic = w.shape[0] // groups, w.shape[1]
    c, *taps = _taps(ic, w.shape[2:], ic if fits else 16)
    offsets = c * plane + _reach(taps, dilation, field.shape)
    base = _origins(field.shape, stride, out, channels * plane)
    step = reduce_block_1x1(ic, w.shape[0], int(np.prod(out[:-1])) if len(out) > 2 else out[0], out[-1]) if fits else 16
    segments = [*range(0, len(c), step * int(np.prod(w.shape[2:]))), len(c)]
    flat, parts = field.ravel(), []
    for g in range(groups):
        mine = slice(g * oc, (g + 1) * oc)
        weights = np.ascontiguousarray(w[mine][(slice(None), c, *taps)].T)
        start = base + g * ic * plane
        if order == "float64":
            parts.append(summed_rows(flat, start, offsets, weights, bias[mine]))
        else:
            parts.append(chained_rows(flat, start, offsets, weights, bias[mine], segments, fits))
    return _channels_first(np.concatenate(parts, axis=1) if groups > 1 else parts[0], n, out)


def _taps(ic, kernel, block):
    """Return (c, i, j, …) of the taps in order: blocks of input channels, then rows, columns and the channels of a block."""
    order = [(c, *at) for b in range(0, ic, block) for at in np.ndindex(*kernel) for c in range(b, min(ic, b + block))]
    return np.array(order, np.int64).reshape(-1, 1 + len(kernel)).T


def _channels_first(y, n, out):
    return np.ascontiguousarray(np.moveaxis(y.reshape(n, *out, y.shape[1]), -1, 1))


def reduce_block_1x1(ic, oc, oh, ow):
    """Return how many input channels one chain of oneDNN's 1 × 1 kernel takes.

    Source
    ------
    oneDNN 3.12, src/cpu/x64/jit_avx512_common_1x1_conv_kernel.cpp, ``init_conf``, forward, nChw16c.

    Examples
    --------
    >>> reduce_block_1x1(64, 64, 8, 8), reduce_block_1x1(512, 64, 14, 14)
    (64, 80)
    """
    ic, oc, pixels = -(-ic // 16) * 16, -(-oc // 16) * 16, oh * ow
    middle = 10 < oh < 28
    block = min(ic, 80 if oc <= 256 and middle else 512 if oh > 10 else 256)
    if pixels * block > 16384 * 7:
        block = _without_aliasing(block, pixels, _unrolled_pixels(oc, oh, pixels, middle))
    return block


def _unrolled_pixels(oc, oh, pixels, middle):
    """Output pixels that the kernel keeps in registers."""
    most, least = (6, 5) if 128 < oc < 256 and middle else (9, 6)
    for unroll in range(most, least - 1, -1):
        if (oh if oh >= 14 else pixels) % unroll == 0:
            return unroll
    unroll, tail = min(most, pixels), pixels % most
    for other in range(most, least - 1, -1):
        if pixels % other > tail or pixels % other == 0:
            unroll, tail = other, pixels % other
            if tail == 0:
                break
    return unroll


def _without_aliasing(block, pixels, unroll):
    """Shorten a block whose lines would fall into the same set of the first-level cache."""
    blocks, line = block // 16, 1024
    for start in range(unroll):
        hits = 0
        for offset in range(start, pixels * blocks, line):
            hits += offset % pixels < unroll
            if hits >= 7 and offset % pixels < unroll:
                block = min(block, 16 * max(1, (offset + line) // pixels))
                break
    return block
