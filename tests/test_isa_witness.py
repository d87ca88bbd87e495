"""The slow witness of the instructions, in Python integers and fractions: it imports nothing from refquant.

Every model of `refquant.isa` is held against it, those of instructions that this processor lacks included, and every planted
fault is found by the same comparison.
"""

import math
from fractions import Fraction

import numpy as np
import pytest

from refquant.isa import INSTRUCTIONS, instruction, tile_layout
from refquant.isa.amx import FULL, TileShape

# ---------------------------------------------------------------------------------------------- witness


def wrap(v, bits, signed=True):
    v %= 1 << bits
    return v - (1 << bits) if signed and v >= 1 << (bits - 1) else v


def clamp(v, bits, signed=True):
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return min(max(v, low), high)


def grouped_sum(acc, a, b, finish, signed=True):
    size = len(a) // len(acc)
    return [finish(acc[i] + sum(a[size * i + j] * b[size * i + j] for j in range(size)), 32, signed) for i in range(len(acc))]


def pack(a, b, lane_bits, signed):
    per, out = 128 // (2 * lane_bits), []
    for start in range(0, len(a), per):
        out += [clamp(v, lane_bits, signed) for v in a[start : start + per]]
        out += [clamp(v, lane_bits, signed) for v in b[start : start + per]]
    return out


def to_int(x):
    if math.isnan(x) or math.isinf(x):
        return -(2**31)
    below, rest = divmod(Fraction(x), 1)
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1)
    value = int(below) + up
    return value if -(2**31) <= value < 2**31 else -(2**31)


def matrix(acc, a, b, signed=True):
    return [wrap(acc[2 * i + j] + sum(a[8 * i + k] * b[8 * j + k] for k in range(8)), 32, signed) for i in (0, 1) for j in (0, 1)]


def half_up(numerator, denominator):
    return math.floor(Fraction(numerator, denominator) + Fraction(1, 2))


def shift_lane(v, by, bits):
    by = wrap(by, 8)
    return wrap(v << by if by >= 0 else half_up(v, 1 << -by), bits)


def tile(c, a, b, shapes, signed=True):
    """The manual's three loops: rows m, dwords k, columns n."""
    (rows, colsb), (_, a_colsb), _ = shapes
    out = [[0] * 16 for _ in range(16)]
    for m in range(rows):
        for n in range(colsb // 4):
            total = c[m][n]
            for k in range(a_colsb // 4):
                total += sum(a[m][4 * k + j] * b[k][4 * n + j] for j in range(4))
            out[m][n] = wrap(total, 32, signed)
    return out


WITNESS = {
    "vpmaddubsw": lambda bits, a, b: [clamp(a[i] * b[i] + a[i + 1] * b[i + 1], 16) for i in range(0, len(a), 2)],
    "vpmaddwd": lambda bits, a, b: [wrap(a[i] * b[i] + a[i + 1] * b[i + 1], 32) for i in range(0, len(a), 2)],
    "vpaddd": lambda bits, a, b: [wrap(x + y, 32) for x, y in zip(a, b)],
    "pmulhrsw": lambda bits, a, b: [wrap(((x * y >> 14) + 1) >> 1, 16) for x, y in zip(a, b)],
    "packssdw": lambda bits, a, b: pack(a, b, 16, True),
    "packsswb": lambda bits, a, b: pack(a, b, 8, True),
    "packuswb": lambda bits, a, b: pack(a, b, 8, False),
    "cvtps2dq": lambda bits, a: [to_int(x) for x in a],
    "vpdpbuud": lambda bits, c, a, b: grouped_sum(c, a, b, wrap, False),
    "vpdpbuuds": lambda bits, c, a, b: grouped_sum(c, a, b, clamp, False),
    **{name: lambda bits, c, a, b: grouped_sum(c, a, b, wrap) for name in ("vpdpbusd", "vpdpwssd", "vpdpbssd", "vpdpbsud")},
    **{name: lambda bits, c, a, b: grouped_sum(c, a, b, clamp) for name in ("vpdpbusds", "vpdpwssds", "vpdpbssds", "vpdpbsuds")},
    "sdot": lambda bits, c, a, b: grouped_sum(c, a, b, wrap),
    "udot": lambda bits, c, a, b: grouped_sum(c, a, b, wrap, False),
    "usdot": lambda bits, c, a, b: grouped_sum(c, a, b, wrap),
    "smmla": lambda bits, c, a, b: matrix(c, a, b),
    "ummla": lambda bits, c, a, b: matrix(c, a, b, False),
    "usmmla": lambda bits, c, a, b: matrix(c, a, b),
    "sqrdmulh": lambda bits, a, b: [clamp(half_up(2 * x * y, 1 << bits), bits) for x, y in zip(a, b)],
    "srshl": lambda bits, a, b: [shift_lane(x, y, bits) for x, y in zip(a, b)],
    "sqxtn": lambda bits, a: [clamp(x, bits // 2) for x in a],
    "sqadd": lambda bits, a, b: [clamp(x + y, bits) for x, y in zip(a, b)],
}

# ---------------------------------------------------------------------------------------------- data

DTYPE = {"u8": "u1", "s8": "i1", "s16": "i2", "s32": "i4", "u32": "u4", "s64": "i8", "f32": "f4"}
FLOATS = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 8388607.5, 2147483520.0, 2147483648.0, -2147483648.0, -2147483904.0, 3e38, 1e-45]
FLOATS = np.array([*FLOATS, np.inf, -np.inf, np.nan], np.float32)


def edges(kind):
    if kind == "f32":
        return FLOATS
    info = np.iinfo(DTYPE[kind])
    middle = (info.max // 2, info.max // 2 + 1, 127, 128, 255, -1, -127, -128, -255, 0, 1)
    return np.array([info.min, info.min + 1, info.max, info.max - 1, *(v for v in middle if info.min <= v <= info.max)], DTYPE[kind])


def lanes_of(kind, shape, rng):
    if kind != "f32":
        return np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(DTYPE[kind]).itemsize), DTYPE[kind]).reshape(shape)
    near = rng.integers(-(2**24), 2**24, shape) / 2
    wild = rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)
    return np.where(rng.random(shape) < 0.5, near.astype(np.float32), wild)


def registers_for(kinds, widths, count, seed):
    """Edge x edge, edge x random, random x edge and random x random, `count` registers in all, and constant registers of edges."""
    rng = np.random.default_rng(seed)
    out = []
    for position, (kind, bits) in enumerate(zip(kinds, widths)):
        lanes = bits // (8 * np.dtype(DTYPE[kind]).itemsize)
        edge, value = edges(kind), lanes_of(kind, (count, lanes), rng).copy()
        quarter = (np.arange(count) // max(1, count // 4)).clip(0, 3)
        on_edge = (quarter & (1 if position % 2 else 2)) == 0
        value[on_edge] = rng.choice(edge, (int(on_edge.sum()), lanes))
        constant = edge[rng.integers(0, len(edge), count // 8)]
        value[: count // 8] = constant[:, None]
        out.append(value)
    return out


def variants(row):
    """The concrete operand types of an instruction."""
    choices = row.operands[0].split("/")
    return [tuple(choice if "/" in t else t for t in row.operands) for choice in choices]


def cases(name, count=400, seed=0):
    """(operand types, width, operands) for each type and width of an instruction."""
    row = instruction(name)
    for kinds in variants(row):
        for bits in sorted({b for b, _ in row.forms}):
            operands = registers_for(kinds, [bits] * len(kinds), count, seed)
            if name == "srshl":
                low = np.random.default_rng(seed + 1).integers(-40, 40, operands[1].shape)
                operands[1] = np.where(np.arange(len(low))[:, None] % 2, low.astype(operands[1].dtype), operands[1])
            yield kinds, bits, operands


def mismatches(name, function, count=400, seed=0):
    """Count the registers in which a function and the witness differ, over all types and widths."""
    wrong = total = 0
    for kinds, bits, operands in cases(name, count, seed):
        got = function(*operands)
        lane_bits = 8 * np.dtype(DTYPE[kinds[0]]).itemsize
        for i in range(count):
            expected = WITNESS[name](lane_bits, *(value[i].tolist() for value in operands))
            wrong += got[i].tolist() != expected
        total += count
    return wrong, total


TILES = [
    (FULL, FULL, FULL),
    (TileShape(1, 4), TileShape(1, 4), TileShape(1, 4)),
    (TileShape(3, 20), TileShape(3, 12), TileShape(3, 20)),
    (TileShape(16, 8), TileShape(16, 64), TileShape(16, 8)),
    (TileShape(7, 64), TileShape(7, 32), TileShape(8, 64)),
]


def tile_mismatches(name, function, count=5, seed=0):
    """As `mismatches`, tiles for registers and every configuration of `TILES`."""
    row = instruction(name)
    c_kind, a_kind, b_kind = row.operands
    wrong = total = 0
    for number, shapes in enumerate(TILES):
        c, a, b = registers_for((c_kind, a_kind, b_kind), (16 * 512,) * 3, count, seed + number)
        c, a, b = c.reshape(-1, 16, 16), a.reshape(-1, 16, 64), b.reshape(-1, 16, 64)
        got = function(c, a, b, shapes)
        for i in range(count):
            wrong += got[i].tolist() != tile(c[i].tolist(), a[i].tolist(), b[i].tolist(), shapes, signed=c_kind == "s32")
        total += count
    return wrong, total


# ---------------------------------------------------------------------------------------------- models

VECTOR = [row.name for row in INSTRUCTIONS if not row.name.startswith("tdp")]
TILE = [row.name for row in INSTRUCTIONS if row.name.startswith("tdp")]


def test_witness_covers_every_instruction():
    assert set(WITNESS) == set(VECTOR)
    assert len(VECTOR) + len(TILE) == len(INSTRUCTIONS) == 32


@pytest.mark.parametrize("name", VECTOR)
def test_model_equals_witness(name):
    wrong, total = mismatches(name, instruction(name).function)
    assert total >= 400
    assert wrong == 0, f"{wrong} of {total} registers differ"


@pytest.mark.parametrize("name", TILE)
def test_tile_model_equals_witness(name):
    wrong, total = tile_mismatches(name, instruction(name).function)
    assert (wrong, total) == (0, 25)


@pytest.mark.parametrize("name", VECTOR)
def test_result_type_is_the_table_s(name):
    row = instruction(name)
    for kinds, bits, operands in cases(name, 8):
        result = row.function(*operands)
        kind = np.dtype(DTYPE[kinds[0]])
        special = {"same": kind, "half": np.dtype(f"i{max(1, kind.itemsize // 2)}")}
        assert result.dtype == (special[row.result] if row.result in special else np.dtype(DTYPE[row.result]))


@pytest.mark.parametrize("name", VECTOR)
def test_leading_axes_and_broadcasting(name):
    row = instruction(name)
    for _, _, operands in cases(name, 24, seed=5):
        flat = row.function(*operands)
        deep = row.function(*(value.reshape(2, 3, 4, -1) for value in operands))
        assert np.array_equal(deep.reshape(flat.shape), flat)
        one = row.function(operands[0], *(value[0] for value in operands[1:]))
        many = row.function(operands[0], *(np.broadcast_to(value[0], value.shape) for value in operands[1:]))
        assert np.array_equal(one, many) and row.function(*(value[:0] for value in operands)).shape[0] == 0


# ---------------------------------------------------------------------------------------------- planted faults


def wide(*arrays):
    return [a.astype(np.int64) for a in arrays]


def low_bits(x, dtype):
    return x.astype(np.int64).astype(dtype)


def pairwise(p):
    return p[..., 0::2] + p[..., 1::2]


def dot_by_products(acc, a, b, low, high, dtype):
    """The wrong order: saturate after each product."""
    acc, a, b = wide(acc, a, b)
    size = a.shape[-1] // acc.shape[-1]
    products = (a * b).reshape(*acc.shape, size)
    for j in range(size):
        acc = np.clip(acc + products[..., j], low, high)
    return acc.astype(dtype)


def swapped(function):
    """The signs of the factors swapped: the bits of each read as the other's type."""
    return lambda acc, a, b: function(acc, a.view(b.dtype), b.view(a.dtype)) if a.dtype != b.dtype else function(acc, a, b)


def fault_interleave(a, b, low, high, dtype):
    return np.clip(np.concatenate(np.broadcast_arrays(a, b), axis=-1), low, high).astype(dtype)


def fault_matrix(acc, a, b):
    """The second factor by rows instead of columns."""
    rows, columns = (v.astype(np.int64).reshape(*v.shape[:-1], *s) for v, s in ((a, (2, 8)), (b, (8, 2))))
    return low_bits(acc + (rows @ columns).reshape(*a.shape[:-1], 4), acc.dtype)


I = instruction  # noqa: E741
FAULTS = [
    ("vpmaddubsw", "no saturation", lambda a, b: low_bits(pairwise(np.multiply(*wide(a, b))), np.int16)),
    ("vpmaddubsw", "signs swapped", lambda a, b: np.clip(pairwise(np.multiply(*wide(a.view("i1"), b.view("u1")))), -32768, 32767).astype("i2")),
    ("vpmaddubsw", "saturation before the sum", lambda a, b: np.clip(pairwise(np.clip(np.multiply(*wide(a, b)), -16384, 16383)), -32768, 32767).astype("i2")),
    ("vpmaddwd", "saturation", lambda a, b: np.clip(pairwise(np.multiply(*wide(a, b))), -(2**31), 2**31 - 1).astype("i4")),
    ("vpaddd", "saturation", lambda a, b: np.clip(np.add(*wide(a, b)), -(2**31), 2**31 - 1).astype("i4")),
    ("pmulhrsw", "no rounding", lambda a, b: low_bits(np.multiply(*wide(a, b)) >> 15, np.int16)),
    ("pmulhrsw", "saturation", lambda a, b: np.clip((np.multiply(*wide(a, b)) + 16384) >> 15, -32768, 32767).astype("i2")),
    ("packssdw", "blocks ignored", lambda a, b: fault_interleave(a, b, -32768, 32767, np.int16)),
    ("packsswb", "unsigned saturation", lambda a, b: I("packuswb").function(a, b).view(np.int8)),
    ("packuswb", "unsigned input", lambda a, b: I("packuswb").function(a & 0x7FFF, b & 0x7FFF)),
    ("cvtps2dq", "truncation", lambda a: I("cvtps2dq").function(a, "truncate")),
    ("cvtps2dq", "half away", lambda a: np.where(np.abs(a) < 2**31, np.trunc(a + np.copysign(np.float32(0.5), a)), -(2**31)).astype("i8").astype("i4")),
    ("cvtps2dq", "saturation", lambda a: np.where(a >= 2**31, 2**31 - 1, I("cvtps2dq").function(a)).astype("i4")),
    ("vpdpbusd", "saturation", lambda c, a, b: I("vpdpbusds").function(c, a, b)),
    ("vpdpbusd", "int16 pairs", lambda c, a, b: I("vpaddd").function(c, I("vpmaddwd").function(I("vpmaddubsw").function(a, b), np.ones(a.shape[-1] // 2, "i2")))),
    ("vpdpbusd", "signs swapped", swapped(lambda c, a, b: I("vpdpbsud").function(c, a, b))),
    ("vpdpbusds", "no saturation", lambda c, a, b: I("vpdpbusd").function(c, a, b)),
    ("vpdpbusds", "saturation order", lambda c, a, b: dot_by_products(c, a, b, -(2**31), 2**31 - 1, np.int32)),
    ("vpdpwssd", "saturation", lambda c, a, b: I("vpdpwssds").function(c, a, b)),
    ("vpdpwssds", "saturation order", lambda c, a, b: dot_by_products(c, a, b, -(2**31), 2**31 - 1, np.int32)),
    ("vpdpbssd", "first unsigned", lambda c, a, b: I("vpdpbusd").function(c, a.view("u1"), b)),
    ("vpdpbssds", "saturation order", lambda c, a, b: dot_by_products(c, a, b, -(2**31), 2**31 - 1, np.int32)),
    ("vpdpbsud", "signs swapped", swapped(lambda c, a, b: I("vpdpbusd").function(c, a, b))),
    ("vpdpbsuds", "no saturation", lambda c, a, b: I("vpdpbsud").function(c, a, b)),
    ("vpdpbuud", "second signed", lambda c, a, b: I("vpdpbusd").function(c.view("i4"), a, b.view("i1")).view("u4")),
    ("vpdpbuuds", "signed saturation", lambda c, a, b: I("vpdpbusds").function(c.view("i4"), a, b.view("i1")).view("u4")),
    ("vpdpbuuds", "no saturation", lambda c, a, b: I("vpdpbuud").function(c, a, b)),
    ("sdot", "first unsigned", lambda c, a, b: I("usdot").function(c, a.view("u1"), b)),
    ("udot", "saturation", lambda c, a, b: dot_by_products(c, a, b, 0, 2**32 - 1, np.uint32)),
    ("usdot", "both signed", lambda c, a, b: I("sdot").function(c, a.view("i1"), b)),
    ("smmla", "rows for columns", fault_matrix),
    ("ummla", "rows for columns", fault_matrix),
    ("usmmla", "both signed", lambda c, a, b: I("smmla").function(c, a.view("i1"), b)),
    ("sqrdmulh", "no rounding", lambda a, b: np.clip(np.multiply(*wide(a, b)) >> (8 * a.itemsize - 1), np.iinfo(a.dtype).min, np.iinfo(a.dtype).max).astype(a.dtype)),
    ("sqrdmulh", "no saturation", lambda a, b: low_bits((np.multiply(*wide(a, b)) + (1 << (8 * a.itemsize - 2))) >> (8 * a.itemsize - 1), a.dtype)),
    ("srshl", "no rounding", lambda a, s: I("srshl").function(a, s) - ((wide(a)[0] >> np.clip(-wide(s.astype("i1"))[0] - 1, 0, 62)) & 1 & (s.astype("i1") < 0)).astype(a.dtype)),
    ("srshl", "whole lane as shift", lambda a, s: I("srshl").function(a, np.clip(s, -128, 127).astype(a.dtype))),
    ("sqxtn", "no saturation", lambda a: a.astype(f"i{a.itemsize // 2}")),
    ("sqadd", "no saturation", lambda a, b: a + b),
]  # fmt: skip


@pytest.mark.parametrize("name, fault, function", FAULTS, ids=[f"{name}-{fault}".replace(" ", "_") for name, fault, _ in FAULTS])
def test_planted_fault_is_found(name, fault, function):
    with np.errstate(all="ignore"):
        wrong, total = mismatches(name, function)
    assert 0 < wrong <= total


def test_every_instruction_has_a_planted_fault():
    assert {name for name, _, _ in FAULTS} == set(VECTOR)


TILE_FAULTS = [
    ("configuration ignored", lambda f: lambda c, a, b, shapes: f(c, a, b)),
    ("outside kept", lambda f: lambda c, a, b, shapes: np.where(f(np.ones_like(c), a * 0, b, shapes) == 1, f(c, a, b, shapes), c)),
    ("plain layout of b", lambda f: lambda c, a, b, shapes: f(c, a, tile_layout(b.reshape(-1, 64, 16)), shapes)),
    ("saturation of sums", lambda f: lambda c, a, b, shapes: np.clip(f(c * 0, a, b, shapes).astype("i8") + c, -(2**31), 2**31 - 1).astype(c.dtype)),
    ("signs", lambda f: lambda c, a, b, shapes: f(c, a ^ a.dtype.type(-128 if a.dtype == np.int8 else 128), b, shapes)),
]  # fmt: skip


@pytest.mark.parametrize("name", TILE)
@pytest.mark.parametrize("fault, plant", TILE_FAULTS, ids=[fault.replace(" ", "_") for fault, _ in TILE_FAULTS])
def test_planted_tile_fault_is_found(name, fault, plant):
    wrong, total = tile_mismatches(name, plant(instruction(name).function))
    assert 0 < wrong <= total
