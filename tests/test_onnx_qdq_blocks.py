"""Products whose weights alone are quantized: a MatMulNBits exactly where ONNX Runtime makes one, with its bits; and MatMulNBits itself."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
ml_dtypes = pytest.importorskip("ml_dtypes")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from test_onnx_runtime import HERE  # noqa: E402

from refquant.errors import ArgumentError, UnsupportedError  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402

K, N = 64, 32
SCALES = {
    "tensor": ((), {}), "one": ((1,), {}), "columns": ((N,), {"axis": 1}), "columns by default": ((N,), {}), "rows": ((K,), {"axis": 0}),
    "blocks of 16": ((4, N), {"axis": 0, "block_size": 16}), "blocks of 8": ((8, N), {"axis": 0, "block_size": 8}), "blocks along N": ((K, 2), {"axis": 1, "block_size": 16}),
}  # fmt: skip


def weights_only(kind="int4", scales="tensor", op="MatMul", zero=True, bias=None, behind=None, twice=False, leading=(), **attrs):
    """Return a model of a product of real numbers with quantized weights."""
    rng, (shape, where) = np.random.default_rng(0), SCALES[scales]
    dtype = np.dtype(getattr(ml_dtypes, kind) if hasattr(ml_dtypes, kind) else kind)
    constants = {"w": rng.integers(0, 2, (*leading, K, N)).astype(dtype), "s": rng.uniform(0.01, 0.1, shape).astype(np.float32)}
    names = ["w", "s"]
    if zero:
        constants["z"] = np.zeros(shape, dtype)
        names.append("z")
    nodes, inputs = [helper.make_node("DequantizeLinear", names, ["wd"], **where)], ["x", "wd"]
    if bias:
        constants["b"] = rng.standard_normal(bias).astype(np.float32)
        inputs.append("b")
    nodes.append(helper.make_node(op, inputs, ["y"], "product", **attrs))
    outputs = ["y"]
    if behind:
        constants |= {"sy": np.float32(0.1), "zy": np.uint8(3)}
        nodes.append(helper.make_node("QuantizeLinear", ["y", "sy", "zy"], ["yq"]))
        outputs = ["yq"]
    if twice:
        nodes.append(helper.make_node("Neg", ["wd"], ["other"]))
        outputs.append("other")
    made = [helper.make_tensor_value_info(n, TensorProto.UINT8 if n == "yq" else TensorProto.FLOAT, None) for n in outputs]
    columns = N if attrs.get("transB") else K
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [columns, 5] if attrs.get("transA") else [5, columns])
    graph = helper.make_graph(nodes, "g", [x], made, [numpy_helper.from_array(v, k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)


def session(model, folder):
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads, options.optimized_model_filepath = 4, 1, str(folder / "optimized.onnx")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def in_blocks(model, x, folder):
    """Whether ONNX Runtime makes a MatMulNBits, which refquant must make too, with the same bits."""
    if not HERE.endswith("@avx2"):
        pytest.skip("this processor has no kernels for AVX2 alone, whose order of sums is described")
    refs = session(model, folder).run(None, {"x": x})
    ours = from_onnx(model, numerics=HERE, as_graph=False)
    found = any(n.op_type == "MatMulNBits" for n in onnx.load(folder / "optimized.onnx").graph.node)
    assert any(n.op == "MatMulNBits" for n in ours.nodes) == found
    if found:
        for ref, comp in zip(refs, ours(x), strict=True):
            assert np.array_equal(ref, comp), f"{np.count_nonzero(ref != comp)} of {ref.size} differ"
    return found


@pytest.mark.parametrize("step, count, joined", [(0.1, 1, True), (0.1, 2, True), (0.0, 2, False)])
def test_scales_of_one_value_are_one_constant(step, count, joined, tmp_path):
    rng, nodes, constants = np.random.default_rng(0), [], {}
    for i in range(count):
        constants |= {f"w{i}": rng.integers(0, 99, (K, N)).astype(np.int8), f"s{i}": np.float32(0.1 + step * i), f"z{i}": np.int8(0)}
        nodes += [helper.make_node("DequantizeLinear", [f"{n}{i}" for n in "wsz"], [f"d{i}"]), helper.make_node("MatMul", ["x", f"d{i}"], [f"y{i}"], "product" if not i else None)]
    made = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(count)]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, K])], made, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert in_blocks(model, np.random.default_rng(1).standard_normal((5, K)).astype(np.float32), tmp_path) == joined


CASES = [
    *({"kind": kind, "scales": scales, "zero": zero} for kind in ("int4", "uint4", "int8", "uint8") for scales in SCALES for zero in (True, False)),
    *({"op": "Gemm", **extra} for extra in ({}, {"bias": N}, {"bias": (1, N)}, {"bias": N, "beta": 0.5}, {"alpha": 2.0}, {"transB": 1}, {"transA": 1}, {"alpha": 1.0000001})),
    {"behind": True}, {"twice": True}, {"leading": (2,)}, {"leading": (1,)},
]  # fmt: skip


@pytest.mark.parametrize("rows", [5, 1])
def test_made_where_the_engine_makes_them(rows, tmp_path):
    found, rng = [], np.random.default_rng(2)
    for case in CASES:
        shape = [K, rows] if case.get("transA") else [rows, N if case.get("transB") else K]
        model = weights_only(**case)
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
        found.append(in_blocks(model, rng.standard_normal(shape).astype(np.float32), tmp_path))
    assert 20 < sum(found) < len(found) - 20


def test_two_bits_are_refused():
    with pytest.raises(UnsupportedError, match="MatMulNBits.*'product'|'product'.*MatMulNBits"):
        from_onnx(weights_only("int2"), numerics=HERE, as_graph=False)


def test_what_is_made_differs_by_more_than_last_bits():
    model, x = weights_only("int8", "columns"), np.random.default_rng(1).standard_normal((5, K)).astype(np.float32)
    (fast,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    (plain,) = from_onnx(model, numerics=HERE, as_graph=False, fuse_qdq=False)(x)
    assert np.abs(fast - plain).max() > 1e-4


def matmul_nbits(rng, m, n, k, bits, block, accuracy, zero, bias):
    """Return a model of one MatMulNBits."""
    count = -(-k // block)
    constants = {"b": rng.integers(0, 256, (n, count, block * bits // 8)).astype(np.uint8), "s": rng.uniform(0.01, 0.1, (n, count)).astype(np.float32)}
    inputs = ["x", "b", "s"]
    if zero:
        constants["z"] = rng.integers(0, 256, (n, -(-count * bits // 8))).astype(np.uint8)
        inputs.append("z")
    if bias:
        constants["bias"] = rng.standard_normal(n).astype(np.float32)
        inputs = (inputs + [""])[:4] + ["", "bias"]
    node = helper.make_node("MatMulNBits", inputs, ["y"], "product", domain="com.microsoft", K=k, N=n, bits=bits, block_size=block, accuracy_level=accuracy)
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [m, k]), ("y", None))]
    graph = helper.make_graph([node], "g", made[:1], made[1:], [numpy_helper.from_array(v, name) for name, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8)


@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("bits, accuracy", [(4, 4), (8, 4), (4, 0), (8, 0)])
def test_matmul_nbits(bits, accuracy, block, tmp_path):
    rng = np.random.default_rng(block + bits)
    for trial in range(16):
        m, n = 1 + trial % 3 * 2, int(rng.choice([1, 3, 4, 6, 21]))
        m += bits == 8 and not accuracy
        k = int(rng.choice([7, block, 2 * block, 3 * block, 5 * block - 3, 7 * block]))
        model, x = matmul_nbits(rng, m, n, k, bits, block, accuracy, rng.random() < 0.5, rng.random() < 0.5), (rng.standard_normal((m, k)) * 3).astype(np.float32)
        x[0, : k // 2] = 0 if trial % 4 == 3 else x[0, : k // 2]
        assert in_blocks(model, x, tmp_path)


def test_matmul_nbits_refuses_what_is_not_described():
    rng, x = np.random.default_rng(0), np.ones((1, 32), np.float32)
    model = matmul_nbits(rng, 1, 4, 32, 8, 32, 0, False, False)
    with pytest.raises(UnsupportedError, match="one row by 8 bits"):
        from_onnx(model, numerics=HERE, as_graph=False)(x)
    with pytest.raises(UnsupportedError, match="AVX-512"):
        from_onnx(matmul_nbits(rng, 1, 4, 32, 4, 32, 4, False, False), numerics="onnxruntime", as_graph=False)(x)
    with pytest.raises(ArgumentError, match="NaN"):
        from_onnx(matmul_nbits(rng, 1, 4, 32, 4, 32, 4, False, False), numerics="onnxruntime@avx2", as_graph=False)(x * np.nan)
    (y,) = from_onnx(model, as_graph=False)(x)
    assert y.shape == (1, 4) and y.any()
