"""Convolutions as ``vpmaddubsw`` computes them, on processors without VNNI: neighbouring products saturate to int16.

    runs       the tile of `refquant.kernels.product` on the field itself, where neighbours are neighbours in memory
    depthwise  `refquant.kernels.depthwise`, pairs of taps in raster order
    columns    windows copied out, neighbours side by side, and `refquant.kernels.pairs`: any pairing; the exact kernels where no pair can saturate

Which products are neighbours is a table of positions in (*kernel, ic), see `refquant.isa.accumulate.neighbours`. A tap outside of
the image contributes the product of the zero point, which saturates like any other, or nothing (``skips``).
"""

import math
from typing import NamedTuple

import numpy as np

from refquant.core.wrap import saturate_int16, wrap_int32
from refquant.kernels.columns import copy_words
from refquant.kernels.conv import bind_conv, bind_windows, merged_groups
from refquant.kernels.depthwise import bind_depthwise
from refquant.kernels.field import make_field, make_source
from refquant.kernels.gemm import column_zeros
from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.left import fill_offsets, highest_byte, left_of
from refquant.kernels.pack import PackedConv
from refquant.kernels.pairs import bind_gemm_s16pair, gemm_s16pair_s32, pack_pairs
from refquant.kernels.requantize import requantize
from refquant.kernels.signature import as_input, slice_epilogue
from refquant.kernels.stage import RAW, output_kind
from refquant.kernels.tile import choose_rung
from refquant.kernels.window import make_geometry, window_rows

__all__ = ["PairedWeights", "pack_paired", "bind_conv_s16pair"]

_MOST_BYTES = 1 << 20


class PairedWeights(NamedTuple):
    """Weights of a convolution, laid out for one pairing; made by `pack_paired`.

    Attributes
    ----------
    codes : ndarray of int8, (OC, IC / groups, *kernel)
    groups : int
    places : ndarray of int64, (pairs, 2)
        Neighbours as positions in (*kernel, ic); −1 for none.
    skips : bool
        Whether taps outside of the image contribute nothing.
    way : str
        One of the three ways of this module.
    apart : bool
        Whether every tap is a run of its own.
    packed : PackedConv, or list of PackedB
        The latter, one a group, for ``columns``.
    """

    codes: np.ndarray
    groups: int
    places: np.ndarray
    skips: bool
    way: str
    apart: bool
    packed: object


def _run_lengths(ic, kernel, dilation, groups):
    """Yield (apart, length of a run) of the ways in which windows can be read."""
    if groups == 1 and (dilation[-1] == 1 or kernel[-1] == 1):
        yield False, ic * kernel[-1]
    yield True, ic


def _paired_in_runs(places, ic, kernel, dilation, groups):
    """Return whether taps must be runs of their own for neighbours in memory to be the neighbours; None where neither way fits."""
    for apart, length in _run_lengths(ic, kernel, dilation, groups):
        lines = np.arange(math.prod(kernel) * ic).reshape(-1, max(length, 1))
        lines = np.pad(lines, ((0, 0), (0, length % 2)), constant_values=-1).reshape(-1, 2)
        if np.array_equal(lines, places):
            return apart
    return None


def pack_paired(w, groups, places, skips, *, padding, dilation):
    """Lay weights out for `bind_conv_s16pair`.

    Parameters
    ----------
    w : ndarray of int8, (OC, IC / groups, *kernel)
    groups : int
    places, skips
        As in `PairedWeights`.
    padding : tuple of (int, int)
    dilation : tuple of int
    """
    oc, ic, *kernel = w.shape
    padded = any(map(any, padding))
    taps = np.where(places < 0, places[:, :1], places) // max(ic, 1)
    across = skips and padded and not np.array_equal(taps[:, 0], taps[:, 1])
    chain = np.arange(len(places) * 2)
    chain[math.prod(kernel) * ic :] = -1
    if ic == 1 and groups > 1 and not (skips and padded) and np.array_equal(places.reshape(-1), chain):
        return PairedWeights(w, groups, places, skips, "depthwise", False, PackedConv.of(w, groups))
    rung, apart = choose_rung(exact=False), _paired_in_runs(places, ic, kernel, dilation, groups)
    if rung is not None and apart is not None and not across and (ic > 1 or groups == 1):
        return PairedWeights(w, groups, places, skips, "runs", apart, PackedConv.of(w, groups, rung.name))
    rows = np.moveaxis(w, 1, -1).reshape(groups, oc // groups, -1)
    chosen = np.where(places < 0, np.int8(0), rows[:, :, places]).reshape(groups, oc // groups, -1)
    return PairedWeights(w, groups, places, skips, "columns", False, [pack_pairs(part.T) for part in chosen])


def _bind_runs(w, geometry, x_zero, w_zero, dtype, ep):
    zeros = column_zeros(w.packed, w_zero)
    merged = 1 if w.groups == 1 or w.codes.shape[1] % 2 else merged_groups(w.packed, zeros)
    border = _border(w, geometry, x_zero) if w.skips and geometry.padded else None
    kind = output_kind(dtype) if border is None else RAW
    fill = bind_windows(w.packed, geometry, x_zero, zeros, kind, ep if border is None else None, merged, w.apart)

    def run(x):
        memory = np.empty(geometry.memory_shape, dtype if border is None else np.int32)
        fill(x, memory)
        if border is None:
            return memory
        memory += border
        return requantize(memory, ep, dtype)

    return run


def _bind_depthwise(w, geometry, x_zero, w_zero, dtype, ep):
    """The kernel saturates raw codes and leaves both zero points to its caller: their constant terms go where the bias is."""
    oc, depth = w.codes.shape[0], math.prod(w.codes.shape[2:])
    zero = np.broadcast_to(np.asarray(w_zero, np.int64), (oc,))
    terms = x_zero * (w.packed.sums.astype(np.int64) - depth * zero)
    ep = ep._replace(bias_i=wrap_int32(ep.bias_i - terms))
    fused = not np.any(zero)
    kind = output_kind(dtype) if fused else RAW
    fill = bind_depthwise(w.packed, geometry, False, x_zero, w.packed.no_zeros, kind, ep if fused else None)

    def run(x):
        memory = np.empty(geometry.memory_shape, dtype if fused else np.int32)
        fill(x, memory)
        if fused:
            return memory
        sums = _windows(x, w.codes.shape[2:], geometry, x_zero).sum(tuple(range(-w.codes.ndim + 1, -1)), dtype=np.int64)
        return requantize(wrap_int32(memory - np.repeat(sums, oc // x.shape[1], axis=-1) * zero), ep, dtype)

    return run


def _windows(x, kernel, geometry, outside):
    """Return a view (N, *out, *kernel, C): what each tap of each output sees."""
    dims = len(kernel)
    three = (geometry.field_shape[1:4], geometry.lows, geometry.size, geometry.stride, geometry.dilation)
    wide, lows, size, stride, dilation = (values[3 - dims :] for values in three)
    padded = np.full((x.shape[0], *wide, x.shape[1]), outside, x.dtype)
    padded[(slice(None), *(slice(low, low + n) for low, n in zip(lows, size)))] = np.moveaxis(x, 1, -1)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(1, dims + 1)))
    steps = (slice(None), *(slice(None, None, s) for s in stride), slice(None), *(slice(None, None, d) for d in dilation))
    return np.moveaxis(windows[steps], dims + 1, -1)


@kernel
def _gather(first, last, m0, field, left_parts, group, pieces, codes):
    """Copy windows out: row i is that of the output pixel `m0` + i, and `pieces` (start, length) say where its bytes lie from its start.

    Eight bytes at a time where eight may be read, and where the bytes behind a piece are written next.
    """
    left = left_of(left_parts)
    offsets = np.empty(last - first, np.int64)
    fill_offsets(left, m0 + first, offsets)
    for i in range(last - first):
        base = offsets[i] + group * left.group_step
        line, at = codes[first + i], 0
        for p in range(pieces.shape[0]):
            start, length = base + pieces[p, 0], pieces[p, 1]
            words = (length + 7) // 8 if left.loose and at + (length + 7) // 8 * 8 <= line.shape[0] else 0
            if words > 0:
                copy_words(field.ctypes.data + start, line.ctypes.data + at, words)
            else:
                for j in range(length):
                    line[at + j] = field[start + j]
            at += length


def _pieces(table):
    """Cut a table of positions where neighbours are not neighbours in memory: (start, length) of each piece."""
    cuts = np.flatnonzero(np.diff(table) != 1) + 1
    firsts = np.concatenate([np.zeros(min(1, table.size), np.int64), cuts])
    lengths = np.diff(np.append(firsts, table.size))
    return as_input(np.stack([table[firsts], lengths], axis=1))


def _bind_windows_of(w, geometry):
    """Return a function of (codes, what lies outside of them) that yields (first row, group, codes) of the windows as the products take them, some rows at a time."""
    ic = w.codes.shape[1]
    order = np.where(w.places < 0, 0, w.places).reshape(-1)
    step, grain = max(1, _MOST_BYTES // max(1, order.size)), 1 + 65536 // max(1, order.size)
    bound = {}

    def windows_of(x, outside):
        field, loose, _ = make_field(x, geometry, outside)
        if loose not in bound:
            left = window_rows(geometry, loose, w.groups, True)
            bound[loose] = left, _pieces(left[0][order // ic] + order % ic)
        left, pieces = bound[loose]
        for m0 in range(0, left[3], step):
            for g in range(w.groups):
                codes = np.empty((min(step, left[3] - m0), order.size), np.uint8)
                parallel_for(_gather, codes.shape[0], m0, field, left, g, pieces, codes, grain=grain)
                yield m0, g, codes

    return windows_of


def _bind_columns(w, geometry, x_zero, w_zero, dtype, ep):
    oc, per_group = w.codes.shape[0], w.codes.shape[0] // w.groups
    windows_of = _bind_windows_of(w, geometry)
    if np.any(w_zero) or w.skips and geometry.padded:
        return lambda x: requantize(_column_sums(x, w, geometry, x_zero, w_zero, windows_of), ep, dtype)
    parts = [slice(g * per_group, (g + 1) * per_group) for g in range(w.groups)]
    products = [bind_gemm_s16pair(packed, slice_epilogue(ep, part), dtype, a_zero=x_zero) for packed, part in zip(w.packed, parts)]

    def run(x):
        memory = np.empty(geometry.memory_shape, dtype)
        rows = memory.reshape(-1, oc)
        for m0, g, codes in windows_of(x, x_zero):
            rows[m0 : m0 + codes.shape[0], parts[g]] = products[g](codes)
        return memory

    return run


def _column_sums(x, w, geometry, x_zero, w_zero, windows_of):
    """The sums where a term of a zero point depends on the pixel."""
    oc, per_group = w.codes.shape[0], w.codes.shape[0] // w.groups
    memory = np.empty(geometry.memory_shape, np.int32)
    raw = memory.reshape(-1, oc)
    sums, counted = np.zeros((raw.shape[0], w.groups), np.int64), w.places.reshape(-1) >= 0
    for m0, g, codes in windows_of(x, 0 if w.skips else x_zero):
        here = slice(m0, m0 + codes.shape[0])
        raw[here, g * per_group : (g + 1) * per_group] = gemm_s16pair_s32(codes, w.packed[g])
        if np.any(w_zero):
            sums[here, g] = codes[:, counted].sum(1, dtype=np.int64)
    raw[:] = wrap_int32(raw - _zero_terms(x, w, geometry, sums, x_zero, w_zero))
    return memory


def _zero_terms(x, w, geometry, sums, x_zero, w_zero):
    """What both zero points take from raw sums: ``zx Σ w + zw Σ x − n zx zw`` over the taps that count."""
    oc, ic, *kernel = w.codes.shape
    zero = np.broadcast_to(np.asarray(w_zero, np.int64), (oc,))
    weights = w.codes.astype(np.int64).sum(1).reshape(oc, -1)
    if w.skips and geometry.padded:
        inside = _windows(np.ones((1, 1, *x.shape[2:]), np.int8), kernel, geometry, 0)
        valid = np.tile(inside.reshape(-1, math.prod(kernel)).astype(np.float64), (x.shape[0], 1))
        terms, count = (x_zero * (valid @ weights.T.astype(np.float64))).astype(np.int64), valid.sum(1, keepdims=True).astype(np.int64) * ic
    else:
        terms, count = x_zero * weights.sum(1), ic * math.prod(kernel)
    if not np.any(zero):
        return terms
    return terms + (np.repeat(sums, oc // w.groups, axis=1) - x_zero * count) * zero


def _border(w, geometry, x_zero):
    """What skipped taps would add: padding holds the zero point, whose saturated products are not what is taken off again."""
    oc, ic, *kernel = w.codes.shape
    rows = np.moveaxis(w.codes, 1, -1).reshape(oc, -1).astype(np.int32) * x_zero
    pairs = np.where(w.places < 0, 0, rows[:, w.places]).sum(-1)
    excess = np.zeros((math.prod(kernel), oc), np.float64)
    np.add.at(excess, w.places[:, 0] // ic, (pairs - saturate_int16(pairs)).T)
    if not excess.any():
        return None
    outside = _windows(np.zeros((1, 1, *geometry.size[3 - len(kernel) :]), np.int8), kernel, geometry, 1)
    return wrap_int32(outside.reshape(1, *outside.shape[1 : len(kernel) + 1], -1).astype(np.float64) @ excess)


def bind_conv_s16pair(x_shape, w, epilogue, dtype, *, stride, padding, dilation, x_zero=0, w_zero=0):
    """Prepare a convolution with saturating pairs and an output stage, for many inputs of one shape.

    Parameters
    ----------
    x_shape : tuple of int
    w : PairedWeights
        Made for this padding and dilation.
    epilogue : Epilogue
    dtype : numpy.dtype
    stride, padding, dilation, x_zero, w_zero
        As for `refquant.kernels.conv.conv_requantize`.

    Returns
    -------
    callable
        ``run(x)``, uint8, gives (N, OC, *out) in channels-last memory: the saturated sums of raw codes, less the exact terms of both
        zero points, through the output stage.
    """
    geometry = make_geometry(x_shape, w.codes.shape, stride, padding, dilation)
    bind = {"columns": _bind_columns, "depthwise": _bind_depthwise, "runs": _bind_runs}[w.way]
    run = bind(w, geometry, x_zero, w_zero, dtype, epilogue)
    if w.way == "columns" and x_zero < 128 and choose_rung() is not None:
        # Codes up to 127 cannot saturate a pair: 127 * 128 * 2 < 2**15.
        exact = bind_conv(
            x_shape, PackedConv.of(w.codes, w.groups), epilogue, dtype, stride=stride, padding=padding, dilation=dilation,
            x_zero=x_zero, w_zero=w_zero,
        )  # fmt: skip
    else:
        exact = None
    empty = math.prod(geometry.memory_shape) == 0

    def convolve(x):
        if exact is not None and highest_byte(make_source(x, geometry, x_zero)[0]) < 128:
            return exact(x)
        return (np.empty(geometry.memory_shape, dtype) if empty else run(x)).transpose(geometry.from_memory)

    return convolve
