"""Bilinear interpolation on codes alone: TensorFlow Lite's and XNNPACK's in integers, ONNX Runtime's in float32, cut off."""

import numpy as np

from refquant.core.rounding import Round, round_real, round_shift

__all__ = ["code_bilinear"]

_F = np.float32
_ONE = 1 << 10


def _ten_bits(n, size, factor, align_corners):
    """Points and weights in units of 2**-10, source positions of half pixels; reference/resize_bilinear.h, ComputeInterpolationValuesInteger."""
    places = np.arange(size)
    if align_corners:
        step = (_ONE * (n - 1) + (size - 1) // 2) // (size - 1) if size > 1 else (_ONE * n + size // 2) // size
        at = places * step
    else:
        step = (_ONE * n + size // 2) // size
        at = places * step + step // 2 - _ONE // 2
    low = np.maximum(at, 0) // _ONE
    high = np.minimum(np.maximum(at + _ONE - 1, 0) // _ONE, n - 1)
    far = at - _ONE * low
    return low, high, _ONE - far, far


def _eleven_bits(n, size, factor, align_corners):
    """Points, and the second point's weight in units of 2**-11; XNNPACK src/indirection.c, xnn_indirection_init_resize_bilinear2d_hwc_q11."""
    places = np.arange(size).astype(_F)
    if align_corners and size > 1:
        at = places * (_F(n - 1) / _F(size - 1))
    else:
        step = _F(n) / _F(size)
        at = places * step
        if not align_corners:
            at = np.minimum(np.maximum(at + (step * _F(0.5) - _F(0.5)), _F(0)), _F(n - 1))
    low = at.astype(np.int64)
    far = round_real((at - low.astype(_F)) * _F(2048), Round.HALF_EVEN).astype(np.int64)
    return low, np.minimum(low + 1, n - 1), 2048 - far, far


def _quotients(n, size, factor, align_corners):
    """Points and weights of positions that are quotients; ONNX Runtime upsamplebase.h, SetupUpsampleBilinear."""
    places = np.arange(size).astype(_F)
    if align_corners:
        at = places * _F(n - 1) / _F(size - 1) if size > 1 else places * _F(0)
    else:
        at = (places + _F(0.5)) / (_F(factor) if factor else _F(size) / _F(n)) - _F(0.5)
    at = np.maximum(_F(0), np.minimum(at, _F(n - 1)))
    low = np.minimum(at.astype(np.int64), n - 1)
    high = np.minimum(low + 1, n - 1)
    alone = low == high
    near, far = (np.where(alone, _F(0.5), np.abs(at - v.astype(_F))) for v in (high, low))
    return low, high, near, far


_LINES = {"ten_bits": _ten_bits, "eleven_bits": _eleven_bits, "truncated": _quotients}


def code_bilinear(style, codes, size, factors, align_corners):
    """Return interpolated codes (N, C, H, W) as integers.

    Examples
    --------
    >>> for style in ("ten_bits", "eleven_bits", "truncated"):
    ...     print(code_bilinear(style, np.array([[[[0, 7]]]], np.uint8), (1, 4), (None, None), False).ravel())
    [0 2 5 7]
    [0 2 5 7]
    [0 1 5 7]
    """
    rows, columns = (_LINES[style](n, o, f, align_corners) for n, o, f in zip(codes.shape[2:], size, factors))
    x = codes.astype(_F if style == "truncated" else np.int64)
    a, b, c, d = (x[:, :, r][..., k] for r in rows[:2] for k in columns[:2])
    (h0, h1), (w0, w1) = (v[:, None] for v in rows[2:]), columns[2:]
    if style == "truncated":
        return (((w0 * h0 * a + w1 * h0 * b) + w0 * h1 * c) + w1 * h1 * d).astype(np.int64)
    total = (a * w0 + b * w1) * h0 + (c * w0 + d * w1) * h1
    return round_shift(total, 20, Round.HALF_AWAY) if style == "ten_bits" else round_shift(total, 22, Round.HALF_UP)
