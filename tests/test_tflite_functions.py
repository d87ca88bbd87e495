"""TensorFlow Lite's functions of one code, its mean and its concatenation: slow witnesses, refusals, planted faults."""

from fractions import Fraction

import numpy as np
import pytest
import witness

import refquant as rq
from refquant import numerics
from refquant.errors import UnsupportedError
from refquant.verify import Problem, build, campaign, case_stream, mutants, oracle

PROFILES = ("tflite_ref", "tflite_opt", "xnnpack")
CODES = np.arange(-128, 128).astype(np.int8)
SAME = {
    "tflite_ref": {"unary.zero_point", "unary.sigmoid", "unary.logistic", "unary.gelu"},
    "tflite_opt": {"unary.zero_point", "unary.sigmoid", "unary.logistic", "unary.gelu"},
    "xnnpack": {"unary.zero_point", "unary.sigmoid", "unary.logistic", "unary.gelu"},
}


def f(v):
    return Fraction(float(np.float32(float(v))))


def away(v):
    """Round a fraction half away from zero."""
    size = int(abs(v) + Fraction(1, 2))
    return size if v >= 0 else -size


def multiplier(real):
    """31 bits and an exponent, in fractions."""
    exponent = 0
    while real >= 1:
        real, exponent = real / 2, exponent + 1
    while real < Fraction(1, 2):
        real, exponent = real * 2, exponent - 1
    mult = away(real * 2**31)
    return (mult // 2, exponent + 1) if mult == 2**31 else (mult, exponent)


def gemmlowp(x, mult, exponent):
    """Two roundings half away from zero."""
    high = away(Fraction((x << max(exponent, 0)) * mult, 2**31))
    return away(Fraction(high, 2 ** max(-exponent, 0)))


@pytest.mark.parametrize("profile", ("tflite_ref", "tflite_opt"))
def test_leaky_relu_by_a_slow_witness(profile):
    sx, sy, slope = f(0.02), f(0.013), f(0.3)
    x = rq.QTensor(CODES, rq.QParams(float(sx), 7, "int8"))
    out = rq.QParams(float(sy), -9, "int8")
    same, other = multiplier(f(sx / sy)), multiplier(f(f(sx * slope) / sy))
    ref = [witness.clip(gemmlowp(int(c) - 7, *(same if c >= 7 else other)) - 9, -128, 127) for c in CODES]
    np.testing.assert_array_equal(rq.ops.leaky_relu(x, float(slope), out=out, numerics=profile).values, ref)


def test_hardswish_is_close_to_the_real_function_and_not_it():
    x = rq.QTensor(CODES, rq.QParams(0.05, 3, "int8"))
    out = rq.QParams(0.03, -20, "int8")
    real = (CODES - 3.0) * 0.05
    exact = np.clip(real * np.clip(real + 3, 0, 6) / 6 / 0.03 - 20, -128, 127)
    y = rq.ops.hardswish(x, out=out, numerics="tflite_ref").values
    assert np.abs(y - exact).max() < 1.1
    onnx = rq.ops.hardswish(x, out=out, numerics="onnx").values
    assert 0 < np.sum(y != onnx) < 64


def test_mean_by_a_slow_witness():
    rng = np.random.default_rng(4)
    codes = rng.integers(-128, 128, (2, 19, 3, 5)).astype(np.int8)
    sx, sy = f(0.05), f(0.02)
    x, out = rq.QTensor(codes, rq.QParams(float(sx), 11, "int8")), rq.QParams(float(sy), -3, "int8")
    mult, exponent = multiplier(sx / sy)
    shift = min(3, 31 + exponent)
    y = rq.ops.adaptive_avg_pool2d(x, 1, out=out, numerics="tflite_ref").values
    for n in range(2):
        for c in range(19):
            total = int(codes[n, c].astype(int).sum()) - 15 * 11
            assert y[n, c, 0, 0] == witness.clip(gemmlowp(total, (mult << shift) // 15, exponent - shift) - 3, -128, 127)


@pytest.mark.parametrize("call, said", [
    (lambda x: rq.ops.sigmoid(x, out=rq.QParams(0.1, 0, "int8"), numerics="xnnpack"), "0.00390625 and -128 alone"),
    (lambda x: rq.ops.elu(x, 0.5, out=x.qparams, numerics="tflite_opt"), "alpha=1 alone"),
    (lambda x: rq.ops.elu(x, out=x.qparams, numerics="tflite_ref"), "has no ELU"),
    (lambda x: rq.ops.hardswish(x, out=rq.QParams(1e-4, 0, "int8"), numerics="tflite_ref"), "larger out.scale"),
    (lambda x: rq.ops.hardswish(x, out=rq.QParams(1e4, 0, "int8"), numerics="tflite_ref"), "smaller out.scale"),
    (lambda x: rq.ops.leaky_relu(x, 1e-6, out=x.qparams, numerics="xnnpack"), "change out.scale"),
    (lambda x: rq.ops.cat([x, x], out=rq.QParams(0.1, 0, "int8"), numerics="tflite_ref"), "requantize them before"),
    (lambda x: rq.ops.gelu(rq.QTensor(x.values.view(np.uint8), rq.QParams(0.1, 0, "uint8")), numerics="tflite_ref"), "use int8"),
])  # fmt: skip
def test_what_the_engine_refuses_is_refused(call, said):
    with pytest.raises(UnsupportedError, match=said):
        call(rq.QTensor(CODES.reshape(1, 1, 16, 16), rq.QParams(0.05, 3, "int8")))


def answer(problem, profile):
    try:
        return oracle(problem, profile).tobytes()
    except UnsupportedError:
        return None


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("ops", [("leaky_relu", "elu"), ("adaptive_avg_pool2d",)])
def test_a_changed_field_is_found(profile, ops):
    left = [m for m in mutants(profile, ops[0]) if f"{m.section}.{m.field}" not in SAME[profile] | {"adaptive_avg_pool.rounding", "adaptive_avg_pool.channels_last", "adaptive_avg_pool.vector"}]
    # Into the input's own parameters plain means are the same, and no default case of elu has a negative tie.
    left = [m for m in left if m.new not in ("raw_mean", "scaled", "half_up")]
    if profile == "tflite_ref":
        left = [m for m in left if m.field != "elu"]
    assert left
    # Positive numbers pass through ELU, so that half of the scale puts every second code on a tie.
    ties = Problem("elu", {"x": rq.QTensor(CODES, rq.QParams(0.25, -3, "int8")), "out": rq.QParams(0.5, 4, "int8")})
    for op in ops:
        cases = (case for case, _ in zip(case_stream(op, profile), range(90)) if case.outputs < 20_000)
        for problem in (*([ties] if op == "elu" else []), *map(build, cases)):
            if left:
                left = [m for m in left if answer(problem, m.profile) in (answer(problem, profile), None)]
    assert [str(m) for m in left] == []


@pytest.mark.engine
@pytest.mark.parametrize("engine", PROFILES, indirect=True)
@pytest.mark.parametrize("op, change", [
    ("leaky_relu", {"unary": {"leaky_relu": {"gemmlowp": "eighths", "eighths": "gemmlowp"}}}),
    ("adaptive_avg_pool2d", {"adaptive_avg_pool": {"contiguous": {"mean_centred": "mean_raw", "mean_raw": "mean_float", "mean_float": "mean_centred"}}}),
])  # fmt: skip
def test_a_planted_fault_is_found_by_the_engine(engine, op, change):
    ((section, ((field, other),)),) = ((name, tuple(fields.items())) for name, fields in change.items())
    right = numerics.get(engine.profile)

    class Impostor:
        name, profile = engine.name, right.replace(**{section: {field: other[getattr(getattr(right, section), field)]}})
        describe, supports, run = engine.describe, engine.supports, engine.run

    assert campaign(Impostor(), op, outputs=30_000).differing


@pytest.mark.engine
@pytest.mark.parametrize("engine", PROFILES, indirect=True)
def test_maxima_of_sequences_are_those_of_images_of_height_1(engine):
    class Impostor:
        name, profile, describe, supports = engine.name, engine.profile, engine.describe, engine.supports

        def run(self, problem):
            return np.roll(engine.run(problem), 1, axis=-1)

    row = campaign(engine, "max_pool1d", outputs=3_000)
    assert row.outputs >= 3_000 and not row.differing
    assert campaign(Impostor(), "max_pool1d", outputs=3_000).differing


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["tflite_opt"], indirect=True)
@pytest.mark.parametrize("zero_point", [-3, -1, 1, 3, 5])
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_a_zero_point_just_below_a_half_rounds_up(engine, zero_point, step):
    """The offset of the optimized kernel is cut after a float32 sum with one half, which rounds."""
    scale = np.float32(0.0038513522338193694)
    out = (2 * scale).view(np.int32) + np.int32(step)
    x = rq.QTensor(np.arange(-128, 128).astype(np.int8).reshape(1, 16, 4, 4), rq.QParams(float(scale), zero_point, "int8"))
    problem = Problem("adaptive_avg_pool2d", {"x": x, "output_size": 1, "out": rq.QParams(float(out.view(np.float32)), 0, "int8")})
    assert np.array_equal(engine.run(problem), oracle(problem, "tflite_opt"))


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["tflite_ref", "tflite_opt"], indirect=True)
@pytest.mark.parametrize("ratio", [100, 255, 1000])
def test_sums_far_outside(engine, ratio):
    """The optimized kernel keeps 16 bits of a sum of codes; its last elements, which fill no vector, and the reference kernel keep all."""
    rng = np.random.default_rng(ratio)
    a, b = rng.integers(-128, 128, (2, 45)).astype(np.int8)
    problem = Problem("add", {"a": rq.QTensor(a, rq.QParams(ratio / 2, 3, "int8")), "b": rq.QTensor(b, rq.QParams(0.25, -7, "int8")), "out": rq.QParams(0.5, 89, "int8")})
    theirs = engine.run(problem)
    assert np.array_equal(theirs, oracle(problem, engine.profile))
    assert np.array_equal(theirs, oracle(problem, "tflite_ref")) == (engine.name == "tflite_ref" or ratio == 100)
