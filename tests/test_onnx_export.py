"""Models out: what `to_onnx` writes, onnx checks, and ONNX Runtime computes to the very integer of the oracle's own run."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import refquant as rq  # noqa: E402
from refquant import zoo  # noqa: E402
from refquant.backends.machine import profile_here  # noqa: E402
from refquant.data import load_split  # noqa: E402
from refquant.errors import ArgumentError, RefquantError, UnsupportedError  # noqa: E402
from refquant.graph import OPS, Builder, Model, Node  # noqa: E402
from refquant.interop import from_onnx, to_onnx  # noqa: E402
from refquant.interop.onnx.export import RULES  # noqa: E402
from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx  # noqa: E402

HERE = profile_here("onnxruntime")
FORMS = ("qdq", "qoperator")
pytestmark = pytest.mark.engine


def runtime(path, *inputs, int8=False):
    """Run a file in ONNX Runtime as users do, with all its rewriting."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if int8:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs)})


def quantized(name, backend):
    x, _ = load_split(name, "calibration")
    prepared = prepare_fx(zoo.load(name), get_default_qconfig_mapping(backend), (x[:32],))
    prepared(x[:32])
    return convert_fx(prepared), x[:100]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", ["x86", "onednn", "qnnpack"])
@pytest.mark.parametrize("name", zoo.names())
def test_a_network_that_pytorchs_way_quantized(name, backend, form, tmp_path):
    model, x = quantized(name, backend)
    export = to_onnx(model, tmp_path / "a.onnx", format=form)
    (ref,), (own,), (comp,) = model.run(x, numerics=HERE), model.run(x), runtime(export.path, x)
    assert comp.dtype == ref.dtype and comp.std() > 0 and np.array_equal(comp, ref), f"{np.count_nonzero(comp != ref)} of {ref.size} differ"
    assert backend == "qnnpack" or not np.array_equal(own, ref), "then nothing was shown: PyTorch's engines add float biases"
    assert len(export.biases) == sum("bias" in n.params for n in model.nodes) and "biases became int32" in str(export)


def one_layer(bias, out_scale=0.5, w_scale=0.25):
    """A fully connected layer on codes of 1 x 1: the accumulator is 3, the bias as given."""
    weight = rq.QTensor(np.array([[3]], np.int8), rq.QParams(w_scale, 0, "int8"))
    nodes = [
        Node("x", "input", attrs={"shape": (None, 1)}), Node("q", "quantize", ["x"], {"out": rq.QParams(0.5, 0, "uint8")}),
        Node("fc", "linear", ["q"], {"out": rq.QParams(out_scale, 100, "uint8")}, {"weight": weight, "bias": np.float32([bias])}), Node("y", "dequantize", ["fc"]),
    ]  # fmt: skip
    return Model(nodes, "y", numerics="fbgemm")


@pytest.mark.parametrize("form", FORMS)
def test_what_an_int32_bias_changes_is_said(form, tmp_path):
    """3 + bias in units of 1/8: a bias of 0.0625 is half a unit, which int32 loses; of 0.125, a whole one, nothing is lost."""
    lost, kept = (to_onnx(one_layer(b), tmp_path / "a.onnx", format=form) for b in (0.0625, 0.125))
    assert lost.biases[0].moved == 1 and lost.biases[0].codes == 0.125 and "1 of 1 channels changed" in str(lost) and "0.125 of an output code" in str(lost)
    assert kept.biases[0].moved == 0 and "biases" not in str(kept)
    full = to_onnx(one_layer(1e12), tmp_path / "a.onnx", format=form)
    assert full.biases[0].saturated == 1 and "saturates" in str(full)
    (moved,) = to_onnx(one_layer(0.0625), tmp_path / "a.onnx", format=form).biases
    x = np.float32([[0.5]])
    own, there = one_layer(0.0625)(x)[0], runtime(tmp_path / "a.onnx", x)[0]
    assert abs(own - there).max() <= 0.5 and moved.codes < 0.5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zero", [0, 7, 255])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_relus_at_every_zero_point(form, zero, dtype, tmp_path):
    """A ReLU inside a layer and one of its own, where saturation does it, where it cuts codes off, and where nothing is left."""
    rng = np.random.default_rng(zero)
    shift = 0 if dtype == "uint8" else -128
    qx, qy = rq.QParams(0.03, 77 + shift, dtype), rq.QParams(0.05, zero + shift, dtype)
    w1, w2 = (rq.QTensor(rng.integers(-127, 128, s).astype(np.int8), rq.QParams(rng.uniform(0.001, 0.01, s[0]), np.zeros(s[0], int), "int8", axis=0)) for s in ((8, 3, 3, 3), (5, 8)))
    nodes = [
        Node("x", "input", attrs={"shape": (None, 3, 8, 8)}), Node("q", "quantize", ["x"], {"out": qx}),
        Node("c", "conv2d", ["q"], {"out": qy, "padding": 1, "stride": (2, 1), "activation": "relu"}, {"weight": w1, "bias": rng.standard_normal(8).astype(np.float32)}),
        Node("d", "conv2d", ["q"], {"out": qy, "padding": 1, "stride": (2, 1)}, {"weight": w1}), Node("r", "relu", ["d"]),
        Node("a", "add", ["c", "d"], {"out": qy, "activation": "relu"}), Node("m", "max_pool2d", ["a"], {"kernel_size": 2, "ceil_mode": True}),
        Node("k", "cat", ["m", "m"], {"dim": 1}), Node("g", "adaptive_avg_pool2d", ["m"], {"output_size": 1}), Node("f", "flatten", ["g"]),
        Node("l", "linear", ["f"], {"out": qx, "activation": "relu"}, {"weight": w2}),
        Node("yr", "dequantize", ["r"]), Node("yl", "dequantize", ["l"]), Node("yk", "dequantize", ["k"]),
        Node("s", "stack", ["m", "m"], {"dim": -1}), Node("ys", "dequantize", ["s"]),
        Node("p1", "pixel_shuffle", ["m"], {"upscale_factor": 2}), Node("p2", "pixel_unshuffle", ["m"], {"downscale_factor": 2}), Node("p3", "repeat", ["m"], {"sizes": (1, 2, 1, 3)}),
        Node("p4", "repeat_interleave", ["m"], {"repeats": 3, "dim": -1}), *(Node(f"yp{k}", "dequantize", [f"p{k}"]) for k in range(1, 5)),
    ]  # fmt: skip
    model, x = Model(nodes, ["yr", "yl", "yk", "ys", "yp1", "yp2", "yp3", "yp4"], numerics="fbgemm"), rng.standard_normal((4, 3, 8, 8)).astype(np.float32) * 3
    to_onnx(model, tmp_path / "a.onnx", format=form)
    for name, comp, ref in zip(model.outputs, runtime(tmp_path / "a.onnx", x, int8=True), model.run(x, numerics=HERE), strict=True):
        assert np.array_equal(comp, ref), f"{name}: {np.count_nonzero(comp != ref)} of {ref.size} differ"


@pytest.mark.parametrize("form", FORMS)
def test_a_planted_fault_is_seen(form, tmp_path):
    model, x = quantized("digits_resnet", "x86")
    to_onnx(model, tmp_path / "a.onnx", format=form)
    proto = onnx.load(tmp_path / "a.onnx")
    bias = next(t for t in proto.graph.initializer if t.name == "stem_conv_bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 40
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(proto, tmp_path / "b.onnx")
    assert not np.array_equal(runtime(tmp_path / "b.onnx", x)[0], model.run(x, numerics=HERE)[0])


@pytest.mark.parametrize("name", zoo.names())
def test_a_float_network(name, tmp_path):
    model, x = zoo.load(name), load_split(name, "test")[0][:20]
    export = to_onnx(model, tmp_path / "a.onnx")
    (ref,), (comp,) = model(x), runtime(export.path, x)
    assert export.form == "float" and np.abs(comp - ref).max() <= 1e-5 * np.abs(ref).max()
    again = from_onnx(export.path, as_graph=True)
    assert [n.op for n in again.nodes] == [n.op for n in model.nodes] and np.array_equal(again(x)[0], ref)


def test_rows_of_more_axes(tmp_path):
    """Sequences go through a product of rows, and come apart again."""
    rng = np.random.default_rng(3)
    b = Builder(seed=1)
    x = b.input(shape=(None, 7, 12))
    model = b.build(x.linear(9).relu().linear(5))
    data = rng.standard_normal((4, 7, 12)).astype(np.float32)
    prepared = prepare_fx(model, get_default_qconfig_mapping("onednn"), (data,))
    prepared(data)
    int8 = convert_fx(prepared)
    for form in FORMS:
        export = to_onnx(int8, tmp_path / "a.onnx", format=form)
        assert np.array_equal(runtime(export.path, data)[0], int8.run(data, numerics=HERE)[0])
    assert np.abs(runtime(to_onnx(model, tmp_path / "f.onnx").path, data)[0] - model(data)[0]).max() < 1e-5


def test_all_that_is_missing_is_listed_and_nothing_written(tmp_path):
    qp = rq.QParams(0.1, 10, "uint8")
    layers = [Node("x", "input", attrs={"shape": (2, 4)}), Node("q", "quantize", ["x"], {"out": qp}), Node("s", "softmax", ["x"])]
    weight = rq.QTensor(np.ones((4, 4), np.int8), rq.QParams(0.1, 0, "int8"))
    bad = [Node("one", "linear", ["q"], {}, {"weight": weight}), Node("two", "linear", ["q"], {}, {"weight": weight}), Node("y", "add", ["one", "two"])]
    with pytest.raises(UnsupportedError, match="'one'.*'two'"):
        to_onnx(Model([*layers, *bad], ["y", "s"], numerics="fbgemm"), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_arguments(tmp_path):
    model, _ = quantized("digits_resnet", "x86")
    for arguments, error in [((model, tmp_path / "a.onnx", "float"), ArgumentError), ((zoo.load("digits_resnet"), tmp_path / "a.onnx", "qdq"), ArgumentError),
                             ((model, tmp_path / "a.onnx", "QDQ"), ArgumentError), ((model, tmp_path / "no" / "a.onnx", None), RefquantError), ((None, tmp_path / "a.onnx", None), ArgumentError)]:  # fmt: skip
        with pytest.raises(error):
            to_onnx(arguments[0], arguments[1], format=arguments[2])
    prepared = prepare_fx(zoo.load("digits_resnet"), get_default_qconfig_mapping("x86"), (np.zeros((1, 1, 8, 8), np.float32),))
    with pytest.raises(UnsupportedError, match="observer"):
        to_onnx(prepared.model, tmp_path / "a.onnx")
    with pytest.raises(UnsupportedError, match="no shape"):
        to_onnx(Model([Node("x", "input"), Node("y", "relu", ["x"])], "y"), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_the_file_is_the_same_each_time(tmp_path):
    model, _ = quantized("digits_resnet", "x86")
    contents = {to_onnx(model, tmp_path / f"{i}.onnx").path and (tmp_path / f"{i}.onnx").read_bytes() for i in range(2)}
    assert len(contents) == 1


def test_operations_without_a_rule_are_few():
    """They are refused by name: observers of training, and what is about data that come later."""
    assert {op.name for op in OPS} - set(RULES) <= {"input", "fake_quantize", "call"}



@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", zoo.names())
def test_a_quantized_network_comes_back(name, form, tmp_path):
    """Out and in again: the same layers, weights and parameters, and from there the same file."""
    model, x = quantized(name, "x86")
    to_onnx(model, tmp_path / "a.onnx", format=form)
    again = from_onnx(tmp_path / "a.onnx", numerics=HERE, as_graph=True)
    (ref,), (comp,) = model.run(x, numerics=HERE), again(x)
    assert again.quantized and np.array_equal(comp, ref)
    assert sum(n.op.startswith(("conv", "linear")) and "out" in n.attrs and n.attrs["out"] is not None for n in again.nodes) == sum(n.op.startswith(("conv", "linear")) for n in model.nodes)
    rewritten = to_onnx(again, tmp_path / "b.onnx", format=form)
    assert rewritten.nodes and not rewritten.biases and np.array_equal(runtime(rewritten.path, x)[0], ref)
    executed = from_onnx(tmp_path / "a.onnx", numerics=HERE, as_graph=False)
    assert np.array_equal(executed(x)[0], ref)


def test_the_unfused_reading_is_the_texts(tmp_path):
    """Under the specification a QDQ file computes real numbers between DequantizeLinear and QuantizeLinear."""
    model, x = quantized("digits_resnet", "x86")
    to_onnx(model, tmp_path / "a.onnx")
    plain = from_onnx(tmp_path / "a.onnx", as_graph=True)
    assert all(n.attrs["out"] is None for n in plain.nodes if n.op == "conv2d") and sum(n.op == "quantize" for n in plain.nodes) > 8
    (comp,), (ref,) = plain(x), from_onnx(tmp_path / "a.onnx", as_graph=False)(x)
    assert np.abs(comp - ref).max() < 0.5 and np.abs(comp - model(x)[0]).max() < 2


def test_codes_read_with_other_parameters_are_refused(tmp_path):
    model, _ = quantized("digits_resnet", "x86")
    to_onnx(model, tmp_path / "a.onnx", format="qoperator")
    proto = onnx.load(tmp_path / "a.onnx")
    name = next(n for n in proto.graph.node if n.op_type == "QLinearConv" and n.name == "block1_conv1").input[1]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "other"))
    node = next(n for n in proto.graph.node if n.name == "block1_conv1")
    assert node.input[1] == name
    node.input[1] = "other"
    with pytest.raises(UnsupportedError, match="block1_conv1.*other parameters"):
        from_onnx(proto, numerics=HERE, as_graph=True)
    assert from_onnx(proto, numerics=HERE)(np.zeros((1, 1, 8, 8), np.float32))[0].shape == (1, 10)
