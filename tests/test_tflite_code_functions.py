"""TensorFlow Lite's exponential, logarithm, roots and absolute value of int8: slow witnesses, ties, refusals, planted faults."""

from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
import witness
from test_integer_forms import shift, times
from test_tflite_functions import CODES, PROFILES, away, f, gemmlowp, multiplier

import refquant as rq
from refquant import numerics
from refquant.core.layout import is_channels_last, to_channels_last
from refquant.errors import RangeError, UnsupportedError
from refquant.ops.inverse_root import inverse_root
from refquant.verify import Problem, build, campaign, case_stream, mutants, oracle
from refquant.verify.unary_sweep import unary_sweep

OPS = ("exp", "log", "sqrt", "rsqrt", "abs")
TOP = 2**31 - 1


def newton(x):
    """One over a square root, one number at a time: (multiplier, shift to the right)."""
    if x <= 1:
        return TOP, 0
    right = 11
    while x >= 2**29:
        x, right = x // 4, right + 1
    while x < 2**27:
        x, right = x * 4, right - 1
    half, y = away(Fraction(x >> 1, 2)), 2**28
    for _ in range(5):
        cube = shift(times(times(y, y), y), 6)
        y = shift(times(3 * 2**27, y) - times(half, cube), 3)
    y = times(y, 1518500250)
    return (y << max(-right, 0)), max(right, 0)


@pytest.mark.parametrize("x", [1, 2, 3, 4, 5, 255, 2**16, 2**27 - 1, 2**27, 2**29 - 1, 2**29, 2**30 + 7, TOP])
def test_inverse_roots(x):
    mult, exponent = inverse_root(np.array([x]))
    ref, right = newton(x)
    assert (int(mult[0]), int(exponent[0])) == (ref, -right)
    assert abs(ref / 2.0**31 / 2.0**right * x**0.5 - 1) < 2e-6


def test_every_inverse_root_that_codes_need():
    mult, exponent = inverse_root(np.arange(1, 256), 20)
    assert [(int(m), 20 - int(e)) for m, e in zip(mult, exponent)] == [newton(x) for x in range(1, 256)]


def exact_root_code(centred, sx, so):
    """The root of a float32 product, rounded to float32, over the step, rounded to float32, cut off."""
    x = f(sx * centred)
    scaled = Fraction(isqrt(int(x * 2**200)), 2**100)
    return int(f(f(scaled) / so))


@pytest.mark.parametrize("sx, so", [(1.0, 1.0), (0.0625, 0.125), (0.037, 0.011), (0.3, 0.7)])
def test_roots_by_slow_witnesses(sx, so):
    sx, so, codes = f(sx), f(so), CODES[CODES >= -100]
    x, out = rq.QTensor(codes, rq.QParams(float(sx), -100, "int8")), rq.QParams(float(so), -90, "int8")
    ref = [witness.clip(exact_root_code(int(c) + 100, sx, so) - 90, -128, 127) for c in codes]
    np.testing.assert_array_equal(rq.ops.sqrt(x, out=out).values, ref)
    mult, exponent = multiplier(1 / Fraction(float(np.float64(np.sqrt(np.float32(float(sx))) * np.float32(float(so))))))
    ref = []
    for c in codes:
        root, right = newton(int(c) + 100)
        ref.append(witness.clip(gemmlowp(gemmlowp(1, root, 20 - right), mult, exponent - 20) - 90, -128, 127) if c > -100 else 127)
    np.testing.assert_array_equal(rq.ops.rsqrt(x, out=out).values, ref)


def test_absolute_values_by_a_slow_witness():
    sx, so = f(0.02), f(0.013)
    y = rq.ops.abs(rq.QTensor(CODES, rq.QParams(float(sx), 7, "int8")), out=rq.QParams(float(so), -99, "int8")).values
    np.testing.assert_array_equal(y, [witness.clip(gemmlowp(abs(int(c) - 7), *multiplier(f(sx / so))) - 99, -128, 127) for c in CODES])
    same = rq.QParams(0.1, 0, "int8")
    assert rq.ops.abs(rq.QTensor(np.int8([-128, -3, 3]), same), out=same).values.tolist() == [127, 3, 3]


def test_tables_round_half_away_and_end_at_the_last_code():
    x = rq.QTensor(np.int8([-128, 0, 127]), rq.QParams(1.0, 0, "int8"))
    # exp(0) is half a step of 2, and half a step is rounded away; large numbers saturate.
    assert rq.ops.exp(x, out=rq.QParams(2.0, 0, "int8")).values.tolist() == [0, 1, 127]
    assert rq.ops.log(x, out=rq.QParams(0.25, 10, "int8")).values.tolist() == [-128, -128, 29]


@pytest.mark.parametrize("op", OPS)
def test_memory_formats_and_empty_tensors(op):
    codes, p, out = CODES[128:].reshape(2, 4, 4, 4), rq.QParams(0.05, 0, "int8"), rq.QParams(0.1, -3, "int8")
    plain, last = (getattr(rq.ops, op)(rq.QTensor(c, p), out=out).values for c in (codes, to_channels_last(codes)))
    np.testing.assert_array_equal(plain, last)
    assert is_channels_last(last) and plain.flags.c_contiguous
    assert getattr(rq.ops, op)(rq.QTensor(codes[:0], p), out=out).shape == (0, 4, 4, 4)
    np.testing.assert_array_equal(getattr(rq.ops, op)(rq.QTensor(codes[:, ::-1, :, ::2], p), out=out).values, plain[:, ::-1, :, ::2])


@pytest.mark.parametrize("op", OPS)
def test_what_is_refused(op):
    function, x, out = getattr(rq.ops, op), rq.QTensor(CODES[128:], rq.QParams(0.1, 0, "int8")), rq.QParams(0.5, 0, "int8")
    with pytest.raises(UnsupportedError, match="x is uint8.*use int8"):
        function(rq.QTensor(np.zeros(3, np.uint8), rq.QParams(0.1, 0, "uint8")), out=out)
    with pytest.raises(UnsupportedError, match="out uint8"):
        function(x, out=rq.QParams(0.5, 0, "uint8"))
    with pytest.raises(UnsupportedError, match="no kernel takes quantized tensors"):
        function(x, out=out, numerics="fbgemm")
    if op.endswith("sqrt"):
        with pytest.raises(RangeError, match="holds 2 codes below its zero point 2, the first 0"):
            function(rq.QTensor(np.int8([5, 0, 1]), rq.QParams(0.1, 2, "int8")), out=out)


def answer(problem, profile):
    try:
        return oracle(problem, profile).tobytes()
    except UnsupportedError:
        return None


@pytest.mark.parametrize("op", ["exp", "log", "sqrt"])
def test_a_changed_field_is_found(op):
    read = {"exp": "table", "log": "table", "sqrt": "sqrt"}[op]
    # Toward zero and down are one for roots, the ties of exponentials of numbers but 0 are no numbers; these are told by hand.
    same = {"sqrt": {"floor"}, "log": {"half_even", "half_up"}}.get(op, set())
    left = [m for m in mutants("tflite_ref", op) if m.field == read and m.new not in same]
    assert left
    ties = Problem("exp", {"x": rq.QTensor(np.int8([0, 1, 2]), rq.QParams(1.0, 0, "int8")), "out": rq.QParams(2.0, 0, "int8")})
    cases = [case for case, _ in zip(case_stream(op, "tflite_ref"), range(150)) if case.outputs < 20_000]
    for problem in (*([ties] if op == "exp" else []), *map(build, cases)):
        if left:
            left = [m for m in left if answer(problem, m.profile) in (answer(problem, "tflite_ref"), None)]
    assert {m.new for m in left} <= ({"half_up"} if op == "exp" else set())


@pytest.mark.engine
@pytest.mark.parametrize("engine", PROFILES, indirect=True)
@pytest.mark.parametrize("op", OPS)
def test_the_engine_s_bits_and_a_planted_fault(op, engine):
    row = campaign(engine, op, outputs=30_000)
    assert row.outputs >= 30_000 and not row.differing
    changes = {"exp": {"table": "floor"}, "log": {"table": "floor"}, "sqrt": {"sqrt": "half_even"}}.get(op, {})

    class Impostor:
        name, profile = engine.name, numerics.get(engine.profile).replace(function=changes)
        describe, supports = engine.describe, engine.supports

        def run(self, problem):
            return engine.run(problem) if changes else by_reals(problem)

    assert campaign(Impostor(), op, outputs=100_000).differing


def by_reals(problem):
    """abs and rsqrt in float64, rounded once half up: what an engine without integer multipliers would give."""
    x, out = problem["x"], problem["out"]
    real = (x.values.astype(np.float64) - x.qparams.zero_point) * x.qparams.scale
    with np.errstate(divide="ignore"):
        real = np.abs(real) if problem.op == "abs" else 1 / np.sqrt(real)
        codes = np.floor(real / out.scale + 0.5) + out.zero_point
    return np.where(np.isinf(codes), 127, np.clip(codes, -128, 127)).astype(np.int8)


@pytest.mark.engine
@pytest.mark.parametrize("engine", PROFILES, indirect=True)
def test_limits_from_0_to_1(engine):
    row = unary_sweep(engine, "hardtanh", sets=30)
    assert row.outputs > 4_000 and not row.differing
    x = rq.QTensor(CODES, rq.QParams(0.4, 3, "int8"))
    y = engine.run(Problem("hardtanh", {"x": x, "min_val": 0.0, "max_val": 1.0}))
    # 1 lies on a tie of 0.4: two and a half steps.
    assert (y.min(), y.max()) == (3, 6) and np.array_equal(y, rq.ops.hardtanh(x, 0.0, 1.0, numerics=engine.profile).values)


@pytest.mark.engine
@pytest.mark.parametrize("engine", PROFILES, indirect=True)
@pytest.mark.parametrize("op, step", [("sqrt", 0.0), ("rsqrt", 0.5), ("exp", 0.5), ("log", 0.5)])
def test_beside_where_codes_part(op, step, engine):
    """Input scales for which a code ends within two ulp of a boundary."""
    real = {"sqrt": lambda y: y * y, "rsqrt": lambda y: 1 / (y * y), "exp": np.log, "log": np.exp}[op]
    rng, seen = np.random.default_rng(7), set()
    for _ in range(60):
        n, difference = int(rng.integers(1, 60)), int(rng.integers(1, 100))
        so = np.float32(rng.uniform(0.02, 0.06) if op != "exp" else rng.uniform(1, 3))
        solved = np.float32(real(float(so) * (n + step)) / difference)
        for ulps in (-2, -1, 0, 1, 2):
            scale = solved + np.float32(ulps) * np.spacing(solved)
            if scale <= 0:
                continue
            x = rq.QTensor(np.arange(-50, 128).astype(np.int8), rq.QParams(float(scale), -50, "int8"))
            problem = Problem(op, {"x": x, "out": rq.QParams(float(so), 0, "int8")})
            y = engine.run(problem)
            assert np.array_equal(y, oracle(problem, engine.profile))
            seen.add((n, int(y[difference])))
    # Both sides of the boundaries came up.
    assert len({n for n, _ in seen}) < len(seen)
