"""Whole float networks through ONNX: against ONNX Runtime, as graphs for quantization, cut, hooked and looked into."""

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from refquant.backends.onnx_light import light_networks, with_random_weights, without_softmax  # noqa: E402
from refquant.errors import ArgumentError, ShapeError, UnsupportedError  # noqa: E402
from refquant.graph import Model  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402
from refquant.interop.onnx.table import EXECUTORS, NEWEST, find_executor  # noqa: E402

LIGHT = list(light_networks().values())
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name):
    """Return the path of a file beside the project, or skip the test."""
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    return path


def runtime(proto, feeds):
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def assert_close(comp, ref):
    """Real numbers, so a tolerance: a ten-thousandth of the greatest."""
    assert comp.dtype == ref.dtype and comp.shape == ref.shape
    assert np.isfinite(ref).all() and ref.std() > 0
    assert np.abs(comp - ref).max() <= 1e-4 * np.abs(ref).max()


@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_light_network(path):
    proto = without_softmax(with_random_weights(onnx.load(path)))
    model = from_onnx(proto, as_graph=False)
    (wanted,) = model.signature
    x = np.random.default_rng(1).standard_normal([n or 1 for n in wanted.shape]).astype(np.float32)
    (ref,) = runtime(proto, {wanted.name: x})
    (comp,) = model(x)
    assert_close(comp, ref)


@pytest.mark.parametrize("path", [p for p in LIGHT if p.stem in ("light_squeezenet", "light_inception_v2")], ids=lambda p: p.stem)
def test_light_network_as_it_is(path):
    # Up to the softmax: with constant weights all logits are equal, and of numbers near 1e10 it would show the last bit alone.
    proto = without_softmax(onnx.load(path))
    model = from_onnx(proto, as_graph=False)
    x = np.full([n or 1 for n in model.signature[0].shape], 0.5, np.float32)
    (comp,), (ref,) = model(x), runtime(proto, {model.inputs[0]: x})
    np.testing.assert_allclose(comp, ref, rtol=1e-4)


def test_a_trained_detector():
    path = shared("face-rfb-320.onnx")
    model = from_onnx(path)
    x = np.random.default_rng(2).uniform(-1, 1, (1, 3, 240, 320)).astype(np.float32)
    for comp, ref in zip(model(x), runtime(onnx.load(path), {model.inputs[0]: x}), strict=True):
        assert_close(comp, ref)
    assert sum(n.op == "conv2d" for n in model.nodes) == 52


@pytest.mark.parametrize("name", ["light_resnet50", "light_squeezenet", "light_densenet121"])
def test_light_network_as_a_graph(name):
    proto = with_random_weights(onnx.load(next(p for p in LIGHT if p.stem == name)))
    last = proto.graph.node[-1]
    outputs = [last.input[0]] if last.op_type == "Softmax" else None
    graph, model = (from_onnx(proto, as_graph=as_graph, outputs=outputs) for as_graph in (True, False))
    assert isinstance(graph, Model) and not isinstance(model, Model)
    shape = [n or 1 for n in model.signature[0].shape]
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    (comp,), (ref,) = graph(x), model(x)
    assert_close(comp, ref)


def small(nodes, shape=(2, 3, 8, 8), opset=13, outputs=("y",), **constants):
    """Return a model of nodes over one float input x."""
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    results = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    graph = helper.make_graph(nodes, "g", [info], results, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def network():
    rng = np.random.default_rng(4)
    w, b = rng.standard_normal((4, 3, 3, 3)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    w2, b2 = rng.standard_normal((4, 5)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    scale, shift = (rng.standard_normal((4, 1, 1)).astype(np.float32) for _ in range(2))
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="/block/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["c", "scale"], ["m"], name="mul"),
        helper.make_node("Add", ["m", "shift"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"], name="0"),
        helper.make_node("MatMul", ["f", "w2"], ["d"], name="fc"),
        helper.make_node("Add", ["b2", "d"], ["y"], name="bias"),
    ]
    return small(nodes, w=w, b=b, w2=w2, b2=b2, scale=scale, shift=shift)


def test_graph_and_executors_agree(network):
    x = np.random.default_rng(5).standard_normal((2, 3, 8, 8)).astype(np.float32)
    graph, model = from_onnx(network), from_onnx(network, as_graph=False)
    assert [n.name for n in graph.nodes] == ["x", "block_conv", "mul", "relu", "GlobalAveragePool_4", "_0", "fc"]
    assert [n.name for n in model.nodes] == ["/block/conv", "mul", "add", "relu", "GlobalAveragePool_4", "0", "fc", "bias"]
    (comp,), (ref,) = graph(x), model(x)
    assert_close(comp, ref)
    assert_close(ref, runtime(network, {"x": x})[0])


def test_a_loaded_graph_is_quantized_by_the_workflow(network):
    workflow = pytest.importorskip("refquant.workflow")
    x = np.random.default_rng(6).standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = from_onnx(network)
    prepared = workflow.prepare_fx(model, workflow.get_default_qconfig_mapping("fbgemm"), example_inputs=(x,))
    prepared(x)
    (comp,), (ref,) = workflow.convert_fx(prepared)(x), model(x)
    assert comp.shape == ref.shape and np.abs(comp - ref).max() < 0.1 * np.abs(ref).max() and not np.array_equal(comp, ref)


def test_hooks_see_and_replace(network):
    x = np.random.default_rng(7).standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = from_onnx(network, as_graph=False)
    seen = []
    model.run(x, hooks=lambda node, value: seen.append((node.name, value.shape)))
    assert seen[0] == ("/block/conv", (2, 4, 8, 8)) and seen[-1] == ("bias", (2, 5)) and len(seen) == 8
    (y,) = model.run(x, hooks=[lambda node, value: value * 0 if node.name == "fc" else None])
    assert np.array_equal(y, np.broadcast_to(model.constants["b2"], (2, 5)))


def test_outputs_cut_the_graph(network):
    x = np.random.default_rng(8).standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = from_onnx(network, as_graph=False, outputs=["r", "c"])
    r, c = model(x)
    assert r.shape == c.shape == (2, 4, 8, 8) and len(model.nodes) == 4
    with pytest.raises(ArgumentError, match="output"):
        from_onnx(network, outputs=["nothing"])


def test_inputs_are_checked(network):
    model = from_onnx(network, as_graph=False)
    x = np.zeros((2, 3, 8, 8), np.float32)
    for inputs, error, text in [
        ((), ArgumentError, "missing"), ((x, x), ArgumentError, "2 inputs"), ((x[:1],), ShapeError, "must be"), ((x.astype(np.int64),), ArgumentError, "dtype"),
        (({"z": x},), ArgumentError, "no input"), (({},), ArgumentError, "missing"),
    ]:  # fmt: skip
        with pytest.raises(error, match=text):
            model(*inputs)
    assert np.array_equal(model(x.astype(np.float64))[0], model({"x": x})[0])


REFUSED_AS_GRAPH = {
    "two outputs": [helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])],
    "a constant output": [helper.make_node("Relu", ["s"], ["y"])],
    "dilated mean": [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])],
    "unequal mean": [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], pads=[0, 0, 1, 1])],
    "a function that graphs lack": [helper.make_node("Sin", ["x"], ["y"])],
    "a mirror": [helper.make_node("Pad", ["x", "p"], ["y"], mode="reflect")],
    "backwards": [helper.make_node("Slice", ["x", "e", "b", "e", "e"], ["y"])],
    "an even window": [helper.make_node("LRN", ["x"], ["y"], size=2)],
    "a mean of all": [helper.make_node("ReduceMean", ["x"], ["y"])],
    "many entries": [helper.make_node("Gather", ["x", "p"], ["y"], axis=2)],
    "four and more": [helper.make_node("Sin", ["x"], ["a"]), helper.make_node("Cos", ["x"], ["d"]), helper.make_node("Add", ["a", "d"], ["c"]), helper.make_node("Sin", ["c"], ["y"])],
}


@pytest.mark.parametrize("name", REFUSED_AS_GRAPH)
def test_what_does_not_fit_a_graph_is_executed_instead(name):
    constants = {"s": np.ones(1, np.float32), "p": np.int64([0, 0, 1, 1, 0, 0, 1, 1]), "e": np.int64([-1]), "b": np.int64([-9])}
    used = {i for node in REFUSED_AS_GRAPH[name] for i in node.input}
    outputs = ("y", "i") if name == "two outputs" else ("y",)
    opset = 19 if name == "dilated mean" else 13
    proto = small(REFUSED_AS_GRAPH[name], opset=opset, outputs=outputs, **{k: v for k, v in constants.items() if k in used})
    with pytest.raises(UnsupportedError, match="as_graph=False"):
        from_onnx(proto, as_graph=True)
    assert not isinstance(from_onnx(proto), Model)
    from_onnx(proto)(np.zeros((2, 3, 8, 8), np.float32))


def test_everything_that_is_missing_is_listed():
    """Each node that graphs lack, with the reason; what only depends on it is not blamed."""
    with pytest.raises(UnsupportedError) as caught:
        from_onnx(small([helper.make_node(*n[:3], name=n[3]) for n in (("Sin", ["x"], ["a"], "one"), ("Cos", ["x"], ["b"], "two"), ("Add", ["a", "b"], ["y"], "three"))]), as_graph=True)
    said = str(caught.value)
    assert "2 of its nodes" in said and "Sin 'one'" in said and "Cos 'two'" in said and "three" not in said
    with pytest.raises(UnsupportedError) as caught:
        from_onnx(small([helper.make_node("Scan", ["x"], ["a"], name="one"), helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Los", ["b"], ["y"], name="two")]))
    assert "Scan 'one'" in str(caught.value) and "Los 'two'" in str(caught.value) and "2 of its nodes" in str(caught.value)


def test_constant_subgraphs_are_folded():
    nodes = [
        helper.make_node("ConstantOfShape", ["sides"], ["w"], value=numpy_helper.from_array(np.float32([0.5]))),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    graph = from_onnx(small(nodes, sides=np.int64([4, 3, 2, 2])), as_graph=True)
    assert graph.node("Conv_1").params["weight"].shape == (4, 3, 2, 2)


def test_the_table():
    keys = [(e.domain, e.op, e.since) for e in EXECUTORS]
    assert len(set(keys)) == len(keys) >= 165
    assert find_executor("Softmax", "", 12) is not find_executor("Softmax", "", 13)
    assert find_executor("QuantizeLinear", "", 9) is None
    for executor in EXECUTORS:
        assert executor.since <= NEWEST[executor.domain], executor
        if not executor.domain:
            assert onnx.defs.has(executor.op, NEWEST[""]), executor
