"""What drawn shapes and far numbers found in ONNX Runtime and OpenVINO, each held against the engine."""

import numpy as np
import pytest

import refquant as rq
from refquant import backends, numerics
from refquant.verify import Problem, build, oracle

pytestmark = pytest.mark.engine
TOP = np.array([255, 254, 0, 1], np.uint8)


@pytest.fixture(scope="module")
def runtime():
    pytest.importorskip("onnxruntime")
    return backends.load("onnxruntime")


def agree(engine, problem, profile=None):
    """Assert that engine and oracle give the same bits, by kernel and in NumPy; return them."""
    profile = engine.profile if profile is None else profile
    bits = engine.run(problem)
    assert engine.supports(problem) is None
    for reference in (False, True):
        np.testing.assert_array_equal(bits, oracle(problem, profile, reference=reference))
    return bits


@pytest.mark.parametrize("kernel", [(3,), (2, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("outputs", [1, 2])
def test_one_channel_to_one_is_a_depthwise_convolution(runtime, kernel, outputs):
    """MLAS's depthwise kernel, which does not saturate, takes a single group, too; of two output channels pairs saturate below VNNI."""
    rng = np.random.default_rng(outputs)
    x = rq.QTensor(rng.choice(TOP, (2, 1, *(6,) * len(kernel))), rq.QParams(0.01, 128, "uint8"))
    w = rq.QTensor(rng.choice(np.array([127, 126, -128], np.int8), (outputs, 1, *kernel)), rq.QParams(0.02, 0, "int8"))
    problem = Problem(f"conv{len(kernel)}d", {"x": x, "w": w, "bias": None, "stride": 1, "padding": 1, "dilation": 1, "groups": 1, "out": rq.QParams(0.1, 128, "uint8")})
    bits = agree(runtime, problem)
    held = "onnxruntime@avx2"
    assert np.array_equal(oracle(problem, held), oracle(problem, "onnxruntime")) == (outputs == 1)
    assert bits.shape[1] == outputs


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("shapes", [((4, 37), (4, 37)), ((4, 1), (1, 37)), ((1,), (70,)), ((70,), (1,)), ((1,), (1,))], ids=str)
def test_sums_beyond_int32_are_the_smallest_code(runtime, shapes, dtype):
    """Ratios of scales over the whole of float32, infinite ones and NaN among them."""
    rng, low = np.random.default_rng(7), 0 if dtype == "uint8" else -128
    saturating = numerics.get(runtime.profile).replace(add={"overflow": "saturate"})
    told = 0
    for _ in range(40):
        q = [rq.QParams(float(2.0 ** rng.uniform(-126, 120)) if rng.random() < 0.6 else 2.0 ** rng.integers(-30, 10), int(low + rng.choice([0, 3, 255])), dtype) for _ in range(3)]
        a, b = (rq.QTensor(rng.integers(low, low + 256, shape).astype(dtype), p) for shape, p in zip(shapes, q))
        problem = Problem("add", {"a": a, "b": b, "out": q[2], "activation": None})
        told += not np.array_equal(agree(runtime, problem), oracle(problem, saturating))
    assert told > 3


@pytest.mark.parametrize("line", ["n2t9c20-g3o1", "n1t1c20-g3o1", "n2t6c9-g2o1", "n1t7c5-g1o1", "n3t2c5-g4o1", "n2t33c8-g1o1"])
@pytest.mark.parametrize("options", ["", "/masked/far", "/causal"])
def test_heads_of_one_number_are_sums_of_eight(runtime, line, options):
    """A product of one column adds up in eight lanes, and those in an order of their own for four rows, two and one."""
    for seed in range(3):
        agree(runtime, build(f"attention/onnxruntime/{line}/random/seed={seed}{options}"))


@pytest.fixture(scope="module")
def vino():
    pytest.importorskip("openvino")
    engine = backends.load("openvino")
    if "avx2" not in engine.profile:
        pytest.skip("this processor has no AVX2 alone, and OpenVINO takes other kernels on AVX-512")
    return engine


def near_ties(rng, count, scale):
    """Biases whose codes are ties, and numbers up to 3 ulp beside."""
    bias = ((rng.integers(-100, 100, count) + 0.5) * scale).astype(np.float32)
    return (bias.view(np.int32) + rng.integers(-3, 4, count, dtype=np.int32)).view(np.float32)


def transposed(rng, sides, kernel, channels, dtype="uint8", zero=129, bias=True, ends=False, factor=1.0, **geometry):
    """A transposed convolution whose sums or biases lie on ties of the output, or, with `ends`, saturate in pairs."""
    x = rng.choice(TOP, (2, channels[0], *sides)) if ends else rng.integers(0, 2, (2, channels[0], *sides)).astype(np.uint8)
    x = (x ^ np.uint8(128)).view(np.int8) if ends and dtype == "int8" else x.astype(dtype)
    w = (rng.choice([127, 126, -128], (*channels, *kernel)) if ends else rng.integers(-3, 4, (*channels, *kernel))).astype(np.int8)
    sx, sw = (float(np.float32(rng.uniform(0.01, 2))) for _ in range(2))
    scale = float(np.float32(sx) * np.float32(sw) * np.float32(factor)) * (300.0 * np.sqrt(channels[0] * np.prod(kernel)) if ends else 1.0)
    geometry = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, **geometry}
    arguments = {"x": rq.QTensor(x, rq.QParams(sx, 0, dtype)), "w": rq.QTensor(w, rq.QParams(sw, 0, "int8")), "bias": near_ties(rng, channels[1], scale) if bias else None}
    out = rq.QParams(scale, zero - (128 if dtype == "int8" else 0), dtype)
    return Problem(f"conv_transpose{len(sides)}d", {**arguments, **geometry, "groups": 1, "out": out, "activation": None})


# What oneDNN's kernel for AVX2 takes, and what it leaves to a matrix product; the kernel, the geometry, and the output's channels.
TAKEN = [((7,), {}, 8), ((8,), {"padding": 1}, 8), ((9,), {"stride": 2, "padding": 1}, 8), ((2,), {"padding": 1}, 256), ((3,), {"dilation": 2}, 16), ((5, 3), {"stride": (3, 2)}, 8)]
LEFT = [
    ((8,), {}, 8), ((9,), {"stride": 2}, 255), ((2,), {"padding": 2}, 64), ((4,), {}, 32), ((3,), {"dilation": 2, "stride": 2}, 16),
    ((5,), {"dilation": 2}, 16), ((1, 1), {"padding": (1, 0)}, 8), ((2, 9), {"stride": (1, 2), "output_padding": (0, 1)}, 8), ((1, 2, 9), {}, 8),
]  # fmt: skip


@pytest.mark.parametrize("kernel, geometry, outputs, taken", [(*case, True) for case in TAKEN] + [(*case, False) for case in LEFT], ids=str)
def test_a_matrix_product_rounds_transposed_convolutions_twice(vino, kernel, geometry, outputs, taken):
    rng, sides = np.random.default_rng(3), (3, 5, 13)[-len(kernel) :]
    named = [transposed(rng, sides, kernel, (5, outputs), dtype, zero, **geometry) for dtype in ("uint8", "int8") for zero in (0, 128, 129)]
    named += [transposed(rng, sides, kernel, (5, outputs), zero=zero, bias=False, factor=factor, **geometry) for zero in (0, 100) for factor in (10 / 3, 14 / 5, 2 - 2**-22)]
    for problem in named:
        agree(vino, problem)
    assert ("jit_avx2" in vino.node_precision(named[0])) == taken
    other = numerics.get(vino.profile)
    other = other.replace(conv_transpose=other.conv_transpose.yes if taken else other.conv_transpose.no)
    assert any(not np.array_equal(oracle(problem, vino.profile), told(problem, other)) for problem in named)


def told(problem, profile):
    """What the other kernel would give, or nothing where it is refused."""
    try:
        return oracle(problem, profile)
    except rq.errors.UnsupportedError:
        return None


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("channels", [1, 2, 31, 256, 257, 301, 509, 513, 601])
def test_a_matrix_product_pairs_channels_in_two_halves(vino, channels, dtype):
    for kernel in ((3,), (9,)):
        agree(vino, transposed(np.random.default_rng(channels), (6,), kernel, (channels, 8), dtype, bias=False, ends=True))


@pytest.mark.parametrize("k", [301, 509, 513, 601, 765, 769])
def test_halves_of_openvinos_matrix_products_end_at_two_blocks_of_256(vino, k):
    """The first half of an odd length shifts all later pairs; from 512 on there is one part again, where PyTorch's oneDNN has two up to 767."""
    rng = np.random.default_rng(k)
    for dtype, zero in (("uint8", 128), ("int8", 0)):
        x, w = rng.choice(TOP, (5, k)), rng.choice(np.array([127, 126, -128], np.int8), (16, k))
        x = x if dtype == "uint8" else (x ^ np.uint8(128)).view(np.int8)
        tensors = {"x": rq.QTensor(x, rq.QParams(0.01, 0, dtype)), "w": rq.QTensor(w, rq.QParams(0.02, 0, "int8"))}
        agree(vino, Problem("linear", {**tensors, "bias": None, "out": rq.QParams(40.0, zero, dtype), "activation": None}))


@pytest.mark.parametrize("channels, side", [(13, 5), (13, 7), (3, 7)])
def test_groups_that_are_no_fours_halve_their_windows_alike(vino, channels, side):
    rng = np.random.default_rng(side)
    tensors = {"x": rq.QTensor(rng.choice(TOP, (1, 2 * channels, 9, 9)), rq.QParams(0.01, 0, "uint8")), "w": rq.QTensor(rng.choice(np.array([127, 126, -128], np.int8), (10, channels, side, side)), rq.QParams(0.02, 0, "int8"))}
    geometry = {"stride": 1, "padding": 0, "dilation": 1, "groups": 2}
    agree(vino, Problem("conv2d", {**tensors, "bias": None, **geometry, "out": rq.QParams(90.0, 128, "uint8"), "activation": None}))


def test_openvinos_matrix_product_takes_what_pytorchs_leaves_to_plain_loops(vino):
    """Its scratch memory is 24 times that of the tensors, of which PyTorch's oneDNN allows 15."""
    agree(vino, build("conv_transpose2d/openvino/n1c4h21w21-oc31k6p0x6d1x3/random/seed=3001001/nobias/symmetric/far"))


def test_a_dilated_line_with_output_padding_is_refused_by_name(vino):
    """Some of its outputs differ, as the engine itself shows; the line without either does not."""
    line = "conv_transpose2d/openvino@avx2/n1c8h7w7-oc3k2d1x4op0x{}/neartie/seed=45/symmetric"
    padded, plain = (build(line.format(more)) for more in (1, 0))
    assert "padded at its output" in vino.supports(padded) and vino.supports(plain) is None
    if "@avx2" in vino.profile:
        assert not np.array_equal(vino.run(padded), oracle(padded, vino.profile)) and np.array_equal(vino.run(plain), oracle(plain, vino.profile))
