"""OpenVINO where a range takes in more than scales: the bias of a single output, and means that come out as a list of numbers."""

import numpy as np
import pytest

import refquant as rq
from refquant.ops import range_stage
from refquant.verify import Problem, oracle

ROWS = 129
SHAPES = {"linear": ((ROWS, 3), (1, 3)), "conv1d": ((1, 3, ROWS), (1, 3, 1)), "conv2d": ((1, 3, ROWS, 1), (1, 3, 1, 1)),
          "conv3d": ((1, 3, ROWS, 1, 1), (1, 3, 1, 1, 1)), "conv_transpose2d": ((1, 3, ROWS, 1), (3, 1, 1, 1))}  # fmt: skip


def single_output(op, dtype, zero, relu, seed):
    """A product whose sums with the bias lie on or beside ties: a few of them make a step."""
    rng = np.random.default_rng(seed)
    low = -128 if dtype == "int8" else 0
    sx, sy = np.float32(rng.uniform(0.02, 0.3, 2))
    sw = np.float32(sy / rng.integers(2, 7) / sx)
    sw = (sw, np.nextafter(sw, np.float32(9)), np.nextafter(sw, np.float32(0)))[seed % 3]
    x_shape, w_shape = SHAPES[op]
    x, w = rng.integers(low, low + 256, x_shape).astype(dtype), rng.integers(-6, 7, w_shape).astype(np.int8)
    bias = np.float32([float(rng.integers(-20, 20)) * sy])
    return Problem(op, {
        "x": rq.QTensor(x, rq.QParams(float(sx), low + int(rng.integers(1, 256)) if zero else 0, dtype)),
        "w": rq.QTensor(w, rq.QParams(float(sw), 0, "int8")), "bias": bias,
        "out": rq.QParams(float(sy), low + int(rng.integers(0, 256)), dtype), **({"activation": "relu"} if relu else {}),
    })  # fmt: skip


def differing(engine, problems):
    return sum(int((engine.run(p) != oracle(p, engine.profile)).sum()) for p in problems if engine.supports(p) is None)


@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("op, zero", [(op, zero) for op in SHAPES for zero in (False, True) if op != "conv_transpose2d" or not zero])
def test_the_bias_of_a_single_output_moves_the_range(engine, op, zero, monkeypatch):
    problems = [single_output(op, ("uint8", "int8")[seed % 2], zero, seed % 4 == 3, seed) for seed in range(12)]
    assert differing(engine, problems) == 0
    monkeypatch.setattr(range_stage, "_in_range", lambda layer: range_stage._sum(layer))
    assert differing(engine, problems) > 0


def mean_of(shape, dim, keepdim, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(254, 256, shape).astype(np.uint8) if seed % 2 else rng.integers(0, 256, shape).astype(np.uint8)
    return Problem("mean", {"x": rq.QTensor(x, rq.QParams(float(np.float32(rng.uniform(0.001, 0.3))), int(rng.integers(200, 256)), "uint8")), "dim": dim, "keepdim": keepdim})


@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("shape, dim, keepdim", [
    ((200, 4), (1,), True), ((200, 4), (1,), False), ((4, 200), (0,), True), ((4, 200), (0,), False),
    ((2, 64, 2), (0, 2), False), ((64, 2, 2), (1, 2), True), ((64, 2, 2, 2), (1, 2, 3), False), ((64, 2, 2, 2), (1, 2, 3), True),
])  # fmt: skip
def test_a_mean_with_axes_of_its_own_is_fused_with_its_quantization(engine, shape, dim, keepdim):
    problems = [mean_of(shape, dim, keepdim, seed) for seed in range(16)]
    assert sum(engine.supports(p) is None for p in problems) == len(problems)
    assert differing(engine, problems) == 0


def test_both_ways_of_a_mean_differ():
    """Of a list of numbers the quantization stands apart: an axis of length one changes bits."""
    kept, dropped = ([oracle(mean_of((2000, 4), (1,), keepdim, 2 * seed), "openvino").ravel() for seed in range(24)] for keepdim in (True, False))
    assert any((a != b).any() for a, b in zip(kept, dropped))


@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
def test_means_over_two_of_three_axes_stay_empty_unless_kept(engine):
    problem = lambda keepdim, zero: Problem("mean", {"x": rq.QTensor(np.full((3, 4, 6), 4, np.uint8), rq.QParams(1.0, zero, "uint8")), "dim": (1, 2), "keepdim": keepdim})  # noqa: E731
    assert engine.run(problem(True, 3)).ravel().tolist() == engine.run(problem(False, 0)).tolist() == [4, 4, 4]
    assert engine.run(problem(False, 3)).tolist() != [4, 4, 4]
    assert "further rows empty" in engine.supports(problem(False, 3)) and engine.supports(problem(True, 3)) is None and engine.supports(problem(False, 0)) is None


@pytest.mark.parametrize("engine", ["onnxruntime"], indirect=True)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_onnx_runtime_copies_images_of_the_same_size_whatever_the_factor(engine, mode, last):
    x = np.random.default_rng(0).integers(0, 256, (2, 9, 6, 6)).astype(np.uint8)
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if last else x
    problem = Problem("interpolate", {"x": rq.QTensor(x, rq.QParams(0.5, 7, "uint8")), "mode": mode, "scale_factor": (1.0166666666666666, 1.1166666666666667)})
    assert np.array_equal(engine.run(problem), x) and np.array_equal(oracle(problem, engine.profile), x)
