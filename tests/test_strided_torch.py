"""Tensors that are views of others: transposed ones, and such that skip memory, whose elements PyTorch takes one by one, or by vectors of a run."""

import numpy as np
import pytest

from refquant import backends
from refquant.core.layout import to_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.ops.memory_order import dense_run
from refquant.verify import Problem, compare, oracle

pytestmark = pytest.mark.engine

Q, OUT = QParams(0.0351, 121, "uint8"), QParams(0.0123, 100, "uint8")
SHAPES = ((70, 90), (3, 20, 9, 11))


def gapped(v, axis):
    wide = np.zeros([n + 5 * (d == axis % v.ndim) for d, n in enumerate(v.shape)], v.dtype)
    inside = wide[tuple(slice(n) for n in v.shape)]
    inside[...] = v
    return inside


def stepped(v):
    wide = np.zeros((*v.shape[:-1], 2 * v.shape[-1]), v.dtype)
    wide[..., ::2] = v
    return wide[..., ::2]


LAYOUTS = {
    "dense": lambda v: v,
    "a gap behind each row": lambda v: gapped(v, -1),
    "a gap between rows": lambda v: gapped(v, 1),
    "every second": stepped,
    "transposed": lambda v: np.ascontiguousarray(v.swapaxes(-1, -2)).swapaxes(-1, -2),
    "channels last": lambda v: to_channels_last(v) if v.ndim == 4 else v,
    "channels last with gaps": lambda v: np.moveaxis(gapped(np.ascontiguousarray(np.moveaxis(v, 1, -1)), -1), -1, 1) if v.ndim == 4 else v,
    "backwards": lambda v: np.ascontiguousarray(v[::-1])[::-1],
    "read-only": lambda v: np.broadcast_to(v, v.shape),
}
UNARY = {
    "sigmoid": {}, "tanh": {}, "hardsigmoid": {}, "gelu": {}, "hardswish": {"out": OUT}, "elu": {"alpha": 1.3, "out": OUT}, "celu": {"alpha": 0.7, "out": OUT},
    "leaky_relu": {"negative_slope": 0.37, "out": OUT}, "threshold": {"threshold": 0.3, "value": 0.7}, "relu": {}, "relu6": {}, "clamp": {"min": -1.03, "max": 1.51},
}  # fmt: skip


pytest.importorskip("torch")


@pytest.fixture(scope="module")
def engine():
    return backends.load("x86")


def held(engine, problem):
    assert engine.supports(problem) is None
    ref = oracle(problem, engine.profile)
    assert compare(engine.run(problem), ref).exact
    return ref


def codes(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", UNARY)
def test_functions(engine, op, layout):
    for shape in SHAPES:
        held(engine, Problem(op, {"x": QTensor(LAYOUTS[layout](codes(shape)), Q), **UNARY[op]}))


@pytest.mark.parametrize("one", LAYOUTS)
@pytest.mark.parametrize("other", ("dense", "transposed", "a gap behind each row", "channels last"))
def test_sums_and_products(engine, one, other):
    for op in ("add", "mul"):
        for shape in SHAPES:
            a, b = QTensor(LAYOUTS[one](codes(shape)), Q), QTensor(LAYOUTS[other](codes(shape, 1)), QParams(0.0217, 140, "uint8"))
            held(engine, Problem(op, {"a": a, "b": b, "out": OUT, "activation": None}))


def test_a_transposed_tensor_rounds_otherwise_than_its_copy(engine):
    v = codes(SHAPES[0])
    x = QTensor(LAYOUTS["transposed"](v), Q)
    comp = [held(engine, Problem("leaky_relu", {"x": q, **UNARY["leaky_relu"]})) for q in (x, QTensor(v, Q))]
    assert (comp[0] != comp[1]).any()
    assert dense_run(x.values, False) == 1 and dense_run(v, False) == v.size
