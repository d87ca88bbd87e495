"""Factors that leave a size as it is, or double it: PyTorch's float32 kernels then go without the factor, but for the nearest centre."""

import itertools

import numpy as np
import pytest

import refquant as rq
from refquant.ops import interpolate
from refquant.ops.real import resize

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine
# Sides of 6 become 6 or 12 by each, by the factor alone from other points.
FACTORS = ((1.1166666666666667, 1.1166666666666667), (1.1, 1.0), (1.0, 1.0), (2.075, 2.15), (1.15, 2.0), (2.1, 1.5))


@pytest.mark.parametrize("mode, last, channels", list(itertools.product(("nearest", "nearest-exact", "bilinear"), (False, True), (1, 3, 16))))
@pytest.mark.parametrize("factor", FACTORS)
def test_as_pytorch(mode, last, channels, factor):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, channels, 6, 6)).astype(np.float32))
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    y = torch.nn.functional.interpolate(x, scale_factor=factor, mode=mode).numpy()
    if mode != "bilinear" or y.shape == x.shape:
        q = rq.QTensor(x.numpy().astype(np.uint8), rq.QParams(1.0, 0, "uint8"))
        assert np.array_equal(interpolate(q, scale_factor=factor, mode=mode, numerics="inductor").values, y)
    if mode == "nearest" or mode == "bilinear" and y.shape == x.shape:
        assert np.array_equal(resize.interpolate(x.numpy(), scale_factor=factor, mode=mode), y)


def test_the_factor_would_give_others():
    """Were it taken: 11 times the inverse of 2.15 is 5.1, but of 6 columns doubled the last one is that of place 5 after 5, 5.5."""
    places = np.arange(12).astype(np.float32) * np.float32(1 / 2.15)
    assert (places.astype(int) != np.arange(12) // 2).any()
    x = rq.QTensor(np.arange(36, dtype=np.uint8).reshape(1, 1, 6, 6), rq.QParams(1.0, 0, "uint8"))
    float32, codes = (interpolate(x, scale_factor=(2.15, 2.15), numerics=name).values for name in ("inductor", "fbgemm"))
    assert (float32 != codes).any()
