"""Bilinear interpolation of float32 images, as ATen's kernels for few points or many channels compute it."""

import numpy as np

from refquant.core.fma import fma32

__all__ = ["bilinear"]

_F = np.float32
# Order in which the four products are added: in whole steps of eight channels, and in the rest.
_BODY, _TAIL, _STEP = (2, 3, 1, 0), (1, 0, 2, 3), 8


def bilinear(x, rows, columns):
    """Return ``w0·a + w1·b + w2·c + w3·d`` of the four points around each output: the first product rounded, the others fused, in the order of ATen's vectors.

    Parameters
    ----------
    x : ndarray of float32, (N, C, H, W)
    rows, columns : Line
        With indices rounded once.

    Source
    ------
    PyTorch 2.13 ATen/native/cpu/UpSampleKernel.cpp, ``cpu_upsample_linear_channels_last``.

    Examples
    --------
    >>> from refquant.ops.real.line import Line
    >>> x = np.float32([[[[0, 1], [2, 3]]]])
    >>> bilinear(x, *[Line(2, 3, None, True, "fma")] * 2)[0, 0].tolist()
    [[0.0, 0.5, 1.0], [1.0, 1.5, 2.0], [2.0, 2.5, 3.0]]
    """
    upper, lower = x[:, :, rows.low], x[:, :, rows.high]
    points = [part[..., at] for part in (upper, lower) for at in (columns.low, columns.high)]
    weights = [np.broadcast_to(v * h, points[0].shape) for v in (rows.w0[:, None], rows.w1[:, None]) for h in (columns.w0, columns.w1)]
    split = x.shape[1] // _STEP * _STEP
    return np.concatenate([_chain(points, weights, order, part) for order, part in ((_BODY, slice(split)), (_TAIL, slice(split, None)))], axis=1)


def _chain(points, weights, order, part):
    first, *others = order
    total = weights[first][:, part] * points[first][:, part]
    for i in others:
        total = fma32(np.ascontiguousarray(weights[i][:, part]), np.ascontiguousarray(points[i][:, part]), total)
    return total
