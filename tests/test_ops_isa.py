"""``isa=``: products saturate as each engine's do on each processor level; fast path and reference give the same bits."""

import itertools

import numpy as np
import pytest

import refquant as rq
from refquant import numerics
from refquant.core.levels import LEVEL_NAMES
from refquant.errors import ArgumentError, UnsupportedError
from refquant.ops.conv import conv_reference
from refquant.verify import Problem, build, oracle
from refquant.verify.default_cases import case_stream

OPS = ("linear", "conv1d", "conv2d", "conv3d")
TRANSPOSED = (
    "conv_transpose2d/any/n1c6h5w6-oc6k3s2p1/pairs/seed=1", "conv_transpose2d/any/n2c5h4w5-oc5k2s2/pairs/seed=2/asymmetric", "conv_transpose2d/any/n1c8h4w4-oc8k3p1g2/pairs/seed=3",
    "conv_transpose1d/any/n1c7w9-oc7k3p1/pairs/seed=4/nobias", "conv_transpose3d/any/n1c4t3h3w4-oc4k2s2/pairs/seed=5", "conv_transpose2d/any/n1c6h5w5-oc6k3g6/pairs/seed=6",
    "conv_transpose2d/any/n1c8h4w4-oc8k2s2/pairs/seed=7", "conv_transpose2d/any/n1c3h5w4-oc3k3d2/pairs/seed=8/channels_last",
)  # fmt: skip
LEVELS = ("sse41", "avx2", "avx512", "avx512_vbmi", "amx_int8")
ENGINES = ("fbgemm", "onednn", "onnxruntime")
HERE = ("x86", "inductor", "qnnpack", *ENGINES)

# What the default cases have too little of: one channel, odd channels on a border that saturates, taps that pair across rows.
GEOMETRIES = (
    "conv2d/any/n2c1h9w9-oc6k3p1/pairs/seed=1/channels_last", "conv2d/any/n1c1h9w4-oc5k3p1/pairs/seed=2", "conv2d/any/n1c3h8w8-oc7k3p1/pairs/seed=3/per_channel",
    "conv2d/any/n1c1h8w9-oc3k3d2/pairs/seed=40", "conv2d/any/n1c8h7w7-oc16k3p2g8/pairs/seed=5", "conv2d/any/n2c10h6w6-oc4k3p1g2/pairs/seed=61/asymmetric",
    "conv2d/any/n1c6h9w9-oc6k3p1g6/pairs/seed=7/asymmetric", "conv1d/any/n2c5w31-oc6k3p1d2/pairs/seed=8", "conv2d/any/n1c1h6w9-oc4k1x5/pairs/seed=9",
    "conv2d/any/n1c4h8w8-oc8k3p1g2/pairs/seed=10/int8/nobias", "conv2d/any/n2c8h6w6-oc24k3p1g4/pairs/seed=11/relu", "linear/any/m3k259n6/pairs/seed=12/asymmetric/per_channel",
    "linear/any/m3k257n6/pairs/seed=13", "linear/any/m3k300n6/pairs/seed=3/int8", "linear/any/m4k258n3/pairs/seed=15/float",
)  # fmt: skip


def answer(problem, profile, reference=False):
    try:
        return oracle(problem, profile, reference=reference)
    except UnsupportedError as error:
        return str(error)


def same(problem, profile, case):
    fast, slow = answer(problem, profile), answer(problem, profile, reference=True)
    if isinstance(slow, str):
        assert fast == slow, case
        return False
    assert fast.dtype == slow.dtype and fast.shape == slow.shape, case
    fast, slow = np.ascontiguousarray(fast), np.ascontiguousarray(slow)
    assert np.array_equal(fast.view(np.uint8), slow.view(np.uint8)), (case, profile, int((fast != slow).sum()))
    return not np.array_equal(slow, oracle(problem, profile.partition("@")[0]))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("engine", ENGINES)
def test_fast_equals_reference(engine, op):
    told = 0
    for case in itertools.islice(case_stream(op, engine, seed=3), 14):
        if case["n"] * case["c" if op != "linear" else "k"] < (4000 if op != "conv3d" else 13):
            told += sum(same(build(case), f"{engine}@{level}", case) for level in LEVELS)
    assert told > 1, "the data saturate nothing"


@pytest.mark.parametrize("line", GEOMETRIES)
def test_odd_geometries(line):
    told = sum(same(build(line), f"{engine}@{level}", line) for engine in ENGINES for level in LEVELS)
    assert told


@pytest.mark.parametrize("line", TRANSPOSED)
def test_transposed_convolutions(line):
    problem = build(line)
    told = sum(same(problem, f"{name}@{level}", line) for name in ("fbgemm", "onednn", "x86", "onednn+shuffled_transpose") for level in ("sse41", "avx2", "avx512_vnni"))
    assert told
    asked = Problem(problem.op, {**problem.arguments, "isa": "avx2"})
    assert np.array_equal(answer(asked, "fbgemm"), answer(problem, "fbgemm@avx2")) and np.array_equal(answer(problem, "x86@avx2"), answer(problem, "fbgemm@avx2"))
    assert "was never measured" in answer(problem, "onednn@avx512") and "was never measured" in answer(problem, "onednn@avx_vnni")


def test_neighbours_of_a_transposed_convolution_are_those_of_its_own_order():
    """By hand: one channel, taps 127, 127, -128 on inputs of 255. FBGEMM pairs the first two taps; a flipped kernel would pair the last two."""
    x = rq.QTensor(np.full((1, 1, 3), 255, np.uint8), rq.QParams(1.0, 0, "uint8"))
    w = rq.QTensor(np.array([[[127, 127, -128]]], np.int8), rq.QParams(1.0, 0, "int8"))
    y = rq.ops.conv_transpose1d(x, w, padding=2, out=rq.QParams(8.0, 0, "uint8"), numerics="fbgemm", isa="avx2").values
    assert 2 * 255 * 127 > 32767 and y.ravel().tolist() == [round((32767 - 255 * 128) / 8)] == [16]
    exact = rq.ops.conv_transpose1d(x, w, padding=2, out=rq.QParams(256.0, 0, "uint8"), numerics="fbgemm").values
    assert exact.ravel().tolist() == [round(255 * 126 / 256)]


@pytest.mark.parametrize("line", ["linear_dynamic/any/m4k64n9/random/seed=1", "conv2d_dynamic/any/n1c8h6w6-oc8k3/random/seed=1"])
def test_dynamic_layers(line):
    problem = build(line)
    for name in ("fbgemm", "onednn"):
        for level in ("avx2", "avx512"):
            same(problem, f"{name}@{level}", line)
            asked = Problem(problem.op, {**problem.arguments, "isa": level})
            assert np.array_equal(answer(asked, name), answer(problem, f"{name}@{level}"))
    with pytest.raises(ArgumentError, match="did you mean 'avx2'"):
        oracle(Problem(problem.op, {**problem.arguments, "isa": "avx3"}), "fbgemm")


def test_conv_integer_is_exact_on_every_level():
    problem = build("conv_integer/any/n1c3h6w6-oc4k3/random/seed=0")
    for level in LEVEL_NAMES:
        assert np.array_equal(rq.ops.conv_integer(**problem.arguments, isa=level), rq.ops.conv_integer(**problem.arguments))
    with pytest.raises(ArgumentError, match="did you mean 'avx2'"):
        rq.ops.conv_integer(**problem.arguments, isa="avx3")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", HERE)
def test_an_argument_is_the_same_as_a_profile(name, level):
    problem = build("conv2d/any/n1c6h7w7-oc8k3p1/pairs/seed=0")
    asked = Problem(problem.op, {**problem.arguments, "isa": level})
    by_argument, by_profile = answer(asked, name), answer(problem, f"{name}@{level}")
    assert by_argument == by_profile if isinstance(by_profile, str) else np.array_equal(by_argument, by_profile)


def test_packed_weights_give_the_same_bits_on_every_level():
    problem = build("conv2d/any/n1c6h7w7-oc8k3p1/pairs/seed=0")
    bias = np.array(problem["bias"])
    bias.setflags(write=False)
    packed = rq.ops.pack_weights(problem["w"])
    for level in (None, *LEVELS, None, *LEVELS):
        arguments = {**problem.arguments, "isa": level, "bias": bias}
        y = rq.ops.conv2d(**{**arguments, "w": packed}, numerics="onednn").values
        assert np.array_equal(y, rq.ops.conv2d(**arguments, numerics="onednn").values)


def test_levels_with_vnni_are_exact():
    problem = build("linear/any/m5k64n17/pairs/seed=7")
    for name, level in (("onednn", "avx512_vnni"), ("onednn", "avx_vnni"), ("fbgemm", "amx_int8"), ("onnxruntime", "sse41"), ("qnnpack", "avx2"), ("tflite_ref", "avx2")):
        assert np.array_equal(oracle(problem, f"{name}@{level}"), oracle(problem, name))
    assert not np.array_equal(oracle(problem, "fbgemm@avx_vnni"), oracle(problem, "fbgemm")), "FBGEMM has no AVX-VNNI kernels"


def test_fbgemm_depthwise_saturates_on_every_level():
    problem = build("conv2d/any/n1c8h7w7-oc8k3p1g8/pairs/seed=5/nobias")
    exact = oracle(problem, numerics.get("fbgemm").replace(conv={"accumulator": "exact"}))
    bits = [oracle(problem, name) for name in ("fbgemm", "fbgemm@avx2", "fbgemm@avx512_vnni", "x86@avx2")]
    assert all(np.array_equal(bits[0], other) for other in bits) and not np.array_equal(bits[0], exact)


def test_the_x86_engine_leaves_onednn_without_vnni():
    problem = build("conv2d/any/n1c6h7w7-oc8k3p1/neartie/seed=3")
    assert np.array_equal(oracle(problem, "x86@avx2"), oracle(problem, "fbgemm@avx2"))
    assert np.array_equal(oracle(problem, "x86@avx512_vnni"), oracle(problem, "onednn"))
    assert not np.array_equal(oracle(problem, "fbgemm"), oracle(problem, "onednn"))


@pytest.mark.parametrize("highest", [127, 128, 255])
@pytest.mark.parametrize("x_zero", [0, 127, 128])
@pytest.mark.parametrize("numerics", ["fbgemm@avx2", "onednn@avx2", "onnxruntime@avx2"])
@pytest.mark.parametrize("shape, groups, padding, channels_last", [
    ((3, 5, 3, 3), 1, 1, False), ((6, 3, 3, 3), 2, 1, True), ((5, 7, 1, 3), 1, 0, True), ((4, 3, 5, 3), 1, 2, False),
])
def test_convolutions_whose_pairs_cross_a_row(highest, x_zero, numerics, shape, groups, padding, channels_last):
    """Windows are copied out for them, and are not where no code is above 127: the reference knows no such ways."""
    rng = np.random.default_rng(highest)
    codes = rng.choice(np.array([0, highest - 1, highest], "u1"), (2, shape[1] * groups, 9, 8))
    codes[0, 0, 0, 0] = highest
    x = rq.QTensor(np.ascontiguousarray(codes.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if channels_last else codes, rq.QParams(0.1, x_zero, "uint8"))
    w = rq.QTensor(rng.choice(np.array([-128, 127, 126], "i1"), shape), rq.QParams(0.01, 0, "int8"))
    given = {"bias": np.zeros(shape[0], np.float32), "out": rq.QParams(3.0, 128, "uint8"), "padding": padding, "groups": groups, "numerics": numerics}
    assert np.array_equal(rq.ops.conv2d(x, w, **given).values, conv_reference(x, w, **given).values)


def test_an_unknown_level_is_listed():
    problem = build("linear/any/m2k4n3/random/seed=0")
    for call in (lambda: oracle(problem, "fbgemm@avx9"), lambda: rq.ops.linear(**problem.arguments, isa="avx9"), lambda: rq.ops.matmul_integer(np.zeros((1, 2), np.uint8), np.zeros((2, 1), np.int8), isa="avx9")):
        with pytest.raises(ArgumentError, match="did you mean 'avx2'.*" + ", ".join(repr(n) for n in LEVEL_NAMES)):
            call()


def test_an_unknown_behaviour_is_said():
    problem = build("linear/any/m2k4n3/random/seed=0")
    with pytest.raises(UnsupportedError, match="fbgemm has no known INT8 kernels on sse41"):
        oracle(problem, "fbgemm@sse41")
    nobody = numerics.get("onnx").replace(pairing=numerics.get("onnx").pairing.replace(linear="unknown"))
    with pytest.raises(UnsupportedError, match="how this engine adds up products on avx2 is not known"):
        rq.ops.linear(**problem.arguments, numerics=nobody, isa="avx2")
    unsigned = build("linear/any/m2k4n3/random/seed=0/uint8")
    with pytest.raises(UnsupportedError, match="int8 weights"):
        oracle(unsigned, "fbgemm@avx2")
    assert oracle(unsigned, "onnxruntime@avx2").shape == (2, 3)


@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_integer_products_take_every_level(level):
    rng = np.random.default_rng(0)
    a, b = rng.choice(np.array([0, 254, 255], "u1"), (5, 37)), rng.choice(np.array([-128, 127], "i1"), (37, 6))
    fast = rq.ops.matmul_integer(a, b, a_zero_point=3, isa=level)
    assert np.array_equal(fast, rq.ops.matmul_integer(a, b, a_zero_point=3)) == rq.isa.cpu.level(level).vnni
    from refquant.ops.matmul_integer import matmul_integer_reference

    assert np.array_equal(fast, matmul_integer_reference(a, b, a_zero_point=3, isa=level))


@pytest.mark.parametrize("line, theirs, given", [
    ("linear/any/m40k300n48/pairs/seed=1/per_channel", "onednn@avx2", "onednn"),
    ("conv2d/any/n1c3h8w8-oc16k3/pairs/seed=1/per_channel", "onednn@avx2", "onednn"),
    ("conv2d/any/n1c1h9w9-oc16k3p1/pairs/seed=2/per_channel", "onednn@avx512_vbmi", "onednn"),
    ("conv2d/any/n1c6h9w9-oc16k3p1/pairs/seed=2/per_channel", "fbgemm@avx2", "fbgemm"),
    ("conv2d/any/n1c6h9w9-oc16k3p1/pairs/seed=2/per_channel", "x86@avx2", "x86"),
    ("linear/any/m40k64n48/pairs/seed=1/per_channel", "onednn", "onednn@avx2"),
    ("linear/any/m40k64n48/neartie/seed=1/per_channel", "fbgemm@avx2", "onednn@avx2"),
])  # fmt: skip
def test_the_diagnosis_names_the_level(line, theirs, given):
    problem = build(line)
    actual = oracle(problem, theirs)
    d = rq.verify.diagnose(problem.op, actual=actual, numerics=given, **problem.arguments)
    assert d.explained and d.names == (f"profile[{theirs}]",), str(d)
    assert np.array_equal(oracle(problem, d.numerics), actual)


def test_tails_of_litert_optimized_kernels():
    """By hand: the ninth number of QUANTIZE is a tie that goes away from zero; a product beyond int16 saturates, and wraps with the zero point, in blocks of 16 alone; OC % 8."""
    q = rq.quantize(np.full(9, 0.5, np.float32), rq.QParams(1.0, 0, "int8"), numerics="tflite_opt").values
    assert q.tolist() == [0] * 8 + [1]
    a = rq.QTensor(np.full(17, 127, np.int8), rq.QParams(1.0, -128, "int8"))
    assert 255 * 255 / 1.5 == 43350 > 2**15 - 1
    for zero_point, body in ((-1, 127), (0, 127), (1, -128)):
        y = rq.ops.mul(a, a, out=rq.QParams(1.5, zero_point, "int8"), numerics="tflite_opt").values
        assert y.tolist() == [body] * 16 + [127]
    problem = build("conv2d/any/n2c9h6w6-oc9k3p1g9/neartie/seed=3/int8/per_channel/intbias")
    opt, ref, up = (oracle(problem, name) for name in ("tflite_opt", "tflite_ref", numerics.get("tflite_opt").replace(conv={"tail": "fixed_half_up"})))
    assert np.array_equal(opt[:, 8:], ref[:, 8:]) and np.array_equal(opt[:, :8], up[:, :8])
    assert np.array_equal(opt, oracle(problem, "tflite_opt", reference=True))
