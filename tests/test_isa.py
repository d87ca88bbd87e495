"""The tables of refquant.isa, the processor levels, the checks of registers, and the laws between instructions."""

import subprocess
import sys

import numpy as np
import pytest

from refquant import isa
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError
from refquant.isa import cpu
from refquant.isa.amx import FULL, TileShape
from refquant.isa.sequences import SEQUENCES_USED


def test_works_without_numba_and_llvmlite():
    code = (
        "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None; import refquant.isa as isa, numpy as np;"
        "print(isa.vpdpbusd(np.zeros(4, 'i4'), np.full(16, 255, 'u1'), np.full(16, 127, 'i1'))[0], isa.cpu.running_level())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == "129540" and out[1] == str(cpu.running_level())


def test_every_instruction_is_in_the_table_and_exported():
    for row in isa.INSTRUCTIONS:
        assert getattr(isa, row.name) is row.function and row.name in isa.__all__
        assert row.function.__name__ == row.name and row.function.__doc__
        assert all(extension in {e.name for e in cpu.EXTENSIONS} for extension in row.extensions)
        assert row.levels, f"{row.name} is on no level"
    with pytest.raises(ArgumentError, match="did you mean 'vpdpbusd'"):
        isa.instruction("vpdpbusx")


EXPECTED_LEVELS = {
    "vpmaddubsw": {"sse41": (128,), "avx2": (128, 256), "avx512": (128, 256, 512), "neon_dot": ()},
    "vpdpbusd": {"avx2": (), "avx_vnni": (128, 256), "avx512": (), "avx512_vnni": (128, 256, 512), "amx_int8": (128, 256, 512)},
    "vpdpbssd": {"avx_vnni": (), "avx_vnni_int8": (128, 256), "amx_int8": ()},
    "tdpbusd": {"avx512_vnni": (), "amx_int8": (8192,)},
    "sdot": {"avx2": (), "neon_dot": (64, 128), "neon_i8mm": (64, 128)},
    "smmla": {"neon_dot": (), "neon_i8mm": (128,)},
    "cvtps2dq": {"sse41": (128,), "avx2": (128, 256), "avx512": (128, 256, 512)},
}


@pytest.mark.parametrize("name", EXPECTED_LEVELS)
def test_which_level_has_which_width(name):
    for level, widths in EXPECTED_LEVELS[name].items():
        assert isa.instruction(name).widths(level) == widths, level


INTEL = "fpu sse2 ssse3 sse4_1 avx avx2 avx512f avx512bw avx512vl avx512vbmi avx512_vnni"


@pytest.mark.parametrize(
    "text, expected",
    [
        (f"processor\t: 0\nflags\t\t: {INTEL}\n\nprocessor\t: 1\nflags\t\t: fpu\n", "avx512_vnni"),
        (f"flags : {INTEL} avx_vnni amx_tile amx_int8\n", "amx_int8"),
        ("flags : sse2 ssse3 sse4_1 avx avx2 avx512f avx512bw avx512vl\n", "avx512"),
        ("flags : sse2 ssse3 sse4_1 avx avx2 avx_vnni avx_vnni_int8\n", "avx_vnni_int8"),
        ("flags : sse2 ssse3 sse4_1 avx\n", "sse41"),
        ("flags : sse2\n", None),
        ("Features\t: fp asimd asimddp i8mm\n", "neon_i8mm"),
        ("Features\t: fp asimd asimddp\n", "neon_dot"),
        ("nothing to see\n", None),
    ],
)
def test_level_from_cpuinfo(text, expected):
    assert cpu.running_level(cpu._from_cpuinfo(text)) == expected


def test_features_fall_back_to_llvm(monkeypatch):
    real = cpu.features()

    def missing(*args, **kwargs):
        raise OSError

    monkeypatch.setattr("builtins.open", missing)
    cpu.features.cache_clear()
    try:
        assert cpu.features() == cpu._from_llvm() == real
    finally:
        monkeypatch.undo()
        cpu.features.cache_clear()


def test_unknown_level():
    with pytest.raises(ArgumentError, match="choose one of 'sse41', 'avx2'"):
        cpu.level("avx3")


@pytest.mark.parametrize("name", [row.name for row in isa.INSTRUCTIONS if not row.name.startswith("tdp")])
def test_wrong_registers_are_refused(name):
    row = isa.instruction(name)
    types = {"u8": "u1", "s8": "i1", "s16": "i2", "s32": "i4", "u32": "u4", "f32": "f4"}
    bits = min(b for b, _ in row.forms)
    good = [np.zeros(bits // (8 * np.dtype(types[t.split("/")[0]]).itemsize), types[t.split("/")[0]]) for t in row.operands]
    row.function(*good)
    with pytest.raises(ArgumentError, match=f"{name}: .* has lanes of float64"):
        row.function(good[0].astype("f8"), *good[1:])
    with pytest.raises(ShapeError, match=f"{name}: .* must fill one register"):
        row.function(good[0][:-1], *good[1:])
    with pytest.raises(ShapeError):
        row.function(np.zeros((), good[0].dtype), *good[1:])
    if len(good) > 1 and len({b for b, _ in row.forms}) > 1:
        with pytest.raises(ShapeError, match="registers of one width"):
            row.function(np.concatenate([good[0]] * 2), *good[1:])


def test_tiles_are_checked_as_the_processor_does():
    c, a, b = np.zeros((16, 16), "i4"), np.zeros((16, 64), "u1"), np.zeros((16, 64), "i1")
    with pytest.raises(ShapeError, match="#UD"):
        isa.tdpbusd(c, a, b, (TileShape(4, 64), FULL, FULL))
    with pytest.raises(ShapeError, match="#UD"):
        isa.tdpbusd(c, a, b, (FULL, TileShape(16, 32), FULL))
    with pytest.raises(RangeError, match="colsb 4, 8"):
        isa.tdpbusd(c, a, b, (TileShape(16, 62), FULL, TileShape(16, 62)))
    with pytest.raises(ArgumentError, match="must have s8"):
        isa.tdpbusd(c, a, a)
    with pytest.raises(ShapeError, match="pad it"):
        isa.tdpbusd(c, a[:8], b)
    with pytest.raises(ShapeError, match="at most 64 by 16"):
        isa.tile_layout(np.zeros((65, 16), "i1"))


# ---------------------------------------------------------------------------------------------- laws

PAIRS = np.random.default_rng(3).integers(0, 256, (2, 4000, 64), np.uint8)


def test_dot_products_agree_with_one_another():
    a, b = PAIRS[0], PAIRS[1].view(np.int8)
    acc = np.random.default_rng(4).integers(-(2**31), 2**31, (4000, 16)).astype(np.int32)
    by_words = isa.vpdpwssd(isa.vpdpwssd(acc, _words(a, 0), _words(b, 0)), _words(a, 2), _words(b, 2))
    assert np.array_equal(isa.vpdpbusd(acc, a, b), by_words)
    assert np.array_equal(isa.vpdpbusd(acc[:, :4], a[:, :16], b[:, :16]), isa.usdot(acc[:, :4], a[:, :16], b[:, :16]))
    signed = a.view(np.int8)
    assert np.array_equal(isa.vpdpbssd(acc[:, :4], signed[:, :16], b[:, :16]), isa.sdot(acc[:, :4], signed[:, :16], b[:, :16]))
    shifted = isa.vpdpbusd(acc, signed.view(np.uint8) ^ 0x80, b)
    columns = b.astype(np.int64).reshape(4000, 16, 4).sum(-1)
    assert np.array_equal(isa.vpdpbssd(acc[:, :8], signed[:, :32], b[:, :32]), (shifted - 128 * columns).astype(np.int32)[:, :8])


def _words(bytes_, first):
    """Two of each four bytes, widened."""
    return bytes_.reshape(-1, 16, 4)[..., first : first + 2].reshape(-1, 32).astype(np.int16)


def test_reduced_range_never_saturates_pairs():
    a, b = PAIRS[0], (PAIRS[1] >> 1).astype(np.int8) - np.int8(64)
    wide = a.astype(np.int64) * b
    assert b.min() == -64 and b.max() == 63
    assert np.array_equal(isa.vpmaddubsw(a, b), wide[:, 0::2] + wide[:, 1::2])


def test_matrix_product_is_four_dot_products():
    a, b = PAIRS[0, :, :16].view(np.int8), PAIRS[1, :, :16].view(np.int8)
    acc = np.zeros((4000, 4), np.int32)
    by_dot = [isa.sdot(np.zeros((4000, 2), np.int32), a[:, 8 * i : 8 * i + 8], b[:, 8 * j : 8 * j + 8]).sum(1) for i in (0, 1) for j in (0, 1)]
    assert np.array_equal(isa.smmla(acc, a, b), np.stack(by_dot, 1))


def test_tile_product_is_sixteen_rows_of_dot_products():
    a, b = PAIRS[0, :16], PAIRS[1, :16].view(np.int8)
    acc = np.zeros((16, 16), np.int32)
    for k in range(16):
        acc = isa.vpdpbusd(acc, np.tile(a[:, 4 * k : 4 * k + 4], 16), b[k])
    assert np.array_equal(isa.tdpbusd(np.zeros((16, 16), np.int32), a, b), acc)


# ---------------------------------------------------------------------------------------------- sequences


def test_sequences_used_is_complete_for_x86():
    known = {(engine, level) for engine, level, _, _ in SEQUENCES_USED}
    x86 = [row for row in cpu.LEVELS if "SSE2" in row.extensions]
    missing = {(engine, row.name) for engine in ("onednn", "fbgemm", "onnxruntime") for row in x86} - known
    assert missing == {("fbgemm", "sse41")}
    for engine, level, _, evidence in SEQUENCES_USED:
        sequence, proof = isa.sequence_used(engine, level)
        assert proof == evidence in ("measured", "emulated", "read")
        assert all(isa.instruction(name).widths(level) for name in sequence.instructions), (engine, level)
    with pytest.raises(UnsupportedError, match="choose a level among avx2"):
        isa.sequence_used("fbgemm", "sse41")
    with pytest.raises(UnsupportedError):
        isa.sequence_used("onednn", "neon_dot")
    with pytest.raises(ArgumentError, match="engine='mkl'"):
        isa.sequence_used("mkl", "avx2")


def _saturating_product_by_hand(a, b):
    """Python integers: sums of neighbours clamped to int16."""
    out = []
    for row in a.tolist():
        out.append([])
        for column in b.T.tolist():
            products = [x * w for x, w in zip(row, column)] + [0]
            out[-1].append(sum(min(max(products[k] + products[k + 1], -32768), 32767) for k in range(0, len(products) - 1, 2)))
    return np.array(out, np.int32)


SHAPES = [(1, 1, 1), (2, 3, 5), (3, 37, 17), (17, 64, 16), (5, 65, 33), (2, 130, 20), (1, 256, 3)]


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("m, k, n", SHAPES)
def test_sequences_over_k(m, k, n, extreme):
    rng = np.random.default_rng(m * 1000 + k)
    a = rng.integers(0, 256, (m, k)).astype(np.uint8)
    b = rng.integers(-128, 128, (k, n)).astype(np.int8)
    if extreme:
        a, b = rng.choice(np.array([0, 254, 255], "u1"), (m, k)), rng.choice(np.array([-128, 126, 127], "i1"), (k, n))
    exact = a.astype(np.int64) @ b.astype(np.int64)
    for name in ("dot", "wide", "tile"):
        assert np.array_equal(isa.multiply(a, b, name), exact), name
    pairs = isa.multiply(a, b, "pairs")
    assert pairs.dtype == np.int32 and np.array_equal(pairs, _saturating_product_by_hand(a, b))
    assert np.array_equal(pairs, isa.accumulate_linear(a, b.T.copy(), isa.Product("k")))


def test_sequences_wrap_modulo_32_bits():
    k = 2**31 // (255 * 127) + 200
    a, b = np.full((1, k), 255, np.uint8), np.full((k, 1), 127, np.int8)
    expected = np.int64(k * 255 * 127).astype(np.int32)
    assert expected < 0
    for name in ("dot", "tile"):
        assert isa.multiply(a, b, name)[0, 0] == expected


def test_sequences_refuse_other_types():
    with pytest.raises(ArgumentError, match="must be uint8 and int8"):
        isa.multiply(np.zeros((2, 2), "i1"), np.zeros((2, 2), "i1"), "pairs")
    with pytest.raises(ShapeError):
        isa.multiply(np.zeros((2, 3), "u1"), np.zeros((2, 2), "i1"), "pairs")
    with pytest.raises(ArgumentError, match="sequence='dots'"):
        isa.multiply(np.zeros((2, 2), "u1"), np.zeros((2, 2), "i1"), "dots")
