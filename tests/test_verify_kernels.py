"""``refquant verify --kernels``: what its levels run, that its references are right, and that a wrong bit is found."""

from itertools import product

import numpy as np
import pytest

from refquant.cli import verify_kernels as command
from refquant.cli.verify_kernels import LEVELS, WITHOUT_JIT, _exact, _paired, _shapes, _swept
from refquant.errors import ArgumentError
from refquant.isa import vpmaddubsw
from refquant.kernels.jit import jit_disabled

# Of the level that has every rung those that few processors run themselves; the others are swept by `test_kernels_gemm` as well.
_SIZES = {"amx_int8": (1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 47, 48, 49, 64, 65, 70), WITHOUT_JIT: range(1, 9)}
_FEW = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 69, 70}
_RUNGS = {"amx_int8": ["avx512vnni", "avx512bw", "avxvnni", "pairs512"], WITHOUT_JIT: ["plain", "plain pairs"]}


@pytest.mark.skipif(jit_disabled(), reason="levels are of compiled kernels")
@pytest.mark.parametrize("level", ["amx_int8", WITHOUT_JIT])
def test_each_rung_of_a_level_is_swept(level, capsys):
    assert command.verify_kernels([level], _SIZES[level], _RUNGS[level]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    rungs = [" ".join(row[1:-5]) for row in rows]
    assert rungs == _RUNGS[level] and all(row[0] == level and row[-1] == "EXACT" for row in rows)
    sizes = _SIZES[level]
    shapes = sum(1 for shape in product(sizes, repeat=3) if level != WITHOUT_JIT or {1, 2, 3} & set(shape) or set(shape) <= _FEW)
    assert {row[-5] for row in rows} == {f"{shapes:,}"}
    assert [int(row[-4]) for row in rows] == [0 if "pairs" in rung else len(sizes) ** 2 for rung in rungs]


def test_every_pair_of_two_sizes_meets_every_third():
    shapes = {(m, n, k) for k, n, heights in _shapes(range(1, 71), True) for m in heights}
    every = range(1, 71)
    assert set(product(_FEW, repeat=3)) <= shapes and len(_FEW) == 19
    for third in (1, 2, 3):
        assert {(a, b, third) for a in every for b in every} <= shapes
        assert {(a, third, b) for a in every for b in every} <= shapes
        assert {(third, a, b) for a in every for b in every} <= shapes
    assert sum(len(heights) for _, _, heights in _shapes(range(1, 71), False)) == 343_000


def test_the_references():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (3, 16), np.uint8), rng.integers(-128, 128, (16, 2)).astype(np.int8)
    assert np.array_equal(_exact(a, b), a.astype(int) @ b.astype(int))
    pairs = np.array([[vpmaddubsw(row, column).astype(np.int32).sum() for column in np.ascontiguousarray(b.T)] for row in a])
    assert np.array_equal(_paired(a, b), pairs) and (pairs != _exact(a, b)).any()
    assert np.array_equal(_paired(a[:, :5], b[:5]), _paired(np.pad(a[:, :5], ((0, 0), (0, 1))), np.pad(b[:5], ((0, 1), (0, 0)))))


@pytest.mark.parametrize("exact", [True, False])
def test_a_wrong_bit_is_counted_and_placed(exact, monkeypatch):
    name = "_exact" if exact else "_paired"
    right = getattr(command, name)

    def wrong(a, b):
        ref = right(a, b)
        if a.shape[1] == 5 and b.shape[1] == 2:
            ref[3, 1] ^= 1  # of four rows and more
        return ref

    monkeypatch.setattr(command, name, wrong)
    row = _swept("plain", exact, range(1, 7), False)
    assert row["differing"] >= 3 and row["first"] == "int32 of M=4 N=2 K=5" and row["products"] == 216


def test_no_such_level():
    with pytest.raises(ArgumentError, match="level='avx513'"):
        command.verify_kernels(["avx513"])
    assert set(LEVELS) >= set(_RUNGS)
