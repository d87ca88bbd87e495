"""Depthwise convolutions: every output channel reads one input channel.

    field    [N][D'][H'][W'][C]       uint8, each input channel repeated OC/IC times: C = OC
    cell     P neighbouring pixels    P * C bytes in a row; P > 1 where windows are one pixel apart, so that 64 divides P * C
    weights  [block of 64][group of 4 taps][register][lane][4]     int8, for one cell, taps in raster order (width fastest)
    out      [N][OD][OH][OW][C]

A row of output pixels is a row of cells. Block by block of 64 bytes of a cell, the cells are computed from left to right. Without AVX-512 the
plain loops at the end run over channels, which are neighbours in every array.
"""

from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from refquant.kernels.depthwise_tile import depthwise_panel, depthwise_tiles_run_here
from refquant.kernels.finish import finish_tile
from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.scalar import wrap32
from refquant.kernels.signature import as_input
from refquant.kernels.stage import LINE_NONE, RAW, RAW_STAGE, make_stage, output_kind, read_header
from refquant.kernels.window import channels_last_output, make_field, make_geometry

__all__ = ["depthwise_pair16_s32", "depthwise_pair16_requantize", "depthwise", "taps_of"]

_GATHERED = 48
_MOST_BLOCKS = 64


class Cells(NamedTuple):
    """How a row of output pixels is cut.

    Attributes
    ----------
    offsets : ndarray of int64, (groups of 4 taps, 4)
        Offset of each tap from a pixel; taps that are not there read the first one, under weights of 0.
    steps : tuple of int
        Bytes of the field from image to image, plane to plane, row to row and cell to cell.
    out : tuple of int
        Planes, rows, pixels of a row.
    pixels, channels, blocks : int
        Pixels of a cell; channels of a pixel; blocks of 64 bytes in a cell.
    """

    offsets: np.ndarray
    steps: tuple
    out: tuple
    pixels: int
    channels: int
    blocks: int


@lru_cache(maxsize=1024)
def _cells(shape, geometry):
    _, depth, height, width, channels = shape
    line, plane = width * channels, height * width * channels
    (kd, kh, kw), (sd, sh, sw), (dd, dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    taps = np.add.outer(np.add.outer(np.arange(kd) * dd * plane, np.arange(kh) * dh * line), np.arange(kw) * dw * channels)
    offsets = np.zeros(-(-taps.size // 4) * 4, np.int64)
    offsets[: taps.size] = taps.reshape(-1)
    pixels = 64 // gcd(channels, 64) if sw == 1 else 1
    if pixels * channels > 64 * _MOST_BLOCKS or pixels > geometry.out[2]:
        pixels = 1
    steps = (depth * plane, sd * plane, sh * line, pixels * sw * channels)
    return tuple(Cells(as_input(offsets), steps, geometry.out, pixels, channels, -(-pixels * channels // 64)))


def taps_of(codes):
    """Weights (OC, 1, *kernel) or (OC, *kernel, 1) as (taps, OC), in raster order."""
    return codes.reshape(codes.shape[0], -1).T


def _weight_table(taps, cells):
    """`Cells` → weights as registers take them."""
    pixels, channels, blocks = cells[3:]
    groups = -(-taps.shape[0] // 4)
    table = np.zeros((groups * 4, blocks * 64), np.int8)
    table[: taps.shape[0], : pixels * channels] = np.tile(taps, pixels)
    # (group, tap, block, quarter, register, lane) → (block, group, register, quarter, lane, tap)
    return as_input(table.reshape(groups, 4, blocks, 4, 4, 4).transpose(2, 0, 4, 3, 5, 1)).reshape(-1)


@lru_cache(maxsize=None)
def _rows_kernel(exact):
    panel = depthwise_panel(exact)

    @kernel
    def rows(first, last, field, cells, weights, start, out, item, stage):
        offsets, steps, extents, pixels, channels, blocks = cells
        step_n, step_d, step_h, step_cell = steps
        depth, height, width = extents
        kind, line, _ = read_header(stage)
        groups = offsets.shape[0] // 4
        scratch = np.empty((_GATHERED, 64), np.int32)
        out_step = pixels * channels * item
        whole, rest = width // pixels, width % pixels * channels
        for row in range(first, last):
            n, d, h = row // (depth * height), row // height % depth, row % height
            x0 = field.ctypes.data + n * step_n + d * step_d + h * step_h
            out0 = out.ctypes.data + row * width * channels * item
            for block in range(blocks):
                n0 = 64 * block
                table, begin = weights.ctypes.data + n0 * 4 * groups, start.ctypes.data + 4 * n0
                for part in range(2):
                    at, count = (0, whole) if part == 0 else (whole, 1)
                    n = min(64, (pixels * channels if part == 0 else rest) - n0)
                    while count > 0 and n > 0:
                        x, target = x0 + at * step_cell + n0, out0 + at * out_step + n0 * item
                        some = count if line != LINE_NONE else min(count, _GATHERED)
                        if line != LINE_NONE:
                            panel(
                                x, some, step_cell, offsets.ctypes.data, groups, table, begin, target, out_step,
                                line, n0, n, stage.ctypes.data,
                            )  # fmt: skip
                        else:
                            panel(
                                x, some, step_cell, offsets.ctypes.data, groups, table, begin, scratch.ctypes.data, 256,
                                line, n0, n, stage.ctypes.data,
                            )  # fmt: skip
                            finish_tile(
                                scratch.ctypes.data, 256, some, n, n0, target, out_step, 0, 0, stage.ctypes.data
                            )  # fmt: skip
                        at, count = at + some, count - some

    return rows


@kernel
def _plain_rows(first, last, field, geometry, taps, start, exact, out):
    """The plain loops, pixel by pixel: out (pixels, channels) of int32."""
    sd, sh, sw = geometry.stride
    depth, height, width = geometry.out
    _, kh, kw = geometry.kernel
    dd, dh, dw = geometry.dilation
    count, channels = taps.shape
    for pixel in range(first, last):
        w, h = pixel % width * sw, pixel // width % height * sh
        d, n = pixel // (width * height) % depth * sd, pixel // (width * height * depth)
        acc = out[pixel]
        for c in range(channels):
            acc[c] = start[c]
        for t in range(0, count, 1 if exact else 2):
            x = field[n, d + t // (kh * kw) * dd, h + t // kw % kh * dh, w + t % kw * dw]
            weight = taps[t]
            if exact or t + 1 == count:
                for c in range(channels):
                    acc[c] = wrap32(np.int64(acc[c]) + np.int64(x[c]) * np.int64(weight[c]))
            else:
                u = t + 1
                y, other = field[n, d + u // (kh * kw) * dd, h + u // kw % kh * dh, w + u % kw * dw], taps[u]
                for c in range(channels):
                    pair = np.int64(x[c]) * np.int64(weight[c]) + np.int64(y[c]) * np.int64(other[c])
                    acc[c] = wrap32(np.int64(acc[c]) + min(max(pair, -32768), 32767))


def depthwise(x, taps, tables, geometry, start, exact, x_zero, out, kind, ep):
    """Compute a depthwise convolution into `out`.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (N, IC, *spatial)
    taps : ndarray of int8, (taps, OC), read-only
    tables : dict
        Pixels of a cell → packed `taps`; what is missing is added.
    geometry : Geometry
    start : callable
        Gives the int32 that the accumulators begin with, (OC,), for the zero point of the codes as they are stored.
    exact : bool
        False saturates pairs of taps to int16.
    x_zero : int
    out : ndarray, C-contiguous, (N, *out, OC)
    kind, ep
        What is written, and the output stage, as for `refquant.kernels.product.run_product`.
    """
    channels = taps.shape[1]
    field = make_field(x, geometry.padding, x_zero, channels // max(x.shape[1], 1), loose=True)
    begin = start(field.x_zero)
    if not out.size:
        return
    if not depthwise_tiles_run_here():
        _run_plain(field, geometry, taps, begin, exact, out, kind, ep)
        return
    cells = _cells(field.shape, geometry)
    pixels, blocks = cells[3], cells[5]
    if pixels not in tables:
        tables[pixels] = _weight_table(taps, cells)
    cell_start = np.zeros(64 * blocks, np.int32)
    cell_start[: pixels * channels].reshape(pixels, channels)[:] = begin
    if kind == RAW:
        stage = RAW_STAGE
    else:
        stage = make_stage(ep if pixels == 1 else _repeat_form(ep, pixels), kind, True)
    rows = field.shape[0] * geometry.out[0] * geometry.out[1]
    grain = max(1, 32768 // (geometry.out[2] * channels))
    memory = out.reshape(-1).view(np.uint8)
    parallel_for(_rows_kernel(exact), rows, field.data, cells, tables[pixels], cell_start, memory, out.itemsize, stage, grain=grain)


def _repeat_form(ep, pixels):
    """The output stage of `pixels` pixels side by side."""
    return ep._replace(**{name: np.tile(value, pixels) for name, value in zip(ep._fields, ep) if isinstance(value, np.ndarray)})


def _run_plain(field, geometry, taps, start, exact, out, kind, ep):
    from refquant.kernels.requantize import requantize

    channels = taps.shape[1]
    acc = np.empty((out.size // channels, channels), np.int32)
    pixels = field.data[: int(np.prod(field.shape))].reshape(field.shape)
    parallel_for(_plain_rows, acc.shape[0], as_input(pixels), geometry, taps, as_input(start), exact, acc, grain=64)
    if ep is not None:
        acc = requantize(acc, ep._replace(bias_i=np.zeros_like(ep.bias_i)), out.dtype)
    out.reshape(acc.shape)[:] = acc


def depthwise_pair16_s32(x, w, *, stride, padding, x_zero):
    """Convolve each channel as FBGEMM's depthwise kernel does, which saturates pairs of products to int16.

    The taps in raster order are paired, (0, 1), (2, 3), …; each pair's ``x * w + x * w`` of raw codes saturates to
    int16, the pairs add up in int32, and an odd last tap is added alone. No zero point is subtracted.

    Parameters
    ----------
    x : ndarray of uint8, (N, IC, *spatial)
    w : ndarray of int8, (OC, 1, *kernel), or PackedConv
        OC is a multiple of IC.
    stride : tuple of int
    padding : tuple of (int, int)
        The padding's code is `x_zero`.
    x_zero : int

    Returns
    -------
    ndarray of int32, (N, OC, *out)
        In channels-last memory.

    Source
    ------
    FBGEMM ``src/FbgemmI8DepthwiseAvx2-inl.h``: ``vpmaddubsw`` on interleaved taps.
    """
    return _pair16(x, w, stride, padding, x_zero, np.int32, RAW, None)


def depthwise_pair16_requantize(x, w, epilogue, dtype, *, stride, padding, x_zero):
    """`depthwise_pair16_s32` and then `refquant.kernels.requantize.requantize`, bit for bit, in one go."""
    return _pair16(x, w, stride, padding, x_zero, dtype, output_kind(dtype), epilogue)


def _pair16(x, w, stride, padding, x_zero, dtype, kind, ep):
    packed = not isinstance(w, np.ndarray)
    geometry = make_geometry(x.shape[2:], w.shape[2:], stride, padding, (1,) * (x.ndim - 2))
    channels = w.shape[0]
    taps = as_input(taps_of(w.codes if packed else w))
    out, memory = channels_last_output(x.shape[0], geometry, channels, dtype)
    bias = np.zeros(channels, np.int32) if ep is None else ep.bias_i
    depthwise(x, taps, w.columns if packed else {}, geometry, lambda _: bias, False, x_zero, memory, kind, ep)
    return out
