"""Where the time goes: the tiles are those of the product, the parts make up the whole, and the command tells it."""

import json

import numpy as np
import pytest

from refquant.backends.bench.case import Case, Plan, Role, Settings, Work, Yardstick
from refquant.backends.bench.layers import conv_layer, dense_layer
from refquant.cli.bench_profile import PARTS, parts_of, plain_profile, profile_case, profile_table, profile_works
from refquant.errors import ArgumentError
from refquant.kernels.bare_tiles import bind_bare_tiles, lanes_used
from refquant.kernels.conv import conv_s32, pack_conv, window_product
from refquant.kernels.jit import jit_disabled
from refquant.kernels.left import matrix_rows
from refquant.kernels.pack import pack_b
from refquant.kernels.signature import as_input
from refquant.kernels.tile import RUNGS

TILES = [rung.name for rung in RUNGS if rung.exact and rung.runs_here]
SQUARE = dict(stride=1, padding=1, dilation=1, groups=1)
pytestmark = pytest.mark.skipif(jit_disabled(), reason="the plain loops have no tiles")


@pytest.mark.parametrize("rung", TILES)
@pytest.mark.parametrize("most", [127, 255])
def test_the_last_tile_holds_the_products_last_sums(rung, most):
    rng = np.random.default_rng(3)
    for m, n, k in ((1, 16, 8), (1, 256, 40), (13, 48, 33), (300, 80, 64)):
        a, b = rng.integers(0, most + 1, (m, k), np.uint8), rng.integers(-128, 128, (k, n), np.int8)
        packed = pack_b(b, rung)
        run = bind_bare_tiles(rung, as_input(a).reshape(-1), matrix_rows(m, k), packed.data, 1, n, False)
        last, sums = run(), a[-1].astype(np.int64) @ b
        assert any(np.array_equal(last[:width], sums[-width:]) for width in (16, 32, 48, 64) if width <= n), (m, n, k)


def test_windows_are_those_of_the_convolution():
    rng = np.random.default_rng(4)
    sides = dict(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1))
    for groups in (1, 2):
        x, w = rng.integers(0, 128, (1, 8, 6, 7), np.uint8), rng.integers(-128, 128, (16 * groups, 8 // groups, 3, 3), np.int8)
        packed = pack_conv(w, groups)
        field, left, columns, used = window_product(x, packed, **sides, x_zero=0)
        last = bind_bare_tiles(packed.rung, field, left, columns, used, len(w) // used, False)()[:16]
        assert np.array_equal(last, conv_s32(x, packed, **sides)[0, -16:, -1, -1])


def test_lanes_that_fill_up_are_counted():
    rung = TILES[0]
    depth = next(r.depth for r in RUNGS if r.name == rung)
    assert lanes_used(rung, matrix_rows(5, 8 * depth), 32) == 1
    assert lanes_used(rung, matrix_rows(5, 8 * depth), 33) == 33 / 48
    assert lanes_used(rung, matrix_rows(5, 8 * depth + 1), 16) == (8 * depth + 1) / (8 * depth + depth)


def test_parts_make_up_the_whole():
    parts = parts_of({"whole": 10.0, "near": 5.0, "far": 6.0, "bytes": 0.5, "call": 1.0, "field": 0.25})
    assert parts == {"tiles": 5.0, "waits": 1.0, "bytes": 0.5, "field": 0.25, "stage": 2.25, "call": 1.0} and tuple(parts) == PARTS
    assert parts_of({"whole": 10.0, "near": 5.0, "far": 4.0, "call": 7.0})["stage"] == 0
    depthwise = parts_of({"whole": 10.0, "call": 7.0, "field": 1.0})
    assert depthwise["tiles"] is None and depthwise["stage"] == 2.0


def case_of(layer, name, operations):
    case = Case(name, operations=operations, layer=layer)
    case.add("refquant", lambda: lambda: sum(range(20_000)), Role.SUBJECT)
    return case


def test_products_and_convolutions_are_profiled():
    depthwise = conv_layer((1, 32, 9, 9), (32, 1, 3, 3), None, {**SQUARE, "groups": 32})
    conv, linear = conv_layer((1, 8, 9, 9), (16, 8, 3, 3), "relu", SQUARE), dense_layer(5, 16, 8)
    layers = {"product": linear._replace(out=None), "linear": linear, "conv": conv, "depthwise": depthwise}
    peak = Yardstick("peak", lambda: sum(range(1000)), 1e6)
    cases = [case_of(layer, f"{name} with a rather long name, longer than its column", 1e5) for name, layer in layers.items()]
    plans = [Plan(c.name, "", lambda settings, c=c: c) for c in cases]
    lines, settings = [], Settings(turns=5, peak=peak)
    other = Work("other", "no products", lambda: [Plan("p", "", lambda settings: Case("p"))])
    work = Work("w", "t", lambda: plans)
    found = profile_works([(other, other.plans()), (work, plans)], settings, lines.append)
    assert [w.name for w, _ in found] == ["w"] and len(lines) == len(found[0][1]) == 4
    for p, name in zip(found[0][1], layers):
        assert set(p.parts) == set(PARTS) and all(s is None or s >= 0 for s in p.parts.values())
        assert (p.parts["tiles"] is None) == (name == "depthwise") == (p.lanes is None)
        assert (p.parts["field"] > 0) == (name in ("conv", "depthwise")) and p.parts["call"] > 0
    table = profile_table(found)
    assert max(map(len, table)) <= 100 and sum("rather long" in line for line in table) == 4
    plain = json.loads(json.dumps(plain_profile(found)))
    assert list(plain) == ["w"] and set(plain["w"][0]["shares_of_peak"]) == {"near", "far", "whole"}
    assert profile_table([]) == []


def test_a_slow_part_is_told():
    """A planted fault: a hundred times the output stage's work shows as the stage's share."""
    layer = dense_layer(64, 64, 64)
    quick, slow = case_of(layer, "quick", 1.0), case_of(layer, "slow", 1.0)
    slow.contenders.clear()
    slow.add("refquant", lambda: lambda: sum(range(2_000_000)), Role.SUBJECT)
    shares = [p.parts["stage"] / p.seconds for p in (profile_case(c, Settings(turns=5)) for c in (quick, slow))]
    assert shares[1] > 0.9 and shares[1] > shares[0]


def test_parts_are_timed_on_one_thread():
    with pytest.raises(ArgumentError, match="threads=2"):
        profile_works([], Settings(threads=2))
