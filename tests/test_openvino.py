"""OpenVINO's profile: a range cut into steps, by a slow witness; what the profile leaves out says so; planted faults are found."""

import itertools
import sys
from fractions import Fraction

import numpy as np
import pytest
import witness

import refquant as rq
from refquant import backends, numerics
from refquant.core.range_steps import range_codes, range_of, steps_of
from refquant.errors import UnsupportedError
from refquant.ops.support import Support, support
from refquant.verify import Case, Problem, build, campaign, case_stream, mutants, oracle, try_case

OPS = ("quantize", "dequantize", "linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d", "add", "mul", "cat", "adaptive_avg_pool2d", "leaky_relu", "hardswish", "prelu", "mean", "avg_pool3d", "interpolate")


def slow_code(x, scale, zero, qmin, qmax):
    """The affine map in fractions, rounded to float32 after every step."""
    f = lambda v: Fraction(float(np.float32(float(v))))  # noqa: E731
    assert f(scale) == scale
    low, high = f(scale * (qmin - zero)), f(scale * (qmax - zero))
    step = f(Fraction(255) / f(high - low))
    shift = f(-low * step)
    inside = min(max(x, low), high)
    small = Fraction(float(np.float32(1e-4)))
    if qmin < 0 and abs(f(shift - 128)) < small and abs(f(f(low * step) + 128)) <= small and abs(f(f(high * step) - 127)) <= small:
        return witness.clip(witness.half_even(f(inside * step)), qmin, qmax)
    return witness.clip(witness.half_even(f(f(inside * step) + shift)), 0, 255) + qmin


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_quantize_by_a_slow_witness(dtype):
    rng = np.random.default_rng(3)
    for zero in (*range(*((0, 256, 51) if dtype == "uint8" else (-128, 128, 32))), 0):
        scale = float(np.float32(rng.uniform(0.001, 0.3)))
        q = rq.QParams(scale, zero, dtype)
        x = ((rng.integers(-300, 300, 80) + 0.5) * np.float32(scale)).astype(np.float32)
        ref = [slow_code(Fraction(float(v)), Fraction(scale), zero, q.qmin, q.qmax) for v in x]
        np.testing.assert_array_equal(rq.quantize(x, q, numerics="openvino").values, ref)


def test_int8_around_zero_has_no_shift():
    steps = steps_of(*range_of(0.1, 0, -128, 127))
    x = np.float32([0.05, 0.15, 0.25, -0.05, np.nan])
    both = [range_codes(x, steps, -128, 127, reduced=reduced).tolist() for reduced in (True, False)]
    assert both[0][-1] == both[1][-1] == -128
    far = (np.arange(-128, 127) + 0.5).astype(np.float32) * np.float32(0.1)
    assert np.any(range_codes(far, steps, -128, 127) != range_codes(far, steps, -128, 127, reduced=False))


def test_it_is_not_the_formula_of_onnx():
    x = (np.arange(-64, 64) + 0.5).astype(np.float32) * np.float32(0.1)
    q = rq.QParams(0.1, 77, "uint8")
    assert 0 < np.sum(rq.quantize(x, q, numerics="openvino").values != rq.quantize(x, q, numerics="onnxruntime").values) < 128


@pytest.mark.parametrize("op", [op for op in OPS if op.startswith(("linear", "conv"))])
def test_the_reference_agrees_with_the_kernels(op):
    compared = 0
    for case, _ in zip(case_stream(op, "openvino"), range(30)):
        problem = build(case)
        try:
            fast = oracle(problem, "openvino")
        except UnsupportedError:
            continue
        np.testing.assert_array_equal(fast, oracle(problem, "openvino", reference=True))
        compared += 1
    assert compared > 8


LEFT_OUT = {
    "conv2d/openvino/n1c4h4w4-oc3s2/random/seed=0": "kernel of 1",
    "conv2d/openvino/n1c8h6w6-oc8k3g4/random/seed=1/int8": "groups of int8",
    "conv2d/openvino/n1c300h4w4-oc3k3/random/seed=1/int8": "2\\*\\*24",
    "linear/openvino/m3k4n2/random/seed=0/asymmetric": "weights are int8 with zero points",
    "linear/openvino/m3k4n2/random/seed=0/float": "runs in float32",
    "conv_transpose2d/openvino/n1c8h5w5-oc8k3/random/seed=0": "dequantizes and computes in float32",
    "interpolate/openvino/n1c3h8w8-o9/random/seed=0/exact": "nearest centre",
    "adaptive_avg_pool3d/openvino/n1c3t4h8w8-o2/random/seed=0": "globally only",
    "cat/openvino/n1h2w2-c3x2/random/seed=2/relu": "ReLU behind a concatenation",
}


def with_zero_points(problem):
    """The same problem with a zero point of 5 everywhere."""
    def moved(v):
        if isinstance(v, rq.QTensor) and not v.qparams.per_channel and v is not problem.get("w"):
            return rq.QTensor(v.values, moved(v.qparams))
        if isinstance(v, tuple):
            return tuple(moved(u) for u in v)
        return rq.QParams(v.scale, 5, v.dtype) if isinstance(v, rq.QParams) else v

    return Problem(problem.op, {name: moved(value) for name, value in problem.arguments.items()})


@pytest.mark.parametrize("line", LEFT_OUT)
def test_what_is_left_out_says_so(line):
    with pytest.raises(UnsupportedError, match=LEFT_OUT[line]):
        oracle(with_zero_points(build(line)), "openvino")


def test_a_range_that_float32_loses_is_refused():
    x = rq.QTensor(np.full((1, 4), 200, np.uint8), rq.QParams(1.0, 255, "uint8"))
    w = rq.QTensor(np.full((2, 4), 127, np.int8), rq.QParams(1.0, 0, "int8"))
    with pytest.raises(UnsupportedError, match="lost in float32.*larger output scale"):
        rq.ops.linear(x, w, out=rq.QParams(1e-6, 3, "uint8"), numerics="openvino")


#: Changed fields that give the same codes in all default cases; their values stand in OpenVINO's sources.
SAME = {"adaptive_avg_pool.reduced", "adaptive_avg_pool.shift", "quantize_channel.reduced", "conv.drift", "conv.plain", "linear.float_sums", "linear.plain", "linear.drift", "linear.contraction",
        "conv_transpose.zero_point", "conv_transpose.float_sums", "conv_transpose.drift", "conv_transpose.plain", "bilinear.reduced"}


@pytest.mark.parametrize("op", OPS)
def test_a_changed_field_is_found(op):
    left = [m for m in mutants("openvino", op) if f"{m.section}.{m.field}" not in SAME and not m.section.endswith("_real")]
    assert left
    cases = itertools.chain(*(itertools.islice(case_stream(op, "openvino", seed=seed), 200) for seed in (0, 5, 9)))
    for case in cases:
        if not left:
            return
        if case.outputs > 70_000:
            continue
        problem = build(case)
        left = [m for m in left if answer(problem, m.profile) in (answer(problem, "openvino"), None)]
    assert [str(m) for m in left] == []


def answer(problem, profile):
    try:
        return oracle(problem, profile).tobytes()
    except UnsupportedError:
        return None


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("line, node", [
    ("conv2d/openvino/n1c16h8w8-oc16k3p1/random/seed=0", {"": "brgconv_avx512_I8", "avx2": "jit_avx2_I8"}),
    ("conv2d/openvino/n1c8h8w8-oc8k3p1g8/random/seed=0/int8", {"": "brgconv_avx512_dw", "avx2": "brgconv_avx2_dw_f32"}),
    ("conv2d/openvino/n1c6h8w8-oc6k3p1g2/random/seed=0", {"": "", "avx2": "jit_gemm_I8"}),
    ("linear/openvino/m8k32n16/random/seed=0", {"": "brgemm_avx512_I8", "avx2": "jit_gemm_I8"}),
])  # fmt: skip
def test_the_kernel_of_a_product(engine, line, node):
    assert engine.node_precision(build(line)).startswith(node[engine.profile.partition("@")[2]])


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("op, section, change", [
    ("add", "add", {"contraction": "fma"}), ("quantize", "quantize", {"shift": "quotient"}), ("linear", "linear", {"bias": "sum"}),
    ("conv2d", "conv", {"bias": "shift"}), ("cat", "cat", {"contraction": "fma"}),
])  # fmt: skip
def test_a_planted_fault_is_found_by_the_engine(engine, op, section, change):
    class Impostor:
        name, profile = engine.name, numerics.get(engine.profile).replace(**{section: change})
        describe, supports, run = engine.describe, engine.supports, engine.run

    assert campaign(Impostor(), op, outputs=60_000).differing


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
def test_bfloat16_does_not_reach_integers(engine):
    """The default hint of this CPU would be bfloat16; products between codes keep their bits."""
    line = f"conv2d/{engine.profile}/n1c16h9w9-oc16k3p1/neartie/seed=3/per_channel"
    assert try_case(engine, line).comparison.exact
    small = engine._models["conv2d"](build(line))
    compiled = engine.compile(small.model, INFERENCE_PRECISION_HINT="bf16", INFERENCE_NUM_THREADS=2)
    np.testing.assert_array_equal(compiled(list(small.feeds.values()))[0], oracle(build(line), engine.profile))


def test_the_engine_is_in_the_table():
    assert "openvino" in backends.names()


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("za, zb", [(0, 0), (3, 0), (0, 3), (-7, 3)])
def test_the_second_scale_moves_through_a_product_where_its_zero_point_is_zero(engine, za, zb):
    rng = np.random.default_rng(1)
    told = 0
    for seed in range(8):
        sa, sb = (float(np.float32(rng.uniform(0.01, 0.5))) for _ in "ab")
        out = rq.QParams(float(np.float32(sa * sb * 2.0 ** rng.integers(2, 9) / rng.choice([1, 3, 5]))), int(rng.integers(-128, 128)), "int8")
        a, b = (rq.QTensor(rng.integers(-128, 128, 2000).astype(np.int8), rq.QParams(s, z, "int8")) for s, z in ((sa, za), (sb, zb)))
        problem = Problem("mul", {"a": a, "b": b, "out": out})
        bits = engine.run(problem)
        assert np.array_equal(bits, oracle(problem, "openvino"))
        moved = rq.QTensor(b.values, rq.QParams(sb, 0 if zb else 1, "int8"))
        told += not np.array_equal(bits, oracle(Problem("mul", {"a": a, "b": moved, "out": out}), "openvino"))
    assert told


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("op, change", [("linear", {"linear": "exact"}), ("conv2d", {"conv": "exact"}), ("conv2d", {"conv": "onednn"}), ("conv3d", {"conv": "fbgemm"})])
def test_other_pairs_are_found_by_the_engine(engine, op, change):
    """Without VNNI a product of other neighbours, or an exact one, shows."""
    profile = numerics.get(engine.profile)
    if profile.isa is None:
        pytest.skip("this processor has no saturating kernels")

    class Impostor:
        name = engine.name
        describe, supports, run = engine.describe, engine.supports, engine.run

    Impostor.profile = profile.replace(pairing=profile.pairing.replace(**change))
    assert campaign(Impostor(), op, outputs=200_000).differing


def test_groups_that_are_no_fours_lose_codes_beyond_int16():
    x = rq.QTensor(np.full((1, 6, 3, 3), 255, np.uint8), rq.QParams(1.0, 0, "uint8"))
    w = rq.QTensor(np.full((6, 3, 1, 1), 50, np.int8), rq.QParams(1.0, 0, "int8"))
    assert rq.ops.conv2d(x, w, groups=2, out=rq.QParams(2.0, 0, "uint8"), numerics="openvino@avx2").values.min() == 255
    with pytest.raises(UnsupportedError, match="beyond 32767 codes.*larger output scale"):
        rq.ops.conv2d(x, w, groups=2, out=rq.QParams(0.5, 0, "uint8"), numerics="openvino@avx2")


def test_padding_that_counts_is_code_zero():
    """An average of zeros beside padding, which the engine takes for the number of code 0."""
    x = rq.QTensor(np.full((1, 1, 2, 2), 100, np.uint8), rq.QParams(0.5, 100, "uint8"))
    pool = lambda name, counts: rq.ops.avg_pool2d(x, 2, 1, 1, count_include_pad=counts, numerics=name).values[0, 0]  # noqa: E731
    assert pool("openvino", True).tolist() == [[25, 50, 25], [50, 100, 50], [25, 50, 25]]
    assert set(pool("openvino", False).ravel().tolist()) == set(pool("onnxruntime", True).ravel().tolist()) == {100}


def test_a_limit_between_two_codes_is_cut_off():
    x = rq.QTensor(np.arange(0, 255, 5, dtype=np.uint8), rq.QParams(1.0, 100, "uint8"))
    limits = [rq.ops.clamp(x, -50.25, 20.75, numerics=name).values[[0, -1]].tolist() for name in ("openvino", "onnxruntime")]
    assert limits == [[49, 120], [50, 121]]


def test_dynamic_quantization_goes_by_the_width_of_the_range():
    x = np.float32([-7.5880036, 4.697336, 2.5])
    q, one = rq.ops.quantize_dynamic(x, numerics="openvino"), np.float32(1)
    width = x.max() - x.min()
    assert q.qparams.scale == width * (one / np.float32(255)) and q.qparams.zero_point == 158
    assert q.values.tolist() == np.minimum(np.rint((x * np.float32(255)) * (one / width)) + 158, 255).tolist()
    with pytest.raises(UnsupportedError, match="no normal float32"):
        rq.ops.quantize_dynamic(np.zeros(3, np.float32), numerics="openvino")


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("op", ["conv_transpose2d", "prelu", "clamp", "mean", "avg_pool3d", "interpolate", "quantize_dynamic", "softmax"])
def test_operators_beside_the_engine(engine, op):
    row = campaign(engine, op, outputs=4000)
    assert row.outputs >= 4000 and not row.differing


ABSENT = {
    "layer_norm": ("LayerNormalization", ("gain", "shift"), 8, {}, "RMS"),
    "instance_norm": ("InstanceNormalization", ("gain", "shift"), 16, {}, "MVN"),
    "group_norm": ("GroupNormalization", ("gain", "shift"), 16, {"num_groups": 4}, "MVN"),
    "linear_dynamic": ("MatMulInteger", (), 0, {}, "FullyConnected"),
    "conv2d_dynamic": ("ConvInteger", (), 0, {}, "Convolution"),
}


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("op", ABSENT)
def test_what_the_table_calls_absent_runs_in_float32(engine, op):
    """The engine reads such a model, and its own account of what it runs names a float kernel."""
    from refquant.backends.model_builder import ModelBuilder

    assert support(op, "openvino")[0] is Support.ABSENT
    node, names, size, attributes, layer = ABSENT[op]
    g, codes = ModelBuilder(), np.arange(2 * 16 * 8 * 8, dtype=np.int64).astype(np.uint8).reshape(2, 16, 8, 8)
    if names:
        parameters = [g.constant("s", np.float32(0.05)), g.constant("z", np.uint8(7))]
        real = g.node("DequantizeLinear", [g.feed("x", codes), *parameters], "real")
        constants = [g.constant(name, np.full(size, value, np.float32)) for name, value in zip(names, (1.5, 0.25))]
        g.node("QuantizeLinear", [g.node(node, [real, *constants], "f", **attributes), *parameters])
        small = g.model(np.uint8)
    else:
        w = np.ones((8, 3) if node == "MatMulInteger" else (3, 16, 3, 3), np.int8)
        g.node(node, [g.feed("x", codes), g.constant("w", w), g.constant("z", np.uint8(7)), g.constant("v", np.int8(0))])
        small = g.model(np.int32)
    compiled = engine.compile(small.model, INFERENCE_PRECISION_HINT="f32")
    about = [n.get_rt_info() for n in compiled.get_runtime_model().get_ordered_ops()]
    kernels = [a["primitiveType"].astype(str) for a in about if a["layerType"].astype(str) == layer]
    assert kernels and all(kernel.endswith("f32") for kernel in kernels)


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("shape, zero, refused", [((5, 4, 6), 3, True), ((4, 4, 6), 3, False), ((5, 4, 6), 0, False)])
def test_means_whose_further_rows_stay_empty_are_refused(engine, shape, zero, refused):
    x = rq.QTensor(np.full(shape, 100, np.uint8), rq.QParams(0.5, zero, "uint8"))
    problem = Problem("mean", {"x": x, "dim": (2,), "keepdim": False})
    why = engine.supports(problem)
    assert bool(why) == refused and (not refused or "rows empty" in why)
    if not refused:
        assert (np.asarray(engine.run(problem)) == 100).all()


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("op, shape, weights, settings", [
    ("conv2d", (2, 15, 6, 5), (13, 15, 1, 1), {}), ("conv1d", (1, 64, 9), (32, 64, 1), {}), ("conv3d", (1, 64, 3, 2, 4), (16, 64, 1, 1, 1), {}), ("conv2d", (1, 1, 4, 4), (3, 1, 1, 1), {}),
    ("conv2d", (1, 64, 6, 5), (16, 64, 1, 1), {"padding": 1}), ("conv2d", (1, 64, 6, 5), (16, 32, 1, 1), {"groups": 2}), ("conv2d", (1, 16, 6, 5), (16, 16, 3, 3), {"padding": 1}),
])  # fmt: skip
@pytest.mark.parametrize("most", [7, 127])
def test_signed_weights_are_halved_but_for_kernels_of_one(engine, op, shape, weights, settings, most):
    """On AVX2; with VNNI all is exact."""
    rng = np.random.default_rng(0)
    x = rq.QTensor(rng.integers(-128, 128, shape).astype(np.int8), rq.QParams(0.01, 0, "int8"))
    w = rq.QTensor(rng.integers(-most, most + 1, weights).astype(np.int8), rq.QParams(0.02, 0, "int8"))
    out = rq.QParams(float(np.float32(1.7e-4 * most * np.sqrt(np.prod(weights[1:])))), 0, "int8")
    problem = Problem(op, {"x": x, "w": w, "bias": None, "out": out, "activation": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, **settings})
    assert np.array_equal(engine.run(problem), oracle(problem, engine.profile))


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("line, windows", [
    ("avg_pool2d/openvino@avx2/n2c35h7w7-k3s2p1/neartie/seed=2000014/int8/rescale/nopad", True),
    ("adaptive_avg_pool2d/openvino@avx2/n6c29h4w6/neartie/seed=96/rescale", False), ("mean/openvino@avx2/n4c19h20w20/random/seed=258/middle", False),
])  # fmt: skip
def test_windows_are_averaged_by_an_inverse_and_images_by_a_quotient(engine, line, windows, monkeypatch):
    """Near ties that tell the two apart."""
    from refquant.ops.range_elementwise import range_mean

    problem = build(Case.parse(line))
    expected = engine.run(problem)
    assert np.array_equal(oracle(problem, engine.profile), expected)
    for name in ("avg_pool", "mean"):
        monkeypatch.setattr(sys.modules[f"refquant.ops.{name}"], "range_mean", lambda *args, **kept: range_mean(*args, windows=not windows))
    assert not np.array_equal(oracle(problem, engine.profile), expected)
