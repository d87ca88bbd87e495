"""Bundles of words: every shape, level and output against the reference, on the exact and on the saturating rung; and what the level is for."""

import numpy as np
import pytest
from test_kernels_conv import check as check_conv
from test_kernels_conv import random_case
from test_kernels_gemm import heights
from test_kernels_witness import assert_same, random_form, ref_gemm

from refquant.core.epilogue import apply_epilogue
from refquant.kernels import bundles
from refquant.kernels.bundles import LEVELS, SIZES, bundle_columns
from refquant.kernels.conv import conv_s32, pack_conv
from refquant.kernels.gemm import gemm_requantize, gemm_s32
from refquant.kernels.jit import get_num_threads, jit_disabled, set_num_threads
from refquant.kernels.pack import pack_b
from refquant.kernels.pairs import gemm_s16pair_s32, pack_pairs
from refquant.kernels.tile import RUNGS

HERE = [rung.name for rung in RUNGS if rung.joins_words and rung.runs_here]
pytestmark = pytest.mark.skipif(jit_disabled() or not HERE, reason="bundles are for AVX2 and compiled kernels")


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Small products too, for which other tiles are faster."""
    monkeypatch.setattr(bundles, "_TILE_COST", -1e9)


@pytest.fixture
def threads_as_before():
    before = get_num_threads()
    yield
    set_num_threads(before)


def made(packed):
    """The bundles that were taken, which there must be."""
    (mine,) = packed.bundles.values()
    assert mine._made.level in LEVELS and mine._made.tables
    return mine


def weights(rng, k, n):
    """Light, heavy and extreme ones; some lanes heavier than any bundle may be at the higher levels."""
    w = rng.normal(0, rng.choice([8, 30, 70]), (k, n)).clip(-128, 127)
    return np.where(rng.random((k, n)) < rng.choice([0, 0.05, 0.5]), rng.choice([-128, 127], (k, n)), w).astype(np.int8)


def bytes_up_to(rng, level, shape):
    """Bytes up to the level, many of them there, so that a lane that is too heavy by one shows."""
    return np.where(rng.random(shape) < 0.5, level, rng.integers(0, level + 1, shape)).astype(np.uint8)


@pytest.mark.parametrize("rung", HERE)
def test_every_shape_up_to_seventy(rung):
    rng = np.random.default_rng(21)
    product, pack, ref_of = (gemm_s32, pack_b, ref_gemm) if rung == "avx2" else (gemm_s16pair_s32, pack_pairs, ref_saturating)
    for k in range(4, 71, 4):
        for n in range(1, 71):
            level = LEVELS[(n + k // 4) % len(LEVELS)]
            a, b = bytes_up_to(rng, level, (70, k)), weights(rng, k, n)
            a[0, 0] = level
            packed, ref = pack(b, rung), ref_of(a, b)
            product(a, packed)
            for m in (70, *heights(n, k)):
                assert_same(ref[:m], product(a[:m], packed), (rung, m, n, k))
            made(packed)


def ref_saturating(a, b):
    pairs = a.astype(np.int64)[:, :, None] * b.astype(np.int64)
    sums = pairs.reshape(len(a), -1, 2, b.shape[1]).sum(2)
    return np.clip(sums, -(2**15), 2**15 - 1).sum(1).astype(np.int32)


@pytest.mark.parametrize("level", LEVELS)
def test_each_output_stage(level):
    rng = np.random.default_rng(22)
    for case in range(60):
        m, n, k = (int(v) for v in (rng.integers(2, 90), rng.integers(1, 70), 4 * rng.integers(1, 60)))
        a, b = bytes_up_to(rng, level, (m, k)), weights(rng, k, n)
        a_zero, b_zero = int(rng.integers(256)), (0, rng.integers(-128, 128, n))[case % 2]
        packed, ref = pack_b(b, "avx2"), ref_gemm(a, b, a_zero, b_zero)
        for dtype in (np.uint8, np.int8, np.float32, np.uint8):
            ep = random_form(rng, n, dtype)
            assert_same(apply_epilogue(ref, ep, dtype), gemm_requantize(a, packed, ep, dtype, a_zero=a_zero, b_zero=b_zero), (m, n, k, dtype))
        made(packed)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("rung", [name for name in HERE if name == "avx2"])
def test_random_geometries(rung, dims, monkeypatch):
    """Several runs, padding, groups that are one; each convolution three times, and more."""
    packs = {}
    monkeypatch.setattr("test_kernels_conv.pack_conv", lambda *args: packs.setdefault(len(packs), pack_conv(*args)))
    rng = np.random.default_rng(30 + dims)
    for case in range(12):
        groups, per_in, per_out = (int(rng.choice(v)) for v in ([1, 1, 2, 3], [2, 4, 8, 16], [1, 5, 16, 33]))
        x, w, geometry, x_zero, w_zero = random_case(rng, dims, groups, per_in, per_out, 11 if dims < 3 else 8)
        check_conv(x, w, groups, geometry, x_zero, w_zero, rung, rng, case)
    assert sum(bool(mine._made and mine._made.tables) for packed in packs.values() for mine in packed.bundles.values()) >= 6


def test_one_packed_convolution_for_images_of_several_widths():
    """The runs of a window lie further apart in a wider image; the bundles are the same ones."""
    rng = np.random.default_rng(23)
    w = weights(rng, 8 * 9, 20).T.reshape(20, 8, 3, 3)
    packed, sides = pack_conv(w, 1, "avx2"), dict(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1))
    for width in (5, 9, 5, 12, 9, 5, *range(20, 40)):
        x = bytes_up_to(rng, 127, (1, 8, 6, width))
        assert_same(conv_s32(x, pack_conv(w, 1, "plain"), **sides, x_zero=7), conv_s32(x, packed, **sides, x_zero=7), width)
    assert 3 <= len(made(packed)._made.tables) <= 8


@pytest.mark.parametrize("level", LEVELS)
def test_bundles_are_as_heavy_as_they_may_be_and_hold_each_word_once(level):
    rng = np.random.default_rng(24)
    most, words = 32767 // level, 300
    for case in range(6):
        b = weights(rng, 4 * words, 16)
        data = np.ascontiguousarray(b.reshape(words, 4, 16).transpose(0, 2, 1)).reshape(-1)
        packed, order, counts = bundle_columns(data, 1, words, level)
        lanes = b.reshape(words, 2, 2, 16).astype(int)
        above, below = np.maximum(lanes, 0).sum(2), np.maximum(-lanes, 0).sum(2)
        for half in range(2):
            mine = slice(8 * half, 8 * half + 8)
            assert sorted(order[half]) == list(range(words))
            assert np.array_equal(packed.reshape(2, words, 8, 4)[half], data.reshape(words, 16, 4)[order[half], mine])
            place = 0
            for size, count in zip(SIZES, counts[half]):
                for bundle in order[half, place : place + count * max(1, size)].reshape(count, max(1, size)):
                    heaviest = max(above[bundle][..., mine].sum(0).max(), below[bundle][..., mine].sum(0).max())
                    assert (heaviest > most) == (size == 0), (size, heaviest)
                place += count * max(1, size)
            assert place == words


def test_the_level_follows_what_passes():
    rng = np.random.default_rng(25)
    b = weights(rng, 64, 40)
    packed, levels = pack_b(b, "avx2"), []
    for highest in (100, 100, 150, 150, 150, 255, 255, 255, 255):
        a = rng.integers(0, highest + 1, (300, 64)).astype(np.uint8)
        a[::7, 0] = highest
        assert_same(ref_gemm(a, b), gemm_s32(a, packed), highest)
        levels.append(getattr(next(iter(packed.bundles.values()))._made, "level", -1))
    assert levels[0] == -1 and levels[1] == 127 and 159 in levels and levels[-1] == 255


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_above_the_level_bundles_would_be_wrong(level):
    """The other tiles take a block of rows with one byte above the level; with the level forgotten there are wrong sums."""
    most = 32767 // level
    lanes = np.repeat([most // 2, most - most // 2], 2)
    pairs = np.stack([lanes // 2, lanes - lanes // 2], axis=1).reshape(-1)  # two words that together weigh `most`, in every lane
    b = np.tile(pairs, (8, 8)).T.astype(np.int8)
    a = np.full((9, 64), level, np.uint8)
    packed, ref = pack_b(b, "avx2"), ref_gemm(a, b)
    for _ in range(30):
        assert_same(ref, gemm_s32(a, packed), level)
    mine, high = made(packed), np.full_like(a, level + 1)
    assert mine._made.level == level and mine._made.counts[0, :3].any()
    assert_same(ref_gemm(high, b), gemm_s32(high, packed), level)
    words, begins, counts, _, seen = mine.table(np.zeros(1, np.int64), 64)
    for key, (_, runs) in mine._made.tables.items():
        mine._made.tables[key] = (words, begins, counts, 255, np.zeros_like(seen)), runs
    assert not np.array_equal(ref_gemm(high, b), gemm_s32(high, packed))


def test_threads_do_not_matter(threads_as_before):
    rng = np.random.default_rng(26)
    a, b = bytes_up_to(rng, 143, (700, 256)), weights(rng, 256, 100)
    packed, ref = pack_b(b, "avx2"), ref_gemm(a, b)
    for threads in (1, 2, 3, 2, 1):
        set_num_threads(threads)
        assert_same(ref, gemm_s32(a, packed), threads)
