"""Quantized networks in QDQ form: the bits of ONNX Runtime's default session, from input to output."""

import collections
import logging

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from test_onnx_models import LIGHT, shared  # noqa: E402

from refquant.backends.machine import profile_here  # noqa: E402
from refquant.backends.onnx_light import with_random_weights, without_softmax  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402

HERE = profile_here("onnxruntime")

NETWORKS = ("light_squeezenet", "light_resnet50", "light_shufflenet", "light_inception_v1", "face-rfb-320")
SCHEMES = {
    "u8s8": ("QUInt8", "QInt8", False),
    "u8s8 per channel": ("QUInt8", "QInt8", True),
    "s8s8 per channel": ("QInt8", "QInt8", True),
    "u8u8": ("QUInt8", "QUInt8", False),
}


def network(name):
    """Return a float network of version 13 without initializers among its inputs."""
    if name.startswith("light"):
        proto = without_softmax(with_random_weights(onnx.load(next(p for p in LIGHT if p.stem == name))))
    else:
        proto = onnx.load(shared(f"{name}.onnx"))
    proto = onnx.version_converter.convert_version(proto, 13)
    fixed = {t.name for t in proto.graph.initializer}
    kept = [i for i in proto.graph.input if i.name not in fixed]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.ir_version = 8
    return proto


def quantize(proto, folder, activation, weight, per_channel):
    """Quantize with ONNX Runtime's own tool; return the path of the result."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    (wanted,) = proto.graph.input
    shape = [d.dim_value or 1 for d in wanted.type.tensor_type.shape.dim]

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{wanted.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}])

        def get_next(self):
            return next(self.batches, None)

    onnx.save(proto, folder / "float.onnx")
    logging.disable(logging.WARNING)
    kinds = quantization.QuantType
    quantization.quantize_static(
        folder / "float.onnx", folder / "qdq.onnx", Reader(), quant_format=quantization.QuantFormat.QDQ, activation_type=kinds[activation],
        weight_type=kinds[weight], per_channel=per_channel,
    )  # fmt: skip
    logging.disable(logging.NOTSET)
    return folder / "qdq.onnx", wanted.name, np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def session(source, int8=False):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    if int8:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    return ort.InferenceSession(source if isinstance(source, bytes) else str(source), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_network(name, scheme, tmp_path):
    if name != "light_squeezenet" and name != "face-rfb-320" and scheme == "u8s8":
        pytest.skip("per channel is the same path")
    path, feed, x = quantize(network(name), tmp_path, *SCHEMES[scheme])
    model = from_onnx(path, numerics=HERE, as_graph=False)
    operators = collections.Counter(n.op for n in model.nodes)
    assert operators["QLinearConv"] > 20 and not operators["Conv"]
    for comp, ref in zip(model(x), session(path, int8=scheme.startswith("s8")).run(None, {feed: x}), strict=True):
        assert comp.dtype == ref.dtype and comp.shape == ref.shape and ref.std() > 0
        assert np.array_equal(comp, ref), f"{np.count_nonzero(comp != ref)} of {ref.size} differ"


def test_the_unfused_network_differs(tmp_path):
    path, feed, x = quantize(network("light_squeezenet"), tmp_path, *SCHEMES["u8s8"])
    plain = from_onnx(path, numerics=HERE, as_graph=False, fuse_qdq=False)
    assert sum(n.op == "Conv" for n in plain.nodes) == 26
    (ref,) = session(path).run(None, {feed: x})
    (comp,) = plain(x)
    assert not np.array_equal(comp, ref) and np.abs(comp - ref).max() < 0.1 * np.abs(ref).max()


def pair(name, source=None):
    """Return QuantizeLinear and DequantizeLinear of a value: ``name_q`` and ``name_d``."""
    parameters = [f"{name}_s", f"{name}_z"]
    return [
        helper.make_node("QuantizeLinear", [source or name, *parameters], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", *parameters], [f"{name}_d"]),
    ]


def unit(op, scales, zeros, inputs, dtype=np.uint8, tail=(), **attrs):
    """Return a QDQ model of one operator: inputs a, b, …; the output is y."""
    names = list(inputs)
    nodes = [n for name in names for n in pair(name)]
    nodes += [helper.make_node(op, [f"{n}_d" for n in names], ["t"], name="unit", **attrs)]
    last = "t"
    for step in tail:
        nodes.append(helper.make_node(step, [last], [f"{last}_"]))
        last += "_"
    nodes += pair("y", last)
    constants = []
    for name, scale, zero in zip([*names, "y"], scales, zeros, strict=True):
        constants += [numpy_helper.from_array(np.float32(scale), f"{name}_s"), numpy_helper.from_array(np.dtype(dtype).type(zero), f"{name}_z")]
    fed = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in inputs.items()]
    graph = helper.make_graph(nodes, "g", fed, [helper.make_tensor_value_info("y_d", TensorProto.FLOAT, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8)


UNITS = {
    "Add": ("QLinearAdd", 2, {}), "Mul": ("QLinearMul", 2, {}), "MatMul": ("QLinearMatMul", 2, {}), "Sigmoid": ("QLinearSigmoid", 1, {}),
    "LeakyRelu": ("QLinearLeakyRelu", 1, {"alpha": 0.3}), "Softmax": ("QLinearSoftmax", 1, {"axis": -1}), "Concat": ("QLinearConcat", 3, {"axis": 1}),
    "GlobalAveragePool": ("QLinearGlobalAveragePool", 1, {}), "AveragePool": ("QLinearAveragePool", 1, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("op", UNITS)
def test_a_unit(op, dtype):
    fused, count, attrs = UNITS[op]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        inputs = {n: (rng.standard_normal((2, 8, 40, 40)) * 3).astype(np.float32) for n in "abc"[:count]}
        info = np.iinfo(dtype)
        zeros = rng.integers(info.min, info.max + 1, count + 1)
        scales = [*np.exp2(rng.integers(-6, -3, count)), np.exp2(rng.integers(-8, -2))]
        if op == "Softmax":
            zeros[-1], scales[-1] = info.min, 1 / 256
        proto = unit(op, scales, zeros, inputs, dtype, **attrs)
        model = from_onnx(proto, numerics=HERE, as_graph=False)
        assert fused in [n.op for n in model.nodes]
        (ref,) = session(proto.SerializeToString(), int8=dtype == np.int8).run(None, inputs)
        assert np.array_equal(model.run(inputs)[0], ref)


@pytest.mark.parametrize("zero, dropped", [(0, True), (7, False)])
def test_a_relu_is_dropped_only_where_the_codes_cut_off(zero, dropped):
    x = {"a": np.random.default_rng(0).standard_normal((2, 8, 40, 40)).astype(np.float32)}
    proto = unit("LeakyRelu", [0.02, 0.01], [100, zero], x, tail=["Relu"])
    model = from_onnx(proto, numerics=HERE, as_graph=False)
    assert ("Relu" in [n.op for n in model.nodes]) is not dropped
    (ref,) = session(proto.SerializeToString()).run(None, x)
    assert np.array_equal(model.run(x)[0], ref)


def test_what_does_not_match_stays_in_float():
    x = {"a": np.random.default_rng(0).standard_normal((2, 8, 8, 8)).astype(np.float32)}
    proto = unit("Tanh", [0.02, 0.01], [100, 0], x)
    assert "Tanh" in [n.op for n in from_onnx(proto, numerics=HERE, as_graph=False).nodes]
    proto = unit("Sigmoid", [0.02, 0.01], [100, 0], x)
    assert "Sigmoid" in [n.op for n in from_onnx(proto, as_graph=False).nodes]
    assert "QLinearSigmoid" in [n.op for n in from_onnx(proto, as_graph=False, fuse_qdq=True).nodes]
    proto.graph.output.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, None))
    assert "Sigmoid" in [n.op for n in from_onnx(proto, numerics=HERE, as_graph=False).nodes]
