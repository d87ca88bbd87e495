"""SLEEF's and ATen's float32 functions against PyTorch's own float32 kernels, bit for bit; and a table's dependence on where an element lies."""

import numpy as np
import pytest

import refquant as rq
from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.fma import fma32
from refquant.core.glibc import glibc_exp
from refquant.core.sleef import aten_erf, sleef_exp, sleef_expm1, sleef_tanh
from refquant.ops.unary_functions import ATEN, FLOAT, UNARY, float_gelu
from refquant.verify import oracle
from refquant.verify.problem import Problem

F = np.float32
ENDS = (1e-7, 0.34657359, 1.0, 8.664339742, 16.6355323, 88.0, 88.7228317, 103.97, 104.0)


def _numbers():
    """Every 4001st bit pattern, and all beside the ends of the pieces: whole steps of any vector."""
    near = [np.float32(end).view(np.uint32) + np.arange(-2000, 2000).astype(np.uint32) for end in ENDS]
    bits = np.concatenate([np.arange(0, 2**32, 4001, dtype=np.uint64).astype(np.uint32), *near, *(b | np.uint32(1 << 31) for b in near)])
    return bits[: bits.size // 64 * 64].view(F)


def _differ(a, b):
    return np.count_nonzero((np.asarray(a, F).view(np.uint32) != b.view(np.uint32)) & ~(np.isnan(a) & np.isnan(b)))


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    if "AVX" not in torch.backends.cpu.get_cpu_capability():
        pytest.skip("this processor has no AVX2")
    return torch


@pytest.mark.engine
def test_exp_and_expm1_are_pytorchs(torch):
    x = _numbers()
    t = torch.from_numpy(x)
    with np.errstate(all="ignore"):
        assert _differ(F(1) / (F(1) + sleef_exp(-x)), torch.sigmoid(t).numpy()) == 0
        assert _differ(sleef_expm1(x), torch.expm1(t).numpy()) == 0
        # Sound: the nearest float32 is another one at some place.
        assert _differ(np.expm1(x.astype(np.float64)).astype(F), torch.expm1(t).numpy()) > 0


@pytest.mark.engine
def test_tanh_and_erf_are_those_of_pytorchs_gelu(torch):
    """Of negative numbers ``1 + tanh`` and ``1 + erf`` show the last bits. The layer's cubic is contracted to a fused step by the compiler."""
    x = -np.abs(np.random.default_rng(0).uniform(0, 9, 2**18)).astype(F)
    cube, half = x * x * x, x * F(0.5)
    inner = F(np.sqrt(2) * (2 / np.sqrt(np.pi)) * 0.5) * fma32(F(0.044715), cube, x)
    with torch.backends.mkldnn.flags(enabled=False):
        theirs = torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy()
    assert _differ(half * (F(1) + sleef_tanh(inner)), theirs) == 0
    assert _differ(half * (F(1) + np.tanh(inner.astype(np.float64)).astype(F)), theirs) > 0
    # Images channels last are ATen's, not oneDNN's.
    image = torch.from_numpy(x.reshape(4, 16, 64, 64)).contiguous(memory_format=torch.channels_last)
    assert _differ((half * (F(1) + aten_erf(x * F(np.sqrt(0.5))))), torch.nn.functional.gelu(image).numpy().reshape(-1)) == 0


def test_the_exponential_of_scalar_loops_is_the_c_librarys():
    import ctypes
    import platform

    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is not glibc")
    expf = ctypes.CDLL("libm.so.6").expf
    expf.restype, expf.argtypes = ctypes.c_float, [ctypes.c_float]
    x = np.random.default_rng(0).uniform(-105, 90, 60_000).astype(F)
    theirs = np.array([expf(v) for v in x.tolist()], F)
    assert _differ(glibc_exp(x), theirs) == 0
    with np.errstate(over="ignore"):
        assert _differ(np.exp(x.astype(np.float64)).astype(F), theirs) > 0


def test_special_numbers():
    x = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45], F)
    assert sleef_tanh(x).tolist() == [0.0, -0.0, 1.0, -1.0, *x[4:].tolist()] and np.signbit(sleef_tanh(x)[[1, 3, 5]]).all()
    assert sleef_expm1(x).tolist()[:4] == [0.0, -0.0, np.inf, -1.0] and np.signbit(sleef_expm1(x)[1])
    assert aten_erf(x).tolist()[2:4] == [1.0, -1.0]
    for function in (sleef_tanh, sleef_expm1, aten_erf):
        assert np.isnan(function(F(np.nan))) and function(np.zeros(0, F)).size == 0


def test_body_and_tail_of_elu_and_gelu_differ():
    """Where a code lies decides."""
    x = -np.linspace(1e-4, 3, 20000, dtype=F)
    for table, name in ((ATEN, "gelu"), (ATEN, "elu"), (FLOAT, "elu"), (FLOAT, "gelu"), (ATEN, "tanh")):
        body, tail = table[name]
        assert np.any(body(x, 1.0) != tail(x, 1.0))


def _near_ties(function, other, zero, most=150):
    """Yield parameters of codes 0 … 255 and of an output one of whose codes lies between what two functions of the same number give."""
    rng = np.random.default_rng(4)
    for _ in range(most):
        p = rq.QParams(float(F(rng.uniform(0.01, 0.03))), 255, "uint8")
        x = dequantize_codes(np.arange(256, dtype=np.uint8), p.scale, p.zero_point, "sub_mul")
        a, b = (f(x, 1.0).astype(np.float64) for f in (function, other))
        where = np.flatnonzero(a != b)
        if where.size == 0:
            continue
        i = rng.choice(where)
        yield p, rq.QParams(float(abs(a[i] + b[i]) / 2 / rng.choice([0.5, 1.5, 2.5, 3.5])), zero, "uint8")


def test_gelu_of_inductor_depends_on_the_memory_format():
    """oneDNN takes what is contiguous and longer than one element, ATen the rest."""
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 4, 4)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    differing = 0
    for p, out in _near_ties(float_gelu("avx2"), FLOAT["gelu"][0], 200):
        y = [rq.ops.gelu(rq.QTensor(v, p), out=out, numerics="inductor@avx2").values for v in (x, last)]
        differing += np.count_nonzero(y[0] != y[1])
    assert differing > 10


@pytest.mark.engine
@pytest.mark.parametrize("op, engine", [("sigmoid", "fbgemm"), ("elu", "fbgemm"), ("sigmoid", "inductor"), ("elu", "inductor"), ("gelu", "inductor")], indirect=["engine"])
def test_codes_between_two_functions_are_the_engines(op, engine):
    """Parameters chosen so that SLEEF's last bit decides: the function in float64 rounded once would not do."""
    table = ATEN if engine.name == "fbgemm" else FLOAT
    function = float_gelu(engine.profile.partition("@")[2] or None) if op == "gelu" else table[op][0]
    x, sound = np.arange(256, dtype=np.uint8), 0
    for p, out in _near_ties(function, UNARY[op][0], 0 if op == "sigmoid" else 200):
        problem = Problem(op, {"x": rq.QTensor(x, p), "out": out})
        theirs = engine.run(problem)
        np.testing.assert_array_equal(oracle(problem, engine.profile), theirs)
        real = UNARY[op][0](dequantize_codes(x, p.scale, p.zero_point, "sub_mul"), 1.0)
        scaled = quantize_real(real, out.scale, out.zero_point, 0, 255, scaling="reciprocal", add="after", rounding="half_even")
        sound += np.count_nonzero(scaled != theirs)
    assert sound > 0


def test_a_table_is_kept_by_name_place_and_parameters():
    p, out = rq.QParams(0.05, 128, "uint8"), rq.QParams(0.02, 100, "uint8")
    x = rq.QTensor(np.arange(256, dtype=np.uint8), p)
    first = rq.ops.elu(x, 1.0, out=out).values
    assert np.any(rq.ops.elu(x, 0.5, out=out).values != first) and np.any(rq.ops.celu(x, 0.5, out=out).values != rq.ops.elu(x, 0.5, out=out).values)
    assert np.any(rq.ops.elu(x, 1.0, out=rq.QParams(0.02, 101, "uint8")).values != first)
    np.testing.assert_array_equal(rq.ops.elu(x, 1.0, out=out).values, first)
