"""Drawn shapes and far numbers: what they draw, and what they found, each held against the engine or a slow sum."""

import math
from itertools import islice

import numpy as np
import pytest

import refquant as rq
from refquant import backends
from refquant.core.affine import quantize_real
from refquant.core.layout import to_channels_last
from refquant.ops.real import resize
from refquant.verify import STREAMS, Case, Problem, build, oracle
from refquant.verify.case_outputs import elements_of
from refquant.verify.far import far
from refquant.verify.wide_stream import wide_stream

DRAWN = [op for op in STREAMS if "pool" not in op]
HUGE = np.array([1e9, 2147483500.0, 2.2e9, 3e9, 1e10, 1e15, 9e18, 9.3e18, 1e20, 1e25], np.float32)


def drawn(op, count, seed=0):
    """The drawn cases alone: every third one."""
    return [case for i, case in enumerate(islice(wide_stream(op, "fbgemm", seed=seed), 3 * count)) if i % 3 == 2]


@pytest.mark.parametrize("op", DRAWN)
def test_drawn_cases_are_lines_that_come_back(op):
    cases = drawn(op, 12)
    assert [Case.parse(str(case)) for case in cases] == cases == drawn(op, 12)
    assert sum(case.has("far") for case in cases) == 6
    assert all(0 < case.outputs <= 200_000 and elements_of(case) <= 800_000 for case in cases)
    assert len({case.shape for case in cases}) > 6


def test_pools_are_not_drawn():
    cases = list(islice(wide_stream("max_pool2d", "fbgemm"), 60))
    assert {case.shape for case in cases} <= {Case.parse(f"max_pool2d/any/{text}/random/seed=0").shape for text in (*STREAMS["max_pool2d"].small, *STREAMS["max_pool2d"].large)}


def _each(case, letter):
    value = case[letter]
    return value if isinstance(value, tuple) else (value, value)


@pytest.mark.parametrize(
    "op, what",
    [
        ("conv2d", lambda case: any(s > k for s, k in zip(_each(case, "s"), _each(case, "k")))),
        ("conv2d", lambda case: len(set(_each(case, "p"))) > 1 and len(set(_each(case, "s"))) > 1),
        ("conv2d", lambda case: case["g"] > 1 and case["c"] // case["g"] in (2, 3)),
        ("conv2d", lambda case: case["c"] == case["g"] > 1 and case["oc"] > case["c"]),
        ("conv2d", lambda case: any(d * (k - 1) + 1 > n for d, k, n in zip(_each(case, "d"), _each(case, "k"), (case["h"], case["w"])))),
        ("conv2d", lambda case: 1 in _each(case, "k") and max(_each(case, "k")) > 2),
        ("conv_transpose2d", lambda case: any(_each(case, "op")) and max(_each(case, "d")) > 1),
        ("linear", lambda case: case["k"] == 1),
        ("linear", lambda case: case["k"] > 4000),
        ("matmul", lambda case: isinstance(case["b"], tuple)),
        ("add", lambda case: case["n"] > 70_000),
        ("mean", lambda case: case["r"] == sum(n > 0 for letter, n in case.shape if letter != "r")),
        ("group_norm", lambda case: case["g"] == case["c"] > 1),
        ("cat", lambda case: isinstance(case["c"], tuple) and len(case["c"]) > 3),
    ],
)
def test_what_no_list_has_is_drawn(op, what):
    assert any(what(case) for case in drawn(op, 250, seed=1))
    assert not any(what(case.replace(shape=Case.parse(f"{op}/any/{STREAMS[op].small[0]}/random/seed=0").shape)) for case in drawn(op, 1))


def test_far_problems_have_far_numbers():
    rng, plain = np.random.default_rng(0), build("conv2d/fbgemm/n1c3h5w5-oc64k3/neartie/seed=1/per_channel")
    seen = [far(plain, rng) for _ in range(200)]
    spans = [math.log10(p["w"].qparams.scale.max() / p["w"].qparams.scale.min()) for p in seen]
    assert max(spans) > 10 and {p["x"].qparams.zero_point for p in seen} >= {0, 255}
    assert any(np.abs(p["bias"]).max() > 1e29 for p in seen)
    assert any((p["x"].values == 255).all() for p in seen) and any((p["x"].values == 0).all() for p in seen)
    roots = [far(build("sqrt/tflite_ref/n63/saturate/seed=3/int8/rescale"), rng)["x"] for _ in range(50)]
    assert len({x.qparams.zero_point for x in roots}) > 2 and all(x.values.min() >= x.qparams.zero_point for x in roots)
    assert build("mul_scalar/fbgemm/n9/random/seed=1/far")["x"].qparams == build("mul_scalar/fbgemm/n9/random/seed=1")["x"].qparams


@pytest.mark.parametrize("numerics", ["fbgemm", "qnnpack", "onnxruntime", "inductor"])
def test_a_mean_of_everything_has_no_axes(numerics):
    x = rq.QTensor(np.arange(6, dtype=np.uint8).reshape(2, 3), rq.QParams(1.0, 0, "uint8"))
    y = rq.ops.mean(x, (0, 1), numerics=numerics).values
    assert y.shape == () and y in (2, 3)
    assert rq.ops.mean(x, (0, 1), True, numerics=numerics).values.shape == (1, 1)


def codes_of(v, zero, low, high, tail):
    """ATen's rounding of large numbers, in Python's integers: a step adds the zero point in 32 bits, the elements behind it in 64."""
    bits = 64 if tail else 32
    whole = int(np.rint(np.float64(v))) if np.isfinite(v) else 2**bits
    whole = whole if -(2 ** (bits - 1)) <= whole < 2 ** (bits - 1) else -(2 ** (bits - 1))
    total = (whole + zero + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    return min(max(total, low), high)


def product(dtype, zero, count=73):
    """A product whose quotients, a step of 64 and nine elements, leave int32 and int64, and another one each side."""
    a = rq.QTensor(np.resize(np.array([1, 2, 3, 100], dtype), count), rq.QParams(1.0, 2, dtype))
    return [Problem("mul", {"a": a, "b": rq.QTensor(a.values[::-1].copy(), rq.QParams(float(m), 1, dtype)), "out": rq.QParams(1.0, zero, dtype), "activation": None}) for m in HUGE]


ZEROS = [("uint8", 0), ("uint8", 127), ("uint8", 128), ("uint8", 255), ("int8", -128), ("int8", -1), ("int8", 5)]


@pytest.mark.parametrize("dtype, zero", ZEROS)
def test_products_beyond_int32_are_those_of_integers(dtype, zero):
    low, high = (0, 255) if dtype == "uint8" else (-128, 127)
    for problem in product(dtype, zero):
        a, b = (problem[name].values.astype(int) - problem[name].qparams.zero_point for name in "ab")
        v = (a * b).astype(np.float32) * np.float32(problem["b"].qparams.scale)
        ref = [codes_of(number, zero, low, high, i >= 64) for i, number in enumerate(v)]
        assert oracle(problem, "fbgemm").tolist() == ref


def test_the_int32_sum_is_told_from_a_saturating_one():
    kw = {"scaling": "reciprocal", "add": "after", "rounding": "half_even"}
    v, apart = np.float32([3e9, -3e9]), []
    for overflow in ("saturate", "wrap", "long"):
        apart.append(quantize_real(v, 1.0, 200, 0, 255, overflow=overflow, **kw).tolist() + quantize_real(v, 1.0, -100, -128, 127, overflow=overflow, **kw).tolist())
    assert apart[1] != apart[0] == apart[2] == [255, 0, 127, -128] and apart[1] == [0, 0, 127, 127]


@pytest.mark.engine
@pytest.mark.parametrize("name", ["fbgemm", "qnnpack"])
@pytest.mark.parametrize("dtype, zero", ZEROS)
def test_numbers_beyond_int32_are_pytorchs(name, dtype, zero):
    pytest.importorskip("torch")
    engine = backends.load(name)
    edges = np.concatenate([HUGE, -HUGE, [np.inf, -np.inf, np.nan]]).astype(np.float32)
    bias = np.concatenate([edges, edges, edges[::-1]])
    codes, one = np.zeros((2, bias.size, 1, 1), dtype), np.ones(bias.size, np.float32)
    out = rq.QParams(1.0, zero, dtype)
    x = rq.QTensor(codes, rq.QParams(1.0, 0, dtype))
    problems = [Problem("batch_norm", {"x": x, "mean": 0 * one, "var": one, "eps": 0.0, "weight": one, "bias": bias, "out": out, "activation": None}), *product(dtype, zero)]
    wide = rq.QTensor(np.arange(2 * 37 * 3).astype(np.uint8).view(dtype).reshape(2, 37, 3, 1), rq.QParams(3e9, 9, dtype))
    problems += [Problem("prelu", {"x": wide, "weight": rq.QTensor(np.arange(n).astype(dtype), rq.QParams(s, 2, dtype)), "out": out}) for n in (1, 37) for s in (0.1, 1e9, 1e30)]
    if name == "fbgemm":
        problems.append(Problem("add", {"a": wide, "b": wide, "out": out, "activation": None}))
    tensors = tuple(rq.QTensor(to_channels_last(wide.values), rq.QParams(scale, 9, dtype)) for scale in (3e9, 1e7, 1e20))
    problems.append(Problem("cat", {"tensors": tensors, "dim": 1, "out": out, "activation": None}))
    for problem in problems:
        ref, comp = engine.run(problem), oracle(problem, engine.profile)
        assert np.array_equal(ref, comp) and np.array_equal(comp, oracle(problem, engine.profile, reference=True)), problem.op


@pytest.mark.engine
@pytest.mark.parametrize("a, b", [((2, 3, 4, 5), (2, 3, 1, 1)), ((2, 3, 1, 1), (2, 3, 4, 5)), ((4, 1), (5,)), ((2, 1, 4, 1), (1, 3, 1, 5))])
def test_products_broadcast_as_pytorchs(a, b):
    pytest.importorskip("torch")
    engine, rng = backends.load("fbgemm"), np.random.default_rng(0)
    u, v = (rq.QTensor(rng.integers(0, 256, shape).astype(np.uint8), rq.QParams(2.0**-4, 9, "uint8")) for shape in (a, b))
    problem = Problem("mul", {"a": u, "b": v, "out": rq.QParams(2.0**-1, 7, "uint8"), "activation": None})
    assert np.array_equal(engine.run(problem), oracle(problem, engine.profile))
    with pytest.raises(rq.errors.UnsupportedError, match="how the engine loops"):
        rq.ops.mul(u, v, out=rq.QParams(1e-12, 7, "uint8"), numerics="fbgemm")


@pytest.mark.engine
@pytest.mark.parametrize("shape", [(2, 1, 4, 8), (1, 8, 1, 1), (3, 4, 1, 3), (2, 3, 2, 2), (5, 6, 3, 2)])
@pytest.mark.parametrize("groups", [1, None])
def test_normalizations_of_one_channel_or_point_are_channels_last(shape, groups):
    """Of contiguous tensors of one channel or of 1x1 images PyTorch takes the channels-last kernel."""
    pytest.importorskip("torch")
    engine, rng, size = backends.load("fbgemm"), np.random.default_rng(3), shape[1]
    for _ in range(30):
        x = rq.QTensor(rng.integers(0, 256, shape).astype(np.uint8), rq.QParams(0.0056, 128, "uint8"))
        lines = {name: rng.normal(0, 1, size).astype(np.float32) for name in ("weight", "bias")}
        problem = Problem("group_norm", {"x": x, **lines, "eps": 1e-5, "out": rq.QParams(0.0038, 129, "uint8"), "num_groups": groups or size})
        assert engine.supports(problem) is None
        assert np.array_equal(engine.run(problem), oracle(problem, engine.profile))


@pytest.mark.engine
def test_what_engines_leave_undefined_is_refused_by_name():
    pytest.importorskip("torch")
    q = rq.QParams(0.1, 3, "uint8")
    norm = Problem("instance_norm", {"x": rq.QTensor(np.zeros((3, 4, 1, 2), np.uint8), q), "eps": 1e-5, "out": q})
    assert backends.load("fbgemm").supports(norm) is None
    norm = Problem("instance_norm", {"x": rq.QTensor(to_channels_last(np.zeros((3, 4, 1, 2), np.uint8)), q), "eps": 1e-5, "out": q})
    assert "as many images as a group has elements" in backends.load("fbgemm").supports(norm)
    assert "ratios of scales" in backends.load("qnnpack").supports(Problem("add", {"a": norm["x"], "b": norm["x"], "out": rq.QParams(1e-6, 0, "uint8")}))
    linear = dict(build("linear/qnnpack/m2k3n4/random/seed=1").arguments)
    assert backends.load("qnnpack").supports(Problem("linear", linear)) is None
    assert "a bias beyond int32" in backends.load("qnnpack").supports(Problem("linear", {**linear, "bias": np.full(4, 1e30, np.float32)}))
    assert "positive, finite and normal" in backends.load("qnnpack").supports(Problem("linear", {**linear, "out": rq.QParams(1e38, 0, "uint8"), "bias": None}))


@pytest.mark.engine
def test_sums_of_many_neighbours_wrap_in_xnnpack():
    pytest.importorskip("ai_edge_litert")
    engine, q = backends.load("xnnpack"), rq.QParams(1.0, 0, "int8")
    means = {n: Problem("mean", {"x": rq.QTensor(np.full((2, n), -128, np.int8), q), "dim": 1, "keepdim": False}) for n in (8192, 16384)}
    assert engine.supports(means[8192]) is None and np.array_equal(engine.run(means[8192]), oracle(means[8192], "xnnpack"))
    assert "in 16 bits, which wrap" in engine.supports(means[16384])
    assert oracle(means[16384], "xnnpack").tolist() == [-128, -128] != engine.run(means[16384]).tolist()
    far_off = Problem("requantize", {"x": means[8192]["x"], "out": rq.QParams(1e-9, 0, "int8")})
    assert "which C++ leaves undefined" in backends.load("tflite_opt").supports(far_off)


@pytest.mark.engine
@pytest.mark.parametrize("factor", [(1.05, 2.3), (2.3, 1.05), (1.009, 0.3), (0.55, 1.1)])
@pytest.mark.parametrize("last", [False, True])
def test_a_side_that_keeps_its_length_goes_without_its_factor(factor, last):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 7)).astype(np.float32)
    y = torch.nn.functional.interpolate(torch.from_numpy(x).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format), scale_factor=factor, mode="bilinear").numpy()
    codes = x.astype(np.uint8)
    q = rq.QTensor(to_channels_last(codes) if last else codes, rq.QParams(1.0, 0, "uint8"))
    z = rq.ops.interpolate(q, scale_factor=factor, mode="bilinear", numerics="inductor").values
    assert np.array_equal(z, np.rint(y)) and y.shape[2:] != x.shape[2:] and 7 in y.shape[2:]
    assert np.abs(resize.interpolate(x, scale_factor=factor, mode="bilinear") - y).max() < 1e-4


@pytest.mark.parametrize("op", ["sigmoid", "tanh", "hardsigmoid", "gelu", "relu6"])
@pytest.mark.parametrize("numerics", ["fbgemm", "qnnpack", "onnxruntime"])
def test_a_function_of_a_number_has_no_axes(op, numerics):
    x = rq.QTensor(np.array(9, np.uint8), rq.QParams(0.1, 3, "uint8"))
    assert getattr(rq.ops, op)(x, numerics=numerics).values.shape == ()


def test_without_elements_nothing_is_computed():
    out = rq.QParams(0.1, 3, "uint8")
    x, none = rq.QTensor(np.zeros((2, 0), np.uint8), out), np.zeros(0, np.float32)
    assert rq.ops.layer_norm(x, (0,), out=out).shape == rq.ops.batch_norm(x, none, none, out=out).shape == (2, 0)
    assert rq.ops.mean(x, 0).shape == (0,)


@pytest.mark.engine
def test_padding_of_grouped_volumes_is_counted_otherwise_by_openvino():
    pytest.importorskip("openvino")
    engine = backends.load("openvino")
    line = "conv3d/openvino/n1c{}t4h5w5-oc{}k2p1g2/neartie/seed=1/nobias"
    odd, whole = (build(line.format(*channels)) for channels in ((4, 6), (16, 16)))
    assert "counted otherwise" in engine.supports(odd) and engine.supports(whole) is None
    assert np.array_equal(engine.run(whole), oracle(whole, engine.profile))
    assert not np.array_equal(engine.run(odd), oracle(odd, engine.profile))


@pytest.mark.engine
def test_dynamic_layers_of_qnnpack_have_a_bias_within_int32():
    pytest.importorskip("torch")
    line = "conv2d_dynamic/qnnpack/n1c32h11w14-oc32s5p1x4d1x2g32k3/neartie/seed=12/per_channel/narrow"
    assert "beyond int32" in backends.load("qnnpack").supports(Problem("conv2d_dynamic", {**build(line).arguments, "bias": np.full(32, 1e30, np.float32)}))
    assert backends.load("qnnpack").supports(build(line)) is None
