"""TensorFlow Lite's functions of two codes: slow witnesses, broadcasting, refusals, planted faults."""

from fractions import Fraction

import numpy as np
import pytest
import witness
from test_tflite_functions import f, gemmlowp, multiplier

import refquant as rq
from refquant import numerics
from refquant.errors import ArgumentError, ShapeError, UnsupportedError
from refquant.verify import Problem, build, campaign, case_stream, mutants, oracle

PROFILES = ("tflite_ref", "tflite_opt", "xnnpack")
RNG = np.random.default_rng(20261201)
OPS = ("sub", "squared_difference")


def tensor(shape, scale, zero, dtype="int8"):
    low = -128 if dtype == "int8" else 0
    return rq.QTensor(RNG.integers(low, low + 256, shape).astype(dtype), rq.QParams(scale, zero, dtype))


def by_three_multipliers(x, y, sa, sb, so):
    twice = 2 * max(sa, sb)
    terms = [gemmlowp(c << 20, *multiplier(s / twice)) for c, s in ((x, sa), (y, sb))]
    return gemmlowp(terms[0] - terms[1], *multiplier(twice / (2**20 * so)))


def by_two_multipliers(x, y, sa, sb, so):
    ra, rb = f(sa / so), f(sb / so)
    shift = 20
    while 2**shift * max(ra, rb) >= 2**21:
        shift -= 1
    while 2**shift * max(ra, rb) < 2**20:
        shift += 1
    first, second = (witness.half_even(r * Fraction(2) ** shift) for r in (ra, rb))
    return witness.half_up(Fraction(x * first - y * second) / Fraction(2) ** shift)


def by_squares(x, y, sa, sb, so):
    twice = 2 * max(sa, sb)
    u, v = (gemmlowp(c << 7, *multiplier(s / twice)) for c, s in ((x, sa), (y, sb)))
    return gemmlowp((u - v) ** 2, *multiplier(twice * twice / (2**14 * so)))


@pytest.mark.parametrize("op, profile, slow", [
    ("sub", "tflite_ref", by_three_multipliers), ("sub", "tflite_opt", by_three_multipliers), ("sub", "xnnpack", by_two_multipliers),
    *(("squared_difference", profile, by_squares) for profile in PROFILES),
])  # fmt: skip
@pytest.mark.parametrize("scales", [(0.25, 0.25, 0.5), (0.25, 0.5, 1.0), (0.05, 0.037, 0.0713), (0.011, 0.09, 0.4)])
def test_by_a_slow_witness(op, profile, slow, scales):
    sa, sb, so = (f(s) for s in scales)
    a, b = tensor((1200,), float(sa), 7), tensor((1200,), float(sb), -9)
    y = getattr(rq.ops, op)(a, b, out=rq.QParams(float(so), -3, "int8"), numerics=profile).values
    ref = [witness.clip(slow(int(c) - 7, int(d) + 9, sa, sb, so) - 3, -128, 127) for c, d in zip(a.values, b.values)]
    np.testing.assert_array_equal(y, ref)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("op", OPS)
def test_large_tensors_look_up_what_small_ones_compute(op, profile):
    a, b, out = tensor((4 * 65536 + 3,), 0.03, 5), tensor((4 * 65536 + 3,), 0.017, -80), rq.QParams(0.06, 11, "int8")
    reference = getattr(__import__(f"refquant.ops.{op}", fromlist=["x"]), f"{op}_reference")
    whole = getattr(rq.ops, op)(a, b, out=out, numerics=profile)
    np.testing.assert_array_equal(whole.values, reference(a, b, out=out, numerics=profile).values)
    np.testing.assert_array_equal(whole.values[:500], getattr(rq.ops, op)(*(rq.QTensor(q.values[:500], q.qparams) for q in (a, b)), out=out, numerics=profile).values)


@pytest.mark.parametrize("op", OPS)
def test_shapes_broadcast_and_relu_limits(op):
    a, b, out = tensor((3, 1, 5), 0.03, 5), tensor((4, 1), 0.017, -80), rq.QParams(0.06, 11, "int8")
    y = getattr(rq.ops, op)(a, b, out=out)
    wide = [rq.QTensor(np.broadcast_to(q.values, (3, 4, 5)), q.qparams) for q in (a, b)]
    np.testing.assert_array_equal(y.values, getattr(rq.ops, op)(*wide, out=out).values)
    if op == "sub":
        np.testing.assert_array_equal(rq.ops.sub(a, b, out=out, activation="relu").values, np.maximum(y.values, 11))
    assert getattr(rq.ops, op)(tensor((0, 3), 0.1, 0), tensor((3,), 0.1, 0), out=out).shape == (0, 3)


@pytest.mark.parametrize("op", OPS)
def test_what_is_refused(op):
    function, a, out = getattr(rq.ops, op), tensor((3, 4), 0.1, 3), rq.QParams(0.5, 0, "int8")
    with pytest.raises(ShapeError, match="do not broadcast"):
        function(a, tensor((3,), 0.1, 3), out=out)
    with pytest.raises(UnsupportedError, match="b is uint8.*use int8"):
        function(a, tensor((3, 4), 0.1, 3, "uint8"), out=out)
    with pytest.raises(UnsupportedError, match="out is uint8"):
        function(a, a, out=rq.QParams(0.5, 0, "uint8"))
    with pytest.raises(UnsupportedError, match="no quantized node"):
        function(a, a, out=out, numerics="onnx")
    with pytest.raises(ArgumentError, match="must be a QTensor"):
        function(a.values, a, out=out)


def test_squares_too_large_for_the_kernel_s_multiplier_are_refused():
    a = tensor((3, 4), 1.0, 3)
    rq.ops.squared_difference(a, a, out=rq.QParams(float(np.nextafter(np.float32(2.0**-12), np.float32(1))), 0, "int8"))
    with pytest.raises(UnsupportedError, match="use a larger out.scale"):
        rq.ops.squared_difference(a, a, out=rq.QParams(2.0**-12, 0, "int8"))


def answer(problem, profile):
    try:
        return oracle(problem, profile).tobytes()
    except UnsupportedError:
        return None


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("op", OPS)
def test_a_changed_field_is_found(op, profile):
    changed = list(mutants(profile, op))
    # A form without a body for vectors has no tail either.
    left = [m for m in changed if m.field != "vector"]
    assert left
    for case, _ in zip(case_stream(op, profile), range(60)):
        if left and case.outputs < 20_000:
            problem = build(case)
            left = [m for m in left if answer(problem, m.profile) in (answer(problem, profile), None)]
    assert [str(m) for m in left] == []


@pytest.mark.engine
@pytest.mark.parametrize("engine", PROFILES, indirect=True)
@pytest.mark.parametrize("op", OPS)
def test_the_engine_s_bits_and_a_planted_fault(op, engine):
    row = campaign(engine, op, outputs=60_000)
    assert row.outputs >= 60_000 and not row.differing
    right = numerics.get(engine.profile)
    changes = {"tflite": {"sub": {"body": "neon"}}, "xnnpac": {"sub": {"rounding": "half_even"}}}[engine.name[:6]] if op == "sub" else {op: {"multiply": "half_up"}}

    class Impostor:
        name, profile, describe, supports, run = engine.name, right.replace(**changes), engine.describe, engine.supports, engine.run

    assert campaign(Impostor(), op, outputs=60_000).differing


@pytest.mark.engine
@pytest.mark.parametrize("engine", PROFILES, indirect=True)
@pytest.mark.parametrize("shapes", [((2, 3, 4, 5), (5,)), ((1,), (7, 33)), ((2, 1, 5), (3, 1)), ((4, 1), (1, 9)), ((1, 1, 1, 1), (2, 3, 4, 5)), ((1,), (1,))], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_the_engine_broadcasts_element_by_element(op, engine, shapes):
    a, b = (tensor(shape, scale, zero) for shape, scale, zero in zip(shapes, (0.25, 0.125), (7, -9)))
    problem = Problem(op, {"a": a, "b": b, "out": rq.QParams(0.5, -3, "int8")})
    assert np.array_equal(engine.run(problem), oracle(problem, engine.profile))


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("tflite_ref", "tflite_opt"), indirect=True)
def test_all_pairs_on_ties(engine):
    """Scales of powers of two: every second difference is a tie."""
    codes = np.arange(-128, 128).astype(np.int8)
    a, b = (rq.QTensor(c, rq.QParams(s, z, "int8")) for c, s, z in ((np.repeat(codes, 256), 0.25, -128), (np.tile(codes, 256), 0.125, 127)))
    for op in OPS:
        problem = Problem(op, {"a": a, "b": b, "out": rq.QParams(0.5, 0, "int8")})
        y = engine.run(problem)
        assert np.array_equal(y, oracle(problem, engine.profile)) and len(np.unique(y)) > 50
