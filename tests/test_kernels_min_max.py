"""Least and greatest: NumPy = vectors, with NaN in every place, in any memory order, on any number of threads."""

import numpy as np
import pytest
from test_kernels_witness import assert_same

from refquant.kernels.jit import get_num_threads, jit_disabled, set_num_threads
from refquant.kernels.min_max import min_max, min_max_channels

needs_jit = pytest.mark.skipif(jit_disabled(), reason="with the JIT off both sides are NumPy")


def check(x, case):
    ref = np.array([x.min(), x.max()])
    comp = np.array(min_max(x))
    assert_same(ref, comp, case)


@needs_jit
def test_every_length_and_a_nan_in_every_place():
    rng = np.random.default_rng(0)
    for n in (*range(1, 20), 63, 64, 65, 127, 128, 129, 200):
        x = rng.standard_normal(n).astype(np.float32)
        check(x, n)
        check(-np.abs(x), n)
        for i in range(n):
            y = x.copy()
            y[i] = np.nan
            check(y, (n, i))
            for least_or_greatest in (-np.inf, np.inf):
                y[i] = least_or_greatest
                check(y, (n, i))


@needs_jit
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_parts_and_memory(threads):
    rng, before = np.random.default_rng(1), get_num_threads()
    set_num_threads(threads)
    try:
        for shape in ((300_001,), (3, 5, 7), (16, 64, 30, 31)):
            x = rng.standard_normal(shape).astype(np.float32)
            for view in (x, x.T, x[..., ::-1], np.moveaxis(x, 0, -1)):
                view.flags.writeable = False
                check(view, (shape, view.strides))
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
def test_channels(threads):
    rng, before = np.random.default_rng(2), get_num_threads()
    set_num_threads(threads)
    try:
        for shape in ((3,), (5, 7), (2, 3, 4), (4, 65, 3, 7), (2, 70_000), (70_000, 3)):
            x = rng.standard_normal(shape).astype(np.float32)
            x.reshape(-1)[:: x.size // 3 + 1] = np.nan
            for axis in range(-1, x.ndim):
                others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
                for view in (x, np.asfortranarray(x), x[..., ::-1]):
                    low, high = min_max_channels(view, axis)
                    ref = view.min(axis=others), view.max(axis=others)
                    assert_same(ref[0], low, (shape, axis))
                    assert_same(ref[1], high, (shape, axis))
    finally:
        set_num_threads(before)
