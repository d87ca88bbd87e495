"""Casts, and quantization to float 8, 4 and 16 bits, against a live ONNX Runtime: every byte."""

import ctypes

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from refquant.backends.machine import profile_here  # noqa: E402
from refquant.core.lowbits import pack_codes  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402

HERE = profile_here("onnxruntime")


def runtime_bytes(model, feeds):
    """Return the raw bytes of ONNX Runtime's only output, whose type NumPy may not know."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (value,) = session.run_with_ort_values(None, {k: ort.OrtValue.ortvalue_from_numpy(v) for k, v in feeds.items()})
    count = value.tensor_size_in_bytes()
    return np.array((ctypes.c_uint8 * count).from_address(value.data_ptr()))


def cast_model(source, target, **attrs):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=target, **attrs)], "g", [helper.make_tensor_value_info("x", source, None)],
        [helper.make_tensor_value_info("y", target, None)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)


def many_floats():
    """Random bit patterns, all upper halves with telling lower ones, and every number near the ends of float 8."""
    rng = np.random.default_rng(9)
    upper = np.arange(65536, dtype=np.uint32) << 16
    bits = np.concatenate([rng.integers(0, 2**32, 300_000).astype(np.uint32), *(upper + low for low in np.uint32([0, 1, 0x7FFF, 0x8000, 0x8001]))])
    near = [np.linspace(v * 0.9, v * 1.2, 20_000, dtype=np.float32) for v in (448, 240, 57344, 6, 2.0**-9, 2.0**-16)]
    return np.concatenate([bits.view(np.float32), *near, *(-v for v in near)])


FLOAT8 = ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ")


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("name, attrs", [*((n, {}) for n in FLOAT8), *(("FLOAT8E8M0", {"round_mode": m}) for m in ("up", "down", "nearest"))], ids=str)
def test_cast_to_float8(name, attrs, saturate):
    for x in (many_floats(), np.arange(65536, dtype=np.uint16).view(np.float16)):
        model = cast_model(TensorProto.FLOAT if x.itemsize == 4 else TensorProto.FLOAT16, getattr(TensorProto, name), saturate=saturate, **attrs)
        (comp,) = from_onnx(model, numerics=HERE, as_graph=False).run(x)
        ref = runtime_bytes(model, {"x": x})
        assert np.array_equal(comp.view(np.uint8), ref), np.flatnonzero(comp.view(np.uint8) != ref)[:5]


@pytest.mark.parametrize("name", ["INT4", "UINT4", "INT2", "UINT2"])
def test_cast_to_packed_integers(name):
    for x in (many_floats()[:300_000], np.arange(65536, dtype=np.uint16).view(np.float16), np.arange(-1000, 1000, dtype=np.int32)):
        source = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int32": TensorProto.INT32}[x.dtype.name]
        target = getattr(TensorProto, name)
        model = cast_model(source, target)
        (comp,) = from_onnx(model, numerics=HERE, as_graph=False).run(x)
        bits = int(name[-1])
        assert np.array_equal(pack_codes(comp.view(np.uint8) & ((1 << bits) - 1), bits), runtime_bytes(model, {"x": x})[: -(-x.size * bits // 8)])


@pytest.mark.parametrize("name", ["FLOAT16", "BFLOAT16", "INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64", "BOOL", "DOUBLE"])
def test_cast_to_plain_types(name):
    x = many_floats()
    model = cast_model(TensorProto.FLOAT, getattr(TensorProto, name))
    (comp,) = from_onnx(model, numerics=HERE, as_graph=False).run(x)
    ref = runtime_bytes(model, {"x": x})
    real = ~np.isnan(x)  # which NaN comes out is nobody's contract
    assert np.array_equal(comp.view(np.uint8).reshape(x.size, -1)[real], ref.reshape(x.size, -1)[real])


@pytest.mark.parametrize("name", [*FLOAT8, "INT16", "UINT16", "INT4", "UINT4"])
@pytest.mark.parametrize("granularity", ["tensor", "axis", "blocks"])
def test_quantize_to_other_types(name, granularity):
    rng = np.random.default_rng(10)
    x = np.concatenate([many_floats()[-210_000:], np.float32([np.inf, -np.inf, 0, -0.0])])[:210_000].reshape(50, 60, 70)
    shape = {"tensor": (), "axis": (60,), "blocks": (50, 4, 70)}[granularity]
    scale = np.float32(2.0 ** rng.integers(-3, 6, shape)) * np.float32(rng.choice([1, 1.1]))
    attrs = {"blocks": {"axis": 1, "block_size": 16}, "axis": {"axis": 1}, "tensor": {}}[granularity]
    zero = np.zeros(shape, np.int8 if name.startswith("F") else np.int64) + (0 if name.startswith("F") else 3)
    kind = getattr(TensorProto, name)
    initializers = [numpy_helper.from_array(scale, "s"), helper.make_tensor("z", kind, shape, zero.reshape(-1).tolist())]
    info = helper.make_tensor_value_info
    for saturate in (0, 1) if name.startswith("F") else (1,):
        extra = {"saturate": saturate} if name.startswith("F") else {}
        graph = helper.make_graph(
            [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], **attrs, **extra)], "g", [info("x", TensorProto.FLOAT, x.shape)], [info("y", kind, None)],
            initializers,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        (comp,) = from_onnx(model, numerics=HERE, as_graph=False).run(x)
        ref = runtime_bytes(model, {"x": x})
        bytes_of = pack_codes(comp.view(np.uint8) & 15, 4) if name.endswith("INT4") else comp.reshape(-1).view(np.uint8)
        assert np.array_equal(bytes_of, ref[: bytes_of.size]), np.count_nonzero(bytes_of != ref[: bytes_of.size])
