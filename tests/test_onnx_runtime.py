"""Quantized operators of ONNX models against a live ONNX Runtime: every bit, on data where formulas that are almost right differ."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from refquant.backends.machine import profile_here  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402

HERE = profile_here("onnxruntime")

MICROSOFT = "com.microsoft"
_TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "int32": TensorProto.INT32, "float32": TensorProto.FLOAT, "bool": TensorProto.BOOL}


def single_node(op, inputs, outputs, domain="", **attrs):
    """Return a model of one node; `inputs` maps names to (array, constant), None leaves one out; `outputs` maps names to dtypes."""
    names = ["" if v is None else k for k, v in inputs.items()]
    node = helper.make_node(op, names, list(outputs), domain=domain, name="n", **attrs)
    fed = [helper.make_tensor_value_info(k, _TYPES[v[0].dtype.name], v[0].shape) for k, v in inputs.items() if v is not None and not v[1]]
    fixed = [numpy_helper.from_array(v[0], k) for k, v in inputs.items() if v is not None and v[1]]
    results = [helper.make_tensor_value_info(k, _TYPES[t], None) for k, t in outputs.items()]
    graph = helper.make_graph([node], "g", fed, results, fixed)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)], ir_version=10)


def both(model, feeds, *, optimize=False, threads=2):
    """Return (ONNX Runtime's outputs, ours)."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds), from_onnx(model, numerics=HERE, as_graph=False).run(feeds)


def assert_same(model, feeds, least, threads=2):
    """Require equal bits of at least `least` outputs."""
    ref, comp = both(model, feeds, threads=threads)
    assert len(ref) == len(comp)
    for r, c in zip(ref, comp):
        assert r.dtype == c.dtype and r.shape == c.shape
        wrong = int(np.count_nonzero(np.frombuffer(r.tobytes(), np.uint8) != np.frombuffer(c.tobytes(), np.uint8)))
        assert wrong == 0, f"{wrong} bytes of {r.nbytes} differ, first at {np.argwhere(r != c)[:3].tolist()}"
    assert sum(r.size for r in ref) >= least


def run_node(op, inputs, dtype, least=200_000, domain=MICROSOFT, **attrs):
    outputs = dtype if isinstance(dtype, dict) else {"y": dtype}
    model = single_node(op, inputs, outputs, domain, **attrs)
    assert_same(model, {k: v[0] for k, v in inputs.items() if v is not None and not v[1]}, least)


def fed(x):
    return np.ascontiguousarray(x), False


def fixed(x):
    return np.asarray(x), True


def codes(rng, shape, dtype):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def params(scale, zero, dtype):
    return fixed(np.float32(scale)), fixed(np.dtype(dtype).type(zero))


def pair_inputs(dtype, a, sa, za, b, sb, zb, sc, zc):
    names = ("a", "sa", "za", "b", "sb", "zb", "sc", "zc")
    return dict(zip(names, [fed(a), *params(sa, za, dtype), fed(b), *params(sb, zb, dtype), *params(sc, zc, dtype)]))


def zero_points(dtype):
    return (0, 128, 255, 77) if dtype == "uint8" else (-128, 0, 127, -23)


# Scales whose ratio is a power of two give ties; one unit in the last place beside them gives almost-ties.
def near_tie(rng, target=2.0**-8, parts=1):
    factors = [np.float32(np.exp2(rng.integers(-6, 2)) * rng.choice([1, 3, 5, 7]) / 8) for _ in range(parts)]
    out = np.float32(np.prod([float(f) for f in factors]) / target)
    return [*factors, np.nextafter(out, np.float32(rng.choice([0, np.inf]))) if rng.integers(2) else out]


TYPES = ("uint8", "int8")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("seed", range(4))
def test_add(dtype, seed):
    rng = np.random.default_rng(seed)
    za, zb, zc = rng.choice(zero_points(dtype), 3)
    sa, sc = near_tie(rng, 2.0 ** -rng.integers(0, 3))
    sb = np.float32(sa * 2.0 ** -rng.integers(0, 3))
    a, b = (v.reshape(-1) for v in np.meshgrid(np.arange(256, dtype=np.uint8).view(dtype), np.arange(256, dtype=np.uint8).view(dtype)))
    inputs = pair_inputs(dtype, a, sa, za, b, sb, zb, sc, zc)
    run_node("QLinearAdd", inputs, dtype, 65536)


SHAPES = (
    ((4, 16, 20, 20), (1, 16, 1, 1)), ((1, 16, 1, 1), (4, 16, 20, 20)), ((25600,), ()), ((), (25600,)), ((16, 40, 40), (40,)), ((16, 40, 40), (40, 1)),
    ((1,), (25600,)), ((4, 6400, 1, 1), (1,)), ((4, 6400, 1, 1), (1, 6400, 1, 1)), ((1, 1, 1, 1), (1,)), ((3, 1), (1, 4)), ((4, 6400, 1, 1), ()),
)  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_broadcasting(op, dtype, shapes):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        za, zb, zc = rng.choice(zero_points(dtype), 3)
        sa, sb, sc = near_tie(rng, 2.0 ** -rng.integers(0, 8), parts=2)
        if op == "QLinearAdd":
            sc = np.float32(sa * 2)
        a, b = (codes(rng, s, dtype) for s in shapes)
        inputs = pair_inputs(dtype, a, sa, za, b, sb, zb, sc, zc)
        run_node(op, inputs, dtype, 1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("ratio", [2.0**-8, 2.0**-1, 3.3e-3, 1e5, 1e-30])
def test_multiply(dtype, ratio):
    a, b = (v.reshape(-1) for v in np.meshgrid(np.arange(256, dtype=np.uint8).view(dtype), np.arange(256, dtype=np.uint8).view(dtype)))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        za, zb, zc = rng.choice(zero_points(dtype), 3)
        sa, sb, sc = near_tie(rng, ratio, parts=2)
        inputs = pair_inputs(dtype, a, sa, za, b, sb, zb, sc, zc)
        run_node("QLinearMul", inputs, dtype, 65536)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("op, attrs", [("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.3}), ("QLinearLeakyRelu", {})], ids=str)
def test_tables(op, attrs, dtype):
    x = np.arange(256, dtype=np.uint8).view(dtype)
    count = 0
    for seed in range(800):
        rng = np.random.default_rng(seed)
        zx, zy = rng.choice(zero_points(dtype), 2)
        sx = np.exp2(rng.uniform(-8, 0))
        sy = np.exp2(rng.uniform(-16, -6)) if op == "QLinearSigmoid" else sx * rng.choice([1, 0.5, 0.3, 0.25])
        inputs = dict(zip(["x", "sx", "zx", "sy", "zy"], [fed(x), *params(sx, zx, dtype), *params(sy, zy, dtype)]))
        model = single_node(op, inputs, {"y": dtype}, MICROSOFT, **attrs)
        (ref,), (comp,) = both(model, {"x": x})
        assert np.array_equal(ref, comp), seed
        count += ref.size
    assert count >= 200_000


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape, axis, opset", [((400, 600), -1, 13), ((20, 100, 120), 1, 13), ((40, 60, 100), 1, 12), ((30000, 8), -1, 13)], ids=str)
@pytest.mark.parametrize("y_scale", [1 / 256, 1 / 255, 0.0041, 1 / 100])
def test_softmax(dtype, shape, axis, opset, y_scale):
    rng = np.random.default_rng(7)
    x = codes(rng, shape, dtype)
    for zy in zero_points(dtype)[:2]:
        inputs = dict(zip(["x", "sx", "zx", "sy", "zy"], [fed(x), *params(rng.uniform(0.005, 0.1), 3, dtype), *params(y_scale, zy, dtype)]))
        run_node("QLinearSoftmax", inputs, dtype, axis=axis, opset=opset)


@pytest.mark.parametrize("dtype", TYPES)
def test_concat(dtype):
    rng = np.random.default_rng(1)
    for zero in zero_points(dtype):
        inputs = dict(zip(["sy", "zy"], params(0.5, zero, dtype)))
        for i, zx in enumerate(zero_points(dtype)):
            inputs |= dict(zip([f"x{i}", f"sx{i}", f"zx{i}"], [fed(codes(rng, (2, 16 + i, 40, 40), dtype)), *params([0.5, 0.25, 0.125, 0.3][i], zx, dtype)]))
        run_node("QLinearConcat", inputs, dtype, axis=1)


@pytest.mark.parametrize("dtype", TYPES)
def test_where(dtype):
    rng = np.random.default_rng(2)
    for zero in zero_points(dtype):
        x, y = codes(rng, (30, 80, 100), dtype), codes(rng, (80, 100), dtype)
        condition = rng.integers(0, 2, (30, 1, 100)).astype(bool)
        names = ["c", "x", "sx", "zx", "v", "sy", "zy", "sz", "zz"]
        inputs = dict(zip(names, [fed(condition), fed(x), *params(0.5, zero, dtype), fed(y), *params(0.125, 3, dtype), *params(0.25, 5, dtype)]))
        run_node("QLinearWhere", inputs, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("last", [0, 1])
def test_global_average_pool(dtype, last):
    for seed, side in enumerate([7, 8, 5, 16]):
        rng = np.random.default_rng(seed)
        zx, zy = rng.choice(zero_points(dtype), 2)
        (sx, sy) = near_tie(rng, 2.0 ** rng.integers(0, 4))
        shape = (100, side, side, 600) if last else (100, 600, side, side)
        inputs = dict(zip(["x", "sx", "zx", "sy", "zy"], [fed(codes(rng, shape, dtype)), *params(sx, zx, dtype), *params(sy, zy, dtype)]))
        run_node("QLinearGlobalAveragePool", inputs, dtype, 60_000, channels_last=last)


POOLS = (
    {"kernel_shape": [2, 2], "strides": [2, 2]}, {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 0], "count_include_pad": 1}, {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [5, 5], "auto_pad": "SAME_UPPER"},
)  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("attrs", POOLS, ids=str)
@pytest.mark.parametrize("last", [0, 1])
def test_average_pool(dtype, attrs, last):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        zx, zy = rng.choice(zero_points(dtype), 2)
        (sx, sy) = near_tie(rng, 2.0 ** rng.integers(-1, 3))
        shape = (8, 63, 63, 32) if last else (8, 32, 63, 63)
        inputs = dict(zip(["x", "sx", "zx", "sy", "zy"], [fed(codes(rng, shape, dtype)), *params(sx, zx, dtype), *params(sy, zy, dtype)]))
        run_node("QLinearAveragePool", inputs, dtype, channels_last=last, **attrs)


PAIRS = (("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8"))


@pytest.mark.parametrize("ta, tb", PAIRS)
@pytest.mark.parametrize("alpha", [1.0, 0.37])
@pytest.mark.parametrize("addend", [None, "row", "column", "full"])
def test_gemm(ta, tb, alpha, addend):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        a, b = codes(rng, (500, 33), ta), codes(rng, (410, 33), tb)
        c = None if addend is None else rng.integers(-9999, 9999, {"row": (410,), "column": (500, 1), "full": (500, 410)}[addend]).astype(np.int32)
        sb = np.float32(rng.uniform(0.5, 2, 410)) if seed else np.float32(1)
        inputs = {
            "a": fed(a), **dict(zip(["sa", "za"], params(0.25, 3, ta))),
            "b": fixed(b), "sb": fixed(sb), "zb": fixed(np.full(np.shape(sb), 5, tb)),
            "c": None if c is None else fixed(c), **dict(zip(["sy", "zy"], params(64, zero_points(ta)[1], ta))),
        }  # fmt: skip
        run_node("QGemm", inputs, ta, alpha=alpha, transB=1)
        run_node("QGemm", {k: v for k, v in inputs.items() if k not in ("sy", "zy")}, "float32", alpha=alpha, transB=1)


@pytest.mark.parametrize("ta, tb", PAIRS)
def test_matmul_integer_to_float(ta, tb):
    rng = np.random.default_rng(3)
    for per_column in (False, True):
        a, b = codes(rng, (4, 130, 67), ta), codes(rng, (67, 410), tb)
        sb = np.float32(rng.uniform(0.001, 2, 410)) if per_column else np.float32(0.03)
        inputs = {
            "a": fed(a), "b": fixed(b), "sa": fixed(np.float32(0.017)), "sb": fixed(sb), "za": fixed(np.dtype(ta).type(5)),
            "zb": fixed(codes(rng, np.shape(sb), tb)), "bias": fixed(rng.standard_normal(410).astype(np.float32)),
        }  # fmt: skip
        run_node("MatMulIntegerToFloat", inputs, "float32")
        run_node("MatMulIntegerToFloat", {**inputs, "bias": None}, "float32")


@pytest.mark.parametrize("tb", TYPES)
def test_dynamic_quantize_matmul(tb):
    rng = np.random.default_rng(4)
    for low in (-1, 0.5, -3):
        a = (rng.standard_normal((500, 61)) + low).astype(np.float32)
        b, sb = codes(rng, (61, 410), tb), np.float32(rng.uniform(0.001, 2, 410))
        inputs = {"a": fed(a), "b": fixed(b), "sb": fixed(sb), "zb": fixed(np.zeros(410, tb)), "bias": fixed(rng.standard_normal(410).astype(np.float32))}
        run_node("DynamicQuantizeMatMul", inputs, "float32")


@pytest.mark.parametrize("values", ["normal", "zeros", "positive", "negative", "infinite", "minus infinite", "tiny", "huge"])
def test_dynamic_quantize_linear(values):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(210_000).astype(np.float32)
    x = {
        "zeros": x * 0, "positive": np.abs(x), "negative": -np.abs(x), "tiny": x * 1e-40, "huge": x * 1e37,
        "infinite": np.where(x > 3, np.inf, x), "minus infinite": np.where(x > 3, -np.inf, x),
    }.get(values, x)  # fmt: skip
    run_node("DynamicQuantizeLinear", {"x": fed(x.astype(np.float32))}, {"y": "uint8", "s": "float32", "z": "uint8"}, domain="")


@pytest.mark.parametrize("ta, tb", PAIRS)
def test_qlinear_matmul(ta, tb):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        a, b = codes(rng, (6, 90, 40), ta), codes(rng, (6, 40, 410) if seed % 2 else (40, 410), tb)
        sa, sb, sy = near_tie(rng, parts=2)
        za, zb, zy = rng.choice(zero_points(ta)), zero_points(tb)[1], rng.choice(zero_points(ta))
        inputs = {
            "a": fed(a), **dict(zip(["sa", "za"], params(sa, za, ta))), "b": fed(b), **dict(zip(["sb", "zb"], params(sb, zb, tb))),
            **dict(zip(["sy", "zy"], params(sy, zy, ta))),
        }  # fmt: skip
        run_node("QLinearMatMul", inputs, ta, domain="")


CONVS = (
    {"pads": [1, 1, 1, 1]}, {"strides": [2, 2], "pads": [0, 1, 1, 0]}, {"group": 4, "pads": [1, 1, 1, 1]}, {"dilations": [2, 2]}, {"auto_pad": "SAME_LOWER"},
)  # fmt: skip


@pytest.mark.parametrize("ta, tb", PAIRS)
@pytest.mark.parametrize("attrs", CONVS, ids=str)
def test_qlinear_conv(ta, tb, attrs):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        x, w = codes(rng, (4, 8, 49, 47), ta), codes(rng, (48, 8 // attrs.get("group", 1), 3, 3), tb)
        bias = rng.integers(-9999, 9999, 48).astype(np.int32)
        sw = np.float32(2.0 ** rng.integers(-9, -4, 48) * rng.choice([1, 1 + 2**-23], 48))
        inputs = {
            "x": fed(x), **dict(zip(["sx", "zx"], params(0.5, rng.choice(zero_points(ta)), ta))),
            "w": fixed(w), "sw": fixed(sw), "zw": fixed(np.zeros(48, tb)), **dict(zip(["sy", "zy"], params(1, rng.choice(zero_points(ta)), ta))), "b": fixed(bias),
        }  # fmt: skip
        run_node("QLinearConv", inputs, ta, 100_000, domain="", **attrs)


@pytest.mark.parametrize("ta, tb", (*PAIRS, ("int8", "uint8")))
def test_integer_products(ta, tb):
    rng = np.random.default_rng(6)
    a, b = codes(rng, (6, 90, 400), ta), codes(rng, (6, 400, 410), tb)
    inputs = {"a": fed(a), "b": fed(b), "za": fixed(np.dtype(ta).type(7)), "zb": fixed(np.dtype(tb).type(100))}
    run_node("MatMulInteger", inputs, "int32", domain="")
    if ta == "uint8":
        x, w = codes(rng, (4, 8, 49, 47), ta), codes(rng, (48, 4, 3, 3), tb)
        inputs = {"x": fed(x), "w": fed(w), "zx": fixed(np.uint8(9)), "zw": fixed(np.dtype(tb).type(0))}
        run_node("ConvInteger", inputs, "int32", domain="", group=2, pads=[1, 2, 0, 1], strides=[1, 1])


@pytest.mark.parametrize("dtype", TYPES)
def test_quantize_and_dequantize(dtype):
    rng = np.random.default_rng(8)
    scale = np.float32(2.0 ** rng.integers(-6, 3, 64))
    zero = codes(rng, 64, dtype)
    ties = (rng.integers(-1200, 1200, (50, 64, 70)) / 2).astype(np.float32) * scale[:, None]
    special = np.float32([np.nan, np.inf, -np.inf, 3e38, -3e38])
    x = np.where(rng.random(ties.shape) < 0.01, rng.choice(special, ties.shape), ties)
    run_node("QuantizeLinear", {"x": fed(x), "s": fixed(scale), "z": fixed(zero)}, dtype, domain="", axis=1)
    run_node("QuantizeLinear", {"x": fed(x), "s": fixed(scale[3]), "z": fixed(zero[3])}, dtype, domain="")
    q = codes(rng, x.shape, dtype)
    run_node("DequantizeLinear", {"x": fed(q), "s": fixed(scale * np.float32(1.1)), "z": fixed(zero)}, "float32", domain="", axis=1)
    blocks = {"s": fixed(np.float32(rng.uniform(0.1, 2, (50, 4, 70)))), "z": fixed(codes(rng, (50, 4, 70), dtype))}
    run_node("QuantizeLinear", {"x": fed(ties), **blocks}, dtype, domain="", axis=1, block_size=16)
    run_node("DequantizeLinear", {"x": fed(q), **blocks}, "float32", domain="", axis=1, block_size=16)


def test_a_range_with_nan_is_refused_because_its_place_decides():
    x = np.float32([np.nan, 1, 2, -1])
    with pytest.raises(NotImplementedError, match="depends on where"):
        from_onnx(single_node("DynamicQuantizeLinear", {"x": fed(x)}, {"y": "uint8", "s": "float32", "z": "uint8"}), numerics=HERE, as_graph=False).run(x)


def test_a_fault_is_found():
    x = np.arange(256, dtype=np.uint8)
    inputs = dict(zip(["x", "sx", "zx", "sy", "zy"], [fed(x), *params(0.1, 3, "uint8"), *params(0.003, 5, "uint8")]))
    model = single_node("QLinearSigmoid", inputs, {"y": "uint8"}, MICROSOFT)
    (ref,), _ = both(model, {"x": x})
    shifted = from_onnx(model, numerics=HERE, as_graph=False).run(np.roll(x, 1))[0]
    assert np.count_nonzero(ref != shifted) > 0
