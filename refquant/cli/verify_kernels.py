"""``refquant verify --kernels``: every rung of the products on every shape up to 70, at every level of processors, and without the compiler.

A level runs in a process of its own, with ``REFQUANT_EMULATE`` (see `refquant.kernels.processor`), or with ``NUMBA_DISABLE_JIT=1``. The
reference is NumPy: products of float64, exact here, and of pairs that saturate by their definition.

Compiled rungs see all 343,000 triples of M, N and K from 1 to 70. The plain loops in pure Python, a microsecond a multiplication, see all pairs of
two of them with the third 1, 2 and 3, and of numbers around powers of two and 70 all triples. They take one row, one column and one k after the
other, and no step depends on how many there are of another.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np

from refquant.cli.console import Progress, bar, paint
from refquant.errors import ArgumentError, choose

__all__ = ["WITHOUT_JIT", "LEVELS", "verify_kernels", "sweep"]

WITHOUT_JIT = "without-jit"
LEVELS = ("amx_int8", "avx512_vnni", "avx512", "avx_vnni", "avx2", "sse41", WITHOUT_JIT)
_SIZES = tuple(range(1, 71))
# Where they are plain loops: thirds of all pairs, and what all triples are made of.
_THIRDS, _FEW = (1, 2, 3), (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 69, 70)
_ROW = "{:<12}  {:<11}  {:>9}  {:>9}  {:>9}  {:>8}  {}"
_CHILD = "import sys; from refquant.cli.verify_kernels import sweep; sweep([int(size) for size in sys.argv[1].split(',')], sys.argv[2:])"


def verify_kernels(levels=None, sizes=_SIZES, rungs=()):
    """Run the sweep and return the exit status: 1 where a bit differs.

    Parameters
    ----------
    levels : sequence of str, optional
        Of `LEVELS`; all unless given.
    sizes : sequence of int
        M, N and K.
    rungs : sequence of str
        Of `refquant.kernels.tile.RUNGS`; all that the level has unless given.
    """
    levels = [choose("verify --kernels", "level", level, LEVELS) for level in levels or LEVELS]
    print(_ROW.format("level", "rung", "products", "finished", "differing", "seconds", "verdict"))
    progress, wrong = Progress(), 0
    for level in levels:
        for row in _rows_of(level, sizes, rungs, progress):
            wrong += row["differing"]
            verdict = paint("DIFFERENT", "red") + f": {row['first']}" if row["differing"] else paint("EXACT", "green")
            print(_ROW.format(level, row["rung"], f"{row['products']:,}", f"{row['finished']:,}", f"{row['differing']:,}", f"{row['seconds']:.1f}", verdict), flush=True)
    return 1 if wrong else 0


def _rows_of(level, sizes, rungs, progress):
    """Run one level in a process of its own and give what it finds, rung by rung."""
    given = {"NUMBA_DISABLE_JIT": "1", "REFQUANT_EMULATE": ""} if level == WITHOUT_JIT else {"REFQUANT_EMULATE": level}
    child = subprocess.Popen([sys.executable, "-c", _CHILD, ",".join(map(str, sizes)), *rungs], stdout=subprocess.PIPE, text=True, env={**os.environ, **given})
    with child:
        for line in child.stdout:
            row = json.loads(line)
            if "done" in row:
                progress.show(f"{bar(row['done'])} {row['rung']} at the level {level}")
            else:
                progress.clear()
                yield row
    if child.returncode:
        raise ArgumentError(f"verify --kernels: the process of level {level!r} ended with {child.returncode}; its own message stands above")


def sweep(sizes=_SIZES, only=()):
    """Sweep every rung that this process can run, or those of them that are named, and print one line of JSON each."""
    from refquant.kernels.jit import jit_disabled
    from refquant.kernels.tile import PLAIN, RUNGS

    rungs = [(rung.name, rung.exact) for rung in RUNGS if rung.runs_here and (not only or rung.name in only)]
    for name, exact in [(PLAIN, True), (PLAIN, False), *rungs] if jit_disabled() else rungs:
        print(json.dumps(_swept(name, exact, sizes, jit_disabled())), flush=True)


def _shapes(sizes, few):
    """``(k, n)`` and the numbers of rows to try with them."""
    for k in sizes:
        for n in sizes:
            whole = not few or k in _THIRDS or n in _THIRDS
            yield k, n, [m for m in sizes if whole or m in _THIRDS or {k, n, m} <= set(_FEW)]


def _swept(name, exact, sizes, few):
    """Compare one rung on all shapes: int32, and for each (k, n) once with an output stage."""
    from refquant.core.epilogue import BIAS, CLAMP, apply_epilogue, make_epilogue
    from refquant.kernels.gemm import gemm_requantize, gemm_s32
    from refquant.kernels.pack import pack_b
    from refquant.kernels.pairs import gemm_s16pair_s32, pack_pairs

    rng, side = np.random.default_rng(70), max(sizes)
    all_a, all_b = _codes(rng, (side, side), np.uint8), _codes(rng, (side, side), np.int8)
    counts, first, start = {"products": 0, "finished": 0, "differing": 0}, "", time.monotonic()
    for k, n, heights in _shapes(sizes, few):
        a, b = np.ascontiguousarray(all_a[:, :k]), np.ascontiguousarray(all_b[:k, :n])
        ref, packed = _exact(a, b) if exact else _paired(a, b), pack_b(b, name) if exact else pack_pairs(b, name)
        found = [(m, "int32", ref[:m], gemm_s32(a[:m], packed) if exact else gemm_s16pair_s32(a[:m], packed)) for m in heights]
        counts["products"] += len(found)
        if exact:
            m = heights[(7 * n + k) % min(3 if few else side, len(heights))]
            ep = make_epilogue(n, flags=BIAS | CLAMP, s2=0.002, b=0.5, lo=-90, hi=165, zi=90, qlo=0, qhi=255)
            found.append((m, "uint8", apply_epilogue(ref[:m], ep, np.uint8), gemm_requantize(a[:m], packed, ep, np.uint8)))
            counts["finished"] += 1
        for m, what, expected, computed in found:
            if computed.dtype != expected.dtype or not np.array_equal(expected, computed):
                counts["differing"] += 1
                first = first or f"{what} of M={m} N={n} K={k}"
        if n == sizes[-1]:
            print(json.dumps({"rung": name, "done": k / side}), flush=True)
    return {"rung": name if exact or name != "plain" else "plain pairs", **counts, "first": first, "seconds": time.monotonic() - start}


def _codes(rng, shape, dtype):
    """Random codes, a third of them at the ends of the range."""
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([info.min, info.max], shape), values).astype(dtype)


def _exact(a, b):
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int32)


def _paired(a, b):
    """Neighbouring products saturate to int16, a last one stands alone."""
    a, b = (np.pad(v, pad).astype(np.int64) for v, pad in ((a, ((0, 0), (0, a.shape[1] % 2))), (b, ((0, b.shape[0] % 2), (0, 0)))))
    pairs = a[:, ::2, None] * b[None, ::2] + a[:, 1::2, None] * b[None, 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(1).astype(np.int32)
