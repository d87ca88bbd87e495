"""Convolutions of 8-bit codes, exact modulo ``2**32``, with the output stage fused.

    field    [N][D'][H'][W'][C]         uint8, see `refquant.kernels.window`
    weights  [OC][KD][KH][KW][C/groups] int8: column `oc` of a product whose K runs as memory does
    columns  [rows][K]                  uint8, the windows of some output pixels, copied side by side
    tile     [rows][channels]           int32, finished before the next one begins
    out      [N][OD][OH][OW][OC]

A convolution is the product of its windows and its weights; the zero-point terms are those of `refquant.kernels.gemm`.
"""

from typing import NamedTuple

import numpy as np

from refquant.kernels.gemm import _dot_block, _no_bias, _subtract_rows, row_sums, start_values
from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.requantize import finish_row, freeze_epilogue
from refquant.kernels.window import make_field, make_window

__all__ = ["PackedConv", "pack_conv", "conv_s32", "conv_requantize"]

_ROWS, _COLUMNS = 32, 64


class PackedConv(NamedTuple):
    """Packed weights of a convolution; build them with `pack_conv`.

    Attributes
    ----------
    data : ndarray of int8, (OC, K), read-only
    shape : tuple of int
        (OC, IC / groups, *kernel)
    groups : int
    sums : ndarray of int32, (OC,), read-only
        Sums of the stored int8 codes.
    offset : int
        What was subtracted from each code: 128 for uint8, 0 for int8.
    rung : str
    """

    data: np.ndarray
    shape: tuple
    groups: int
    sums: np.ndarray
    offset: int
    rung: str


def pack_conv(w, groups=1, rung=None):
    """Pack the weights of a convolution.

    Parameters
    ----------
    w : ndarray of int8 or uint8, (OC, IC / groups, *kernel)
        One to three spatial dimensions, any strides.
    groups : int
    rung : str, optional
        A kernel by name, for tests.

    Returns
    -------
    PackedConv
    """
    offset = 128 if w.dtype == np.uint8 else 0
    codes = np.array(np.moveaxis(w, 1, -1), order="C", copy=True)
    if offset:
        codes ^= 0x80
    data = codes.view(np.int8).reshape(w.shape[0], -1)
    sums = data.sum(axis=1, dtype=np.int32)
    for array in (data, sums):
        array.setflags(write=False)
    return PackedConv(data, w.shape, int(groups), sums, offset, "portable")


@kernel
def _gather(field, window, m0, c0, columns, channels):
    """Copy the windows of the pixels `m0`, `m0` + 1, … side by side."""
    kd, kh, kw = window.kernel
    sd, sh, sw = window.stride
    dd, dh, dw = window.dilation
    _, oh, ow = window.out
    od = window.out[0]
    for i in range(columns.shape[0]):
        m = m0 + i
        w, h = m % ow, m // ow % oh
        d, n = m // (ow * oh) % od, m // (ow * oh * od)
        k = 0
        for a in range(kd):
            for b in range(kh):
                for c in range(kw):
                    for ch in range(channels):
                        columns[i, k + ch] = field[n, d * sd + a * dd, h * sh + b * dh, w * sw + c * dw, c0 + ch]
                    k += channels


@kernel
def _blocks_s32(first, last, field, window, weights, groups, start, b_zero, out):
    shift_rows = b_zero.any()
    channels, per_group = field.shape[4] // groups, out.shape[1] // groups
    scratch = np.empty((_ROWS, weights.shape[1]), np.uint8)
    sums = np.empty(_ROWS, np.int32)
    for block in range(first, last):
        m0, g = block // groups * _ROWS, block % groups
        m1 = min(m0 + _ROWS, out.shape[0])
        columns = scratch[: m1 - m0]
        _gather(field, window, m0, g * channels, columns, channels)
        n0 = g * per_group
        tile = out[m0:m1, n0 : n0 + per_group]
        _dot_block(columns, weights, 0, n0, tile, start)
        if shift_rows:
            row_sums(columns, sums)
            _subtract_rows(tile, 0, n0, sums, b_zero)


@kernel
def _blocks_requantize(first, last, field, window, weights, groups, start, b_zero, out, ep, as_float):
    shift_rows = b_zero.any()
    channels, per_group = field.shape[4] // groups, out.shape[1] // groups
    scratch = np.empty((_ROWS, weights.shape[1]), np.uint8)
    square = np.empty((_ROWS, _COLUMNS), np.int32)
    sums = np.empty(_ROWS, np.int32)
    real = np.empty(_COLUMNS, np.float32)
    wide = np.empty(_COLUMNS, np.float64)
    for block in range(first, last):
        m0, g = block // groups * _ROWS, block % groups
        m1 = min(m0 + _ROWS, out.shape[0])
        columns = scratch[: m1 - m0]
        _gather(field, window, m0, g * channels, columns, channels)
        if shift_rows:
            row_sums(columns, sums)
        for n0 in range(g * per_group, (g + 1) * per_group, _COLUMNS):
            n1 = min(n0 + _COLUMNS, (g + 1) * per_group)
            tile = square[: m1 - m0, : n1 - n0]
            _dot_block(columns, weights, 0, n0, tile, start)
            if shift_rows:
                _subtract_rows(tile, 0, n0, sums, b_zero)
            for i in range(m1 - m0):
                finish_row(tile[i], n0, out[m0 + i, n0:n1], ep, real, wide, as_float)


def _prepare(x, packed, stride, padding, dilation, x_zero, w_zero, bias_i):
    window = make_window(x.shape[2:], packed.shape[2:], stride, padding, dilation)
    field, x_zero = make_field(x, padding, x_zero)
    channels = packed.shape[0]
    zeros = np.empty(channels, np.int32)
    zeros[:] = w_zero
    zeros -= packed.offset
    start = np.empty(channels, np.int32)
    start_values(packed.sums, packed.data.shape[1], x_zero, zeros, bias_i, start)
    return field, window, start, zeros


def _result(x, packed, window, dtype):
    """The output as (N, *out, OC) in memory, its kernels' view (rows, OC), and the caller's view (N, OC, *out)."""
    dims = len(packed.shape) - 2
    memory = np.empty((x.shape[0], *window.out[3 - dims :], packed.shape[0]), dtype)
    rows = memory.reshape(-1, packed.shape[0]) if memory.size else memory.reshape(0, packed.shape[0])
    return np.moveaxis(memory, -1, 1), rows.view(np.uint8) if rows.dtype == np.int8 else rows


def conv_s32(x, packed, *, stride, padding, dilation, x_zero=0, w_zero=0):
    """Convolve 8-bit codes: the sum of ``(x - x_zero) * (w - w_zero)`` over each window.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (N, IC, *spatial)
        Any strides; channels-last memory needs no copy beyond the padding.
    packed : PackedConv
        From `pack_conv`.
    stride, dilation : tuple of int
        One per spatial dimension.
    padding : tuple of (int, int)
        Before and after each spatial dimension; the padding is worth 0, its code is `x_zero`.
    x_zero : int
    w_zero : int or ndarray of int, (OC,)

    Returns
    -------
    ndarray of int32, (N, OC, *out)
        In channels-last memory.

    Exactness
    ---------
    Exact modulo ``2**32``.
    """
    field, window, start, zeros = _prepare(
        x, packed, stride, padding, dilation, x_zero, w_zero, _no_bias(packed.shape[0])
    )
    out, rows = _result(x, packed, window, np.int32)
    blocks = -(-rows.shape[0] // _ROWS) * packed.groups
    parallel_for(_blocks_s32, blocks, field, window, packed.data, packed.groups, start, zeros, rows)
    return out


def conv_requantize(x, packed, epilogue, dtype, *, stride, padding, dilation, x_zero=0, w_zero=0):
    """Convolve 8-bit codes and carry out an output stage.

    Parameters
    ----------
    x, packed, stride, padding, dilation, x_zero, w_zero
        As for `conv_s32`.
    epilogue : Epilogue
        For OC channels.
    dtype : numpy.dtype
        uint8, int8, int32 or float32; float32 stops before the output scale.

    Returns
    -------
    ndarray of `dtype`, (N, OC, *out)
        In channels-last memory; ``apply_epilogue`` of what `conv_s32` gives, bit for bit.
    """
    ep = freeze_epilogue(epilogue)
    field, window, start, zeros = _prepare(x, packed, stride, padding, dilation, x_zero, w_zero, ep.bias_i)
    out, rows = _result(x, packed, window, dtype)
    blocks = -(-rows.shape[0] // _ROWS) * packed.groups
    as_float = out.dtype == np.float32
    parallel_for(_blocks_requantize, blocks, field, window, packed.data, packed.groups, start, zeros, rows, ep, as_float)
    return out
