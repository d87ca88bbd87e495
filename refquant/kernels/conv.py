"""Convolutions of 8-bit codes, exact modulo ``2**32``, with the output stage fused.

    field    [N][D'][H'][W'][C]             uint8, see `refquant.kernels.window`
    weights  [group][oc][KD][KH][KW][ic]    int8, packed as the columns of a product
    out      [N][OD][OH][OW][OC]

A convolution is the product of its windows and its weights. Windows are not copied: in channels-last memory the KW * C bytes of a
window's row are neighbours, and a product reads its k in runs. Narrow groups are computed several at a time.
"""

import numpy as np

from refquant.kernels.columns import pack_columns
from refquant.kernels.depthwise import depthwise
from refquant.kernels.field import make_field
from refquant.kernels.gemm import column_zeros, multiply
from refquant.kernels.pack import PackedConv
from refquant.kernels.stage import RAW, output_kind
from refquant.kernels.tile import rung_named
from refquant.kernels.window import make_geometry, window_rows

__all__ = ["PackedConv", "pack_conv", "conv_s32", "conv_requantize"]


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
        merged = _merged_groups(packed, packed.no_zeros)
        *outer, width = w.shape[2:]
        _columns(packed, merged, int(np.prod(outer)) * (1 if merged == groups else width))
    return packed


def _merged_groups(packed, zeros):
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


def _convolve(x, packed, stride, padding, dilation, x_zero, w_zero, dtype, kind, ep):
    geometry = make_geometry(x.shape, packed.shape, stride, padding, dilation)
    memory = np.empty(geometry.memory_shape, dtype)
    zeros = column_zeros(packed, w_zero)
    if packed.shape[1] == 1 and packed.groups > 1:
        depthwise(x, packed, geometry, True, x_zero, zeros, memory, kind, ep)
    else:
        merged = 1 if packed.groups == 1 else _merged_groups(packed, zeros)
        groups = packed.groups // merged
        field, loose, x_zero = make_field(x, geometry, x_zero)
        left = window_rows(geometry, loose, groups)
        columns = _columns(packed, merged, left[0].shape[0])
        multiply(field, left, columns, groups, packed, x_zero, zeros, memory, kind, ep)
    return memory.transpose(geometry.from_memory)


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
    return _convolve(x, packed, stride, padding, dilation, x_zero, w_zero, np.int32, RAW, None)


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
    return _convolve(x, packed, stride, padding, dilation, x_zero, w_zero, dtype, output_kind(dtype), epilogue)
