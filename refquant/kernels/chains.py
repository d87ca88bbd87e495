"""Compiled sums over taps, each in one stated order.

    x        flat float32       the padded input; row m of a product begins at base[m], its tap t lies offsets[t] further
    w        [T][OC]            float32, one row a tap, in the order of the sum
    y        [rows][OC]         float32

Each kernel stands alone and calls no other: rows are independent, so threads change nothing.
"""

import numpy as np

from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.scalar import fused_multiply_add

__all__ = ["chained_rows", "summed_rows", "chained_channels", "summed_channels", "lane_rows", "row_means", "scale_shift"]

_GRAIN = 64


@kernel
def _chained_rows(start, stop, x, base, offsets, w, bias, segments, bias_first, y):
    """Chains of fused multiply-adds: ``((S0 + bias) + S1) + …``, each segment from +0; or the first from the bias."""
    channels = y.shape[1]
    acc = np.empty(channels, np.float32)
    for m in range(start, stop):
        origin = base[m]
        for o in range(channels):
            y[m, o] = bias[o]
        for s in range(len(segments) - 1):
            from_bias = bias_first and s == 0
            for o in range(channels):
                acc[o] = bias[o] if from_bias else np.float32(0)
            for t in range(segments[s], segments[s + 1]):
                a = x[origin + offsets[t]]
                for o in range(channels):
                    acc[o] = fused_multiply_add(a, w[t, o], acc[o])
            for o in range(channels):
                y[m, o] = acc[o] if from_bias else acc[o] + y[m, o]


@kernel
def _summed_rows(start, stop, x, base, offsets, w, bias, y):
    """Exact products, summed tap by tap in float64, then the bias, then one rounding to float32."""
    channels = y.shape[1]
    acc = np.empty(channels, np.float64)
    for m in range(start, stop):
        origin = base[m]
        for o in range(channels):
            acc[o] = 0.0
        for t in range(len(offsets)):
            a = np.float64(x[origin + offsets[t]])
            for o in range(channels):
                acc[o] = acc[o] + a * np.float64(w[t, o])
        for o in range(channels):
            y[m, o] = np.float32(acc[o] + np.float64(bias[o]))


@kernel
def _chained_channels(start, stop, x, base, offsets, w, bias, y):
    """Depthwise: pixel `base[m]` of x [pixels][C] and its taps, one chain a channel, from the bias."""
    channels = y.shape[1]
    for m in range(start, stop):
        for c in range(channels):
            y[m, c] = bias[c]
        for t in range(len(offsets)):
            pixel = base[m] + offsets[t]
            for c in range(channels):
                y[m, c] = fused_multiply_add(x[pixel, c], w[t, c], y[m, c])


@kernel
def _summed_channels(start, stop, x, base, offsets, w, bias, y):
    """Depthwise: exact products summed in float64, then the bias, then one rounding to float32."""
    channels = y.shape[1]
    acc = np.empty(channels, np.float64)
    for m in range(start, stop):
        for c in range(channels):
            acc[c] = 0.0
        for t in range(len(offsets)):
            pixel = base[m] + offsets[t]
            for c in range(channels):
                acc[c] = acc[c] + np.float64(x[pixel, c]) * np.float64(w[t, c])
        for c in range(channels):
            y[m, c] = np.float32(acc[c] + np.float64(bias[c]))


@kernel
def _lane_rows(start, stop, x, w, bias, y):
    """Products and sums rounded apart, in 4 lanes for whole groups of 4 outputs and in 8 for the rest; lanes are added by halving."""
    size, outputs = x.shape[1], y.shape[1]
    lane = np.empty(8, np.float32)
    for m in range(start, stop):
        for o in range(outputs):
            lanes = 4 if o < outputs // 4 * 4 else 8
            whole = size // lanes * lanes
            for i in range(lanes):
                lane[i] = np.float32(0)
            for t in range(0, whole, lanes):
                for i in range(lanes):
                    lane[i] = lane[i] + x[m, t + i] * w[o, t + i]
            half = lanes // 2
            while half >= 1:
                for i in range(half):
                    lane[i] = lane[i] + lane[i + half]
                half //= 2
            total = lane[0]
            for t in range(whole, size):
                total = total + x[m, t] * w[o, t]
            y[m, o] = total + bias[o]


@kernel
def _row_means(start, stop, x, y):
    """Means of rows as ATen sums a contiguous inner axis of fewer than 512: 8 lanes × 4 accumulators, the tail first."""
    n = x.shape[1]
    lane = np.empty(8, np.float32)
    for r in range(start, stop):
        total = np.float32(0)
        if n < 4:
            for t in range(n):
                total = total + x[r, t]
        elif n < 8:
            total = x[r, 0]
            for t in range(4, n):
                total = total + x[r, t]
            total = ((total + x[r, 1]) + x[r, 2]) + x[r, 3]
        else:
            steps = n // 8
            for k in range(8):
                p0, p1, p2, p3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for i in range(steps // 4):
                    p0 = p0 + x[r, i * 32 + k]
                    p1 = p1 + x[r, i * 32 + 8 + k]
                    p2 = p2 + x[r, i * 32 + 16 + k]
                    p3 = p3 + x[r, i * 32 + 24 + k]
                for i in range(steps // 4 * 4, steps):
                    p0 = p0 + x[r, i * 8 + k]
                lane[k] = ((p0 + p1) + p2) + p3
            for t in range(steps * 8, n):
                total = total + x[r, t]
            for k in range(8):
                total = total + lane[k]
        y[r] = total / np.float32(n)


@kernel
def _scale_shift(start, stop, x, scale, shift, y):
    for n in range(start, stop):
        for c in range(x.shape[1]):
            for t in range(x.shape[2]):
                y[n, c, t] = fused_multiply_add(x[n, c, t], scale[c], shift[c])


def chained_rows(x, base, offsets, w, bias, segments, bias_first):
    """Return [rows][OC]: chains of fused multiply-adds over the taps, cut at `segments`."""
    y = np.empty((len(base), w.shape[1]), np.float32)
    parallel_for(_chained_rows, len(base), x, base, offsets, w, bias, np.array(segments, np.int64), bias_first, y, grain=_GRAIN)
    return y


def summed_rows(x, base, offsets, w, bias):
    """Return [rows][OC]: sums in float64, rounded once."""
    y = np.empty((len(base), w.shape[1]), np.float32)
    parallel_for(_summed_rows, len(base), x, base, offsets, w, bias, y, grain=_GRAIN)
    return y


def chained_channels(x, base, offsets, w, bias):
    """Return [rows][C]: depthwise chains of fused multiply-adds."""
    y = np.empty((len(base), w.shape[1]), np.float32)
    parallel_for(_chained_channels, len(base), x, base, offsets, w, bias, y, grain=_GRAIN)
    return y


def summed_channels(x, base, offsets, w, bias):
    """Return [rows][C]: depthwise sums in float64, rounded once."""
    y = np.empty((len(base), w.shape[1]), np.float32)
    parallel_for(_summed_channels, len(base), x, base, offsets, w, bias, y, grain=_GRAIN)
    return y


def lane_rows(x, w, bias):
    """Return ``x @ w.T + bias`` without fused operations, in lanes."""
    y = np.empty((len(x), len(w)), np.float32)
    parallel_for(_lane_rows, len(x), x, w, bias, y, grain=_GRAIN)
    return y


def row_means(x):
    """Return the means of the rows of a float32 matrix."""
    y = np.empty(len(x), np.float32)
    parallel_for(_row_means, len(x), x, y, grain=_GRAIN)
    return y


def scale_shift(x, scale, shift):
    """Return ``fma(x, scale[c], shift[c])`` of an (N, C, S) array."""
    y = np.empty_like(x)
    parallel_for(_scale_shift, len(x), x, scale, shift, y, grain=4)
    return y
