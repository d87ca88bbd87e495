"""`quantize_static` against ONNX Runtime's own tool: the same nodes, scales, zero points, weights and biases; then the same bits when run."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from static_quantization import MODELS, batches_of, differences, float_values, quantize_with_onnxruntime  # noqa: E402

from refquant import numerics as profiles  # noqa: E402
from refquant.backends.machine import has_vnni  # noqa: E402
from refquant.errors import ArgumentError, RangeError, UnsupportedError  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402
from refquant.workflow import quantize_static  # noqa: E402
from refquant.workflow.ort.calibrate import calibrate  # noqa: E402
from refquant.workflow.ort.options import QuantizationOptions  # noqa: E402

OVERRIDES = {
    "c1": [{"quant_type": "uint16", "symmetric": True}], "r1": [{"scale": np.array(0.25, np.float32), "zero_point": np.array(3, np.int8)}], "y": [{"rmin": np.float32(-2), "rmax": np.float32(9)}],
    "w": [{"symmetric": False, "rmin": np.float32(-1), "rmax": np.float32(0.5)}],
}  # fmt: skip

OPTIONS = {
    "default": {},
    "per channel": {"per_channel": True},
    "u8s8": {"activation_type": "uint8"},
    "u8u8": {"activation_type": "uint8", "weight_type": "uint8"},
    "u8s8 per channel reduced": {"activation_type": "uint8", "per_channel": True, "reduce_range": True},
    "u8u8 reduced": {"activation_type": "uint8", "weight_type": "uint8", "reduce_range": True},
    "u16s16": {"activation_type": "uint16", "weight_type": "int16"},
    "s16s8": {"activation_type": "int16"},
    "symmetric activations": {"extra_options": {"ActivationSymmetric": True}},
    "restricted": {"activation_type": "uint8", "extra_options": {"ActivationRestrictedAsymmetric": True, "MinimumRealRange": 0.01}},
    "asymmetric weights": {"extra_options": {"WeightSymmetric": False}},
    "symmetric u8 weights": {"activation_type": "uint8", "weight_type": "uint8", "extra_options": {"WeightSymmetric": True}},
    "least range": {"extra_options": {"MinimumRealRange": 5.0}},
    "pairs": {"extra_options": {"AddQDQPairToWeight": True, "DedicatedQDQPair": True}},
    "kept": {"extra_options": {"QDQKeepRemovableActivations": True}},
    "float bias": {"extra_options": {"QuantizeBias": False}},
    "unadjusted": {"extra_options": {"QDQDisableWeightAdjustForInt32Bias": True}},
    "forced": {"extra_options": {"ForceQuantizeNoInputCheck": True}},
    "no outputs": {"extra_options": {"OpTypesToExcludeOutputQuantization": ["Conv", "MatMul", "Relu"]}},
    "some operators": {"op_types_to_quantize": ["Conv", "MatMul"]},
    "some nodes": {"nodes_to_quantize": ["Conv_c1", "Conv_c2", "Add_a", "Relu_r", "MatMul_q", "MatMul_qk", "Gemm_ge", "Relu_r1"]},
    "other nodes": {"nodes_to_exclude": ["Conv_c1", "MatMul_q", "Split_sa", "ConvTranspose_c2"]},
    "axis": {"per_channel": True, "extra_options": {"QDQOpTypePerChannelSupportToAxis": {"MatMul": 0}}},
    "operators": {"quant_format": "QOperator"},
    "operators u8s8": {"quant_format": "QOperator", "activation_type": "uint8"},
    "operators u8u8 forced": {"quant_format": "QOperator", "activation_type": "uint8", "weight_type": "uint8", "extra_options": {"ForceQuantizeNoInputCheck": True}},
    "operators per channel reduced": {"quant_format": "QOperator", "activation_type": "uint8", "per_channel": True, "reduce_range": True},
    "operators symmetric": {"quant_format": "QOperator", "extra_options": {"ActivationSymmetric": True, "MatMulConstBOnly": True}},
    "operators nnapi": {"quant_format": "QOperator", "activation_type": "uint8", "extra_options": {"extra.Sigmoid.nnapi": True}},
    "some operators on codes": {"quant_format": "QOperator", "op_types_to_quantize": ["Conv", "Relu", "MatMul"]},
}

CALIBRATIONS = {
    "MinMax": {},
    "strided": {"extra_options": {"CalibStridedMinMax": 2}},
    "moving": {"extra_options": {"CalibMovingAverage": True}},
    "moving strided": {"extra_options": {"CalibMovingAverage": True, "CalibStridedMinMax": 1, "CalibMovingAverageConstant": 0.3}},
    "symmetric": {"extra_options": {"CalibTensorRangeSymmetric": True}},
    "Entropy": {"calibrate_method": "Entropy"},
    "Entropy strided": {"calibrate_method": "Entropy", "extra_options": {"CalibStridedMinMax": 1}},
    "Percentile": {"calibrate_method": "Percentile"},
    "Percentile 99": {"calibrate_method": "Percentile", "extra_options": {"CalibPercentile": 99.0}},
    "Percentile of values": {"calibrate_method": "Percentile", "extra_options": {"CalibPercentile": 98.0, "CalibTensorRangeSymmetric": False}},
    "Percentile strided": {"calibrate_method": "Percentile", "extra_options": {"CalibPercentile": 99.5, "CalibStridedMinMax": 1}},
    "Percentile of values strided": {"calibrate_method": "Percentile", "extra_options": {"CalibTensorRangeSymmetric": False, "CalibStridedMinMax": 2}},
    "Distribution": {"calibrate_method": "Distribution"},
    "Distribution strided": {"calibrate_method": "Distribution", "extra_options": {"CalibStridedMinMax": 2}},
}


def model_for(name, options):
    proto = MODELS[name]()
    if "16" in str(options):  # 16-bit codes are in ONNX since version 21; the tool converts by itself
        proto = onnx.version_converter.convert_version(proto, 21)
        proto.ir_version = 10
    return proto


@pytest.mark.parametrize("row", OPTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_the_same_graph_and_initializers(name, row, tmp_path):
    options = OPTIONS[row]
    proto = model_for(name, options)
    model, batches = from_onnx(proto, as_graph=False), batches_of(proto, 2)
    try:
        ref, ranges = quantize_with_onnxruntime(proto, batches, tmp_path, options)
    except RuntimeError as error:
        assert "unknown initializers/tensors" in str(error) and name == "attention"
        with pytest.raises(UnsupportedError, match="'y0', which exists as codes alone"):
            quantize_static(model, batches, fuse_qdq=False, **options)
        return
    assert differences(ref, quantize_static(model, tensor_ranges=ranges, fuse_qdq=False, **options)) == []


def test_tensors_with_parameters_of_their_own(tmp_path):
    from onnxruntime.quantization import QuantType

    proto = onnx.version_converter.convert_version(MODELS["passing"](), 21)
    proto.ir_version = 10
    channels = [{"axis": 0, "reduce_range": True}]
    options = {"extra_options": {"TensorQuantOverrides": {**OVERRIDES, "w2": channels}, "QDQKeepRemovableActivations": True}}
    theirs = {"c1": [{**OVERRIDES["c1"][0], "quant_type": QuantType.QUInt16}]}
    given = {"extra_options": {**options["extra_options"], "TensorQuantOverrides": {**options["extra_options"]["TensorQuantOverrides"], **theirs}}}
    ref, ranges = quantize_with_onnxruntime(proto, batches_of(proto, 2), tmp_path, given)
    assert differences(ref, quantize_static(from_onnx(proto, as_graph=False), tensor_ranges=ranges, fuse_qdq=False, **options)) == []


@pytest.mark.parametrize("row", CALIBRATIONS)
@pytest.mark.parametrize("name", ["convolutional", "attention"])
def test_the_same_ranges_from_the_same_values(name, row, tmp_path):
    options, proto = CALIBRATIONS[row], MODELS[name]()
    batches = batches_of(proto)
    _, ref = quantize_with_onnxruntime(proto, batches, tmp_path, options)
    comp = calibrate(float_values(proto), batches, QuantizationOptions(**options))
    assert set(ref) <= set(comp)
    for key, (low, high) in ref.items():
        assert (np.float32(low).tobytes(), np.float32(high).tobytes()) == (comp[key][0].tobytes(), comp[key][1].tobytes()), key


@pytest.mark.parametrize("row", CALIBRATIONS)
def test_ranges_of_its_own_run(row, tmp_path):
    options, proto = CALIBRATIONS[row], MODELS["convolutional"]()
    batches = batches_of(proto)
    ref, _ = quantize_with_onnxruntime(proto, batches, tmp_path, options)
    model = quantize_static(from_onnx(proto, as_graph=False), iter(batches), fuse_qdq=False, **options)
    assert all(": float32 ()" in line or "zero_point" in line or "_quantized" in line for line in differences(ref, model))
    for tensor in ref.graph.initializer:
        if tensor.name.endswith("_scale"):
            comp = np.asarray(model.constants[tensor.name])
            assert np.abs(comp / onnx.numpy_helper.to_array(tensor) - 1).max() < 1e-4, tensor.name


@pytest.mark.parametrize(
    "fault", ["scale", "zero point", "weight", "bias", "node", "input", "attribute", "constant"]
)  # fmt: skip
def test_a_planted_difference_is_found(fault, tmp_path):
    proto = MODELS["convolutional"]()
    ref, ranges = quantize_with_onnxruntime(proto, batches_of(proto, 1), tmp_path, {})
    model = quantize_static(from_onnx(proto, as_graph=False), tensor_ranges=ranges, fuse_qdq=False)
    assert differences(ref, model) == []
    arrays = {"scale": "c3_scale", "zero point": "c3_zero_point", "weight": "w1_quantized", "bias": "b1_quantized"}
    nodes = list(model.nodes)
    if fault in arrays:
        array = model.constants[arrays[fault]].copy()
        array[...].reshape(-1)[:1] = np.nextafter(array.reshape(-1)[:1], 1) if fault == "scale" else array.reshape(-1)[:1] + 1
        model.constants[arrays[fault]] = array
    elif fault == "constant":
        del model.constants["c3_scale"]
    else:
        i = next(i for i, n in enumerate(nodes) if n.op == "Conv")
        changes = {"input": {"inputs": nodes[i].inputs[::-1]}, "attribute": {"attrs": {}}}
        nodes[i : i + 1] = [nodes[i]._replace(**changes[fault])] if fault in changes else []
        model.nodes = tuple(nodes)
    assert len(differences(ref, model)) >= 1


BAD = [
    ({"quant_format": "QLinear"}, ArgumentError, "quant_format"),
    ({"calibrate_method": "KL"}, ArgumentError, "calibrate_method"),
    ({"activation_type": "int4"}, ArgumentError, "type"),
    ({"activation_type": "int8", "weight_type": "uint8"}, UnsupportedError, "no kernels"),
    ({"activation_type": "int16", "quant_format": "QOperator"}, UnsupportedError, "16-bit"),
    ({"extra_options": {"ActivationSymetric": True}}, ArgumentError, "ActivationSymmetric"),
    ({"extra_options": {"CalibStridedMinMax": 3}}, ArgumentError, "not divisible"),
    ({"extra_options": {"CalibMovingAverageConstant": 2}}, RangeError, "0 … 1"),
    ({"extra_options": {"TensorQuantOverrides": {"x": {"scale": 1}}}}, ArgumentError, "list of dicts"),
    ({"extra_options": {"TensorQuantOverrides": {"x": [{"scale": 1}]}}}, ArgumentError, "give both"),
    ({"extra_options": {"TensorQuantOverrides": {"x": [{"convert": {}}]}}}, UnsupportedError, "convert"),
    ({"extra_options": {"TensorQuantOverrides": {"x": [{"scale": 1, "zero_point": 0, "rmin": 1}]}}}, ArgumentError, "leave"),
    ({"extra_options": {"TensorQuantOverrides": {"w1": [{"axis": 9}]}}}, RangeError, "axis 9"),
    ({"op_types_to_quantize": "Conv"}, ArgumentError, "sequence"),
]


@pytest.mark.parametrize("options, error, text", BAD, ids=[f"{i}: {row[2]}" for i, row in enumerate(BAD)])
def test_bad_options_are_refused(options, error, text):
    proto = MODELS["convolutional"]()
    with pytest.raises(error, match=text):
        quantize_static(from_onnx(proto, as_graph=False), batches_of(proto, 2), **options)


@pytest.mark.parametrize("batches, error, text", [(None, ArgumentError, "missing"), ([], ArgumentError, "empty"), ([np.full((1, 3, 8, 8), np.nan, np.float32)], RangeError, "'x' reaches")])
def test_bad_data_is_refused(batches, error, text):
    for method in ("MinMax", "Percentile"):
        with pytest.raises(error, match=text):
            quantize_static(from_onnx(MODELS["convolutional"](), as_graph=False), batches, calibrate_method=method)


def test_something_else_is_refused():
    with pytest.raises(ArgumentError, match="must be a refquant Model or OnnxModel"):
        quantize_static("model.onnx", [])


def plain_network():
    """A network whose every layer has a form on codes, with names that are names of values too."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(7)
    f = lambda *shape: (rng.standard_normal(shape) * 0.3).astype(np.float32)  # noqa: E731
    node = lambda op, inputs, output, **attrs: helper.make_node(op, inputs.split(","), [output], name=output, **attrs)  # noqa: E731
    nodes = [
        node("Conv", "x,w1,b1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"), node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1,w2,b2", "c2", pads=[1, 1, 1, 1], group=2), node("Add", "c2,p1", "a"), node("Relu", "a", "r2"), node("Conv", "r2,w3", "c3"),
        node("Concat", "c3,r2", "cc", axis=1), node("AveragePool", "cc", "ap", kernel_shape=[2, 2], strides=[2, 2]), node("GlobalAveragePool", "ap", "gp"),
        node("Flatten", "gp", "fl"), node("Gemm", "fl,w4,b4", "ge", transB=1), node("Relu", "ge", "r5"), node("Gemm", "r5,w5,b5", "y", transB=1),
    ]  # fmt: skip
    constants = {
        "w1": f(8, 3, 3, 3), "b1": f(8), "w2": f(8, 4, 3, 3), "b2": f(8), "w3": f(8, 8, 1, 1), "w4": f(16, 16), "b4": f(16), "w5": f(10, 16), "b5": f(10),
    }  # fmt: skip
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [None, 3, 8, 8]), ("y", [None, 10]))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [numpy_helper.from_array(a, n) for n, a in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


RUNS = {
    "u8s8": {"activation_type": "uint8"},
    "u8s8 per channel": {"activation_type": "uint8", "per_channel": True},
    "u8u8": {"activation_type": "uint8", "weight_type": "uint8"},
    "s8s8 per channel": {"per_channel": True},
    "reduced": {"activation_type": "uint8", "reduce_range": True},
    "symmetric": {"extra_options": {"ActivationSymmetric": True}},
    "percentile": {"activation_type": "uint8", "calibrate_method": "Percentile", "extra_options": {"CalibPercentile": 90.0}},
    "operators": {"activation_type": "uint8", "quant_format": "QOperator"},
    "operators s8": {"quant_format": "QOperator", "per_channel": True},
}


@pytest.mark.parametrize("row", RUNS)
def test_the_result_gives_the_bits_of_onnx_runtime(row, tmp_path):
    options, proto = RUNS[row], plain_network()
    batches = [np.random.default_rng(i).standard_normal((2, 3, 8, 8)).astype(np.float32) for i in range(3)]
    ref, ranges = quantize_with_onnxruntime(proto, batches[:2], tmp_path, options)
    session_options = ort.SessionOptions()
    session_options.log_severity_level = 4
    session_options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = ort.InferenceSession(ref.SerializeToString(), session_options, providers=["CPUExecutionProvider"])
    x = batches[2] * np.float32(1.5)
    (expected,) = session.run(None, {"x": x})
    # without VNNI, ONNX Runtime's products of uint8 and int8 saturate to 16 bits in pairs
    profile = profiles.get("onnxruntime").on(None if has_vnni() else "avx2")
    models = [from_onnx(proto, as_graph=False)]
    if options.get("quant_format") != "QOperator":
        models.append(from_onnx(proto, as_graph=True))
    for model in models:
        (y,) = quantize_static(model, tensor_ranges=ranges, numerics=profile, **options)(x)
        assert np.array_equal(y, expected), type(model)
        (y,) = quantize_static(model, batches[:2], numerics=profile, **options)(x)
        assert np.abs(y - expected).max() < 0.1


def test_a_graph_is_fused_to_layers_on_codes():
    model = from_onnx(plain_network(), as_graph=True)
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    int8 = quantize_static(model, [x], activation_type="uint8")
    assert [n.op for n in int8.nodes] == [
        "input", "quantize", "conv2d", "max_pool2d", "conv2d", "add", "conv2d", "cat", "avg_pool2d", "adaptive_avg_pool2d", "flatten", "linear", "linear",
        "dequantize",
    ]  # fmt: skip
    assert int8.node("c1").sources == ("c1", "r1")
    loose = quantize_static(model, [x], activation_type="uint8", fuse_qdq=False)
    assert sum(n.op == "quantize" for n in loose.nodes) == 12
    with pytest.raises(ArgumentError, match="quantized already"):
        quantize_static(int8, [x])
    with pytest.raises(UnsupportedError, match="as_graph=False"):
        quantize_static(model, [x], quant_format="QOperator")
