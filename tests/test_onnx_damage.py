"""Damaged and hostile models: every one is refused with a message that says what and where, and nothing outside of the folder is read."""

import os
import re
import sys
import time

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from refquant.errors import BackendMissing, RefquantError, UnsupportedError  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402

FLOAT = TensorProto.FLOAT
X = np.random.default_rng(0).standard_normal((1, 2, 6, 6)).astype(np.float32)


def healthy():
    """Return a sound model: convolution, ReLU, reshape, product."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Reshape", ["r", "shape"], ["f"], name="reshape"),
        helper.make_node("MatMul", ["f", "v"], ["y"], name="product"),
    ]
    constants = {
        "w": rng.standard_normal((3, 2, 3, 3)).astype(np.float32), "b": np.ones(3, np.float32), "shape": np.int64([1, -1]),
        "v": rng.standard_normal((108, 4)).astype(np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", FLOAT, (1, 2, 6, 6))], [helper.make_tensor_value_info("y", FLOAT, (1, 4))],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def constant(proto, name):
    return next(t for t in proto.graph.initializer if t.name == name)


def node(proto, name):
    return next(n for n in proto.graph.node if n.name == name)


def attribute(proto, name, **attrs):
    made = node(proto, name)
    kept = [a for a in made.attribute if a.name not in attrs]
    del made.attribute[:]
    made.attribute.extend(kept + [helper.make_attribute(k, v) for k, v in attrs.items()])


def rename_input(proto, name, position, other):
    node(proto, name).input[position] = other


def append(proto, *nodes):
    proto.graph.node.extend(nodes)
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None))


def add_constant(proto, name, value):
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def swap(proto):
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])


def external(proto, **entries):
    tensor = constant(proto, "v")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def subgraph(proto):
    inner = helper.make_graph([helper.make_node("Identity", ["y"], ["z"])], "inner", [], [helper.make_tensor_value_info("z", FLOAT, None)])
    add_constant(proto, "flag", np.array(True))
    append(proto, helper.make_node("If", ["flag"], ["z"], name="choice", then_branch=inner, else_branch=inner))


def function(proto):
    inner = helper.make_function("local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 13)])
    proto.functions.append(inner)


def bomb(op, *constants, **attrs):
    """Append a node that asks for more memory than there is."""

    def damage(proto):
        names = [f"k{i}" for i in range(len(constants))]
        for name, value in zip(names, constants):
            add_constant(proto, name, value)
        inputs = names if op in ("ConstantOfShape", "Range") else ["r", *names]
        append(proto, helper.make_node(op, inputs, ["z"], name="bomb", **attrs))

    return damage


def outer(op):
    """Append a node that makes a huge matrix of a column and a row."""

    def damage(proto):
        add_constant(proto, "column", np.zeros((2**16, 1), np.float32))
        add_constant(proto, "row", np.zeros((1, 2**16), np.float32))
        append(proto, helper.make_node(op, ["column", "row"], ["z"], name="bomb"))

    return damage


def edit(text):
    """Return a change of the model, written as one statement about `m`."""
    return lambda m: exec(text, globals(), {"m": m})  # noqa: S102


HUGE = np.int64([2**40])

# name: (change, words that the message must hold)
DAMAGED = {
    "cycle": (edit("rename_input(m, 'conv', 0, 'f')"), "cyclic"),
    "self loop": (edit("rename_input(m, 'relu', 0, 'r')"), "own output"),
    "wrong order": (swap, "sort the nodes"),
    "missing initializer": (edit("m.graph.initializer.remove(constant(m, 'v'))"), "product.*'v'"),
    "misspelt input": (edit("rename_input(m, 'relu', 0, 'cc')"), "relu.*'cc'"),
    "value defined twice": (edit("node(m, 'relu').output[0] = 'c'"), "twice"),
    "input overwritten": (edit("node(m, 'relu').output[0] = 'x'"), "twice"),
    "initializer twice": (edit("m.graph.initializer.append(constant(m, 'v'))"), "'v'.*taken"),
    "initializer without a name": (edit("constant(m, 'v').name = ''"), "no name"),
    "output of no node": (edit("m.graph.output[0].name = 'nothing'"), "'nothing'"),
    "no outputs": (edit("del m.graph.output[:]"), "no output"),
    "no graph": (edit("m.ClearField('graph')"), "no graph"),
    "no operator set": (edit("del m.opset_import[:]"), "no operator set"),
    "operator set 0": (edit("m.opset_import[0].version = 0"), "outside of"),
    "operator set of the future": (edit("m.opset_import[0].version = 2**40"), "outside of"),
    "operator set twice": (edit("m.opset_import.append(helper.make_opsetid('ai.onnx', 9))"), "two versions"),
    "operator set not imported": (edit("node(m, 'relu').domain = 'ai.onnx.ml'"), "not imported"),
    "unknown operator": (edit("node(m, 'relu').op_type = 'Rellu'"), "relu.*Rellu.*Relu"),
    "operator of a later version": (edit("node(m, 'relu').op_type = 'Mish'"), "Mish.*from version 18"),
    "unknown domain": (edit("m.opset_import.append(helper.make_opsetid('my.own', 1)); node(m, 'relu').domain = 'my.own'"), "my.own.Relu"),
    "empty operator": (edit("node(m, 'relu').op_type = ''"), "not supported"),
    "function": (function, "functions"),
    "subgraph": (subgraph, "If 'choice'"),
    "sparse weights": (edit("m.graph.sparse_initializer.add()"), "sparse"),
    "sequence input": (edit("m.graph.input.append(helper.make_tensor_sequence_value_info('s', FLOAT, None))"), "sequence"),
    "input without a type": (edit("m.graph.input[0].ClearField('type')"), "no type"),
    "input of an unknown type": (edit("m.graph.input[0].type.tensor_type.elem_type = 99"), "type 99"),
    "input twice": (edit("m.graph.input.append(m.graph.input[0])"), "repeat a name"),
    "too few inputs": (edit("del node(m, 'product').input[1:]"), "product.*1 inputs but takes 2"),
    "too many inputs": (edit("node(m, 'relu').input.append('c')"), "relu.*2 inputs but takes 1"),
    "shape beyond memory": (edit("constant(m, 'v').dims[0] = 2**62"), "bytes"),
    "shape of many sides": (edit("constant(m, 'v').dims.extend([1] * 100)"), "dimensions"),
    "negative shape": (edit("constant(m, 'v').dims[0] = -108"), "negative"),
    "shape and data disagree": (edit("constant(m, 'v').dims[0] = 107"), "needs 1712 bytes but there are 1728"),
    "data cut off": (edit("constant(m, 'v').raw_data = constant(m, 'v').raw_data[:-1]"), "1727"),
    "data in no field": (edit("constant(m, 'v').ClearField('raw_data')"), "needs 432 numbers"),
    "type and data disagree": (edit("constant(m, 'v').data_type = TensorProto.DOUBLE"), "float64"),
    "unknown type": (edit("constant(m, 'v').data_type = 77"), "type 77"),
    "type undefined": (edit("constant(m, 'v').data_type = 0"), "type 0"),
    "raw strings": (edit("constant(m, 'v').data_type = TensorProto.STRING"), "strings"),
    "segments": (edit("constant(m, 'v').segment.begin = 1"), "segments"),
    "weights of integers": (edit("constant(m, 'w').data_type = TensorProto.INT32"), "conv"),
    "unknown attribute": (edit("attribute(m, 'conv', padding=[1])"), "conv.*'padding'.*'pads'"),
    "attribute of a wrong type": (edit("attribute(m, 'conv', pads=1.5)"), "conv.*'pads'"),
    "attribute twice": (edit("node(m, 'conv').attribute.append(node(m, 'conv').attribute[0])"), "twice"),
    "attribute missing": (edit("append(m, helper.make_node('Concat', ['r'], ['z'], name='joined'))"), "joined.*'axis'"),
    "attribute of a function": (edit("node(m, 'conv').attribute[0].ref_attr_name = 'k'"), "function"),
    "kernel and weights disagree": (edit("attribute(m, 'conv', kernel_shape=[5, 5])"), "conv"),
    "pads of one axis": (edit("attribute(m, 'conv', pads=[1, 1])"), "conv"),
    "negative pads": (edit("attribute(m, 'conv', pads=[-3, 0, 0, 0])"), "conv"),
    "stride 0": (edit("attribute(m, 'conv', strides=[0, 1])"), "conv"),
    "group 0": (edit("attribute(m, 'conv', group=0)"), "conv"),
    "group of strangers": (edit("attribute(m, 'conv', group=7)"), "conv"),
    "pads beyond memory": (edit("attribute(m, 'conv', pads=[0, 0, 2**30, 2**30])"), "conv"),
    "dilation beyond the input": (edit("attribute(m, 'conv', dilations=[2**30, 1])"), "conv"),
    "axis beyond the rank": (edit("append(m, helper.make_node('Softmax', ['y'], ['z'], name='soft', axis=9))"), "soft.*axis=9"),
    "reshape without sense": (edit("constant(m, 'shape').CopyFrom(numpy_helper.from_array(np.int64([7, -1]), 'shape'))"), "reshape"),
    "reshape with two unknowns": (edit("constant(m, 'shape').CopyFrom(numpy_helper.from_array(np.int64([-1, -1]), 'shape'))"), "reshape"),
    "factors that do not fit": (edit("constant(m, 'v').CopyFrom(numpy_helper.from_array(np.ones((107, 4), np.float32), 'v'))"), "product"),
    "types that do not fit": (edit("constant(m, 'v').CopyFrom(numpy_helper.from_array(np.ones((108, 4)), 'v'))"), "product"),
    "bomb: constant": (bomb("ConstantOfShape", np.int64([2**20, 2**20])), "bomb.*bytes"),
    "bomb: negative constant": (bomb("ConstantOfShape", np.int64([-5])), "bomb.*negative"),
    "bomb: range": (bomb("Range", np.float32(0), np.float32(1e30), np.float32(1)), "bomb"),
    "bomb: range without step": (bomb("Range", np.float32(0), np.float32(1), np.float32(0)), "bomb"),
    "bomb: expand": (bomb("Expand", np.int64([2**40, 1, 3, 6, 6])), "bomb"),
    "bomb: tile": (bomb("Tile", np.int64([1, 1, 2**20, 2**20])), "bomb"),
    "bomb: pad": (bomb("Pad", np.int64([0, 0, 0, 0, 0, 0, 2**40, 0])), "bomb"),
    "bomb: resize": (bomb("Resize", np.float32([]), np.float32([1, 1, 1e6, 1e6])), "bomb"),
    "bomb: unsqueeze": (bomb("Unsqueeze", np.arange(70)), "bomb"),
    "bomb: outer sum": (outer("Add"), "bomb.*bytes"),
    "bomb: outer product": (outer("MatMul"), "bomb.*bytes"),
    "gather beyond the axis": (bomb("Gather", np.int64([99])), "bomb.*99"),
    "slice without step": (bomb("Slice", np.int64([0]), np.int64([1]), np.int64([0]), np.int64([0])), "bomb"),
    "pool larger than the input": (bomb("MaxPool", kernel_shape=[9, 9]), "bomb"),
    "pool of nothing": (bomb("MaxPool", kernel_shape=[0, 1]), "bomb"),
    "pool beyond reason": (bomb("AveragePool", kernel_shape=[2**20, 2**20]), "bomb"),
    "external data of bytes": (edit("external(m, location='weights.bin')"), "another file"),
}


def refusal(source, **options):
    """Return the error that loading or running raises; None if there is none."""
    try:
        model = from_onnx(source, **options)
        model.run(X)
    except RefquantError as error:
        return error
    return None


def test_the_healthy_model_runs():
    for as_graph in (None, True, False):
        assert refusal(healthy(), as_graph=as_graph) is None
    assert refusal(healthy().SerializeToString()) is None


@pytest.mark.parametrize("as_graph", [None, False], ids=["any", "executed"])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(name, as_graph):
    change, words = DAMAGED[name]
    proto = healthy()
    change(proto)
    start = time.perf_counter()
    error = refusal(proto.SerializeToString(), as_graph=as_graph)
    assert time.perf_counter() - start < 5
    assert error is not None, "nothing was refused"
    assert len(str(error)) > 30
    assert re.search(words, str(error), re.S), str(error)


def test_there_are_enough():
    assert len(DAMAGED) >= 60


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 40).round(3))
def test_cut_off(share):
    data = healthy().SerializeToString()
    error = refusal(data[: int(len(data) * share)])
    assert error is not None


OTHER_FILES = {"empty": b"", "zero": b"\0", "text": b"not a model", "image": b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "bytes": bytes(range(256)) * 4}


@pytest.mark.parametrize("data", OTHER_FILES.values(), ids=OTHER_FILES)
def test_other_files(data):
    assert isinstance(refusal(data), RefquantError)


def test_flipped_bits_never_escape_as_other_errors():
    data, outcomes = healthy().SerializeToString(), []
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data)
        # Weights are most of the file, and any bits are weights: damage what surrounds them.
        place = int(rng.integers(240)) if seed % 2 else int(rng.integers(len(damaged)))
        damaged[place] ^= 1 << int(rng.integers(8))
        outcomes.append(refusal(bytes(damaged)) is not None)
    assert 300 < sum(outcomes) < 1500


def test_wrong_sources(tmp_path):
    for source in (tmp_path, tmp_path / "missing.onnx", 7, None, ["a"]):
        with pytest.raises(RefquantError):
            from_onnx(source)


@pytest.fixture
def folder(tmp_path):
    """A model with its weights beside it, a secret outside of the folder, and links to it."""
    home = tmp_path / "model"
    (home / "sub").mkdir(parents=True)
    weights = numpy_helper.to_array(constant(healthy(), "v")).tobytes()
    (home / "weights.bin").write_bytes(weights)
    (home / "sub" / "weights.bin").write_bytes(b"\0" * 64 + weights)
    (home / "short.bin").write_bytes(weights[:-1])
    (tmp_path / "secret.bin").write_bytes(weights)
    (home / "link.bin").symlink_to(tmp_path / "secret.bin")
    (home / "linked").symlink_to(tmp_path)
    os.mkfifo(home / "pipe.bin")
    return home


def save(folder, **entries):
    proto = healthy()
    external(proto, **entries)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    "entries", [{"location": "weights.bin"}, {"location": "./weights.bin", "length": 1728}, {"location": "sub/weights.bin", "offset": 64, "length": 1728}], ids=str
)
def test_external_data_is_read_from_the_folder(folder, entries):
    (ref,) = from_onnx(healthy())(X)
    (comp,) = from_onnx(save(folder, **entries))(X)
    assert np.array_equal(comp, ref)


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "../secret.bin"}, {"location": "sub/../../secret.bin"}, {"location": "/etc/passwd"}, {"location": "link.bin"}, {"location": "linked/secret.bin"},
        {"location": "..\\secret.bin"}, {"location": "C:\\secret.bin"}, {"location": "\\\\host\\share"}, {"location": ""}, {}, {"location": "missing.bin"},
        {"location": "sub"}, {"location": "pipe.bin"}, {"location": "short.bin"}, {"location": "weights.bin", "offset": 1}, {"location": "weights.bin", "offset": -1},
        {"location": "weights.bin", "offset": 2**70}, {"location": "weights.bin", "length": 4}, {"location": "weights.bin", "length": "many"},
        {"location": "weights.bin\0.txt"}, {"location": "file:///etc/passwd"},
    ],
    ids=str,
)  # fmt: skip
def test_external_data_that_is_refused(folder, entries, tmp_path):
    path = save(folder, **entries)
    opened = []
    real = open

    def spy(name, *args, **kwargs):
        opened.append(os.path.realpath(name))
        return real(name, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.open", spy)
        error = refusal(path)
    assert error is not None and "tensor 'v'" in str(error)
    assert all(name.startswith(str(folder.resolve())) for name in opened if "site-packages" not in name and "/lib/" not in name)


def test_external_data_of_attributes_is_guarded_too(folder):
    proto = healthy()
    external(proto, location="../secret.bin")
    tensor = constant(proto, "v")
    proto.graph.initializer.remove(tensor)
    made = helper.make_node("Constant", [], ["v"], name="weights")
    made.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    proto.graph.node.insert(0, made)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    error = refusal(path)
    assert error is not None and "folder" in str(error)


def test_without_onnx_there_is_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendMissing, match="pip install"):
        from_onnx(b"")


def test_unsupported_is_told_from_damaged():
    proto = healthy()
    node(proto, "relu").op_type = "Scan"
    with pytest.raises(UnsupportedError, match="Scan 'relu'"):
        from_onnx(proto)
