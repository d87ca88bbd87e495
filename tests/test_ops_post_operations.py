"""Post-operations of products: formulas by hand, the reference, what is refused, and that live engines find wrong ones."""

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import witness

from refquant import QParams, QTensor, ops
from refquant.errors import ArgumentError, ShapeError, UnsupportedError
from refquant.numerics import get
from refquant.verify import Status, build, campaign, case_stream, compare, oracle, try_case

UNIT = QParams(1.0, 0, "uint8")


def problem(line="linear/inductor/m7k31n9/neartie/seed=4/per_channel"):
    return build(line)


def numbers():
    """x and w whose products are 1 to 6, after x's zero point."""
    x = QTensor(np.array([[7, 8, 9, 4, 3, 2]], np.uint8).T.copy(), QParams(1.0, 6, "uint8"))
    return x, QTensor(np.array([[1]], np.int8), QParams(1.0, 0, "int8"))


def test_the_functions_are_what_their_names_say():
    x, w = numbers()
    t = np.float32([1, 2, 3, -2, -3, -4])
    real = lambda activation: ops.linear(x, w, numerics="inductor", activation=activation)[:, 0].tolist()  # noqa: E731
    assert real(("leaky_relu", 0.25)) == [1, 2, 3, -0.5, -0.75, -1]
    assert real("leaky_relu") == [1, 2, 3, *(t[3:] * np.float32(0.01)).tolist()]
    assert real(("hardtanh", -2.0, 2.0)) == [1, 2, 2, -2, -2, -2] and real("hardtanh") == [1, 1, 1, -1, -1, -1]
    assert real("hardswish")[2:] == [3, *(t[3:] * np.float32([t[3] * np.float32(1 / 6) + np.float32(0.5), 0, 0])).tolist()]
    codes = lambda activation: ops.linear(x, w, out=QParams(2.0**-7, 128, "uint8"), numerics="onednn", activation=activation).values[:, 0].tolist()  # noqa: E731
    assert codes("tanh") == [225, 251, 255, 5, 1, 0]


@pytest.mark.parametrize("profile, scale", [("onednn", lambda s: witness.f(1 / witness.f(1 / witness.f(s)))), ("inductor", witness.f)])
def test_a_second_tensor_is_added_with_one_rounding(profile, scale):
    p = problem(f"conv2d/{profile}/n1c3h5w4-oc5k3/neartie/seed=9/per_channel/other/nobias")
    a, comp = p["other"], oracle(p, profile)
    quantized = get(profile).linear.x_scale == "reciprocals"
    plain = ops.conv2d(p["x"], p["w"], out=QParams(1.0, 0, "uint8"), numerics=profile)
    assert plain.shape == comp.shape
    inverse = lambda s: witness.f(1 / witness.f(1 / Fraction(s)))  # noqa: E731
    sx, sy = (inverse(v) if quantized else witness.f(v) for v in (p["x"].qparams.scale, p["out"].scale))
    for place in np.ndindex(*comp.shape):
        n, o, i, j = place
        window = p["x"].values[n, :, i : i + 3, j : j + 3].reshape(-1)
        acc = witness.dot(window, p["w"].values[o].reshape(-1), p["x"].qparams.zero_point, 0)
        t = witness.f(witness.f(witness.f(acc) * sx) * witness.f(p["w"].qparams.scale[o]))
        t = witness.f((int(a.values[place]) - a.qparams.zero_point) * scale(Fraction(a.qparams.scale)) + t)
        v = witness.f(witness.f(t * witness.f(1 / sy)) + p["out"].zero_point)
        assert comp[place] == witness.half_even(witness.clip(v, 0, 255)), place


@pytest.mark.parametrize("op", ("linear", "conv2d"))
@pytest.mark.parametrize("profile", ("onednn", "inductor"))
def test_the_kernels_give_the_references_bits(op, profile):
    asked = {"hardtanh", "hardswish", "other", *(["leaky_relu"] if op == "linear" else [])}
    cases = [case for case in islice(case_stream(op, profile, seed=2), 90) if not asked.isdisjoint(case.options) and case.outputs < 9000]
    assert {option for case in cases for option in case.options} >= asked
    for case in cases:
        p = build(case)
        assert compare(oracle(p, profile), oracle(p, profile, reference=True)).exact, str(case)


def test_a_relu_after_a_sum_is_one_of_the_sum():
    p = problem("conv2d/onednn/n1c3h5w4-oc5k3/neartie/seed=1/per_channel/other")
    both = {**p.arguments, "numerics": "onednn"}
    relu = ops.conv2d(**{**both, "activation": "relu"}).values
    assert np.array_equal(relu, np.maximum(ops.conv2d(**both).values, p["out"].zero_point))


def test_packed_weights_and_strides_do_not_matter():
    p = problem("conv2d/onednn/n2c3h5w4-oc5k3/neartie/seed=1/per_channel/other")
    ref = oracle(p, "onednn")
    turned = QTensor(np.ascontiguousarray(p["other"].values), p["other"].qparams)
    turned.values.setflags(write=False)
    again = ops.conv2d(**{**p.arguments, "w": ops.pack_weights(p["w"]), "other": turned, "numerics": "onednn"}).values
    assert compare(again, ref).exact and again.strides == ref.strides


@pytest.mark.parametrize(
    "change, error, rule",
    [
        ({"activation": "gelo"}, ArgumentError, "did you mean 'gelu'"),
        ({"activation": ("leaky_relu", 1.0, 2.0)}, ArgumentError, "takes 1"),
        ({"activation": ("relu", 6.0)}, ArgumentError, "takes 0"),
        ({"activation": "hardswish", "numerics": "fbgemm"}, UnsupportedError, "oneDNN alone has post-operations"),
        ({"activation": "hardswish", "numerics": "onnxruntime"}, UnsupportedError, "post"),
        ({"other": np.zeros((7, 8), np.float32)}, ShapeError, r"other has shape \(7, 8\)"),
        ({"other": np.zeros((7, 9))}, ArgumentError, "float64"),
        ({"other": QTensor(np.zeros((7, 9), np.uint8), QParams([1.0] * 9, [0] * 9, "uint8", axis=1))}, ArgumentError, "per channel"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(change, error, rule):
    with pytest.raises(error, match=rule):
        ops.linear(**{**problem().arguments, "numerics": "inductor", **change})


def test_volumes_and_lines_have_none():
    p = build("conv1d/inductor/n1c3w9-oc4k3/random/seed=0")
    with pytest.raises(UnsupportedError, match="linear layers and images alone"):
        ops.conv1d(**{**p.arguments, "numerics": "inductor", "activation": "hardswish"})


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("onednn", "inductor"), indirect=True)
@pytest.mark.parametrize("line", ["linear/{}/m64k31n100/neartie/seed=3/per_channel/leaky_relu", "conv2d/{}/n2c16h9w9-oc32k3p1/neartie/seed=3/per_channel/other/relu"])
def test_the_engine_agrees(engine, line):
    trial = try_case(engine, line.format(engine.profile))
    assert trial.outcome.status is Status.EXACT and trial.comparison.outputs > 5000, trial.outcome


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("onednn", "inductor"), indirect=True)
def test_a_wrong_scale_of_the_second_tensor_is_found(engine):
    wrong = get(engine.profile).replace(post={"other_scale": {"onednn": "direct", "inductor": "reciprocals"}[engine.name]})
    found = 0
    for seed in range(40):
        p = build(f"conv2d/{engine.profile}/n1c4h7w7-oc16k1/neartie/seed={seed}/other/nobias")
        bits = engine.run(p)
        assert compare(bits, oracle(p, engine.profile)).exact
        found += not compare(bits, oracle(p, wrong)).exact
    assert found


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("inductor",), indirect=True)
def test_every_exact_function_is_asked_of_the_engine(engine):
    row = campaign(engine, "linear", outputs=150_000, seed=5)
    assert not row.failures, row.failures
