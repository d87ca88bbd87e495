"""Whole ONNX models in ONNX Runtime, every value beside the oracle's: exact, and what a planted fault looks like."""

import logging

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from refquant.backends import onnx_trace  # noqa: E402
from refquant.cli import verify_onnx as command  # noqa: E402
from refquant.cli.main import main  # noqa: E402
from refquant.cli.verify_onnx import explain, verify_onnx, walk  # noqa: E402
from refquant.data import load_split  # noqa: E402

pytestmark = pytest.mark.engine
DATA = load_split("digits", "calibration")[0]


def info(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def small_network():
    """A residual network on 8 x 8 digits, with random weights."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)  # noqa: E731
    weights = {"w1": draw(8, 1, 3, 3), "b1": draw(8), "w2": draw(8, 8, 3, 3), "b2": draw(8), "w3": draw(8, 10), "b3": draw(10)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["a"], name="add"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="fc"),
    ]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, ["N", 1, 8, 8])], [info("y", TensorProto.FLOAT, ["N", 10])], [numpy_helper.from_array(v, k) for k, v in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The small network, float and quantized by ONNX Runtime's own tool in both forms, and data for it."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("models")
    onnx.save(small_network(), folder / "float.onnx")
    np.savez(folder / "data.npz", x=DATA)

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"x": DATA[:50]}])

        def get_next(self):
            return next(self.batches, None)

    logging.disable(logging.WARNING)
    for name, form, kinds, per_channel in (("qdq", "QDQ", ("QUInt8", "QInt8"), True), ("int8", "QDQ", ("QInt8", "QInt8"), True), ("qop", "QOperator", ("QUInt8", "QInt8"), False)):
        types = [quantization.QuantType[k] for k in kinds]
        quantization.quantize_static(
            folder / "float.onnx", folder / f"{name}.onnx", Reader(), quant_format=quantization.QuantFormat[form], activation_type=types[0], weight_type=types[1], per_channel=per_channel
        )
    logging.disable(logging.NOTSET)
    return folder


@pytest.mark.parametrize("name", ["qdq", "int8", "qop"])
def test_every_value_of_a_network_is_the_engines(files, name):
    checks, trace, fused = verify_onnx(str(files / f"{name}.onnx"), data=str(files / "data.npz"))
    # By default ONNX Runtime turns int8 activations into uint8, but for those that it then computes in float32.
    assert {check.status for check in checks} <= ({"EXACT", "REAL"} if name == "int8" else {"EXACT"}) and trace.faithful == 0
    assert fused == 0 or name == "int8"
    assert name == "int8" or {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool"} <= {check.op for check in checks}
    assert sum(check.outputs for check in checks if check.status == "EXACT") > 4000 and all(np.std(check.actual) > 0 for check in checks)


def near_ties(first=129):
    """Two convolutions, a pool and a product on codes, with scales that put half of all sums on ties, and odd zero points."""
    rng = np.random.default_rng(1)
    f, u = np.float32, np.uint8
    constants = {
        "sx": f(0.5), "zx": u(128), "w1": rng.integers(-3, 4, (6, 1, 3, 3)).astype(np.int8), "s1": f(0.25), "z": np.int8(0), "sy": f(1), "zy": u(first),
        "w2": rng.integers(-3, 4, (6, 6, 1, 1)).astype(np.int8), "s2": f(0.5), "zy2": u(101), "w3": rng.integers(-3, 4, (6, 5)).astype(np.int8), "sz": f(2), "zz": u(77),
    }  # fmt: skip
    nodes = [
        helper.make_node("QLinearConv", ["x", "sx", "zx", "w1", "s1", "z", "sy", "zy"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("MaxPool", ["a"], ["m"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("QLinearConv", ["m", "sy", "zy", "w2", "s2", "z", "sz", "zy2"], ["b"], name="second"),
        helper.make_node("Transpose", ["b"], ["t"], name="turn", perm=[0, 2, 3, 1]),
        helper.make_node("QLinearMatMul", ["t", "sz", "zy2", "w3", "s1", "z", "sz", "zz"], ["y"], name="product"),
    ]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.UINT8, [2, 1, 16, 16])], [info("y", TensorProto.UINT8, None)], [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_a_wrong_profile_is_found_at_the_first_node_and_named(tmp_path, capsys):
    path = tmp_path / "ties.onnx"
    onnx.save(near_ties(), path)
    assert all(check.status == "EXACT" for check in verify_onnx(str(path))[0])
    checks, *_ = verify_onnx(str(path), numerics="onnx_reference")
    found = {check.name: check.status for check in checks}
    assert found["first"] == found["second"] == found["product"] == "LOCAL" and found["pool"] == found["turn"] == "INHERITED"
    assert main(["verify", "--model", str(path), "--numerics", "onnx_reference"]) == 1
    out = capsys.readouterr().out
    assert "first node that differs on the engine's own inputs: QLinearConv 'first'" in out and "adds the zero point after rounding" in out
    assert main(["verify", "--model", str(path)]) == 0


def test_an_even_zero_point_leaves_the_first_node_alone(tmp_path):
    """Ties to even fall alike on both sides of an even zero point, so the next node is the first that differs."""
    path = tmp_path / "ties.onnx"
    onnx.save(near_ties(first=128), path)
    checks, *_ = verify_onnx(str(path), numerics="onnx_reference")
    assert [check.name for check in checks if check.status == "LOCAL"][0] == "second"


def test_a_mutated_weight_is_found_where_it_is(tmp_path):
    proto = near_ties()
    changed = near_ties()
    tensor = next(t for t in changed.graph.initializer if t.name == "w2")
    weights = numpy_helper.to_array(tensor).copy()
    weights[4, 2, 0, 0] += 1
    tensor.CopyFrom(numpy_helper.from_array(weights, "w2"))
    feeds = {"x": np.random.default_rng(3).integers(0, 256, (2, 1, 16, 16)).astype(np.uint8)}
    model = onnx_trace.trace_model(proto.SerializeToString(), feeds).model
    checks = walk(model, onnx_trace.trace_model(changed.SerializeToString(), feeds).values, feeds)
    assert [(check.name, check.status) for check in checks] == [("first", "EXACT"), ("pool", "EXACT"), ("second", "LOCAL"), ("turn", "INHERITED"), ("product", "INHERITED")]
    second = checks[2]
    assert set(np.argwhere(second.actual != second.expected)[:, 1]) == {4}
    assert any("channel" in line and "4" in line for line in explain(second, "onnxruntime", seconds=3))


def test_an_unfaithful_rewriting_is_said(files, capsys, monkeypatch):
    real = onnx_trace.run_exposed
    monkeypatch.setattr(onnx_trace, "run_exposed", lambda model, feeds: {k: v + (k == "y") for k, v in real(model, feeds).items()})
    assert main(["verify", "--model", str(files / "qop.onnx"), "--data", str(files / "data.npz")]) == 1
    assert "other outputs than those of a session" in capsys.readouterr().out


def test_the_command(files, capsys):
    assert main(["verify", "--model", str(files / "qdq.onnx"), "--data", str(files / "data.npz")]) == 0
    out = capsys.readouterr().out
    assert "the very outputs of a session" in out and "nodes exact" in out and "0 of 40 outputs differ" in out


def test_float_networks_and_other_engines_are_refused(files, capsys):
    for arguments, wrong in ((["--model", str(files / "float.onnx")], "no node on codes"), (["--model", str(files / "qdq.onnx"), "--engine", "fbgemm"], "onnxruntime"), (["--model", "nowhere.onnx"], "no file")):
        assert main(["verify", *arguments]) == 2
        assert wrong in capsys.readouterr().err


def damaged():
    import test_onnx_damage

    sound = near_ties().SerializeToString()
    cycle = near_ties()
    cycle.graph.node[0].input[0] = "b"
    unknown = near_ties()
    unknown.graph.node[1].op_type = "NoSuchThing"
    outside = near_ties()
    tensor = outside.graph.initializer[2]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    assert test_onnx_damage.healthy()
    return {"cut off": sound[: len(sound) // 2], "noise": bytes(range(256)) * 4, "empty": b"", "cycle": cycle.SerializeToString(), "unknown": unknown.SerializeToString(), "outside": outside.SerializeToString()}


@pytest.mark.parametrize("name", ["cut off", "noise", "empty", "cycle", "unknown", "outside"])
@pytest.mark.parametrize("words", ["verify --model", "audit"])
def test_damaged_and_hostile_files_are_refused_by_every_command(name, words, tmp_path, capsys):
    """By the same door as `from_onnx`: the file is never handed to the engine."""
    path = tmp_path / "bad.onnx"
    path.write_bytes(damaged()[name])
    assert main([*words.split(), str(path)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("refquant: ") and "Traceback" not in said.err + said.out


def test_damaged_data_are_refused(files, tmp_path, capsys):
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"PK\x03\x04 no archive")
    for words in (["verify", "--model"], ["audit"]):
        assert main([*words, str(files / "qdq.onnx"), "--data", str(bad)]) == 2
        assert "must be an .npz archive" in capsys.readouterr().err


def test_a_quantized_model_is_audited_as_it_runs(files, capsys):
    assert main(["audit", str(files / "qdq.onnx"), "--data", str(files / "data.npz"), "--no-labels", "--limit", "20", "--layer-images", "4"]) == 0
    out = capsys.readouterr().out
    assert "onnxruntime, on avx2" in out and "conv1" in out and "accumulators saturate on avx2" in out


@pytest.mark.parametrize("name, scheme", [("light_squeezenet", "u8s8 per channel"), ("face-rfb-320", "s8s8 per channel")])
def test_real_networks(name, scheme, tmp_path):
    from test_onnx_qdq import SCHEMES, network, quantize

    path, _, _ = quantize(network(name), tmp_path, *SCHEMES[scheme])
    checks, trace, fused = verify_onnx(str(path))
    assert {check.status for check in checks} <= {"EXACT", "REAL"} and sum(check.op == "QLinearConv" for check in checks) > 20
    assert trace.faithful == 0 and sum(check.outputs for check in checks if check.status == "EXACT") > 100_000
    assert fused == 0 or any(check.status == "REAL" for check in checks)


def test_a_missing_engine_is_named(files, capsys, monkeypatch):
    from refquant.errors import BackendMissing

    def missing():
        raise BackendMissing("engine onnxruntime: needs onnx and onnxruntime; pip install 'refquant[onnxruntime]'")

    monkeypatch.setattr(onnx_trace, "_packages", missing)
    assert main(["verify", "--model", str(files / "qdq.onnx")]) == 2
    assert "pip install" in capsys.readouterr().err and command.STATUSES
