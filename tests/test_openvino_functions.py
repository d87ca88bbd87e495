"""oneDNN's functions and its softmax beside OpenVINO's own float32 kernels, bit for bit; codes on ties, where another last bit would show."""

import numpy as np
import pytest

import refquant as rq
from refquant.core.onednn_eltwise import onednn_elu, onednn_gelu, onednn_logistic
from refquant.core.onednn_softmax import onednn_softmax
from refquant.core.onednn_tanh import onednn_tanh
from refquant.ops.range_elementwise import _codes
from refquant.ops.unary_functions import UNARY
from refquant.verify import Problem, oracle

F = np.float32
ENDS = (2.0**-126, 2.0**-12, 4.2286977e-4, 0.34657359, 1.0, 4.0, 8.0, 9.010913, 16.6355, 87.336548, 88.72283)
#: What OpenVINO calls each function, ours, and the same in float64 rounded once.
FUNCTIONS = {
    "sigmoid": (lambda op, p: op.sigmoid(p), onednn_logistic, lambda x: 1 / (1 + np.exp(-x))),
    "tanh": (lambda op, p: op.tanh(p), onednn_tanh, np.tanh),
    "elu": (lambda op, p: op.elu(p, 0.75), lambda x: onednn_elu(x, 0.75), lambda x: np.where(x > 0, x, 0.75 * np.expm1(np.minimum(x, 0)))),
    "gelu": (lambda op, p: op.gelu(p, "erf"), onednn_gelu, lambda x: UNARY["gelu"][1](x, None)),
}


def numbers(step=30011):
    """Bit patterns from all over, and all beside the ends of pieces; without NaN."""
    near = [F(end).view(np.uint32) + np.arange(-300, 300).astype(np.uint32) for end in ENDS]
    bits = np.concatenate([np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32), *near, *(b | np.uint32(1 << 31) for b in near)])
    x = np.concatenate([bits.view(F), F([0.0, -0.0, np.inf, -np.inf])])
    return x[~np.isnan(x)]


def differing(a, b):
    return np.count_nonzero(np.asarray(a, F).view(np.uint32) != np.asarray(b, F).view(np.uint32))


def live(make, x):
    openvino = pytest.importorskip("openvino")
    from openvino import opset13

    parameter = opset13.parameter(x.shape, F)
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(openvino.Model([make(opset13, parameter)], [parameter]), "CPU", options)(x)[0].copy()


@pytest.fixture
def lanes():
    """Of vectors on this processor."""
    from refquant.backends.machine import profile_here

    return rq.numerics.get(profile_here("openvino")).softmax.vector


@pytest.mark.engine
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_openvinos(name, lanes):
    make, ours, wide = FUNCTIONS[name]
    if name == "gelu" and lanes != 8:
        pytest.skip("this processor has no lack of AVX-512, for which gelu has another polynomial")
    x = numbers()
    with np.errstate(all="ignore"):
        theirs, nearest = live(make, x), wide(x.astype(np.float64)).astype(F)
        assert differing(ours(x), theirs) == 0
    # Sound: the nearest float32 is another one at many places.
    assert differing(nearest, theirs) > 100


@pytest.mark.engine
@pytest.mark.parametrize("shape, axis", [
    ((64, 1), 1), ((64, 3), 1), ((64, 8), 1), ((64, 17), -1), ((64, 24), 1), ((64, 31), 1), ((64, 95), 1), ((64, 1000), 1), ((3, 5, 7), 1), ((4, 9, 6, 5), 0), ((2, 8, 8), 2), ((7,), 0),
])  # fmt: skip
def test_softmax_is_openvinos(shape, axis, lanes):
    x = (np.random.default_rng(len(shape) + shape[-1]).standard_normal(shape) * 12).astype(F)
    theirs = live(lambda op, p: op.softmax(p, axis), x)
    assert differing(onednn_softmax(x, axis, lanes=lanes), theirs) == 0
    if x.size > 5000:
        assert differing(onednn_softmax(x, axis, lanes=lanes // 2), theirs) > 0
        wide = np.exp((x - x.max(axis, keepdims=True)).astype(np.float64))
        assert differing(wide / wide.sum(axis, keepdims=True), theirs) > x.size // 10


def test_special_numbers():
    x = F([0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45])
    assert onednn_tanh(x).tolist() == [0.0, -0.0, 1.0, -1.0, *x[4:].tolist()] and np.signbit(onednn_tanh(x)[[1, 3, 5]]).all()
    assert onednn_logistic(x).tolist() == [0.5, 0.5, 1.0, 0.0, 0.5, 0.5]
    assert onednn_elu(x).tolist()[:4] == [0.0, -0.0, np.inf, -1.0]
    assert abs(onednn_tanh(F(np.nan))) == 1
    for function in (onednn_tanh, onednn_logistic, onednn_elu):
        assert function(np.zeros(0, F)).size == 0 and function(F(1)).shape == ()


def test_rows_of_softmax_add_up():
    """A constant row is the inverse of its length, however its sum is cut; what lies far below the maximum is 0."""
    for n in (1, 2, 7, 8, 9, 33, 64, 100):
        for lanes in (8, 16):
            assert np.all(onednn_softmax(np.full((2, n), 3, F), 1, lanes=lanes) == F(1) * (F(1) / F(n)))
    assert onednn_softmax(F([[0, -200]]), 1, lanes=8).tolist() == [[1.0, 0.0]]


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_codes_on_ties_show_the_last_bit(engine, name):
    """Outputs scaled so that a code lies on a tie where oneDNN's number and the nearest one part ways."""
    rng, hits = np.random.default_rng(7), 0
    codes = np.arange(256, dtype=np.uint8)
    more = {"alpha": 0.75} if name == "elu" else {}
    ours, wide = FUNCTIONS[name][1:]
    form = rq.numerics.get("openvino").unary
    for _ in range(4000):
        q = rq.QParams(float(F(rng.uniform(0.005, 0.04))), 128, "uint8")
        x = (codes.astype(F) - F(128)) * F(q.scale)
        mine, nearest = ours(x), wide(x.astype(np.float64)).astype(F)
        where = np.flatnonzero((mine != nearest) & (np.abs(mine) > 1e-3))
        if not where.size:
            continue
        tie = (abs(float(mine[where[0]])) + abs(float(nearest[where[0]]))) / 2
        out = rq.QParams(float(F(tie / rng.choice([20.5, 51.5, 90.5]))), 128, "uint8")
        if np.array_equal(_codes(form, mine, out, F(1)), _codes(form, nearest, out, F(1))):
            continue
        problem = Problem(name, {"x": rq.QTensor(codes, q), "out": out, **more})
        np.testing.assert_array_equal(oracle(problem, engine.profile), engine.run(problem))
        hits += 1
        if hits == 3:
            break
    assert hits == 3
