"""Sums and maxima over windows, beside plain loops in Python integers."""

import numpy as np
import pytest

from refquant.core.layout import is_channels_last, to_channels_last
from refquant.kernels.pool import max_windows, sum_windows


def _codes(shape, dtype, seed):
    kind = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(kind.min, kind.max + 1, shape).astype(dtype)


_LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": to_channels_last,
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=1), 2, axis=3)[:, ::2, :, ::2],
    "read-only": lambda x: _frozen(x.copy()),
}


def _frozen(x):
    x.setflags(write=False)
    return x


@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 5, 4), (1, 7, 3, 3), (2, 16, 6, 5), (1, 33, 1, 1), (0, 3, 2, 2)])
def test_sums(shape, dtype, layout):
    x = _LAYOUTS[layout](_codes(shape, dtype, 1))
    h, w = shape[2:]
    rows = np.array([0, h // 2, h]), np.array([h, h, h])
    columns = np.array([0, w // 3]), np.array([max(1, w // 2), w])
    got = sum_windows(x, rows, columns)
    assert got.shape == (*shape[:2], 3, 2) and is_channels_last(got) == (is_channels_last(x) and bool(x.size))
    for i, (r0, r1) in enumerate(zip(*rows)):
        for j, (c0, c1) in enumerate(zip(*columns)):
            for n in range(shape[0]):
                for c in range(shape[1]):
                    assert got[n, c, i, j] == sum(int(v) for v in x[n, c, r0:r1, c0:c1].ravel())


@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (2, 5, 7, 6), (1, 40, 9, 5)])
def test_maxima(shape, dtype, layout):
    x = _LAYOUTS[layout](_codes(shape, dtype, 2))
    taps, stride, padding, dilation = (3, 2), (2, 1), (1, 1), (1, 2)
    size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(shape[2:], taps, stride, padding, dilation))
    got = max_windows(x, taps, stride, padding, dilation, size)
    assert got.dtype == dtype and is_channels_last(got) == is_channels_last(x)
    for n, c, i, j in np.ndindex(got.shape):
        h = [i * 2 - 1 + a for a in range(3) if 0 <= i * 2 - 1 + a < shape[2]]
        w = [j - 1 + 2 * b for b in range(2) if 0 <= j - 1 + 2 * b < shape[3]]
        assert got[n, c, i, j] == max(int(x[n, c, a, b]) for a in h for b in w)
