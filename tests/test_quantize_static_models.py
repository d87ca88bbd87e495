"""`quantize_static` of refquant's own graphs: written as ONNX files, ONNX Runtime's tool finds the same parameters and computes the same bits."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from static_quantization import quantize_with_onnxruntime  # noqa: E402

from refquant import numerics as profiles  # noqa: E402
from refquant import zoo  # noqa: E402
from refquant.backends.machine import has_vnni  # noqa: E402
from refquant.data import load_split  # noqa: E402
from refquant.errors import ArgumentError  # noqa: E402
from refquant.graph import Builder  # noqa: E402
from refquant.interop import from_onnx, to_onnx  # noqa: E402
from refquant.workflow import quantize_static  # noqa: E402
from refquant.workflow.ort.from_model import with_plain_layers  # noqa: E402

U8S8 = {"activation_type": "uint8", "per_channel": True}
# Reduced weights cannot saturate in pairs, so that the processor does not matter.
REDUCED = {**U8S8, "reduce_range": True}
TRAINED = {"digits_resnet": "digits", "digits_mobilenet": "digits", "glyphs_net": "glyphs"}
BUILT = {
    "squeezenet1_1": {"size": 64, "width": 0.25}, "mobilenet_v3_small": {"size": 64, "width": 0.25}, "shufflenet_v2_x0_5": {"size": 64, "width": 0.25},
    "efficientnet_b0": {"size": 32, "width": 0.25}, "regnet_y_400mf": {"size": 32, "width": 0.25}, "googlenet": {"size": 64, "width": 0.125},
}  # fmt: skip


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path, x):
    engine = session(path)
    return engine.run(None, {engine.get_inputs()[0].name: x})


def quantized_both_ways(model, batches, folder, options):
    """Return (ONNX Runtime's quantized file, its ranges, refquant's model unfused, fused)."""
    to_onnx(model, folder / "float.onnx")
    proto, ranges = quantize_with_onnxruntime(onnx.load(folder / "float.onnx"), batches, folder, options)
    # what goes into a ReLU alone has the range of what comes out
    plain = {n.name for n in with_plain_layers(model).nodes}
    ranges = {**{f"{name}_before_relu": pair for name, pair in ranges.items() if f"{name}_before_relu" in plain}, **ranges}
    profile = profiles.get("onnxruntime").on(None if has_vnni() else "avx2")
    loose, fused = (quantize_static(model, tensor_ranges=ranges, numerics=profile, fuse_qdq=fuse, **options) for fuse in (False, True))
    return proto, loose, fused


def parameters(proto):
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    quantizers = [n for n in proto.graph.node if n.op_type == "QuantizeLinear"]
    return {n.name.removesuffix("_QuantizeLinear"): tuple(float(arrays[name]) for name in n.input[1:]) for n in quantizers}


def own_parameters(model):
    """Parameters by value; biases and numbers of sums and products are constants of ONNX Runtime's file, which have no quantizer there."""
    fixed = {n.name for n in model.nodes if n.op == "constant" and n.name.endswith(("_bias", "_number"))}
    quantizers = [n for n in model.nodes if n.op == "quantize" and n.inputs[0] not in fixed]
    return {n.name.removesuffix("_QuantizeLinear"): (n.attrs["out"].scale, float(n.attrs["out"].zero_point)) for n in quantizers}


def check(model, batches, folder, options):
    proto, loose, fused = quantized_both_ways(model, batches, folder, options)
    assert parameters(proto) == own_parameters(loose) and len(parameters(proto)) > 5
    (y,), (expected,) = fused(batches[0]), run(folder / "quantized.onnx", batches[0])
    assert np.array_equal(y, expected), f"{np.count_nonzero(y != expected)} of {y.size} differ"
    to_onnx(fused, folder / "own.onnx")
    assert np.array_equal(y, run(folder / "own.onnx", batches[0])[0])
    return fused


@pytest.mark.parametrize("options", [U8S8, {}, {"extra_options": {"ActivationSymmetric": True, "QDQKeepRemovableActivations": True}}], ids=["u8s8", "s8s8", "symmetric"])
@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks(name, options, tmp_path):
    x, _ = load_split(TRAINED[name], "calibration")
    check(zoo.load(name), [x[:8], x[8:16]], tmp_path, options)


@pytest.mark.parametrize("name", BUILT)
def test_architectures(name, tmp_path):
    model = zoo.build(name, **BUILT[name])
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((1, 3, BUILT[name]["size"], BUILT[name]["size"])).astype(np.float32) for _ in range(2)]
    fused = check(model, batches, tmp_path, REDUCED)
    steps = {f"{n.name}_scaled" for n in model.nodes if n.op == "batch_norm"}  # float32 in ONNX Runtime too
    assert not any(n.op in ("conv2d", "add", "mul", "cat", "max_pool2d") and n.name not in steps and "dequantize" in {fused.node(i).op for i in n.inputs} for n in fused.nodes)


ATTENTION = {"bert_base_layer": {"size": 8, "width": 0.125}, "vit_b_16": {"size": 32, "width": 0.0625}}


@pytest.mark.parametrize("options", [REDUCED, {}], ids=["u8s8", "s8s8"])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name, options, tmp_path):
    """The same parameters and the same bits, as an OnnxModel, as a graph and as what a graph is written as: products of two activations and sums with a constant too."""
    model = zoo.build(name, **ATTENTION[name])
    given = [1 if n is None else n for n in model.node(model.inputs[0]).attrs["shape"]]
    x = np.random.default_rng(0).standard_normal(given).astype(np.float32)
    proto, loose, fused = quantized_both_ways(model, [x], tmp_path, options)
    assert parameters(proto) == own_parameters(loose)
    _, ranges = quantize_with_onnxruntime(onnx.load(tmp_path / "float.onnx"), [x], tmp_path, options)
    onnx_model = quantize_static(from_onnx(tmp_path / "float.onnx", as_graph=False), tensor_ranges=ranges, numerics=fused.numerics, **options)
    (expected,) = run(tmp_path / "quantized.onnx", x)
    assert np.array_equal(onnx_model(x)[0], expected) and np.array_equal(fused(x)[0], expected) and expected.std() > 0
    matrices, layers = [n for n in fused.nodes if n.op == "matmul"], {n.op for n in onnx_model.nodes}
    assert {"QLinearMatMul", "QLinearSoftmax", "QLinearAdd"} <= layers and len(matrices) > 1 and all(n.attrs["out"] for n in matrices)
    for form in ("qdq", "qoperator"):
        to_onnx(fused, tmp_path / "own.onnx", format=form)
        assert np.array_equal(run(tmp_path / "own.onnx", x)[0], expected)


def drawn(model):
    """Return a model whose batch norms have statistics that are not 0 and 1."""
    rng = np.random.default_rng(3)
    ends = {"running_mean": (-1, 1), "running_var": (0.3, 2), "weight": (-2, 2), "bias": (-1, 1)}
    new = lambda n: {k: rng.uniform(*ends[k], v.shape).astype(np.float32) for k, v in n.params.items()}  # noqa: E731
    return model.with_nodes([n.replace(params=new(n)) if n.op == "batch_norm" else n for n in model.nodes])


def test_a_batch_norm_that_stays_rounds_as_onnx_runtime_does(tmp_path, monkeypatch):
    """Its float32 numbers, to the bit; PyTorch's formula gives others."""
    b = Builder(seed=0)
    model = drawn(b.build(b.input(shape=(None, 32, 8, 8)).conv2d(32, 1).relu().batch_norm()))
    x = np.random.default_rng(0).standard_normal((2, 32, 8, 8)).astype(np.float32)
    options = {**REDUCED, "nodes_to_exclude": ["batch_norm"]}
    _, _, fused = quantized_both_ways(model, [x], tmp_path, options)
    (expected,) = run(tmp_path / "quantized.onnx", x)
    assert fused(x)[0].tobytes() == expected.tobytes() and [n.op for n in fused.nodes][-2:] == ["mul", "add"]
    monkeypatch.setattr("refquant.workflow.ort.to_model._norms_in_steps", lambda model: model)
    _, _, other = quantized_both_ways(model, [x], tmp_path, options)
    assert np.count_nonzero(other(x)[0] != expected) > 100


@pytest.mark.parametrize("dim", [-1, 1])
def test_softmax_runs_on_codes(dim, tmp_path):
    b = Builder(seed=0)
    model = b.build(b.input(shape=(None, 40, 24)).softmax(dim=dim))
    x = np.random.default_rng(1).standard_normal((3, 40, 24)).astype(np.float32) * 4
    _, _, fused = quantized_both_ways(model, [x], tmp_path, {**REDUCED, "per_channel": False})
    assert [n.op for n in fused.nodes] == ["input", "quantize", "softmax", "dequantize"]
    assert np.array_equal(fused(x)[0], run(tmp_path / "quantized.onnx", x)[0])


def test_batch_norms_go_into_convolutions(tmp_path):
    from onnxruntime.quantization.shape_inference import quant_pre_process

    x, _ = load_split("digits", "calibration")
    model = zoo.load("digits_resnet")
    to_onnx(model, tmp_path / "float.onnx")
    quant_pre_process(tmp_path / "float.onnx", tmp_path / "processed.onnx", skip_symbolic_shape=True)
    proto, ranges = quantize_with_onnxruntime(onnx.load(tmp_path / "processed.onnx"), [x[:8]], tmp_path, U8S8)
    profile = profiles.get("onnxruntime").on(None if has_vnni() else "avx2")
    expected = run(tmp_path / "quantized.onnx", x[:8])[0]
    onnx_model = quantize_static(from_onnx(tmp_path / "float.onnx", as_graph=False), tensor_ranges=ranges, preprocess=True, numerics=profile, fuse_qdq=False, **U8S8)
    theirs, ours = ({t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}, onnx_model.constants)
    names = [name for name in theirs if name.startswith("ConvBnFusion")]
    assert len(names) > 20 and all(theirs[name].tobytes() == np.asarray(ours[name]).tobytes() for name in names)
    assert np.array_equal(onnx_model.requantized(onnx_model.nodes, ours, profile)(x[:8])[0], expected)
    folded = {n.inputs[0]: n.name for n in model.nodes if n.op == "batch_norm"}
    with pytest.raises(ArgumentError, match="tensor_ranges lacks"):
        quantize_static(model, tensor_ranges=ranges, preprocess=True)
    ranges = {**ranges, **{conv: ranges[norm] for conv, norm in folded.items()}}
    graph = quantize_static(model, tensor_ranges=ranges, preprocess=True, numerics=profile, **U8S8)
    assert "batch_norm" not in {n.op for n in graph.nodes} and np.array_equal(graph(x[:8])[0], expected)


@pytest.mark.parametrize("name", ["light_squeezenet", "light_inception_v1", "light_shufflenet", "face-rfb-320"])
def test_published_networks(name, tmp_path):
    from static_quantization import alive, differences
    from test_onnx_qdq import network

    proto = alive(network(name))
    (wanted,) = proto.graph.input
    shape = [d.dim_value or 1 for d in wanted.type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ref, ranges = quantize_with_onnxruntime(proto, [x], tmp_path, REDUCED)
    model = from_onnx(proto, as_graph=False)
    loose = quantize_static(model, tensor_ranges=ranges, fuse_qdq=False, **REDUCED)
    assert differences(ref, loose) == [] and len(loose.nodes) > 80
    if name in ("light_squeezenet", "face-rfb-320"):  # of the others, ONNX Runtime computes some layers in float32, in an order of its own
        for y, expected in zip(loose.requantized(loose.nodes, loose.constants, "onnxruntime")(x), run(tmp_path / "quantized.onnx", x), strict=True):
            assert np.array_equal(y, expected), f"{np.count_nonzero(y != expected)} of {y.size} differ"
