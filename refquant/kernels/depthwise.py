"""Depthwise convolutions: every output channel reads one input channel.

    field    [N][D'][H'][W'][OC]    uint8, each input channel repeated OC/IC times
    weights  [tap][OC]              int8, taps in raster order: (depth, height, width), width fastest
    out      [N][OD][OH][OW][OC]    int32

All loops run over channels, which are neighbours in every array.
"""

import numpy as np

from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.signature import as_input
from refquant.kernels.window import channels_last_output, make_field, make_geometry

__all__ = ["depthwise_pair16_s32"]


@kernel
def _tap(window, t):
    """Offset of the tap `t` of the window, in field elements of each dimension."""
    _, kh, kw = window.kernel
    dd, dh, dw = window.dilation
    return t // (kh * kw) * dd, t // kw % kh * dh, t % kw * dw


@kernel
def _rows_pair16(first, last, field, window, weights, out):
    sd, sh, sw = window.stride
    od, oh, ow = window.out
    taps, channels = weights.shape
    for pixel in range(first, last):
        w, h = pixel % ow * sw, pixel // ow % oh * sh
        d, n = pixel // (ow * oh) % od * sd, pixel // (ow * oh * od)
        for c in range(channels):
            out[pixel, c] = 0
        for t in range(0, taps - 1, 2):
            d0, h0, w0 = _tap(window, t)
            d1, h1, w1 = _tap(window, t + 1)
            x0, x1 = field[n, d + d0, h + h0, w + w0], field[n, d + d1, h + h1, w + w1]
            for c in range(channels):
                pair = np.int32(x0[c]) * np.int32(weights[t, c]) + np.int32(x1[c]) * np.int32(weights[t + 1, c])
                out[pixel, c] += min(max(pair, -32768), 32767)
        if taps % 2 == 1:
            d0, h0, w0 = _tap(window, taps - 1)
            x0 = field[n, d + d0, h + h0, w + w0]
            for c in range(channels):
                out[pixel, c] += np.int32(x0[c]) * np.int32(weights[taps - 1, c])


def depthwise_pair16_s32(x, w, *, stride, padding, x_zero):
    """Convolve each channel as FBGEMM's depthwise kernel does, which saturates pairs of products to int16.

    The taps in raster order are paired, (0, 1), (2, 3), …; each pair's ``x * w + x * w`` of raw codes saturates to
    int16, the pairs add up in int32, and an odd last tap is added alone. No zero point is subtracted.

    Parameters
    ----------
    x : ndarray of uint8, (N, IC, *spatial)
    w : ndarray of int8, (OC, 1, *kernel)
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
    geometry = make_geometry(x.shape[2:], w.shape[2:], stride, padding, (1,) * (x.ndim - 2))
    channels = w.shape[0]
    field = make_field(x, geometry.padding, x_zero, channels // max(x.shape[1], 1))
    out, memory = channels_last_output(x.shape[0], geometry, channels, np.int32)
    if out.size:
        pixels = field.data[: int(np.prod(field.shape))].reshape(field.shape)
        weights = as_input(w.reshape(channels, -1).T)
        rows = memory.reshape(-1, channels)
        parallel_for(_rows_pair16, rows.shape[0], pixels, geometry, weights, rows, grain=64)
    return out
