"""Transposed convolutions: a plain witness, the reference and the kernels; what engines make of them; errors."""

from itertools import islice, product

import numpy as np
import pytest
import witness

from refquant import QParams, QTensor, ops
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError
from refquant.verify import Problem, Status, build, campaign, case_stream, compare, oracle, try_problem

OPS = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
U8, S8 = QParams(0.5, 3, "uint8"), QParams(0.25, 0, "int8")
UNIT = QParams(1.0, 0, "uint8")


def tensors(x_shape=(2, 4, 3, 5), w_shape=(4, 3, 2, 3), zero=0, seed=0):
    rng = np.random.Generator(np.random.PCG64(seed))
    x, w = rng.integers(0, 256, x_shape).astype(np.uint8), rng.integers(-128, 128, w_shape).astype(np.int8)
    return QTensor(x, U8), QTensor(w, QParams(0.25, zero, "int8"))


def plain_sums(problem):
    """int32 sums by output, in Python integers: each input adds its multiples of the kernel."""
    x, w, groups = problem["x"], problem["w"], problem["groups"]
    dims = x.ndim - 2
    sides = lambda name: (problem[name],) * dims if isinstance(problem[name], int) else problem[name]  # noqa: E731
    s, p, d, m = (sides(name) for name in ("stride", "padding", "dilation", "output_padding"))
    out = [(n - 1) * s[i] - 2 * p[i] + d[i] * (k - 1) + 1 + m[i] for i, (n, k) in enumerate(zip(x.shape[2:], w.shape[2:]))]
    acc = {}
    ic, oc = x.shape[1] // groups, w.shape[1]
    zeros = np.broadcast_to(w.qparams.zero_point, (oc,)).tolist()
    for n, c, o in product(range(x.shape[0]), range(x.shape[1]), range(oc)):
        for place in np.ndindex(*x.shape[2:]):
            for tap in np.ndindex(*w.shape[2:]):
                to = tuple(i * si + t * di - pi for i, t, si, di, pi in zip(place, tap, s, d, p))
                if all(0 <= t < side for t, side in zip(to, out)):
                    key = (n, c // ic * oc + o, *to)
                    term = (int(x.values[(n, c, *place)]) - x.qparams.zero_point) * (int(w.values[(c, o, *tap)]) - zeros[o])
                    acc[key] = acc.get(key, 0) + term
    sums = np.zeros((x.shape[0], oc * groups, *out), object)
    for key, value in acc.items():
        sums[key] = witness.wrap32(value)
    return sums


@pytest.mark.parametrize(
    "line",
    [
        "conv_transpose1d/onednn/n2c4w5-oc6k3s3p1d2g2op1/neartie/seed=0",
        "conv_transpose1d/onednn/n1c1w1-oc1k1/random/seed=1/nobias",
        "conv_transpose2d/onednn/n1c4h3w4-oc6k3x2s2x3p1x2g2op1x2/random/seed=2/asymmetric",
        "conv_transpose2d/onednn/n1c3h4w3-oc2k4s1p2/saturate/seed=3",
        "conv_transpose2d/onednn/n1c2h2w3-oc2k1s3p1op2/neartie/seed=4/nobias",
        "conv_transpose3d/onednn/n1c2t2h2w3-oc3k2x1x2s2p1x0x0op1/neartie/seed=5",
        "conv_transpose2d/onednn/n1c4h2w3-oc6k2s2g2/neartie/seed=6/per_channel/asymmetric",
    ],
)  # fmt: skip
def test_the_plain_witness_agrees(line):
    problem = build(line)
    x, w, out, bias = problem["x"], problem["w"], problem["out"], problem["bias"]
    comp = oracle(problem, "onednn")
    sums = plain_sums(problem)
    scales = np.tile(w.qparams.scale, problem["groups"] * (1 if w.qparams.per_channel else w.shape[1]))
    ref = np.empty(sums.shape, np.uint8)
    for place in np.ndindex(*sums.shape):
        b = None if bias is None else witness.f(witness.Fraction(float(bias[place[1]])))
        args = map(witness.Fraction, (x.qparams.scale, float(scales[place[1]]), out.scale))
        ref[place] = witness.product_onednn_conv(sums[place], *args, out.zero_point, b, w.qparams.per_channel, False, 0, 255)
    assert compare(comp, ref).exact, line


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("profile", ("fbgemm", "onednn", "x86", "qnnpack", "onednn+shuffled_transpose", "fbgemm+overlapping_transpose", "x86+defective_transpose"))
def test_the_kernels_give_the_references_bits(op, profile):
    compared = 0
    for case in islice(case_stream(op, profile.partition("+")[0], seed=5), 25):
        problem = build(case)
        try:
            ref = oracle(problem, profile, reference=True)
        except UnsupportedError:
            continue
        assert compare(oracle(problem, profile), ref).exact, str(case)
        compared += 1
    assert compared >= 15


def test_strides_of_the_input_and_packed_weights_do_not_matter():
    x, w = tensors()
    ref = ops.conv_transpose2d(x, w, stride=2, out=UNIT).values
    assert ref.strides[1] == ref.itemsize, "channels last, as PyTorch leaves it"
    values = np.asfortranarray(x.values)
    values.setflags(write=False)
    packed = ops.pack_weights(w, transposed=True)
    for _ in range(2):
        assert compare(ops.conv_transpose2d(QTensor(values, U8), packed, stride=2, out=UNIT).values, ref).exact
    assert compare(ops.conv_transpose2d(QTensor(x.values[::-1], U8), packed, stride=2, out=UNIT).values, ref[::-1]).exact
    empty = ops.conv_transpose2d(QTensor(x.values[:0], U8), w, stride=2, out=UNIT)
    assert empty.shape == (0, *ref.shape[1:]) and empty.values.dtype == np.uint8


def test_the_direct_kernel_saturates_pairs_of_channels():
    x, w = QTensor(np.full((1, 8, 1, 1), 255, np.uint8), UNIT), QTensor(np.full((8, 8, 2, 1), 127, np.int8), QParams(1.0, 0, "int8"))
    out = QParams(1024.0, 0, "uint8")
    assert ops.conv_transpose2d(x, w, out=out, numerics="fbgemm").values[0, :, 0, 0].tolist() == [128] * 8  # 4 pairs of 32767
    assert ops.conv_transpose2d(x, w, out=out, numerics="qnnpack").values[0, :, 0, 0].tolist() == [253] * 8
    wide = QTensor(np.full((8, 8, 3, 1), 127, np.int8), QParams(1.0, 0, "int8"))
    assert ops.conv_transpose2d(x, wide, out=out, numerics="fbgemm").values[0, :, 0, 0].tolist() == [253] * 8


def test_the_defective_kernel_has_no_second_image():
    x, w = tensors((2, 8, 3, 3), (8, 8, 2, 2))
    assert ops.conv_transpose2d(x, w, stride=2, out=UNIT, numerics="fbgemm").shape == (2, 8, 6, 6)
    with pytest.raises(UnsupportedError, match="first image alone"):
        ops.conv_transpose2d(x, w, stride=2, out=UNIT, numerics="fbgemm+overlapping_transpose")


def test_without_an_integer_kernel_it_is_refused():
    x, w = tensors()
    for profile in ("onnxruntime", "onnx", "inductor"):
        with pytest.raises(UnsupportedError, match="has no such operation"):
            ops.conv_transpose2d(x, w, out=UNIT, numerics=profile)


@pytest.mark.parametrize(
    "change, error, rule",
    [
        ({"groups": 3}, ShapeError, "IC a multiple of groups"),
        ({"w": tensors(w_shape=(3, 4, 2, 3))[1]}, ShapeError, r"w must be \(IC, OC / groups, kernel\)"),
        ({"w": tensors(w_shape=(4, 3, 2))[1]}, ShapeError, "must have 4 dimensions"),
        ({"x": tensors((4, 3, 5))[0]}, ShapeError, "must have 4 dimensions"),
        ({"padding": 4}, ShapeError, "reduce its padding"),
        ({"output_padding": 2, "stride": 2}, RangeError, "smaller than stride"),
        ({"stride": 0}, RangeError, "at least 1"),
        ({"out": None}, ArgumentError, "out must be a QParams"),
        ({"bias": np.zeros(4)}, ShapeError, "3 output channels"),
        ({"activation": "gelu"}, ArgumentError, "activation='gelu'"),
        ({"w": QTensor(tensors()[1].values, QParams([1.0] * 4, [0] * 4, "int8", axis=0))}, ArgumentError, "output channels are axis 1"),
        ({"w": ops.pack_weights(tensors()[1])}, ArgumentError, "transposed=True"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(change, error, rule):
    x, w = tensors()
    with pytest.raises(error, match=rule):
        ops.conv_transpose2d(**{"x": x, "w": w, "out": UNIT, **change})


def test_weights_packed_for_the_other_convolution_are_refused():
    x, w = tensors((1, 3, 5, 5), (4, 3, 2, 3))
    with pytest.raises(ArgumentError, match="packed for a transposed convolution"):
        ops.conv2d(x, ops.pack_weights(w, transposed=True), out=UNIT)


class Planted:
    """An engine that gives the bits of a profile, and one bit more where it is told to."""

    name, profile = "planted", "onednn"

    def __init__(self, gives, flip=False):
        self.gives, self.flip = gives, flip

    describe = dict
    supports = staticmethod(lambda problem: None)

    def run(self, problem):
        bits = oracle(problem, self.gives).copy()
        bits.reshape(-1)[-1:] ^= self.flip
        return bits


def test_a_defect_explains_and_nothing_else_does():
    problem = build("conv_transpose2d/onednn/n1c3h5w6-oc5k3s2/neartie/seed=0")
    assert try_problem(Planted("onednn"), problem, "a").outcome.status is Status.EXACT
    trial = try_problem(Planted("onednn+shuffled_transpose"), problem, "a")
    assert trial.outcome == (Status.EXPLAINED, "onednn+shuffled_transpose") and trial.comparison.exact
    for gives in ("onednn", "onednn+shuffled_transpose", "qnnpack"):
        assert try_problem(Planted(gives, flip=True), problem, "a").outcome.status is Status.DIFFERENT


def test_a_row_says_what_was_explained():
    row = campaign(Planted("onednn+shuffled_transpose"), "conv_transpose2d", outputs=9000)
    assert row.status is Status.EXPLAINED and row.differing == 0 and not row.failures
    assert 0 < row.explained["onednn+shuffled_transpose"] < row.cases
    assert campaign(Planted("onednn+shuffled_transpose", flip=True), "conv_transpose2d", outputs=9000).status is Status.DIFFERENT


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("fbgemm", "onednn", "x86"), indirect=True)
def test_the_engines_defects_are_those_of_the_variants(engine):
    row = campaign(engine, "conv_transpose2d", outputs=150_000, seed=11)
    assert not row.failures and row.explained, row.reasons


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("fbgemm",), indirect=True)
def test_fbgemm_leaves_other_images_uncomputed(engine):
    x, w = tensors((3, 8, 4, 3), (8, 8, 2, 2))
    problem = Problem("conv_transpose2d", {"x": x, "w": w, "out": QParams(200.0, 100, "uint8"), "stride": 1})
    comp, ref = engine.run(problem), oracle(problem, "fbgemm")
    assert compare(comp[:1], ref[:1]).exact and not compare(comp[1:], ref[1:]).exact
