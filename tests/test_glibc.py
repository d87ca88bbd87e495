"""The C library's float32 functions, step by step, beside the C library itself and beside the engines whose tables and scalar loops call it."""

import ctypes
import platform

import numpy as np
import pytest
from scipy import special

import refquant as rq
from refquant.core.affine import dequantize_codes
from refquant.core.glibc import glibc_exp, glibc_expm1, glibc_log, glibc_tanh
from refquant.core.glibc_erf import glibc_erf, glibc_erfc
from refquant.ops.unary_functions import ATEN, TABLES, UNARY
from refquant.verify import Problem, oracle

F = np.float32
NAMED = {"expf": glibc_exp, "expm1f": glibc_expm1, "logf": glibc_log, "tanhf": glibc_tanh, "erff": glibc_erf, "erfcf": glibc_erfc}
#: Where one formula gives way to the next.
EDGES = {
    "expf": (0.0, 88.72, -103.9), "expm1f": (2.0**-25, 0.5 * np.log(2), 1.5 * np.log(2), 18.714973, 23 * np.log(2), 56 * np.log(2), 88.72168, 88.72284),
    "logf": (2.0**-126, 0.7, 1.0, 1.4, 3.4e38), "tanhf": (2.0**-55, 1.0, 22.0), "erff": (2.0**-119, 2.0**-28, 0.84375, 1.25, 1 / 0.35, 6.0), "erfcf": (2.0**-56, 0.25, 0.84375, 1.25, 1 / 0.35, 6.0, 28.0),
}  # fmt: skip


def _numbers(name):
    """Random numbers of every exponent, those around the function's edges, and special ones."""
    rng = np.random.default_rng(0)
    any_bits = rng.integers(0, 2**32, 15_000, dtype=np.uint32).view(F)
    near = np.concatenate([(F(e).view(np.int32) + np.arange(-40, 40)).astype(np.int32).view(F) for e in EDGES[name]])
    usual = rng.uniform(-30, 30, 15_000).astype(F)
    return np.concatenate([any_bits, near, -near, usual, F([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45])])


def _same(a, b):
    return (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))


@pytest.mark.parametrize("name", NAMED)
def test_as_the_c_library(name):
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) > (2, 40):
        pytest.skip("the C library is not glibc, or a later one, whose functions are rounded correctly")
    function = getattr(ctypes.CDLL("libm.so.6"), name)
    function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
    x = _numbers(name)
    with np.errstate(all="ignore"):
        theirs = np.array([function(v) for v in x.tolist()], F)
    assert _same(np.asarray(NAMED[name](x), F), theirs).all()
    if name != "expf":
        wide = {"expm1f": np.expm1, "logf": np.log, "tanhf": np.tanh, "erff": special.erf, "erfcf": special.erfc}[name]
        with np.errstate(all="ignore"):
            assert not _same(wide(x.astype(np.float64)).astype(F), theirs).all()


def _between(function, other, dtype, seeds, out=None):
    """Yield (input's parameters, output's, code): a code for which two functions lie on both sides of a rounding boundary."""
    rng = np.random.default_rng(1)
    low = -128 if dtype == "int8" else 0
    codes = np.arange(low, low + 256).astype(dtype)
    for _ in range(seeds):
        q = rq.QParams(float(F(rng.uniform(0.005, 0.05))), low + int(rng.integers(60, 256)), dtype)
        x = dequantize_codes(codes, q.scale, q.zero_point, "sub_mul")
        with np.errstate(all="ignore"):
            a, b = (np.asarray(f(x, 1.0), np.float64) for f in (function, other))
        if out is not None:
            steps = a / out.scale, b / out.scale
            where = np.flatnonzero(np.floor(steps[0] + 0.5) != np.floor(steps[1] + 0.5))
        else:
            where = np.flatnonzero((a != b) & (a != 0))
        if where.size:
            i = rng.choice(where)
            yield q, out or rq.QParams(float(abs(a[i] + b[i]) / 2 / (int(rng.integers(0, 60)) + 0.5)), low + 100, dtype), codes[i]


def _differing(engine, op, function, other, dtype, seeds, count=7):
    """Return how many calls there were, how many the oracle misses, and how many it would miss with the other function; few elements fill no vector."""
    asked = missed = told = 0
    for q, out, code in _between(function, other, dtype, seeds):
        problem = Problem(op, {"x": rq.QTensor(np.full(count, code, dtype), q), "out": out, **({"alpha": 1.0} if op in ("elu", "celu") else {})})
        if engine.supports(problem) is not None:
            continue
        theirs = engine.run(problem)
        asked += 1
        missed += int((oracle(problem, engine.profile) != theirs).any())
        steps = np.asarray([f(dequantize_codes(np.full(1, code, dtype), q.scale, q.zero_point, "sub_mul"), 1.0)[0] / F(out.scale) for f in (function, other)], np.float64)
        told += int(np.rint(steps[0]) != np.rint(steps[1]))
    return asked, missed, told


@pytest.mark.engine
@pytest.mark.parametrize("engine, op", [("tflite_ref", "gelu"), ("tflite_opt", "elu"), ("tflite_opt", "gelu"), ("xnnpack", "elu"), ("xnnpack", "gelu")], indirect=["engine"])
def test_tables_of_tensorflow_lite(engine, op):
    asked, missed, told = _differing(engine, op, TABLES[op], UNARY[op][1], "int8", 150)
    assert asked > 50 and missed == 0 and told > 5


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["tflite_ref", "tflite_opt", "xnnpack"], indirect=True)
def test_tanh_of_tensorflow_lite(engine):
    """Its output's grid is fixed: the input's scale puts a code beside a boundary."""
    rng, missed, told = np.random.default_rng(2), 0, 0
    x, out = np.arange(-128, 128).astype(np.int8), rq.QParams(1 / 128, 0, "int8")
    for _ in range(150):
        scale = F(np.arctanh((int(rng.integers(1, 100)) + 0.5) / 128) / rng.integers(1, 100))
        problem = Problem("tanh", {"x": rq.QTensor(x, rq.QParams(float(scale), int(rng.integers(-20, 20)), "int8")), "out": out})
        theirs = engine.run(problem)
        real = UNARY["tanh"][0](dequantize_codes(x, problem["x"].qparams.scale, problem["x"].qparams.zero_point, "sub_mul"), None)
        missed += int((oracle(problem, engine.profile) != theirs).sum())
        told += int((np.clip(np.rint(real * F(128)), -128, 127) != theirs).sum())
    assert missed == 0 and told > 5


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["fbgemm", "inductor"], indirect=True)
@pytest.mark.parametrize("op", ["elu", "celu"])
def test_scalar_loops_of_pytorch(engine, op):
    asked, missed, told = _differing(engine, op, ATEN[op][1], UNARY[op][1], "uint8", 150)
    assert asked > 100 and missed == 0 and told > 5
