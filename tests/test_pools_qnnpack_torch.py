"""Pools, means and sums under QNNPACK beside PyTorch: which its kernels take, which go to ATen's own, and what lies outside of the image."""

from itertools import islice

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

import refquant as rq  # noqa: E402
from refquant.backends import load  # noqa: E402
from refquant.backends.machine import profile_here  # noqa: E402
from refquant.backends.torch_tensors import engine  # noqa: E402
from refquant.core.layout import to_channels_last  # noqa: E402
from refquant.ops import max_pool  # noqa: E402
from refquant.verify import Problem, Status, case_stream, try_case  # noqa: E402

QPARAMS = {"uint8": rq.QParams(0.0371, 131, "uint8"), "int8": rq.QParams(0.0371, 3, "int8")}
DEFECT = profile_here("qnnpack").replace("qnnpack", "qnnpack+nearest_pixels")


def pair(channels, last, dtype="uint8", sides=(12, 12)):
    q = QPARAMS[dtype]
    x = np.random.default_rng(channels).integers(q.qmin, q.qmax + 1, (3, channels, *sides)).astype(dtype)
    theirs = torch._make_per_tensor_quantized_tensor(torch.from_numpy(x), q.scale, q.zero_point)
    if last:
        return rq.QTensor(to_channels_last(x), q), theirs.contiguous(memory_format=torch.channels_last)
    return rq.QTensor(x, q), theirs


def differing(ours, function, *arguments):
    with engine("qnnpack"):
        return int((ours.values != function(*arguments).int_repr().numpy()).sum())


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [8, 21])
@pytest.mark.parametrize("arguments", [(2, 2, 0, True), (3, 2, 1, True, True), (3, 2, 1, True, False), (5, 3, 0, True, True, 7), (2, 2), (3, 1, 1, False, False), (3, 2, 1, False, True, 7), ((3, 2), (4, 5), (1, 0))])
def test_windows(arguments, channels, last, dtype):
    x, theirs = pair(channels, last, dtype)
    ours = rq.ops.avg_pool2d(x, *arguments, numerics=profile_here("qnnpack"))
    assert differing(ours, torch.nn.functional.avg_pool2d, theirs, *arguments) == 0


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [8, 21])
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, (4, 5), (3, 6), (6, 1), 12, 17])
def test_parts(size, channels, last, dtype):
    x, theirs = pair(channels, last, dtype)
    ours = rq.ops.adaptive_avg_pool2d(x, size, numerics=profile_here("qnnpack"))
    assert differing(ours, torch.nn.functional.adaptive_avg_pool2d, theirs, size) == 0


@pytest.mark.parametrize("side", ["yes", "no"])
@pytest.mark.parametrize("dtype, ceil", [("uint8", False), ("uint8", True), ("int8", False)])
def test_one_kernel_for_all_windows_would_differ(side, dtype, ceil):
    """Planted: a profile that has one of the two forms alone."""
    profile = rq.numerics.get(profile_here("qnnpack"))
    one, wrong = profile.replace(avg_pool=getattr(profile.avg_pool, side)), (side == "yes") != (dtype == "uint8" and not ceil)
    x, theirs = pair(8, False, dtype)
    found = differing(rq.ops.avg_pool2d(x, 2, 2, 0, ceil, numerics=one), torch.nn.functional.avg_pool2d, theirs, 2, 2, 0, ceil)
    assert bool(found) == wrong


MAXIMA = [(2, 1, 1, 2), (3, 1, 1, 2), (2, 1, 1, 3), (3, 2, 1, 2), ((2, 3), 1, (1, 0), (2, 1)), (2, 1, 1, 2, True), (3, 1, 1, 1), (2, 1, 0, 2), (3, (4, 5), 1), ((5, 4), 3, (2, 1), (1, 2))]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("arguments", MAXIMA)
def test_maxima(arguments, channels, last, dtype):
    """The variant is what the engine does, the profile the same but for uint8 with both padding and dilation and without ceil_mode."""
    x, theirs = pair(channels, last, dtype)
    for function in (rq.ops.max_pool2d, max_pool.max_pool2d_reference):
        assert differing(function(x, *arguments, numerics=DEFECT), torch.nn.functional.max_pool2d, theirs, *arguments) == 0
        meant = function(x, *arguments, numerics=profile_here("qnnpack"))
        same = differing(meant, torch.nn.functional.max_pool2d, theirs, *arguments) == 0
        padding, dilation, ceil = (*arguments[2:], 1, False)[:3] if len(arguments) == 3 else (*arguments[2:], False)[:3]
        outside = dtype == "uint8" and not ceil and any(p and d > 1 for p, d in zip(np.broadcast_to(padding, 2), np.broadcast_to(dilation, 2)))
        assert same == (not outside)
        np.testing.assert_array_equal(meant.values, function(x, *arguments, numerics="fbgemm").values)


@pytest.mark.parametrize("arguments", [(2, 1, 1, 2), (3, 2, 1, 2), (2, 1, 0, 3), (3, 2, 1), (2, 1, 1, 2, True)])
def test_maxima_of_sequences(arguments):
    q, x = QPARAMS["uint8"], np.random.default_rng(4).integers(0, 256, (3, 5, 12)).astype(np.uint8)
    theirs = torch._make_per_tensor_quantized_tensor(torch.from_numpy(x), q.scale, q.zero_point)
    ours = rq.ops.max_pool1d(rq.QTensor(x, q), *arguments, numerics=DEFECT)
    assert differing(ours, torch.nn.functional.max_pool1d, theirs, *arguments) == 0


@pytest.mark.parametrize("op", ["max_pool1d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"])
def test_default_cases_draw_what_decides(op):
    """Both kernels, and the defect where there is one, within the first 120 cases."""
    runner = load("qnnpack")
    trials = [try_case(runner, case) for case in islice(case_stream(op, runner.profile, seed=3), 120)]
    assert not any(t.outcome.status is Status.DIFFERENT for t in trials)
    explained = {t.outcome.detail for t in trials if t.outcome.status is Status.EXPLAINED}
    assert explained == ({DEFECT} if op.startswith("max") else set())
    told = [t.case for t in trials if t.outcome.status is Status.EXACT]
    assert any(c.has("int8") for c in told) and any(not c.has("int8") for c in told)
    if op == "adaptive_avg_pool2d":
        assert any(c["o"] not in (1, (1, 1)) and even(c) for c in told) and any(not even(c) and not c.has("int8") for c in told)
    else:
        assert any(c.has("ceil") and not c.has("int8") for c in told)


@pytest.mark.parametrize("dim", [(2, 3), (-2, -1), (3, 2), (2, -1), [2, 3]])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_means_of_images_by_the_names_of_their_axes(dim, dtype):
    """QNNPACK takes axes that are called (2, 3); planted: whichever it does not take has other bits by the other formula."""
    x, theirs = pair(40, False, dtype, (4, 6))
    ours = rq.ops.mean(x, dim, numerics=profile_here("qnnpack"))
    assert differing(ours, torch.mean, theirs, dim) == 0
    other = rq.ops.mean(x, (-2, -1) if tuple(dim) == (2, 3) else (2, 3), numerics=profile_here("qnnpack"))
    assert bool(differing(other, torch.mean, theirs, dim)) == (dtype == "uint8")


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_sums(dtype, activation):
    """Planted: QNNPACK's sum of int8, ATen's of uint8."""
    (a, one), (b, other) = pair(5, False, dtype), pair(6, False, dtype)
    b, other = rq.QTensor(np.ascontiguousarray(b.values[:, :5]), b.qparams), other[:, :5].contiguous()
    out, call = rq.QParams(2 * a.qparams.scale, 9, dtype), torch.ops.quantized.add_relu if activation else torch.ops.quantized.add
    profile = rq.numerics.get(profile_here("qnnpack"))
    for side in ("yes", "no"):
        ours = rq.ops.add(a, b, out=out, numerics=profile.replace(add=getattr(profile.add, side)), activation=activation)
        assert bool(differing(ours, call, one, other, out.scale, out.zero_point)) == ((side == "yes") != (dtype == "uint8"))
    assert differing(rq.ops.add(a, b, out=out, numerics=profile, activation=activation), call, one, other, out.scale, out.zero_point) == 0


@pytest.mark.parametrize("op", ["hardswish", "hardsigmoid", "softmax"])
def test_what_would_end_the_process_is_refused(op):
    empty = rq.QTensor(np.zeros((0, 3), np.uint8), QPARAMS["uint8"])
    assert "ends the process" in load("qnnpack").supports(Problem(op, {"x": empty, "out": QPARAMS["uint8"]}))


def even(case):
    return not any(n % o for n, o in zip((case["h"], case["w"]), np.broadcast_to(case["o"], 2)))
