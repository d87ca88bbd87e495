"""conv_transpose1d, conv_transpose2d, conv_transpose3d on float32 arrays."""

import numpy as np

from refquant.errors import ShapeError
from refquant.ops.arguments import sides
from refquant.ops.real.conv import conv2d, conv3d
from refquant.ops.real.order import activate, bias_vector, real_input

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def _conv_transpose(dims, x, w, bias, stride, padding, output_padding, dilation, groups, order, activation):
    """A convolution of the input with zeros put between its pixels, by the weights turned round: terms of zeros change no sum."""
    place = f"conv_transpose{dims}d"
    x, w = real_input(x, "x", place), real_input(w, "w", place)
    if x.ndim != dims + 2 or w.ndim != dims + 2 or x.shape[1] != w.shape[0]:
        raise ShapeError(f"{place}: x has shape {x.shape} and w {w.shape}; they must be (N, IC, ...) and (IC, OC / groups, ...) of {dims + 2} dimensions")
    (groups,) = sides(groups, "groups", 1, place, least=1)
    if w.shape[0] % groups:
        raise ShapeError(f"{place}: w has shape {w.shape} but groups={groups}; IC must be a multiple of groups")
    stride, dilation = sides(stride, "stride", dims, place, least=1), sides(dilation, "dilation", dims, place, least=1)
    padding, extra = sides(padding, "padding", dims, place, least=0), sides(output_padding, "output_padding", dims, place, least=0)
    bias = bias_vector(bias, w.shape[1] * groups, place)
    border = [d * (k - 1) - p for d, k, p in zip(dilation, w.shape[2:], padding)]
    spread = np.zeros((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride))), np.float32)
    spread[(..., *(slice(None, None, s) for s in stride))] = x
    wide = np.pad(spread, ((0, 0), (0, 0), *((max(b, 0), max(b + e, 0)) for b, e in zip(border, extra))))
    cuts = tuple(slice(max(-b, 0), n - max(-b - e, 0)) for b, e, n in zip(border, extra, wide.shape[2:]))
    turned = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)[(..., *[slice(None, None, -1)] * dims)]
    turned = turned.reshape(-1, w.shape[0] // groups, *w.shape[2:])
    field, settings = wide[(..., *cuts)], {"dilation": dilation, "groups": groups, "order": order}
    if dims == 1:
        settings["dilation"] = (1, *dilation)
        y = conv2d(field[:, :, None], turned[:, :, None], bias, **settings)[:, :, 0]
    else:
        y = (conv2d if dims == 2 else conv3d)(field, turned, bias, **settings)
    return activate(y, activation, place)


def conv_transpose1d(x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, order="torch_avx512", activation=None):
    """Compute a transposed convolution of (N, IC, L) by (IC, OC / groups, K). See `conv_transpose2d`."""
    return _conv_transpose(1, x, w, bias, stride, padding, output_padding, dilation, groups, order, activation)


def conv_transpose2d(x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, order="torch_avx512", activation=None):
    """Compute a transposed convolution of (N, IC, H, W) by (IC, OC / groups, KH, KW).

    Parameters
    ----------
    x, w : array_like of float32
    bias : array_like of float32, (OC,), optional
    stride, padding, output_padding, dilation : int or pair of int
    groups : int
    order : str
        One of `refquant.ops.real.ORDERS`: the order of `conv2d` over the input with zeros between its pixels. PyTorch's last bits may differ
        under ``torch_avx512``: oneDNN has several kernels for these, whose orders are not all described.
    activation : {None, "relu"}

    Returns
    -------
    ndarray of float32, (N, OC, OH, OW)
        ``OH = (H − 1)·stride − 2·padding + dilation·(KH − 1) + output_padding + 1``.

    Examples
    --------
    >>> conv_transpose2d(np.float32([[[[1, 2]]]]), np.float32([[[[1, 10, 100]]]]), stride=2).tolist()
    [[[[1.0, 10.0, 102.0, 20.0, 200.0]]]]
    """
    return _conv_transpose(2, x, w, bias, stride, padding, output_padding, dilation, groups, order, activation)


def conv_transpose3d(x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, order="torch_avx512", activation=None):
    """Compute a transposed convolution of (N, IC, D, H, W) by (IC, OC / groups, KD, KH, KW). See `conv_transpose2d`."""
    return _conv_transpose(3, x, w, bias, stride, padding, output_padding, dilation, groups, order, activation)
