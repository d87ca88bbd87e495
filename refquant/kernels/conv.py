"""Convolutions of 8-bit codes, exact modulo ``2**32``, with the output stage fused.

    field    [N][D'][H'][W'][C]             uint8, see `refquant.kernels.window`
    weights  [group][oc][KD][KH][KW][ic]    int8, packed as the columns of a product
    out      [N][OD][OH][OW][OC]

A convolution is the product of its windows and its weights. Windows are not copied: in channels-last memory the KW * C bytes of a
window's row are neighbours, and a product reads its k in runs. Narrow groups are computed several at a time.
"""

import numpy as np

from refquant.kernels.aligned import aligned_empty
from refquant.kernels.columns import pack_columns
from refquant.kernels.depthwise import bind_depthwise
from refquant.kernels.field import make_field
from refquant.kernels.gemm import bind_multiply, column_zeros
from refquant.kernels.pack import PackedConv
from refquant.kernels.stage import RAW, output_kind
from refquant.kernels.tile import rung_named
from refquant.kernels.window import make_geometry, window_rows

__all__ = ["PackedConv", "pack_conv", "conv_s32", "conv_requantize", "bind_conv", "bind_windows", "merged_groups", "window_product"]


def pack_conv(w, groups=1, rung=None):
    """Pack the weights of a convolution.

    Parameters
    ----------
    w : ndarray of int8 or uint8, (OC, IC / groups, *kernel)
        One to three spatial dimensions, any strides.
    groups : int
    rung : str, optional
        A kernel by name, for tests; the best that this processor has without it.

    Returns
    -------
    PackedConv
        A copy: later writes to `w` do not reach it.
    """
    packed = PackedConv.of(w, groups, rung)
    if w.shape[1] > 1 or groups == 1:
        merged = merged_groups(packed, packed.no_zeros)
        *outer, width = w.shape[2:]
        _columns(packed, merged, int(np.prod(outer)) * (1 if merged == groups else width))
    return packed


def merged_groups(packed, zeros):
    """How many neighbouring groups are computed as one, with zeros in their weights for one another's channels.

    As many as fit into the 16 columns of a register, which would be there anyway. Not where weights have zero points, for their
    term needs the sum over a group's own channels.
    """
    if rung_named(packed.rung) is None or zeros is not packed.no_zeros:
        return 1
    most = 16 // (packed.shape[0] // packed.groups)
    return max((m for m in range(1, most + 1) if packed.groups % m == 0), default=1)


def _columns(packed, merged, runs):
    """The packed columns for windows of `runs` runs; all but the likeliest are packed when they are first asked for."""
    data = packed.columns.get((merged, runs))
    if data is None:
        oc, ic, *_ = packed.shape
        rung, groups, columns = rung_named(packed.rung), packed.groups, oc // packed.groups
        if rung is None:
            return packed.codes.reshape(oc, -1)
        codes = packed.codes.reshape(groups // merged, merged, columns, -1, ic)
        together = np.zeros((groups // merged, merged, columns, codes.shape[3], merged, ic), np.int8)
        for i in range(merged):
            together[:, i, :, :, i] = codes[:, i]
        data = pack_columns(together.reshape(groups // merged, merged * columns, runs, -1), rung)
        packed.columns[merged, runs] = data
    return data


def bind_conv(x_shape, packed, epilogue, dtype, *, stride, padding, dilation, x_zero=0, w_zero=0, pairs=False):
    """Prepare `conv_requantize`, or without an output stage `conv_s32`, for many inputs of one shape and dtype.

    Parameters
    ----------
    x_shape : tuple of int
    packed, epilogue, dtype, stride, padding, dilation, x_zero, w_zero
        As for `conv_requantize`; `epilogue` may be None, with int32.
    pairs : bool
        Saturate pairs of taps to int16, and subtract no zero point: `refquant.kernels.depthwise.depthwise_pair16_s32`.

    Returns
    -------
    callable
        ``run(x)``
    """
    kind = RAW if epilogue is None else output_kind(dtype)
    geometry = make_geometry(x_shape, packed.shape, stride, padding, dilation)
    zeros = packed.no_zeros if pairs else column_zeros(packed, w_zero)
    if packed.shape[1] == 1 and packed.groups > 1 or pairs:
        fill = bind_depthwise(packed, geometry, not pairs, x_zero, zeros, kind, epilogue)
    else:
        merged = 1 if packed.groups == 1 else merged_groups(packed, zeros)
        fill = bind_windows(packed, geometry, x_zero, zeros, kind, epilogue, merged)
    shape, order = geometry.memory_shape, geometry.from_memory

    def run(x):
        memory = aligned_empty(shape, dtype)
        if memory.size:
            fill(x, memory)
        return memory.transpose(order)

    return run


def bind_windows(packed, geometry, x_zero, zeros, kind, ep, merged, apart=False):
    """Prepare a convolution by windows, ``run(x, out)``: so many groups `merged` into one, and if `apart` every tap a run of its own."""
    groups = packed.groups // merged
    bound = {}

    def fill(x, out):
        field, loose, field_zero = make_field(x, geometry, x_zero)
        found = bound.get((loose, field_zero))
        if found is None:
            left = window_rows(geometry, loose, groups, apart)
            columns = _columns(packed, merged, left[0].shape[0])
            found = bound[loose, field_zero] = left, bind_multiply(columns, groups, packed, field_zero, zeros, kind, ep)
        left, multiply = found
        multiply(field, left, out)

    return fill


def window_product(x, packed, *, stride, padding, dilation, x_zero=0):
    """The product that a convolution is: what it reads, where its windows lie in that, the packed columns, and their groups.

    Parameters
    ----------
    x, packed, stride, padding, dilation, x_zero
        As for `conv_s32`; `packed` for a kernel with tiles.

    Returns
    -------
    (field, left, columns, groups)
        As `refquant.kernels.product.bind_product` takes them.
    """
    geometry = make_geometry(x.shape, packed.shape, stride, padding, dilation)
    merged = 1 if packed.groups == 1 else merged_groups(packed, packed.no_zeros)
    field, loose, _ = make_field(x, geometry, x_zero)
    left = window_rows(geometry, loose, packed.groups // merged, False)
    return field, left, _columns(packed, merged, left[0].shape[0]), packed.groups // merged


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
    return bind_conv(
        x.shape, packed, None, np.int32, stride=stride, padding=padding, dilation=dilation, x_zero=x_zero, w_zero=w_zero
    )(x)  # fmt: skip


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
    return bind_conv(
        x.shape, packed, epilogue, dtype, stride=stride, padding=padding, dilation=dilation, x_zero=x_zero, w_zero=w_zero
    )(x)  # fmt: skip
