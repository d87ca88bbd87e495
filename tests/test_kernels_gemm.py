"""Products: slow witness = NumPy = every rung, for shapes around every tile's edges and for codes at the ends of their ranges."""

import os
import subprocess
import sys

import numpy as np
import pytest
from test_kernels_witness import assert_same, ref_gemm, slow_gemm

from refquant.core.epilogue import BIAS, CLAMP, apply_epilogue, make_epilogue
from refquant.errors import UnsupportedError
from refquant.kernels import product
from refquant.kernels.gemm import gemm_requantize, gemm_s32
from refquant.kernels.jit import get_num_threads, jit_disabled, set_num_threads
from refquant.kernels.pack import pack_b
from refquant.kernels.pairs import gemm_s16pair_s32, pack_pairs
from refquant.kernels.signature import as_input
from refquant.kernels.tile import PLAIN, RUNGS

EXACT = [PLAIN, *(rung.name for rung in RUNGS if rung.exact and rung.runs_here)]
PAIRS = [PLAIN, *(rung.name for rung in RUNGS if not rung.exact and rung.runs_here)]
SIGNS = [(np.uint8, np.int8), (np.int8, np.int8), (np.uint8, np.uint8), (np.int8, np.uint8)]
TAILS = [31, 32, 33, 47, 48, 49, 63, 64, 65, 70]


@pytest.fixture(autouse=True)
def threads_as_before():
    before = get_num_threads()
    yield
    set_num_threads(before)


def codes(rng, shape, dtype):
    """Random codes, a third of them at the ends of the range."""
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([info.min, info.max], shape), values).astype(dtype)


def zeros_of(rng, case, n, dtype):
    """A zero point of each kind: none, a scalar at an end, one for each column."""
    info = np.iinfo(dtype)
    return (0, info.min, rng.integers(info.min, info.max + 1, n), np.full(n, info.max))[case % 4]


@pytest.mark.parametrize("rung", EXACT)
@pytest.mark.parametrize("signs", SIGNS)
def test_small_against_the_slow_witness(rung, signs):
    rng = np.random.default_rng(0)
    for case, (m, n, k) in enumerate([(1, 1, 1), (2, 3, 4), (3, 2, 7), (1, 17, 3), (7, 1, 9), (0, 3, 2), (3, 0, 2), (3, 2, 0)]):
        a, b = codes(rng, (m, k), signs[0]), codes(rng, (k, n), signs[1])
        a_zero = int(codes(rng, (), signs[0]))
        b_zero = zeros_of(rng, case, n, signs[1])
        slow = slow_gemm(a, b, a_zero, np.broadcast_to(b_zero, n).tolist())
        assert_same(slow, gemm_s32(a, pack_b(b, rung), a_zero=a_zero, b_zero=b_zero), (rung, m, n, k))


def heights(n, k):
    """Numbers of rows to try: all up to 70 where the suite must be thorough, else some, others for each (n, k)."""
    if os.environ.get("REFQUANT_REQUIRE_ENGINES") == "1":
        return range(1, 71)
    return range(1 + (7 * n + k) % 23, 71, 23)


@pytest.mark.skipif(jit_disabled(), reason="hundreds of thousands of products are for compiled kernels")
@pytest.mark.parametrize("rung", EXACT)
def test_every_shape_up_to_seventy(rung):
    """Rows do not know of one another, so that the first m rows of one reference are the product of m rows."""
    rng = np.random.default_rng(1)
    all_codes = codes(rng, (70, 70), np.uint8)
    weights = codes(rng, (70, 70), np.int8)
    for k in range(1, 71):
        a = np.ascontiguousarray(all_codes[:, :k])
        whole = ref_gemm(a, weights[:k], 128, 0)
        for n in range(1, 71):
            packed, ref = pack_b(weights[:k, :n], rung), np.ascontiguousarray(whole[:, :n])
            for m in heights(n, k):
                if not np.array_equal(gemm_s32(a[:m], packed, a_zero=128), ref[:m]):
                    assert_same(ref[:m], gemm_s32(a[:m], packed, a_zero=128), (rung, m, n, k))


@pytest.mark.skipif(jit_disabled(), reason="thousands of products are for compiled kernels")
@pytest.mark.parametrize("rung", EXACT)
def test_zero_points_at_few_rows_and_columns(rung):
    rng = np.random.default_rng(4)
    for case in range(240):
        m, n, k = (int(v) for v in rng.integers(1, 21, 3))
        a, b, b_zero = codes(rng, (m, k), np.uint8), codes(rng, (k, n), np.int8), zeros_of(rng, case, n, np.int8)
        assert_same(ref_gemm(a, b, 128, b_zero), gemm_s32(a, pack_b(b, rung), a_zero=128, b_zero=b_zero), (rung, m, n, k))


@pytest.mark.skipif(jit_disabled(), reason="large products are for compiled kernels")
@pytest.mark.parametrize("rung", EXACT)
@pytest.mark.parametrize("signs", SIGNS)
def test_tails(rung, signs):
    rng = np.random.default_rng(2)
    for case in range(30):
        m, n, k = (int(v) for v in rng.choice(TAILS, 3))
        if case % 10 == 0:
            m = 240 + case  # more than one block of rows
        a, b = codes(rng, (m, k), signs[0]), codes(rng, (k, n), signs[1])
        a_zero, b_zero = int(codes(rng, (), signs[0])), zeros_of(rng, case, n, signs[1])
        packed = pack_b(b, rung)
        ref = ref_gemm(a, b, a_zero, b_zero)
        assert_same(ref, gemm_s32(a, packed, a_zero=a_zero, b_zero=b_zero), (rung, m, n, k))
        ep = make_epilogue(n, flags=BIAS | CLAMP, s2=0.002, b=rng.standard_normal(n), lo=-90, hi=165, zi=90, qlo=0, qhi=255)
        comp = gemm_requantize(a, packed, ep, np.uint8, a_zero=a_zero, b_zero=b_zero)
        assert_same(apply_epilogue(ref, ep, np.uint8), comp, (rung, m, n, k))


@pytest.mark.parametrize("rung", EXACT)
def test_sums_wrap(rung):
    """255 * -128 * 70,000 leaves int32, and so do zero-point terms."""
    k = 70_000
    a, b = np.full((2, k), 255, np.uint8), np.full((k, 2), -128, np.int8)
    b[:, 1] = 127
    packed = pack_b(b, rung)
    for a_zero, b_zero in ((0, 0), (255, 0), (0, np.array([127, -128])), (-(2**20), 2**20)):
        slow = slow_gemm(a[:1], b, a_zero, np.broadcast_to(b_zero, 2).tolist()).repeat(2, axis=0)
        assert_same(slow, gemm_s32(a, packed, a_zero=a_zero, b_zero=b_zero), (rung, a_zero))


@pytest.mark.parametrize("rung", EXACT)
def test_any_memory(rung):
    rng = np.random.default_rng(3)
    wide, tall = codes(rng, (9, 40), np.uint8), codes(rng, (40, 21), np.int8)
    forms = {
        "plain": (wide, tall),
        "transposed": (np.asfortranarray(wide), np.asfortranarray(tall)),
        "cut": (wide[1:8, ::2], tall[::2, 3:20:2]),
        "backwards": (wide[::-1, ::-1], tall[::-1, ::-1]),
        "repeated": (np.broadcast_to(wide[0], (5, 40)), np.broadcast_to(tall[:, :1], (40, 6))),
        "a column": (wide[:, :1], tall[:1]),
    }
    for name, (a, b) in forms.items():
        for frozen in (False, True):
            a, b = a.view(), b.view()
            if frozen:
                a.flags.writeable = b.flags.writeable = False
            before = a.copy()
            assert_same(ref_gemm(a, b), gemm_s32(a, pack_b(b, rung)), (rung, name))
            assert_same(before, a)


def test_packing_is_a_copy():
    b = np.ones((4, 3), np.int8)
    for rung in EXACT:
        packed = pack_b(b, rung)
        b[:] = 7
        assert_same(np.full((1, 3), 4, np.int32), gemm_s32(np.ones((1, 4), np.uint8), packed))
        b[:] = 1
        for array in (packed.data, packed.sums):
            assert not array.flags.writeable


def test_results_go_where_they_are_asked_to():
    rng = np.random.default_rng(4)
    a, b = codes(rng, (5, 6), np.uint8), codes(rng, (6, 37), np.int8)
    out = np.full((5, 37), 99, np.int32)
    assert gemm_s32(a, pack_b(b), out=out) is out
    assert_same(ref_gemm(a, b), out)
    ep = make_epilogue(37, s2=0.01, qlo=-128, qhi=127)
    small = np.zeros((5, 37), np.int8)
    assert gemm_requantize(a, pack_b(b), ep, np.int8, out=small) is small
    assert_same(apply_epilogue(ref_gemm(a, b), ep, np.int8), small)


@pytest.mark.skipif(jit_disabled(), reason="large products are for compiled kernels")
def test_threads_do_not_change_a_bit(monkeypatch):
    monkeypatch.setattr(product, "_GRAIN", 1)  # no product is too small to be shared out
    rng = np.random.default_rng(5)
    for m, n, k in ((600, 130, 257), (3, 4096, 1500), (1, 1, 40_000)):
        a, b = codes(rng, (m, k), np.uint8), codes(rng, (k, n), np.int8)
        packed, b_zero = pack_b(b), rng.integers(-128, 128, n)
        ep = make_epilogue(n, s2=1e-4, qlo=0, qhi=255)
        results = []
        for threads in (1, 2, 3, 7):
            set_num_threads(threads)
            results.append((gemm_s32(a, packed, a_zero=9, b_zero=b_zero), gemm_requantize(a, packed, ep, np.uint8)))
        assert_same(ref_gemm(a, b, 9, b_zero), results[0][0])
        for exact, finished in results[1:]:
            assert_same(results[0][0], exact)
            assert_same(results[0][1], finished)


@pytest.mark.parametrize("rung", [rung for rung in RUNGS if rung.low and rung.runs_here], ids=lambda rung: rung.name)
@pytest.mark.parametrize("pair", [(127, 127), (-128, -128), (127, -128), (1, 127), (90, 91), (-100, -29), (64, 64), (0, 0), (0, -128)])
def test_low_bytes_take_the_faster_rung_where_it_is_exact_and_no_further(rung, pair):
    """The limit is the last byte without a saturated pair, and one byte above it, wherever it is, brings the exact rung back."""
    m, k = 9, 38
    b = np.zeros((k, 20), np.int8)
    b[:, 3] = np.tile(pair, k // 2)
    packed = pack_b(b, rung.name)
    limits = packed.data[-2:].view(np.uint8)
    worst = [(x, y) for x in (0, 1) for y in (0, 1)]
    brute = max(a for a in range(256) if all(-32768 <= a * (x * pair[0] + y * pair[1]) <= 32767 for x, y in worst))
    assert limits.tolist() == [brute, 255]
    low, limit = pack_pairs(b, rung.low), int(limits[0])
    for x, y in worst:
        a = np.tile(np.array([x, y], np.uint8), (m, k // 2))
        assert_same(ref_gemm(a * limit, b, 0, 0), gemm_s16pair_s32(a * limit, low), pair)
    if limit < 255:
        sums = [gemm_s16pair_s32(a * np.uint8(limit + 1), low) - ref_gemm(a * np.uint8(limit + 1), b, 0, 0) for a in map(lambda w: np.tile(np.array(w, np.uint8), (m, k // 2)), worst)]
        assert any(s.any() for s in sums)  # what the limit is for
    for place in range(m * k):
        a = np.full((m, k), limit, np.uint8)
        a.reshape(-1)[place] = min(255, limit + 1 + place % 100)
        assert_same(ref_gemm(a, b, 3, 0), gemm_s32(a, packed, a_zero=3), (pair, place))
    wrong, full = packed.data.copy(), np.full((m, k), 255, np.uint8)
    wrong[-2:] = -1  # a limit of 255
    assert limit == 255 or pair == (127, -128) or not np.array_equal(gemm_s32(full, packed._replace(data=as_input(wrong))), ref_gemm(full, b, 0, 0))


@pytest.mark.parametrize("rung", [rung.name for rung in RUNGS if rung.low and rung.runs_here])
def test_a_row_alone_takes_several_blocks_of_columns(rung):
    """Every number of columns and of blocks whose pairs would saturate, in every place, with every kind of output."""
    rng = np.random.default_rng(12)
    forms = [make_epilogue, lambda n, **o: make_epilogue(n, flags=BIAS | CLAMP, b=0.5, lo=-60, hi=200, **o)]
    for n in [*range(1, 140, 3), 16, 48, 64, 65, 80, 128, 256, 1000]:
        k = int(rng.integers(1, 90))
        a, b = rng.integers(200, 256, (1, k), np.uint8), rng.integers(-60, 61, (k, n), np.int8)
        for block in rng.permutation(-(-n // 16))[: rng.integers(3)]:
            b[:, 16 * block] = rng.choice([127, -128])
        packed = pack_b(b, rung)
        assert_same(ref_gemm(a, b, 5), gemm_s32(a, packed, a_zero=5), (n, k))
        b_zero = rng.integers(-9, 9, n)
        assert_same(ref_gemm(a, b, 5, b_zero), gemm_s32(a, packed, a_zero=5, b_zero=b_zero), (n, k))
        for form, dtype in zip((*forms, *forms), (np.uint8, np.uint8, np.int8, np.float32)):
            ep = form(n, s2=rng.uniform(1e-3, 1e-2, n).astype(np.float32), qlo=-128 * (dtype == np.int8), qhi=255 - 128 * (dtype == np.int8))
            assert_same(apply_epilogue(ref_gemm(a, b, 5), ep, dtype), gemm_requantize(a, packed, ep, dtype, a_zero=5), (n, k))


@pytest.mark.parametrize("rung", [rung.name for rung in RUNGS if rung.low and rung.runs_here])
def test_one_high_byte_in_any_block_of_rows_is_seen(rung):
    """Rows are looked at a block at a time: of 600 rows the first and last of every block, and some between."""
    m, k = 600, 6
    b = np.full((k, 20), 127, np.int8)
    packed, a = pack_b(b, rung), np.full((m, k), 127, np.uint8)
    quiet = ref_gemm(a, b)
    for row in (0, 1, 198, 199, 200, 201, 202, 239, 240, 241, 399, 400, 408, 479, 480, 598, 599):
        for place in (0, k - 1):
            a[row, place] = 255
            expected = quiet.copy()
            expected[row] += 128 * 127
            assert_same(expected, gemm_s32(a, packed), (row, place))
            a[row, place] = 127


def test_an_instruction_that_is_not_there_is_an_error():
    missing = [rung for rung in RUNGS if not rung.runs_here]
    for rung in missing:
        with pytest.raises(UnsupportedError, match=rung.name):
            pack_b(np.zeros((4, 4), np.int8), rung.name)
    assert missing or not jit_disabled()


def ref_pairs(a, b):
    products = a.astype(np.int64)[..., None] * b.astype(np.int64)
    even = products.shape[1] // 2 * 2
    pairs = np.clip(products[:, 0:even:2] + products[:, 1:even:2], -32768, 32767)
    return (pairs.sum(1) + products[:, even:].sum(1)).astype(np.int32)


@pytest.mark.parametrize("rung", PAIRS)
def test_small_pairs_saturate(rung):
    rng = np.random.default_rng(6)
    for m, n, k in ((1, 1, 1), (1, 1, 2), (2, 3, 5), (3, 18, 7), (0, 2, 4), (2, 0, 4), (2, 2, 0), (7, 5, 12)):
        a, b = codes(rng, (m, k), np.uint8), rng.choice([-128, -127, 127, 1], (k, n)).astype(np.int8)
        assert_same(ref_pairs(a, b), gemm_s16pair_s32(a, pack_pairs(b, rung)), (rung, m, n, k))
        assert_same(ref_pairs(a, b), gemm_s16pair_s32(a, b), (rung, m, n, k))
    full = gemm_s16pair_s32(np.full((1, 2), 255, np.uint8), pack_pairs(np.full((2, 1), 127, np.int8), rung))
    assert_same(np.array([[32767]], np.int32), full)


@pytest.mark.skipif(jit_disabled(), reason="large products are for compiled kernels")
@pytest.mark.parametrize("rung", PAIRS)
def test_pairs_at_tails(rung):
    rng = np.random.default_rng(7)
    saturated = 0
    for _ in range(20):
        m, n, k = (int(v) for v in rng.choice([5, 6, 7, 12, 13, *TAILS], 3))
        a, b = codes(rng, (m, k), np.uint8), codes(rng, (k, n), np.int8)
        ref = ref_pairs(a, b)
        assert_same(ref, gemm_s16pair_s32(a, pack_pairs(b, rung)), (rung, m, n, k))
        saturated += (ref != ref_gemm(a, b)).sum()
    assert saturated > 1000


def test_without_a_compiler():
    """NUMBA_DISABLE_JIT=1: the plain loops alone, same bits."""
    if jit_disabled():
        pytest.skip("this is what the inner run does")
    files = ["test_kernels_gemm.py", "test_kernels_stage.py", "test_kernels_conv.py"]
    here = os.path.dirname(os.path.abspath(__file__))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-k", "small", "-W", "error", "-p", "no:cacheprovider", *files], cwd=here,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTEST_ADDOPTS": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]
    assert " passed" in run.stdout and "SKIPPED" not in run.stdout
