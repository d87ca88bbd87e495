"""Convolutions: slow witness = NumPy = every rung; depthwise in registers and in plain loops; FBGEMM's saturating pairs."""

import numpy as np
import pytest
from test_kernels_witness import assert_same, random_form, ref_conv, slow_conv, windows

from refquant.core.epilogue import FIXED_GEMMLOWP, apply_epilogue, make_epilogue
from refquant.core.layout import to_channels_last
from refquant.kernels import depthwise as depthwise_file
from refquant.kernels import product
from refquant.kernels.conv import conv_requantize, conv_s32, pack_conv
from refquant.kernels.depthwise import depthwise_pair16_requantize, depthwise_pair16_s32
from refquant.kernels.jit import get_num_threads, jit_disabled, set_num_threads
from refquant.kernels.requantize import requantize
from refquant.kernels.tile import PLAIN, RUNGS

EXACT = [PLAIN, *(rung.name for rung in RUNGS if rung.exact and rung.runs_here)]


def codes(rng, shape, dtype):
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([info.min, info.max], shape), values).astype(dtype)


def random_case(rng, dims, groups, per_in, per_out, most):
    """Arrays, and the geometry that a convolution of them may have."""
    pick = lambda low, high: tuple(int(v) for v in rng.integers(low, high, dims))  # noqa: E731
    kernel, stride, dilation = pick(1, 4), pick(1, 4), pick(1, 3)
    padding = tuple(zip(pick(0, 3), pick(0, 3)))
    size = pick(7, most)
    dtypes = [(np.uint8, np.int8), (np.int8, np.int8), (np.uint8, np.uint8), (np.int8, np.uint8)][rng.integers(4)]
    x = codes(rng, (int(rng.integers(1, 3)), groups * per_in, *size), dtypes[0])
    w = codes(rng, (groups * per_out, per_in, *kernel), dtypes[1])
    w_zero = (0, int(codes(rng, (), dtypes[1])), codes(rng, len(w), dtypes[1]).astype(int))[rng.integers(3)]
    return x, w, {"stride": stride, "padding": padding, "dilation": dilation}, int(codes(rng, (), dtypes[0])), w_zero


def memory_orders(x, case):
    """The same values in another memory order."""
    if case % 4 == 1:
        return to_channels_last(x)
    if case % 4 == 2:
        return np.flip(np.flip(x, -1).copy(), -1)
    if case % 4 == 3:
        x = to_channels_last(x)
        x.flags.writeable = False
    return x


def check(x, w, groups, geometry, x_zero, w_zero, rung, rng, case):
    ref = ref_conv(x, w, *geometry.values(), groups, x_zero, w_zero)
    packed = pack_conv(w, groups, rung)
    given = memory_orders(x, case)
    comp = conv_s32(given, packed, **geometry, x_zero=x_zero, w_zero=w_zero)
    assert_same(ref, comp, (rung, case, x.shape, w.shape, groups, geometry))
    assert np.moveaxis(comp, 1, -1).flags.c_contiguous, "the output is not channels last"
    for dtype in (np.uint8, np.int8, np.float32):
        ep = random_form(rng, len(w), dtype)
        finished = conv_requantize(given, packed, ep, dtype, **geometry, x_zero=x_zero, w_zero=w_zero)
        assert np.moveaxis(finished, 1, -1).flags.c_contiguous
        assert_same(apply_epilogue(np.moveaxis(ref, 1, -1), ep, dtype), np.moveaxis(finished, 1, -1), (rung, case, dtype))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_small_against_the_slow_witness(dims):
    rng = np.random.default_rng(dims)
    for case in range(3):
        x, w, geometry, x_zero, w_zero = random_case(rng, dims, (1, 2, 3)[case], 2 - case % 2, 2, 8)
        x = x[:1]
        slow = slow_conv(x, w, *geometry.values(), (1, 2, 3)[case], x_zero, np.broadcast_to(w_zero, len(w)).tolist())
        comp = conv_s32(x, pack_conv(w, (1, 2, 3)[case]), **geometry, x_zero=x_zero, w_zero=w_zero)
        assert_same(slow, comp, (x.shape, w.shape, geometry))


@pytest.mark.skipif(jit_disabled(), reason="many convolutions are for compiled kernels")
@pytest.mark.parametrize("rung", EXACT)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_random_geometries(rung, dims):
    rng = np.random.default_rng(10 + dims)
    for case in range(14):
        groups, per_in, per_out = (int(rng.choice(v)) for v in ([1, 1, 1, 2, 3], [1, 2, 3, 4, 7, 16], [1, 5, 16, 33]))
        if dims == 2 and case == 0:
            groups, per_in, per_out = 1, 64, 130
        x, w, geometry, x_zero, w_zero = random_case(rng, dims, groups, per_in, per_out, 11 if dims < 3 else 9)
        check(x, w, groups, geometry, x_zero, w_zero, rung, rng, case)


@pytest.mark.skipif(jit_disabled(), reason="many convolutions are for compiled kernels")
def test_groups_that_are_computed_together():
    rng = np.random.default_rng(60)
    sizes = [(32, 4, 4), (6, 3, 2), (5, 2, 3), (8, 8, 16), (4, 2, 9), (2, 4, 8), (7, 1, 2), (9, 2, 5)]
    for case, (groups, per_in, per_out) in enumerate(sizes):
        for dims in (1, 2):
            x, w, geometry, x_zero, w_zero = random_case(rng, dims, groups, per_in, per_out, 10)
            for zero in (0, w_zero):
                check(x, w, groups, geometry, x_zero, zero, None, rng, case)


@pytest.mark.skipif(jit_disabled(), reason="many convolutions are for compiled kernels")
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 24, 32, 48, 64, 96, 100, 144])
def test_depthwise(channels):
    rng = np.random.default_rng(channels)
    for case in range(8):
        dims, times = int(rng.choice([1, 2, 2, 2, 3])), int(rng.choice([1, 1, 2]))
        x, w, geometry, x_zero, w_zero = random_case(rng, dims, channels, 1, times, 12)
        if case < 4:
            side = (3, 3, 5, 7)[case]
            w = codes(rng, (channels * times, 1, *[side] * dims), w.dtype)
            geometry = {"stride": (1 + case % 2,) * dims, "padding": ((side // 2, side // 2),) * dims, "dilation": (1,) * dims}
        check(x, w, channels, geometry, x_zero, w_zero, None, rng, case)


def ref_pair16(x, w, stride, padding, x_zero):
    """NumPy: raw codes, pairs of taps in raster order, each pair saturated to int16."""
    kernel = w.shape[2:]
    x = np.repeat(x, w.shape[0] // x.shape[1], axis=1)
    weights = w.reshape(w.shape[0], -1).astype(np.int64)
    taps = windows(x, kernel, stride, padding, (1,) * len(kernel), x_zero)
    products = [view * weights[:, i].reshape(-1, *[1] * len(kernel)) for i, view in enumerate(taps)]
    pairs = [np.clip(a + b, -32768, 32767) for a, b in zip(products[::2], products[1::2])]
    return (sum(pairs) + (products[-1] if len(products) % 2 else 0)).astype(np.int32)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_small_pairs_of_taps(dims):
    rng = np.random.default_rng(20 + dims)
    saturated = 0
    for side in (1, 2, 3):
        for times in (1, 2):
            x = rng.integers(150, 256, (1, 4, *[5] * dims)).astype(np.uint8)
            w = rng.choice([-128, 127, 90, 3], (4 * times, 1, *[side] * dims)).astype(np.int8)
            geometry = {"stride": (2,) * dims, "padding": ((1, 1),) * dims}
            ref = ref_pair16(x, w, *geometry.values(), 200)
            for weights in (w, pack_conv(w, 4)):
                assert_same(ref, depthwise_pair16_s32(x, weights, **geometry, x_zero=200), (dims, side, times))
            exact = conv_s32(x, pack_conv(w, 4), **geometry, dilation=(1,) * dims, x_zero=200)
            fix = 200 * w.reshape(len(w), -1).sum(1, dtype=np.int32).reshape(-1, *[1] * dims)
            saturated += (ref != exact + fix).sum()
    assert saturated > 10


@pytest.mark.skipif(jit_disabled(), reason="many convolutions are for compiled kernels")
@pytest.mark.parametrize("channels", [8, 24, 32, 64, 72, 96, 144])
def test_pairs_of_taps_in_registers(channels):
    rng = np.random.default_rng(30 + channels)
    for case in range(6):
        side, dims = (3, 3, 3, 5, 7, 3)[case], 3 if case == 5 else 2
        x = memory_orders(codes(rng, (2, channels, *[9] * dims), np.uint8), case)
        w = codes(rng, (channels * (1 + case % 2), 1, *[side] * dims), np.int8)
        geometry = {"stride": (1 + case % 2,) * dims, "padding": ((side // 2, side // 2),) * dims}
        ref = ref_pair16(x, w, *geometry.values(), 3)
        comp = depthwise_pair16_s32(x, w, **geometry, x_zero=3)
        assert_same(ref, comp, (channels, case))
        fixed = make_epilogue(len(w), kind=FIXED_GEMMLOWP, mult=2**30, shift=-5, qlo=0, qhi=255)
        for ep in (random_form(rng, len(w), np.uint8), fixed):
            fused = depthwise_pair16_requantize(x, pack_conv(w, channels), ep, np.uint8, **geometry, x_zero=3)
            apart = requantize(np.moveaxis(comp, 1, -1), ep, np.uint8)
            assert_same(apart, np.moveaxis(fused, 1, -1), (channels, case))


@pytest.mark.skipif(jit_disabled(), reason="both sides must be there")
def test_depthwise_without_its_instructions(monkeypatch):
    rng = np.random.default_rng(40)
    x, w = codes(rng, (1, 40, 8, 8), np.uint8), codes(rng, (40, 1, 3, 3), np.int8)
    geometry = {"stride": (1, 1), "padding": ((1, 1), (1, 1))}
    ep = random_form(rng, 40, np.uint8)

    def results():
        packed = pack_conv(w, 40)
        exact = conv_s32(x, packed, **geometry, dilation=(1, 1), x_zero=7)
        finished = conv_requantize(x, packed, ep, np.uint8, **geometry, dilation=(1, 1), x_zero=7, w_zero=5)
        return exact, finished, depthwise_pair16_s32(x, packed, **geometry, x_zero=7)

    registers = results()
    monkeypatch.setattr(depthwise_file, "depthwise_tiles_run_here", lambda: False)
    for ref, comp in zip(registers, results()):
        assert_same(ref, comp)


def test_small_edges():
    """No batch, no output channels to compute, a window as large as the input, padding wider than the window."""
    for batch, groups in ((0, 1), (1, 1), (0, 4), (1, 4)):
        x, w = np.full((batch, 4, 3, 3), 9, np.uint8), np.ones((4, 4 // groups, 3, 3), np.int8)
        for padding in (((0, 0), (0, 0)), ((4, 0), (0, 4))):
            geometry = {"stride": (1, 1), "padding": padding, "dilation": (1, 1)}
            ref = ref_conv(x, w, *geometry.values(), groups, 9, 0)
            assert_same(ref, conv_s32(x, pack_conv(w, groups), **geometry, x_zero=9), (batch, groups, padding))


@pytest.mark.parametrize("rung", [rung.name for rung in RUNGS if rung.low and rung.runs_here])
def test_one_high_byte_in_any_place_of_the_image_is_seen(rung):
    """Weights of 127 saturate a pair from 128 on; the rows of a product are windows, of one group or another, near padding or not."""
    for groups, step, padding, dilation in ((1, 1, 1, 1), (2, 1, 1, 1), (4, 2, 0, 1), (1, 2, 2, 2), (2, 1, 0, 2)):
        geometry = dict(stride=(step, step), padding=((padding, padding), (padding, padding)), dilation=(dilation, dilation))
        x, w = np.full((1, 8, 6, 7), 127, np.uint8), np.full((groups * 17, 8 // groups, 3, 3), 127, np.int8)
        packed = pack_conv(w, groups, rung)
        for place in range(0, x.size, 5):
            x.reshape(-1)[place] = 255
            assert_same(ref_conv(x, w, *geometry.values(), groups, 9), conv_s32(x, packed, **geometry, x_zero=9), (groups, step, place))
            x.reshape(-1)[place] = 127


def test_packing_is_a_copy():
    w = np.ones((2, 1, 1, 1), np.int8)
    packed, x = pack_conv(w), np.full((1, 1, 1, 1), 3, np.uint8)
    w[:] = 5
    geometry = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    assert_same(np.full((1, 2, 1, 1), 3, np.int32), conv_s32(x, packed, **geometry))


@pytest.mark.skipif(jit_disabled(), reason="large convolutions are for compiled kernels")
def test_threads_do_not_change_a_bit(monkeypatch):
    for file in (product, depthwise_file):
        monkeypatch.setattr(file, "_GRAIN", 1)  # no convolution is too small to be shared out
    rng, before = np.random.default_rng(50), get_num_threads()
    cases = [((2, 32, 40, 40), (80, 32, 3, 3), 1), ((2, 96, 60, 60), (96, 1, 3, 3), 96), ((1, 64, 30, 30), (64, 16, 3, 3), 4)]
    try:
        for x_shape, w_shape, groups in cases:
            x, w = codes(rng, x_shape, np.int8), codes(rng, w_shape, np.int8)
            geometry = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
            for threads in (1, 2, 5):
                set_num_threads(threads)
                comp = conv_s32(x, pack_conv(w, groups), **geometry, x_zero=-3)
                assert_same(ref_conv(x, w, *geometry.values(), groups, -3, 0), comp, (threads, w_shape))
    finally:
        set_num_threads(before)
