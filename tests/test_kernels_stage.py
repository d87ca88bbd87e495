"""The output stage: slow witness = NumPy = vectors = plain loops, for all kinds, steps, rounding modes and output dtypes."""

import numpy as np
import pytest
from test_kernels_witness import KINDS, LIMITS, STEPS, accumulators, assert_same, random_form, slow_stage

from refquant.core.epilogue import (
    BIAS,
    CLAMP,
    DST_DIV,
    DST_MUL,
    FIXED_GEMMLOWP,
    FIXED_HALF_UP,
    FLOAT32,
    FLOAT64,
    PRE_BIAS,
    RELU,
    SCALE1,
    SCALE_FMA,
    ZERO_FLOAT,
    apply_epilogue,
    make_epilogue,
)
from refquant.core.rounding import Round
from refquant.kernels.gemm import gemm_requantize
from refquant.kernels.jit import get_num_threads, jit_disabled, set_num_threads
from refquant.kernels.pack import pack_b
from refquant.kernels.requantize import requantize
from refquant.kernels.stage import (
    BYTES,
    LINE_BIASED,
    LINE_DIVIDED,
    LINE_GEMMLOWP,
    LINE_HALF_UP,
    LINE_LONG,
    LINE_NONE,
    LINE_REAL64,
    LINE_REAL64_AWAY,
    LINE_SHORT,
    NARROW,
    WORDS,
    make_stage,
    output_kind,
)
from refquant.kernels.tile import PLAIN, choose_rung
from refquant.kernels.wide import halves_run_here

DTYPES = list(LIMITS)
SHORT = (PRE_BIAS, RELU, CLAMP)
LONG = (SCALE1, BIAS, RELU, DST_MUL, ZERO_FLOAT, CLAMP)


def fused(acc_row, ep, dtype, rows, rung=None):
    """The stage as a product carries it out: K = 0, so that the accumulators are what ``bias_i`` is."""
    wrapped = (acc_row.astype(np.int64) + ep.bias_i).astype(np.int32)
    packed = pack_b(np.zeros((0, acc_row.size), np.int8), rung)
    return gemm_requantize(np.zeros((rows, 0), np.uint8), packed, ep._replace(bias_i=wrapped), dtype)


def check(acc, ep, dtype, case, rung=None):
    ref = apply_epilogue(acc, ep, dtype)
    assert_same(ref, requantize(acc, ep, dtype), case)
    assert_same(ref[1:2].repeat(3, axis=0), fused(acc[1], ep, dtype, 3, rung), case)


def test_small_forms_against_the_slow_witness():
    rng = np.random.default_rng(0)
    for case in range(60):
        dtype = (np.uint8, np.int8, np.float32)[case % 3]
        ep, acc = random_form(rng, 19, dtype, tame=True), accumulators(rng, 3, 19)
        slow = [[slow_stage(int(v), n, ep, dtype == np.float32) for n, v in enumerate(row)] for row in acc]
        slow = np.array([[float(v) for v in row] for row in slow]) if dtype == np.float32 else np.array(slow)
        assert_same(slow.astype(dtype), requantize(acc, ep, dtype) + dtype(0), (case, ep))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_small_forms_of_every_kind(kind, dtype):
    rng = np.random.default_rng(int(kind))
    for mode in Round:
        for case in range(3):
            channels = (1, 16, 23)[case]
            ep = random_form(rng, channels, dtype, kind=kind, rounding=mode)
            check(accumulators(rng, 3, channels), ep, dtype, (kind, mode, ep))


@pytest.mark.skipif(jit_disabled(), reason="thousands of forms are for compiled kernels")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_set_of_steps(dtype):
    rng = np.random.default_rng(3)
    for number in range(2 ** len(STEPS)):
        flags = sum(int(step) for i, step in enumerate(STEPS) if number >> i & 1)
        channels = int(rng.choice([5, 37, 64, 100]))
        ep = random_form(rng, channels, dtype, flags=flags, rounding=Round.HALF_EVEN if number % 2 else None)
        check(accumulators(rng, 3, channels), ep, dtype, (flags, ep))


@pytest.mark.skipif(jit_disabled(), reason="the lines are machine code")
@pytest.mark.parametrize("steps", [SHORT, LONG])
def test_straight_lines(steps):
    """Forms that are rewritten: random limits, zero points, ReLU, scales that overflow; both lines and their refusals occur."""
    rng = np.random.default_rng(4)
    seen = {LINE_NONE: 0, LINE_SHORT: 0, LINE_LONG: 0}
    for case in range(1500):
        dtype = (np.uint8, np.int8)[case % 2]
        channels = int(rng.choice([1, 15, 16, 17, 32, 48, 63, 64, 65, 80, 130]))
        flags = sum(int(step) for step in steps if rng.random() < 0.6)
        ep = random_form(rng, channels, dtype, flags=flags, rounding=Round.HALF_EVEN)
        if flags & ZERO_FLOAT:
            ep = ep._replace(zi=0)
        check(accumulators(rng, 3, channels), ep, dtype, (case, ep))
        line = make_stage(ep, BYTES, True)[:26].view(np.int64)[8]
        seen[int(line)] += 1
    assert seen[LINE_SHORT if steps is SHORT else LINE_LONG] > 300 and seen[LINE_NONE] > 30, seen


MEMORY_LINES = {
    LINE_BIASED: (FLOAT32, Round.HALF_EVEN, PRE_BIAS | BIAS),
    LINE_DIVIDED: (FLOAT32, Round.HALF_EVEN, DST_DIV),
    LINE_REAL64: (FLOAT64, Round.HALF_EVEN, 0),
    LINE_REAL64_AWAY: (FLOAT64, Round.HALF_AWAY, 0),
    LINE_GEMMLOWP: (FIXED_GEMMLOWP, Round.HALF_UP, 0),
    LINE_HALF_UP: (FIXED_HALF_UP, Round.HALF_UP, 0),
}


@pytest.mark.skipif(jit_disabled() or not halves_run_here(), reason="these lines are for AVX2")
@pytest.mark.parametrize("line", MEMORY_LINES)
def test_lines_over_tiles_in_memory(line):
    """Every number of rows and columns around four and sixteen, each row with sums of its own; random limits and zero points."""
    rng = np.random.default_rng(line)
    kind, mode, flags = MEMORY_LINES[line]
    others = {FLOAT32: (SCALE1, BIAS, ZERO_FLOAT, CLAMP, RELU), FLOAT64: (ZERO_FLOAT, CLAMP)}.get(kind, ())
    seen = values = 0
    for case in range(150):
        dtype, m, n, k = (np.uint8, np.int8)[case % 2], int(rng.choice([1, 3, 4, 5, 8, 13, 47, 48, 49, 50])), int(rng.choice([1, 2, 15, 16, 17, 31, 32, 33, 48, 70])), 12
        ep = random_form(rng, n, dtype, kind=kind, rounding=mode, flags=flags | sum(int(f) for f in others if rng.random() < 0.5))
        if ep.flags & ZERO_FLOAT:
            ep = ep._replace(zi=0)
        a, b = rng.integers(0, 256, (m, k), np.uint8), rng.integers(-128, 128, (k, n), np.int8)
        ref = apply_epilogue(a.astype(np.int32) @ b.astype(np.int32), ep, dtype)
        assert_same(ref, gemm_requantize(a, pack_b(b), ep, dtype), (case, ep))
        acc = accumulators(rng, 2, n)
        assert_same(apply_epilogue(acc, ep, dtype)[1:].repeat(9, axis=0), fused(acc[1], ep, dtype, 9), (case, ep))
        seen += int(make_stage(ep, BYTES, True)[:26].view(np.int64)[8]) == line
        values += len(np.unique(ref)) > 3
    assert seen > 60 and values > 30, (seen, values)


@pytest.mark.skipif(jit_disabled() or not halves_run_here(), reason="these lines are for AVX2")
@pytest.mark.parametrize("kind, number, vector", [(FLOAT32, np.float32, "s2"), (FLOAT64, np.float64, "m64")])
def test_ties_and_their_neighbours_in_a_product(kind, number, vector):
    """The greatest number below a half rounds to 0, half away from zero as well, and so around all others."""
    base = np.array([0.5, 0.25, 1.5, 2.5, 0.1], number)
    scales = np.concatenate([base, np.nextafter(base, number(0)), np.nextafter(base, number(9)), -base])
    for mode in (Round.HALF_EVEN, Round.HALF_AWAY):
        ep = make_epilogue(scales.size, kind=kind, rounding=mode, flags=DST_DIV if kind == FLOAT32 else 0, d=1, qlo=-128, qhi=127, **{vector: scales})
        for acc in (*range(-520, 520), 2**31 - 1, -(2**31), 2**30 + 1):
            row = np.full(scales.size, acc, np.int64).astype(np.int32)
            assert_same(apply_epilogue(row[None], ep, np.int8).repeat(5, axis=0), fused(row, ep, np.int8, 5), (mode, acc))


@pytest.mark.skipif(jit_disabled(), reason="the lines are machine code")
def test_a_positive_overflow_is_not_taken_for_a_large_number():
    """Without CLAMP, x86 makes -2**31 of it: the lowest code, even where ReLU has raised what lies below."""
    ep = make_epilogue(3, flags=RELU | DST_MUL | ZERO_FLOAT, s2=[1e30, 1, -1], d=1, zf=81, qlo=0, qhi=255)
    assert_same(np.array([[0, 91, 81]], np.uint8), fused(np.array([10, 10, 10]), ep, np.uint8, 1))
    clamped = ep._replace(flags=ep.flags | CLAMP, lo=np.float32(0), hi=np.float32(255))
    assert_same(np.array([[255, 91, 81]], np.uint8), fused(np.array([10, 10, 10]), clamped, np.uint8, 1))


def test_small_near_ties():
    """Every accumulator of a dense range at scales where half of the products are ties, for each mode."""
    acc = np.arange(-700, 701, dtype=np.int32)[:, None].repeat(2, axis=1)
    for mode in Round:
        for zi in (0, 128):
            ep = make_epilogue(2, s2=[0.5, 0.25], zi=zi, rounding=mode, qlo=0, qhi=255)
            assert_same(apply_epilogue(acc, ep, np.uint8), requantize(acc, ep, np.uint8), mode)
            assert_same(apply_epilogue(acc[:1], ep, np.uint8), fused(acc[0], ep, np.uint8, 1), mode)


EDGES = np.array([s * v + d for v in (0, 2**30, 2**31) for s in (1, -1) for d in range(-3, 4) if -(2**31) <= s * v + d < 2**31])


@pytest.mark.parametrize("ends", ["narrow", "multipliers at -2**31", "exponents beyond 31"])
@pytest.mark.parametrize("kind", [FIXED_GEMMLOWP, FIXED_HALF_UP])
def test_fixed_point_at_the_ends(kind, ends):
    """Sums, multipliers and exponents around the powers of two, with ties of both roundings: on 32 bits where they suffice."""
    rng, n = np.random.default_rng(9), 37
    beyond = ends.startswith("exp")
    for case in range(30):
        low = -(2**31) if ends.startswith("mul") else -(2**31) + 1
        mult = np.maximum(rng.choice(np.concatenate([EDGES, rng.integers(2**30, 2**31, 60)]), n), low)
        if ends.startswith("mul"):
            mult[case] = -(2**31)
        shift = rng.integers(-34, 35, n) if beyond else rng.choice([-31, -30, -9, -2, -1, 0, 1, 30, 31], n)
        shift[case] = 32 if beyond else 0
        odd = (rng.integers(-500, 500, 100) * 2 + 1) << rng.integers(0, 20, 100)
        acc = rng.choice(np.concatenate([EDGES, odd, rng.integers(-2000, 2000, 100)]), (11, n)).astype(np.int32)
        for dtype, zi in ((np.uint8, 3), (np.int8, -128), (np.int32, 0), (np.int32, 255)):
            info = np.iinfo(dtype)
            ep = make_epilogue(n, kind=kind, mult=mult, shift=shift, zi=zi, qlo=info.min, qhi=info.max)
            found = make_stage(ep, output_kind(dtype), True)[: 2 * len(WORDS)].view(np.int64)[WORDS.index("kind")]
            assert found == (kind + NARROW if ends == "narrow" else kind)
            assert_same(apply_epilogue(acc, ep, dtype), requantize(acc, ep, dtype), (kind, ends, case))


@pytest.mark.parametrize("kind, number, vector", [(FLOAT32, np.float32, "s2"), (FLOAT64, np.float64, "m64")])
def test_ties_and_their_neighbours(kind, number, vector):
    base = np.array([0.5, 0.25, 1.5, 2.5, 0.1], number)
    scales = np.concatenate([base, np.nextafter(base, number(0)), np.nextafter(base, number(9)), -base])
    acc = np.concatenate([np.arange(-600, 600), 2 ** np.arange(31), 2 ** np.arange(31) - 1, -(2 ** np.arange(32))]).astype(np.int32)
    acc = acc[:, None].repeat(scales.size, axis=1)
    for mode in Round:
        for dtype in (np.uint8, np.int32):
            info = np.iinfo(dtype)
            ep = make_epilogue(scales.size, kind=kind, rounding=mode, qlo=info.min, qhi=info.max, **{vector: scales})
            assert_same(apply_epilogue(acc, ep, dtype), requantize(acc, ep, dtype), mode)


def test_small_fused_multiply_add_is_one_rounding():
    """2**-12 steps whose product needs 25 bits: two roundings give another float32."""
    ep = make_epilogue(1, flags=SCALE_FMA, s2=1 + 2**-12, b=-(2**23))
    acc = np.arange(2**23 - 40, 2**23 + 40, dtype=np.int32)[:, None]
    ref = apply_epilogue(acc, ep, np.float32)
    assert_same(ref, requantize(acc, ep, np.float32))
    apart = apply_epilogue(acc, ep._replace(flags=BIAS), np.float32)
    assert (ref != apart).any()


def test_small_shapes_and_memory():
    rng = np.random.default_rng(5)
    ep = make_epilogue(6, s2=0.01, qlo=-128, qhi=127)
    for shape in ((0, 6), (6,), (2, 3, 6), (2, 0, 6)):
        acc = rng.integers(-9999, 9999, shape).astype(np.int32)
        assert_same(apply_epilogue(acc, ep, np.int8), requantize(acc, ep, np.int8), shape)
    acc = rng.integers(-9999, 9999, (6, 4, 5)).astype(np.int32)
    frozen = np.moveaxis(acc, 0, -1)
    frozen.flags.writeable = False
    assert_same(apply_epilogue(frozen, ep, np.int8), requantize(frozen, ep, np.int8))
    empty = requantize(np.zeros((3, 0), np.int32), make_epilogue(0), np.uint8)
    assert empty.shape == (3, 0) and empty.dtype == np.uint8


@pytest.mark.skipif(jit_disabled(), reason="large arrays are for compiled kernels")
def test_threads_do_not_change_a_bit():
    rng, before = np.random.default_rng(6), get_num_threads()
    acc, ep = accumulators(rng, 5000, 70), random_form(rng, 70, np.uint8)
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            assert_same(apply_epilogue(acc, ep, np.uint8), requantize(acc, ep, np.uint8), threads)
    finally:
        set_num_threads(before)


def test_small_plain_loops_give_the_same_bits():
    """The loops that run without a compiler, compiled or not, beside the vectors."""
    rng = np.random.default_rng(7)
    for case in range(12 if choose_rung() is None else 60):
        dtype = DTYPES[case % 4]
        ep, acc = random_form(rng, 21, dtype, kind=KINDS[case // 4 % 4]), accumulators(rng, 3, 21)
        check(acc, ep, dtype, (case, ep), PLAIN)
