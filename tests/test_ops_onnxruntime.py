"""ONNX Runtime's own operators: witnesses in plain integers, what is refused, planted faults, and MLAS's functions against the live engine."""

import sys
from itertools import islice

import numpy as np
import pytest

import refquant as rq
from refquant.core import eigen, mlas, mlas_gemm
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError
from refquant.verify import Status, build, case_stream, oracle, try_case
from refquant.verify.campaign import try_problem
from refquant.verify.held import profile_here

F = np.float32
U8, S8 = rq.QParams(0.5, 10, "uint8"), rq.QParams(0.25, -3, "int8")
OPS = ("matmul", "gemm", "where", "attention", "lstm_dynamic", "embed_layer_norm")


def tensor(shape, qparams=U8, seed=0):
    return rq.QTensor(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8).view(qparams.storage), qparams)


@pytest.mark.parametrize("transposed", (False, True))
@pytest.mark.parametrize("shape", ((), (1,), (4,), (1, 4), (3, 1), (3, 4)), ids=str)
def test_gemm_witness(shape, transposed):
    """Sums by Python integers; alpha joins the scale of the first factor, in float32."""
    a, b = tensor((3, 5)), tensor((5, 4), S8, 1)
    c, alpha = np.random.default_rng(2).integers(-999, 1000, shape).astype(np.int32), 0.3
    wide = np.broadcast_to(c, (3, 4))
    ref = [[sum((int(p) - 10) * (int(q) + 3) for p, q in zip(row, column)) + int(wide[i, j]) for j, column in enumerate(b.values.T)] for i, row in enumerate(a.values)]
    scale = F(F(0.3) * F(0.5)) * F(0.25)
    turned = (rq.QTensor(a.values.T, U8), rq.QTensor(b.values.T, S8)) if transposed else (a, b)
    comp = rq.ops.gemm(*turned, c, alpha=alpha, transpose_a=transposed, transpose_b=transposed)
    np.testing.assert_array_equal(comp, np.array(ref).astype(F) * scale)


def test_matmul_is_linear_matrix_by_matrix():
    a, b = tensor((2, 1, 3, 5)), tensor((4, 5, 2), S8, 1)
    out = rq.QParams(3.0, 100, "uint8")
    comp = rq.ops.matmul(a, b, out=out)
    assert comp.shape == (2, 4, 3, 2)
    for i, j in np.ndindex(2, 4):
        ref = rq.ops.linear(rq.QTensor(a.values[i, 0], U8), rq.QTensor(b.values[j].T.copy(), S8), out=out, numerics="onnxruntime")
        np.testing.assert_array_equal(comp.values[i, j], ref.values)
    assert rq.ops.matmul(tensor((0, 3, 5)), tensor((5, 2), S8)).shape == (0, 3, 2)


def test_where_broadcasts():
    x, y = tensor((2, 3)), tensor((3,), rq.QParams(1.0, 0, "uint8"), 1)
    comp = rq.ops.where(np.array([[True], [False]]), x, y, out=U8).values
    np.testing.assert_array_equal(comp[0], x.values[0])
    assert comp[1].tolist() == [min(int(q) * 2 + 10, 255) for q in y.values]


@pytest.mark.parametrize(
    "error, words, call",
    (
        (ShapeError, r"a \(2, 3\) and b \(4, 5\) do not share K", lambda: rq.ops.matmul(tensor((2, 3)), tensor((4, 5)))),
        (ShapeError, "do not broadcast", lambda: rq.ops.matmul(tensor((2, 3, 4)), tensor((3, 4, 5)))),
        (ArgumentError, "columns are axis 1", lambda: rq.ops.matmul(tensor((2, 3)), rq.QTensor(np.zeros((3, 2), np.int8), rq.QParams([1.0] * 3, [0] * 3, "int8", axis=0)))),
        (ArgumentError, "c has dtype float64", lambda: rq.ops.gemm(tensor((2, 3)), tensor((3, 2)), np.zeros(2))),
        (ShapeError, "does not fit the product", lambda: rq.ops.gemm(tensor((1, 3)), tensor((3, 2)), np.zeros((5, 2), np.int32))),
        (RangeError, "finite", lambda: rq.ops.gemm(tensor((2, 3)), tensor((3, 2)), alpha=np.inf)),
        (ShapeError, "take matmul", lambda: rq.ops.gemm(tensor((1, 2, 3)), tensor((3, 2)))),
        (ArgumentError, "must be bool", lambda: rq.ops.where([1, 0], tensor((2,)), tensor((2,)), out=U8)),
        (ArgumentError, "of one dtype", lambda: rq.ops.where([True], tensor((2,)), tensor((2,), S8), out=U8)),
        (ShapeError, "num_heads=2 do not fit", lambda: rq.ops.attention(tensor((1, 2, 3)), tensor((3, 9), S8), np.zeros(9), 2)),
        (ArgumentError, "must be uint8", lambda: rq.ops.attention(tensor((1, 2, 3), S8), tensor((3, 9), S8), np.zeros(9), 3)),
        (ShapeError, "one entry a key", lambda: rq.ops.attention(tensor((1, 2, 3)), tensor((3, 9), S8), np.zeros(9), 3, mask=np.ones((2, 1)))),
        (ShapeError, "r has shape", lambda: rq.ops.lstm_dynamic(np.zeros((1, 1, 2), F), tensor((1, 2, 8), S8), tensor((1, 2, 4), S8))),
        (ArgumentError, "direction", lambda: rq.ops.lstm_dynamic(np.zeros((1, 1, 2), F), tensor((1, 2, 8), S8), tensor((1, 2, 8), S8), direction="up")),
        (RangeError, "the table has 3", lambda: rq.ops.embed_layer_norm([[3]], tensor((3, 4)), tensor((1, 4)), tensor((4,)), tensor((4,)))),
        (ShapeError, "one width", lambda: rq.ops.embed_layer_norm([[0]], tensor((3, 4)), tensor((1, 5)), tensor((4,)), tensor((4,)))),
        (UnsupportedError, "loops over others is not described", lambda: rq.ops.add(tensor((2, 3)), tensor((3,)), out=U8, numerics="fbgemm")),
        (UnsupportedError, "has no such operation", lambda: rq.ops.where([True], tensor((1,)), tensor((1,)), out=U8, numerics="fbgemm")),
    ),
)  # fmt: skip
def test_refusals(error, words, call):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("op", OPS)
def test_fast_and_reference_agree(op):
    for case in islice(case_stream(op, "onnxruntime", seed=3), 6):
        if case.outputs < 3000 and case.strategy != "wrap":
            problem = build(case)
            np.testing.assert_array_equal(oracle(problem, "onnxruntime"), oracle(problem, "onnxruntime", reference=True))



#: What is planted into the oracle of an operator: another function, or another order.
FAULTS = {
    "matmul": ("check_bias", lambda bias, *_: None),
    "gemm": ("_addend", lambda c, *_: None),
    "where": ("convert", lambda q, *, out, numerics: rq.QTensor(q.values, out)),
    "attention": ("mlas_softmax", lambda x: np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)),
    "lstm_dynamic": ("mlas_tanh", lambda x: np.tanh(x.astype(np.float64)).astype(F)),
    "embed_layer_norm": ("_in_order", lambda v: v.mean(-1, keepdims=True, dtype=np.float64).astype(F)),
}  # fmt: skip


@pytest.mark.parametrize("op", OPS)
def test_a_planted_fault_is_found(op, monkeypatch):
    class Sloppy:
        name, profile = "sloppy", "onnxruntime"
        supports = lambda self, problem: None  # noqa: E731
        answers = {}

        def run(self, problem):
            return self.answers[id(problem)]

    engine, problems = Sloppy(), [build(case) for case in islice(case_stream(op, "onnxruntime"), 12) if case.outputs < 20000 and case.strategy != "wrap"]
    name, fault = FAULTS[op]
    module = sys.modules[f"refquant.ops.{op}"]
    with monkeypatch.context() as patch:
        if op == "where":
            patch.setitem(module.chosen_codes.__kwdefaults__, name, fault)
        else:
            patch.setattr(module, name, fault)
        engine.answers = {id(problem): oracle(problem, "onnxruntime") for problem in problems}
    found = [try_problem(engine, problem, "planted").outcome.status for problem in problems]
    assert Status.DIFFERENT in found or Status.EXPLAINED in found


def numbers():
    rng = np.random.default_rng(0)
    edges = [np.inf, -np.inf, 0.0, -0.0, 1e-40, 18, -18, 9, -9, 3.925, 0.921875, -0.921875, 88, -88, 200, -200]
    return np.concatenate([*(rng.normal(0, s, 20000) for s in (0.01, 0.3, 1, 5, 30)), edges]).astype(F)


def run_live(op, feeds, **attributes):
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    fed = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, v.shape) for name, v in feeds.items()]
    graph = onnx.helper.make_graph([onnx.helper.make_node(op, list(feeds), ["y"], **attributes)], "g", fed, [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.graph_optimization_level = 1, ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


@pytest.mark.engine
@pytest.mark.parametrize(
    "op, function, near",
    (
        ("Sigmoid", mlas.mlas_logistic, lambda x: (1 / (1 + np.exp(-x.astype(np.float64)))).astype(F)),
        ("Tanh", mlas.mlas_tanh, lambda x: np.tanh(x.astype(np.float64)).astype(F)),
        ("Erf", mlas.mlas_erf, lambda x: np.copysign(mlas.mlas_erf(np.abs(x)) + F(1e-7), x)),
        ("Elu", lambda x: np.where(x >= 0, x, eigen.eigen_exp(x) - F(1)), lambda x: np.where(x >= 0, x, np.exp(x.astype(np.float64)).astype(F) - F(1))),
    ),
    ids=("Sigmoid", "Tanh", "Erf", "Elu"),
)  # fmt: skip
def test_functions_are_those_of_the_engine(op, function, near):
    x = numbers()
    ref = run_live(op, {"x": x})
    np.testing.assert_array_equal(function(x).view(np.int32), ref.view(np.int32))
    with np.errstate(over="ignore"):
        assert np.count_nonzero(near(x) != ref) > 1000, "the float64 function, rounded once, is another one"


@pytest.mark.engine
@pytest.mark.parametrize("n", (1, 3, 8, 9, 37, 100, 1000))
def test_softmax_is_that_of_the_engine(n):
    if profile_here("onnxruntime") == "onnxruntime":
        pytest.skip("this processor has no use for AVX2: MLAS takes its kernel for AVX-512")
    x = np.random.default_rng(n).normal(0, 5, (40, n)).astype(F)
    np.testing.assert_array_equal(mlas.mlas_softmax(x), run_live("Softmax", {"x": x}))


@pytest.mark.engine
@pytest.mark.parametrize("m, k, n", ((1, 7, 5), (3, 1, 4), (5, 300, 7), (2, 130, 40), (9, 64, 200)))
def test_products_of_float32_are_those_of_the_engine(m, k, n):
    rng = np.random.default_rng(k)
    a, b = rng.normal(0, 1, (m, k)).astype(F), rng.normal(0, 1, (k, n)).astype(F)
    np.testing.assert_array_equal(mlas_gemm.mlas_gemm(a, b), run_live("MatMul", {"a": a, "b": b}))


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["onnxruntime"], indirect=True)
@pytest.mark.parametrize("op", OPS)
def test_default_cases_are_exact(engine, op):
    cases = [case for case in islice(case_stream(op, engine.profile, seed=11), 8) if case.outputs < 5000 and case.strategy != "wrap"]
    statuses = [try_case(engine, str(case)).outcome.status for case in cases]
    assert statuses.count(Status.EXACT) > 2 and not {Status.DIFFERENT, Status.EXPLAINED} & set(statuses)
