"""Depthwise convolutions: every output channel reads one input channel.

    band     [KD][rows][W'][C]        uint8, the input rows of some output rows, padded, in the L2 cache; C = OC: each
                                      input channel is there OC/IC times
    cell     P neighbouring pixels    P * C bytes; P > 1 where windows are one pixel apart, so that 64 divides P * C
    weights  [block of 64][group of 4 taps][register][lane][4]     int8, for one cell, taps in raster order (width fastest)
    out      [N][OD][OH][OW][C]

A row of output pixels is a row of cells. Block by block of 64 bytes of a cell, the cells of a band are computed from left to
right. Without AVX-512 the plain loops at the end run over channels, which are neighbours in every array.
"""

from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from refquant.kernels.depthwise_tile import depthwise_panel, depthwise_tiles_run_here
from refquant.kernels.field import SLACK, fill_row, make_field, make_source, source_of
from refquant.kernels.finish import finish_tile
from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.pack import PackedConv
from refquant.kernels.requantize import requantize
from refquant.kernels.scalar import wrap32
from refquant.kernels.signature import as_input
from refquant.kernels.stage import LINE_NONE, RAW, RAW_STAGE, make_stage, output_kind, read_header
from refquant.kernels.window import make_geometry

__all__ = ["depthwise_pair16_s32", "depthwise_pair16_requantize", "bind_depthwise"]

_GATHERED = 48
_MOST_BLOCKS = 64
_BAND_BYTES = 96 * 1024
_GRAIN = 250_000


class Cells(NamedTuple):
    """How the output is cut.

    Attributes
    ----------
    offsets : ndarray of int64, (groups of 4 taps * 4,), read-only
        Offset of each tap from a pixel of the band; taps that are not there read the first one, under weights of 0.
    pixels, channels, blocks : int
        Pixels of a cell; channels of a pixel; blocks of 64 bytes in a cell.
    out : tuple of int
        Planes, rows, pixels of a row.
    height : int
        Output rows of a band.
    line, lines : int
        Bytes of an input row, rows of a plane of the band.
    stride, dilation, lows : tuple of int
        Three each; `lows` is the padding in front.
    kernel : tuple of int
    """

    offsets: np.ndarray
    pixels: int
    channels: int
    blocks: int
    out: tuple
    height: int
    line: int
    lines: int
    stride: tuple
    dilation: tuple
    lows: tuple
    kernel: tuple


@kernel
def _cells_of(parts):
    offsets, pixels, channels, blocks, out, height, line, lines, stride, dilation, lows, taps = parts
    return Cells(offsets, pixels, channels, blocks, out, height, line, lines, stride, dilation, lows, taps)


@lru_cache(maxsize=1024)
def _make_cells(channels, geometry):
    """The fields of `Cells`, for `channels` output channels."""
    (kd, kh, kw), (_, sh, sw), (_, dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    line = geometry.field_shape[3] * channels
    reach = (kh - 1) * dh + 1
    height = min(geometry.out[1], max(1, (_BAND_BYTES // (kd * line) - reach) // sh + 1))
    lines = (height - 1) * sh + reach
    taps = np.add.outer(np.arange(kd) * lines * line, np.arange(kh) * dh * line)
    taps = np.add.outer(taps, np.arange(kw) * dw * channels)
    offsets = np.zeros(-(-taps.size // 4) * 4, np.int64)
    offsets[: taps.size] = taps.reshape(-1)
    pixels = 64 // gcd(channels, 64) if sw == 1 else 1
    if pixels * channels > 64 * _MOST_BLOCKS or pixels > geometry.out[2]:
        pixels = 1
    return tuple(
        Cells(
            as_input(offsets), pixels, channels, -(-pixels * channels // 64), geometry.out, height, line, lines,
            geometry.stride, geometry.dilation, geometry.lows, geometry.kernel,
        )
    )  # fmt: skip


def _weight_table(taps, pixels):
    """Weights (taps, channels) as registers take them, for a cell of so many pixels."""
    groups, blocks = -(-taps.shape[0] // 4), -(-pixels * taps.shape[1] // 64)
    table = np.zeros((groups * 4, blocks * 64), np.int8)
    table[: taps.shape[0], : pixels * taps.shape[1]] = np.tile(taps, pixels)
    # (group, tap, block, quarter, register, lane) → (block, group, register, quarter, lane, tap)
    return as_input(table.reshape(groups, 4, blocks, 4, 4, 4).transpose(2, 0, 4, 3, 5, 1)).reshape(-1)


@kernel
def _fill_band(source, cells, n, d, h0, rows, band):
    """Bring the input of the output rows `h0`, … of plane `d` into the band."""
    for i in range(cells.kernel[0]):
        depth = d * cells.stride[0] + i * cells.dilation[0] - cells.lows[0]
        for r in range((rows - 1) * cells.stride[1] + (cells.kernel[1] - 1) * cells.dilation[1] + 1):
            at = (i * cells.lines + r) * cells.line
            h = h0 * cells.stride[1] + r - cells.lows[1]
            fill_row(source, n, depth, h, cells.lows[2] * cells.channels, band[at : at + cells.line])


@kernel
def _fill_cell_start(sums, x_zero, bias_i, cells, start):
    for i in range(cells.pixels * cells.channels):
        term = x_zero * np.int64(sums[i % cells.channels])
        start[i] = wrap32(np.int64((bias_i[i] if bias_i.shape[0] > 0 else 0) - term))


@lru_cache(maxsize=None)
def _bands_kernel(exact):
    panel = depthwise_panel(exact)

    @kernel
    def bands(first, last, source_parts, cells_parts, weights, sums, out, item, stage):
        source, cells = source_of(source_parts), _cells_of(cells_parts)
        kind, line, bias_i = read_header(stage)
        planes, height, width = cells.out
        per_plane = (height + cells.height - 1) // cells.height
        taps = cells.kernel[0] * cells.kernel[1] * cells.kernel[2]
        cell, x_step = cells.pixels * cells.channels, cells.pixels * cells.stride[2] * cells.channels
        whole, rest = width // cells.pixels, width % cells.pixels * cells.channels
        band = np.empty(cells.kernel[0] * cells.lines * cells.line + SLACK, np.uint8)
        scratch = np.empty((_GATHERED, 64), np.int32)
        start = np.zeros(64 * cells.blocks, np.int32)
        _fill_cell_start(sums, source.x_zero if exact else 0, bias_i, cells, start)
        out_row = width * cells.channels * item
        for unit in range(first, last):
            n, d = unit // (per_plane * planes), unit // per_plane % planes
            h0 = unit % per_plane * cells.height
            rows = min(cells.height, height - h0)
            _fill_band(source, cells, n, d, h0, rows, band)
            target0 = out.ctypes.data + ((n * planes + d) * height + h0) * out_row
            for part in range(2):
                count, valid = (whole, cell) if part == 0 else (1, rest)
                x0, part0 = (0, 0) if part == 0 else (whole * x_step, whole * cell * item)
                for block in range((valid + 63) // 64 if count > 0 else 0):
                    n0 = 64 * block
                    n_valid = min(64, valid - n0)
                    table = weights.ctypes.data + n0 * 4 * ((taps + 3) // 4)
                    x, target = band.ctypes.data + x0 + n0, target0 + part0 + n0 * item
                    if line != LINE_NONE:
                        panel(
                            x, rows, cells.stride[1] * cells.line, count, x_step, cells.offsets.ctypes.data, taps, table,
                            start.ctypes.data + 4 * n0, target, out_row, cell * item, line, n0, n_valid, stage.ctypes.data,
                        )  # fmt: skip
                        continue
                    for r in range(rows):
                        for i in range(0, count, _GATHERED):
                            some = min(_GATHERED, count - i)
                            panel(
                                x + r * cells.stride[1] * cells.line + i * x_step, 1, 0, some, x_step,
                                cells.offsets.ctypes.data, taps, table, start.ctypes.data + 4 * n0,
                                scratch.ctypes.data, 0, 256, line, n0, n_valid, stage.ctypes.data,
                            )  # fmt: skip
                            finish_tile(
                                scratch.ctypes.data, 256, some, n_valid, n0, target + r * out_row + i * cell * item,
                                cell * item, 0, 0, stage.ctypes.data,
                            )  # fmt: skip

    return bands


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


def bind_depthwise(packed, geometry, exact, x_zero, zeros, kind, ep):
    """Prepare a depthwise convolution: ``run(x, out)``.

    Parameters
    ----------
    packed : PackedConv
        Weights (OC, 1, *kernel).
    geometry : Geometry
    exact : bool
        False saturates pairs of taps to int16, and subtracts no zero point.
    x_zero : int
    zeros : ndarray of int32, (OC,)
        Zero points of the stored weights, `packed.no_zeros` itself if there are none.
    kind, ep
        What is written, and the output stage, as for `refquant.kernels.product.bind_product`.

    Returns
    -------
    callable
        Takes `x`, uint8 or int8, (N, IC, *spatial), and `out`, C-contiguous, (N, *out, OC).
    """
    if zeros is not packed.no_zeros:
        return lambda x, out: _with_zeros(x, packed, geometry, x_zero, zeros, out, ep)
    channels = packed.shape[0]
    times = channels // geometry.channels
    if times > 1:
        geometry = geometry._replace(channels=channels, field_shape=(*geometry.field_shape[:4], channels))
    if "taps" not in packed.columns:
        packed.columns["taps"] = as_input(packed.codes.reshape(channels, -1).T)
    bind = _bind_bands if depthwise_tiles_run_here() else _bind_plain
    fill = bind(packed, geometry, exact, x_zero, kind, ep)
    return fill if times == 1 else lambda x, out: fill(np.repeat(x, times, axis=1), out)


def _bind_bands(packed, geometry, exact, x_zero, kind, ep):
    cells = _make_cells(geometry.channels, geometry)
    pixels, height = cells[1], cells[5]
    if pixels not in packed.columns:
        packed.columns[pixels] = _weight_table(packed.columns["taps"], pixels)
    table, sums, worker = packed.columns[pixels], packed.sums, _bands_kernel(exact)
    stage = RAW_STAGE if kind == RAW else make_stage(ep, kind, True, pixels)
    units = geometry.batch * geometry.out[0] * -(-geometry.out[1] // height)
    taps = packed.columns["taps"].shape[0]

    def fill(x, out):
        source = make_source(x, geometry, x_zero)
        memory = out.reshape(-1).view(np.uint8)
        parallel_for(worker, units, source, cells, table, sums, memory, out.itemsize, stage, grain=1 + units * _GRAIN // (out.size * taps))

    return fill


def _with_zeros(x, packed, geometry, x_zero, zeros, out, ep):
    """Weights with zero points: subtract ``zeros`` times the sum of each window, which is its product with ones."""
    if "ones" not in packed.columns:
        packed.columns["ones"] = PackedConv.of(np.ones(packed.shape, np.int8), packed.groups)
    acc, sums = np.empty(out.shape, np.int32), np.empty(out.shape, np.int32)
    for weights, result in ((packed, acc), (packed.columns["ones"], sums)):
        bind_depthwise(weights, geometry, True, x_zero, weights.no_zeros, RAW, None)(x, result)
    sums *= zeros
    acc -= sums
    out[:] = acc if ep is None else requantize(acc, ep, out.dtype)


def _bind_plain(packed, geometry, exact, x_zero, kind, ep):
    def fill(x, out):
        field, _, field_zero = make_field(x, geometry, x_zero)
        acc = np.empty((out.size // geometry.channels, geometry.channels), np.int32)
        pixels = as_input(field[: int(np.prod(geometry.field_shape))]).reshape(geometry.field_shape)
        start = as_input(packed.sums * np.int32(-field_zero)) if exact else packed.no_zeros
        parallel_for(_plain_rows, acc.shape[0], pixels, geometry, packed.columns["taps"], start, exact, acc)
        out.reshape(acc.shape)[:] = acc if ep is None else requantize(acc, ep, out.dtype)

    return fill


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
    if isinstance(w, np.ndarray):
        w = PackedConv.of(w, x.shape[1])
    geometry = make_geometry(x.shape, w.shape, stride, padding, (1,) * (x.ndim - 2))
    memory = np.empty(geometry.memory_shape, dtype)
    if memory.size:
        bind_depthwise(w, geometry, False, x_zero, w.no_zeros, kind, ep)(x, memory)
    return memory.transpose(geometry.from_memory)
