"""Pools under QNNPACK beside PyTorch: which windows its kernels take, which go to ATen's own, and what lies outside of the image."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

import refquant as rq  # noqa: E402
from refquant.backends.machine import profile_here  # noqa: E402
from refquant.backends.torch_tensors import engine  # noqa: E402
from refquant.core.layout import to_channels_last  # noqa: E402
from refquant.ops import avg_pool, max_pool  # noqa: E402

QPARAMS = rq.QParams(0.0371, 131, "uint8")


def pair(channels, last):
    x = np.random.default_rng(channels).integers(0, 256, (3, channels, 12, 12)).astype(np.uint8)
    theirs = torch._make_per_tensor_quantized_tensor(torch.from_numpy(x), QPARAMS.scale, QPARAMS.zero_point)
    if last:
        return rq.QTensor(to_channels_last(x), QPARAMS), theirs.contiguous(memory_format=torch.channels_last)
    return rq.QTensor(x, QPARAMS), theirs


def differing(ours, function, *arguments):
    with engine("qnnpack"):
        return int((ours.values != function(*arguments).int_repr().numpy()).sum())


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [8, 21])
@pytest.mark.parametrize("arguments", [(2, 2, 0, True), (3, 2, 1, True, True), (3, 2, 1, True, False), (5, 3, 0, True, True, 7), (2, 2), (3, 1, 1, False, False)])
def test_windows(arguments, channels, last):
    x, theirs = pair(channels, last)
    ours = rq.ops.avg_pool2d(x, *arguments, numerics=profile_here("qnnpack"))
    assert differing(ours, torch.nn.functional.avg_pool2d, theirs, *arguments) == 0


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [8, 21])
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, (4, 5), (3, 6), (6, 1), 12])
def test_parts(size, channels, last):
    x, theirs = pair(channels, last)
    ours = rq.ops.adaptive_avg_pool2d(x, size, numerics=profile_here("qnnpack"))
    assert differing(ours, torch.nn.functional.adaptive_avg_pool2d, theirs, size) == 0


def test_qnnpacks_kernel_for_all_windows_would_differ(monkeypatch):
    monkeypatch.setattr(avg_pool, "_aten_form", lambda profile, section: getattr(profile, section))
    x, theirs = pair(8, False)
    assert differing(rq.ops.avg_pool2d(x, 2, 2, 0, True, numerics=profile_here("qnnpack")), torch.nn.functional.avg_pool2d, theirs, 2, 2, 0, True)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("arguments", [(2, 1, 1, 2), (3, 1, 1, 2), (2, 1, 1, 3), (3, 2, 1, 2), ((2, 3), 1, (1, 0), (2, 1)), (2, 1, 1, 2, True), (3, 1, 1, 1), (2, 1, 0, 2)])
def test_maxima(arguments, channels, last):
    x, theirs = pair(channels, last)
    for function in (rq.ops.max_pool2d, max_pool.max_pool2d_reference):
        ours = function(x, *arguments, numerics=profile_here("qnnpack"))
        assert differing(ours, torch.nn.functional.max_pool2d, theirs, *arguments) == 0


def test_maxima_without_repeated_edges_would_differ(monkeypatch):
    monkeypatch.setattr(max_pool, "_with_edges_repeated", lambda g, values: (g, values))
    x, theirs = pair(8, False)
    assert differing(rq.ops.max_pool2d(x, 2, 1, 1, 2, numerics=profile_here("qnnpack")), torch.nn.functional.max_pool2d, theirs, 2, 1, 1, 2)
