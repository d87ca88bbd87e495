"""Products of two activations: which arithmetic TensorFlow Lite's resolvers and OpenVINO take, and what they do not offer."""

import itertools

import numpy as np
import pytest

import refquant as rq
from refquant import numerics
from refquant.errors import UnsupportedError
from refquant.ops.matmul import matmul, matmul_reference
from refquant.verify import build, case_stream, oracle


def factors(a_zero=0, b_zero=0, k=33, seed=0):
    rng = np.random.default_rng(seed)
    codes = lambda *shape: rng.integers(-128, 128, shape).astype(np.int8)  # noqa: E731
    return rq.QTensor(codes(2, 30, k), rq.QParams(0.02, a_zero, "int8")), rq.QTensor(codes(2, k, 31), rq.QParams(0.03, b_zero, "int8"))


OUT = rq.QParams(0.11, -5, "int8")


def exact(a, b, out):
    """Half to even of the real sum, in Python's integers as far as they go."""
    acc = (a.values.astype(np.int64) - a.qparams.zero_point) @ (b.values.astype(np.int64) - b.qparams.zero_point)
    return acc * (a.qparams.scale * b.qparams.scale) / out.scale + out.zero_point


@pytest.mark.parametrize("profile", ["tflite_ref", "tflite_opt", "xnnpack", "openvino"])
@pytest.mark.parametrize("zeros", [(0, 0), (5, 0), (0, -7), (5, -7)])
def test_codes_lie_next_to_the_real_product(profile, zeros):
    a, b = factors(*zeros)
    if profile == "openvino" and any(zeros):
        with pytest.raises(UnsupportedError, match="dequantizes and sums in float32; use zero points of 0"):
            matmul(a, b, out=OUT, numerics=profile)
        return
    y, real = matmul(a, b, out=OUT, numerics=profile).values, exact(a, b, OUT)
    inside = (real > -128) & (real < 127)
    assert np.all(np.abs(y - real)[inside] <= 0.51) and np.array_equal(y, matmul_reference(a, b, out=OUT, numerics=profile).values)


def _differing(one, other, symmetric):
    """Outputs of default cases of the first profile, and how many the second gives otherwise."""
    total = differing = 0
    for case in itertools.islice(case_stream("matmul", one, seed=2), 60):
        problem = build(case)
        if (problem["b"].qparams.zero_point == 0) != symmetric or case.outputs > 5000:
            continue
        ref, comp = oracle(problem, one), oracle(problem, other)
        total, differing = total + ref.size, differing + int(np.count_nonzero(ref != comp))
    return total, differing


def test_the_delegate_takes_a_second_factor_without_zero_point_alone():
    for symmetric in (True, False):
        total, differing = _differing("xnnpack", "tflite_ref", symmetric)
        assert total > 1_000 and bool(differing) == symmetric
    linear = numerics.get("tflite_ref").replace(matmul=numerics.get("tflite_ref").linear)
    assert _differing("tflite_ref", linear, False)[1] and _differing("tflite_ref", "tflite_opt", False)[1] == 0


def test_pairs_saturate_in_openvino_below_vnni():
    a, b = rq.QTensor(np.full((1, 2), 255, np.uint8), rq.QParams(1.0, 0, "uint8")), rq.QTensor(np.full((2, 1), 127, np.int8), rq.QParams(1.0, 0, "int8"))
    out = rq.QParams(1000.0, 0, "uint8")
    assert [int(matmul(a, b, out=out, numerics=name).values[0, 0]) for name in ("openvino", "openvino@avx2")] == [65, 33]


@pytest.mark.parametrize("profile", ["tflite_ref", "xnnpack", "openvino"])
def test_what_they_do_not_offer(profile):
    a, b = factors()
    with pytest.raises(UnsupportedError, match="without a bias; leave it out"):
        matmul(a, b, np.zeros(31, np.int32), out=OUT, numerics=profile)
    columns = rq.QTensor(b.values, rq.QParams(np.full(31, 0.03), np.zeros(31, int), "int8", axis=2))
    with pytest.raises(UnsupportedError, match="without parameters of columns"):
        matmul(a, columns, out=OUT, numerics=profile)
    with pytest.raises(UnsupportedError, match="give out"):
        matmul(a, b, numerics=profile)


def test_openvino_dequantizes_before_it_chooses():
    total = differing = 0
    for case in itertools.islice(case_stream("where", "openvino", seed=2), 40):
        problem = build(case)
        ref, comp = oracle(problem, "openvino"), oracle(problem, "onnxruntime")
        total, differing = total + ref.size, differing + int(np.count_nonzero(ref != comp))
    assert total > 10_000 and differing
