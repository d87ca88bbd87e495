"""Sums of codes 64 at a time, beside the plain loop."""

import numpy as np
import pytest

from refquant.kernels import elementwise
from refquant.kernels.elementwise import FMA, RealSum, bind_add_real
from refquant.kernels.wide import wide_vectors_run_here
from refquant.kernels.jit import jit_disabled
from refquant.kernels.sum_bytes import line_of

F = np.float32
needs_line = pytest.mark.skipif(jit_disabled() or not wide_vectors_run_here(), reason="the line is made of AVX-512 or AVX2")


def step(sa, za, sb, zb, so, zo, relu=False):
    sa, sb, factor = F(sa), F(sb), F(1) / F(so)
    return RealSum(
        sa, F(za), sa * F(-za), sb, F(zb), sb * F(-zb), F(0 if relu else -np.inf), factor, F(0), F(zo), F(0 - zo), F(255 - zo),
    )  # fmt: skip


def every_pair():
    a, b = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    return a.ravel()[:-5].copy(), b.ravel()[:-5].copy()


def both(numbers, monkeypatch):
    a, b = every_pair()
    fast, plain = np.empty_like(a), np.empty_like(a)
    bind_add_real(numbers, FMA, False)(a, b, fast)
    monkeypatch.setattr(elementwise, "line_of", lambda step: None)
    bind_add_real(numbers, FMA, False)(a, b, plain)
    monkeypatch.undo()
    return fast, plain


@needs_line
@pytest.mark.parametrize("relu", [False, True])
def test_every_pair_of_codes(relu, monkeypatch):
    rng = np.random.default_rng(0)
    for case in range(60):
        scales = [1, 1, 2] if case % 4 == 0 else 2.0 ** rng.uniform(-9, 3, 3)
        zeros = rng.choice([0, 1, 127, 128, 254, 255], 3)
        numbers = step(scales[0], zeros[0], scales[1], zeros[1], scales[2], zeros[2], relu)
        assert line_of(numbers) is not None
        fast, plain = both(numbers, monkeypatch)
        assert np.array_equal(fast, plain), (scales, zeros)


@needs_line
@pytest.mark.parametrize("change", [{"factor": F(1e12)}, {"factor": F(np.inf)}, {"sa": F(np.nan)}, {"inside": F(3)}, {"low": F(-300)}, {"high": F(400)}])
def test_what_does_not_fit_the_line(change, monkeypatch):
    numbers = step(0.5, 3, 0.25, 4, 0.5, 5)._replace(**change)
    assert line_of(numbers) is None


@needs_line
def test_a_wrong_limit_would_show(monkeypatch):
    numbers = step(0.5, 3, 0.25, 4, 0.125, 5)
    fast, _ = both(numbers._replace(high=numbers.high - 1), monkeypatch)
    _, plain = both(numbers, monkeypatch)
    assert not np.array_equal(fast, plain)
