"""Models and the builder: structure, execution, hooks, shapes, text, and the errors of each."""

import gc
import pickle
import weakref

import numpy as np
import pytest

from refquant import zoo
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.graph import OPS, Builder, Model, Node
from refquant.graph.match import find_patterns
from refquant.graph.module_classes import paths_of_class


def images(n=4, c=3, h=8):
    return np.random.default_rng(0).standard_normal((n, c, h, h)).astype(np.float32)


def small():
    b = Builder(seed=0, name="small")
    x = b.input(shape=(None, 3, 8, 8))
    y = x.conv2d(8, 3, padding=1).batch_norm().relu()
    return b.build((y + y.conv2d(8, 1)).relu().max_pool2d(2).adaptive_avg_pool2d().flatten().linear(5))


def test_a_model_runs_and_names_its_nodes():
    model = small()
    y, = model(images())
    assert y.shape == (4, 5) and y.dtype == np.float32
    assert [n.name for n in model.nodes] == ["x", "conv2d", "batch_norm", "relu", "conv2d_1", "add", "relu_1", "max_pool2d", "adaptive_avg_pool2d", "flatten", "linear"]


def test_hooks_see_every_value_and_may_replace_it():
    model = small()
    seen = {}
    model.run(images(), hooks=lambda node, value: seen.__setitem__(node.name, value.shape))
    assert seen == {name: tuple(4 if n is None else n for n in shape) for name, shape in model.shapes().items()}
    y, = model.run(images(), hooks=[lambda node, value: np.zeros_like(value) if node.name == "flatten" else None])
    assert np.array_equal(y, np.broadcast_to(model.node("linear").params["bias"], (4, 5)))


def test_dead_values_are_freed():
    class Tracked(np.ndarray):
        pass

    alive, most = [], []

    def track(node, value):
        value = np.array(value).view(Tracked)
        alive.append(weakref.ref(value))
        gc.collect()
        most.append(sum(r() is not None for r in alive))
        return value

    b = Builder(seed=0)
    y = b.input(shape=(None, 4))
    for _ in range(12):
        y = y.relu()
    b.build(y).run(np.ones((2, 4), np.float32), hooks=track)
    assert max(most) <= 3


def test_several_inputs_and_outputs():
    b = Builder(seed=0)
    x, y = b.input("x", (None, 3)), b.input("y", (None, 3))
    model = b.build(x + y, x, (x + y).relu())
    a, c = np.float32([[1, -2, 3]]), np.float32([[1, 1, 1]])
    total, same, positive = model(a, c)
    assert np.array_equal(total, a + c) and np.array_equal(same, a) and np.array_equal(positive, np.maximum(a + c, 0))
    with pytest.raises(ArgumentError, match="1 inputs given but it has 2"):
        model(a)


def test_nodes_are_sorted_and_keep_their_order_where_they_can():
    nodes = [Node("c", "add", ["a", "b"]), Node("x", "input"), Node("b", "relu", ["x"]), Node("a", "relu", ["x"])]
    assert [n.name for n in Model(nodes, "c").nodes] == ["x", "b", "a", "c"]


def node(name="a", op="relu", inputs=("x",), **rest):
    return Node(name, op, inputs, **rest)


X = Node("x", "input", attrs={"shape": (None, 3)})


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: Model([X, X], "x"), ArgumentError, "two nodes are named 'x'"),
        (lambda: Model([X, node(inputs=["y"])], "a"), ArgumentError, "input='y' is not known"),
        (lambda: Model([X, node()], "b"), ArgumentError, "output='b' is not known"),
        (lambda: Model([X], []), ArgumentError, "outputs is empty"),
        (lambda: Model([X, node("a", inputs=["b"]), node("b", inputs=["a"])], "b"), ArgumentError, "a, b lie on or behind a cycle"),
        (lambda: Model([X, node(op="rellu")], "a"), ArgumentError, "did you mean 'relu'"),
        (lambda: Model([X, node(op="add")], "a"), ArgumentError, "1 inputs .* but it takes 2"),
        (lambda: Model([X, node(op="linear")], "a"), ArgumentError, "parameter 'weight' is missing"),
        (lambda: Model([X, node(params={"weight": 1})], "a"), ArgumentError, "parameter='weight' is not known"),
        (lambda: Model([X, "relu"], "a"), ArgumentError, "nodes must be refquant.graph.Node"),
        (lambda: Model([X], "x", real="exact"), ArgumentError, "choose one of 'torch_avx512', 'float64'"),
        (lambda: node(name="a b"), ArgumentError, "must be a Python identifier"),
        (lambda: node(op="max_pool2d"), ArgumentError, "attribute 'kernel_size' is missing"),
        (lambda: node(op="max_pool2d", attrs={"kernelsize": 2}), ArgumentError, "did you mean 'kernel_size'"),
        (lambda: node(op="add", attrs={"activation": "gelu"}), ArgumentError, "activation='gelu'"),
        (lambda: node(op="quantize", attrs={"out": 0.5}), ArgumentError, "must be a QParams"),
        (lambda: small().node("conv3d"), ArgumentError, "did you mean 'conv2d'"),
        (lambda: small()(images().astype(np.float64)), ArgumentError, "dtype float64 but must be float32"),
        (lambda: small()(images(h=7)), ShapeError, r"\(4, 3, 7, 7\) but must be \(N, 3, 8, 8\)"),
        (lambda: small()(images(), images()), ArgumentError, "2 inputs given but it has 1"),
        (lambda: Model([X, node("c", "cat", ["x", "x"], attrs={"dim": 5})], "c")(np.ones((2, 3), np.float32)), ShapeError, "node 'c': cat: .*dim=5"),
        (lambda: small().shapes((4, 2, 8, 8)), ShapeError, r"node 'conv2d' .*IC=2"),
        (lambda: small().shapes((4, 3, 8, 8), (1,)), ArgumentError, "2 shapes for 1 inputs"),
        (lambda: setattr(small().nodes[0], "name", "y"), AttributeError, "immutable"),
        (lambda: node().replace(inptus=[]), ArgumentError, r"unknown fields \['inptus'\]"),
    ],
)  # fmt: skip
def test_model_errors(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_codes_need_a_profile():
    q = QTensor(np.uint8([[3, 200]]), QParams(0.1, 5, "uint8"))
    model = Model([Node("x", "input"), node()], "a")
    with pytest.raises(ArgumentError, match="no profile is set; give numerics="):
        model(q)
    assert model.run(q, numerics="fbgemm")[0].values.tolist() == [[5, 200]]


def test_a_real_operator_refuses_codes():
    q = QTensor(np.uint8([[3, 200]]), QParams(0.1, 5, "uint8"))
    model = Model([Node("x", "input"), node(op="quantize", attrs={"out": q.qparams})], "a", numerics="fbgemm")
    with pytest.raises(ArgumentError, match="node 'a': quantize takes real numbers"):
        model(q)


def test_shapes_agree_with_execution():
    b = Builder(seed=0)
    x = b.input(shape=(None, 4, 9, 9))
    y = x.conv2d(8, 3, stride=2, padding=1, dilation=2, groups=4).max_pool2d(3, 2, 1, ceil_mode=True).avg_pool2d(2, 1)
    y = y.cat(y, dim=1).adaptive_avg_pool2d((2, None)).dropout()
    z = y.reshape(None, -1).linear(3)
    model = b.build(y, z)
    got = {}
    model.run(images(5, 4, 9), hooks=lambda n, v: got.__setitem__(n.name, v.shape))
    assert got == model.shapes((5, 4, 9, 9))
    assert {k: (5, *v[1:]) for k, v in model.shapes().items()} == got


def test_models_and_nodes_survive_pickling():
    model = pickle.loads(pickle.dumps(small()))
    assert np.array_equal(model(images())[0], small()(images())[0])


def test_text_is_a_table():
    lines = str(small()).splitlines()
    assert lines[0].startswith("small: 11 nodes") and lines[1].split() == ["name", "op", "inputs", "shape", "settings"]
    assert "weight 8×3×3×3, bias 8, padding 1" in str(small()) and lines[-1] == "outputs: linear"


def test_the_operation_table_is_consistent():
    # The sum of two values and the sum with a number are one function in PyTorch.
    targets = [t for op in OPS for t in op.targets if not op.name.endswith("_scalar")]
    assert len(set(targets)) == len(targets)
    assert all(callable(op.run) and callable(op.shape) for op in OPS)


# Classes of modules.


class Head:
    """A class of a model that is built by hand."""


def classed(**changes):
    b = Builder(seed=0)
    x = b.input(shape=(None, 4))
    with b.scope("a", Head):
        x = x.linear(4, name="fc")
        with b.scope("inner", "models.Inner"):
            x = x.linear(4, name="fc").relu(name="relu")
    model = b.build(x.linear(2, name="last"))
    return model.with_nodes(model.nodes, **changes)


def test_a_model_knows_the_classes_of_its_modules():
    model = classed()
    assert dict(model.classes) == {"a": f"{__name__}.Head", "a.inner": "models.Inner"}
    assert paths_of_class(model, Head) == ["a"] and paths_of_class(model, "Inner", "") == ["a.inner"] and paths_of_class(model, "nn.ReLU") == ["a.inner.relu"]
    assert str(model).endswith(f"class {__name__}.Head: a\nclass models.Inner: a.inner")
    assert "class" not in str(classed(classes=None)) and classed(classes=None).classes == {}
    assert pickle.loads(pickle.dumps(model)).classes == model.classes


def test_classes_change_nothing_that_is_computed():
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_array_equal(classed()(x)[0], classed(classes=None)(x)[0])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: paths_of_class(classed(), "Haed", "here"), "here: class='Haed'.*Head"),
        (lambda: paths_of_class(classed(classes={"a": "x.Head", "a.inner": "y.Head"}), "Head", "here"), "'Head' is short for x.Head and y.Head"),
        (lambda: paths_of_class(classed(classes=None), Head, "here"), "knows no classes"),
        (lambda: classed(classes={"a": 3}), "must be a class or its name"),
        (lambda: classed(classes={"": "Head"}), "dotted paths"),
    ],
)
def test_classes_that_are_not_known(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_a_part_is_called_as_one_node():
    part = classed()
    node = Node("whole", "call", ["x"], {"part": part})
    model = Model([Node("x", "input", attrs={"shape": (None, 4)}), node], ["whole"])
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_array_equal(model(x)[0], part(x)[0])
    assert model.shapes()["whole"] == (None, 2) and "part Model" in str(model)
    doubled = model.with_nodes([model.nodes[0], node.replace(attrs={"part": part, "function": lambda x, real, **options: part(x, real=real)[0] * 2})])
    np.testing.assert_array_equal(doubled(x)[0], part(x)[0] * 2)
    wrong = model.with_nodes([model.nodes[0], node.replace(attrs={"part": part, "function": lambda x, **options: [1.0]})])
    with pytest.raises(ArgumentError, match="node 'whole'.*must return one array or QTensor"):
        wrong(x)


# The builder.


def test_a_seed_draws_the_same_parameters_again():
    assert np.array_equal(small()(images())[0], small()(images())[0])


def test_parameters_are_taken_as_given():
    b = Builder()
    w, bias = np.ones((2, 3), np.float32), np.float32([1, 2])
    model = b.build(b.input(shape=(None, 3)).linear(2, weight=w, bias=bias))
    assert model(np.ones((1, 3), np.float32))[0].tolist() == [[4, 5]]


def test_scopes_make_paths_and_names():
    b = Builder(seed=0)
    x = b.input(shape=(None, 3, 8, 8))
    with b.scope("block1"), b.scope("0"):
        y = x.conv2d(3, 1, name="conv")
        z = y + x
    model = b.build(z)
    assert model.node("block1_0_conv").path == "block1.0.conv"
    assert model.node("add").path == "block1.0"


def arrays(**change):
    given = {"fc.weight": np.zeros((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}
    return {**given, **change}


def linear(given, features=2, x=(None, 3)):
    b = Builder(given)
    return b.build(b.input(shape=x).linear(features, name="fc"))


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: linear({"fc.weights": np.zeros((2, 3), np.float32)}), ArgumentError, "did you mean 'fc.weights'"),
        (lambda: linear(arrays(more=np.zeros(1))), ArgumentError, "1 arrays are not used, such as 'more'"),
        (lambda: linear(arrays(), features=4), ShapeError, r"fc.weight: the array has shape \(2, 3\) but the layer needs \(4, 3\)"),
        (lambda: linear(arrays(**{"fc.bias": np.zeros(2)})), ArgumentError, "float64 but must be float32"),
        (lambda: Builder({}, seed=1), ArgumentError, "two of arrays, seed and empty"),
        (lambda: Builder().input(), ArgumentError, r"shape of 'x' is missing"),
        (lambda: Builder().input(shape=(None, 3)) + Builder().input(shape=(None, 3)), ArgumentError, "no value of this builder"),
        (lambda: Builder(seed=0).input(shape=(None, None)).linear(3), ShapeError, "no known last axis"),
        (lambda: Builder(seed=0).input(shape=(None, 3, 4, 4)).conv2d(4, 5), ShapeError, "a window of 5 .*larger than the padded input 4"),
        (lambda: Builder(seed=0).input(shape=(None, 3)).max_pool2d(2), ShapeError, r"must be \(N, C, H, W\)"),
        (lambda: Builder(seed=0).input(shape=(2, 3)).reshape(4, 2), ShapeError, "cannot become"),
    ],
)  # fmt: skip
def test_builder_errors(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_numbers_are_operations_of_their_own():
    x = Builder().input(shape=(None, 3))
    model = x.builder.build((x + 1) * 0.5)
    assert [n.op for n in model.nodes] == ["input", "add_scalar", "mul_scalar"]
    assert model(np.float32([[1, 2, 3]]))[0].tolist() == [[1, 1.5, 2]]
    with pytest.raises(TypeError):
        x + "1"
    with pytest.raises(TypeError):
        x - 1


# Matching.


def found(model, *patterns, **options):
    """The matches as ``{node: names of the match}``."""
    return {name: [n.name for n in match.nodes] for name, match in find_patterns(model, patterns, text=str, **options).items()}


def test_patterns_need_a_single_reader_in_between():
    b = Builder(seed=0)
    x = b.input(shape=(None, 3, 8, 8))
    y = x.conv2d(3, 1)
    model = b.build(y.relu(), y)
    assert found(model, "nn.ReLU(nn.Conv2d)") == {}
    assert found(model, "nn.ReLU(nn.Conv2d)", "nn.ReLU") == {"relu": ["relu"]}


def test_the_largest_pattern_wins():
    matches = found(small(), "nn.ReLU", "nn.BatchNorm2d(nn.Conv2d)", "nn.ReLU(nn.BatchNorm2d(nn.Conv2d))")
    assert matches["batch_norm"] == matches["conv2d"] == ["relu", "batch_norm", "conv2d"] and matches["relu_1"] == ["relu_1"]


def test_patterns_may_branch_and_leave_values_open():
    b = Builder(seed=0)
    x = b.input(shape=(None, 3, 8, 8))
    model = b.build((x.conv2d(3, 1, name="left") + x.conv2d(3, 1, name="right").relu()).relu())
    match = find_patterns(model, ["nn.ReLU(operator.add(nn.Conv2d, *))", "nn.ReLU(operator.add(*, nn.Conv2d))"], text=str)["add"]
    assert (match.last.name, match.root.name, match.others) == ("relu_1", "left", ("relu",))
    assert found(model, "nn.ReLU(operator.add(*, nn.Conv2d))") == {}
    assert found(model, "nn.ReLU(operator.add(nn.Conv2d, *))", left_alone={"left"}) == {}


# The networks.


def test_real_arguments_are_checked():
    with pytest.raises(RangeError, match="stride"):
        Model([Node("x", "input"), Node("p", "max_pool2d", ["x"], {"kernel_size": 2, "stride": 0})], "p")(images())


def test_numerics_of_a_run_replace_the_models():
    qp = QParams(1.0, 1, "uint8")
    model = Model([Node("x", "input"), Node("q", "quantize", ["x"], {"out": qp})], "q", numerics="fbgemm")
    x = np.float32([0.5, 1.5, 2.5])
    assert model(x)[0].values.tolist() == [2, 2, 4] and model.run(x, numerics="onnx")[0].values.tolist() == [1, 3, 3]


def test_both_orders_of_summation_are_close():
    model = zoo.load("digits_resnet")
    x = images(16, 1)
    a, b = model(x)[0], model.run(x, real="float64")[0]
    assert not np.array_equal(a, b) and np.abs(a - b).max() < 1e-4


@pytest.mark.parametrize("make", [lambda x: x.conv2d(4, 3, stride=0), lambda x: x.max_pool2d(2, stride=0), lambda x: x.conv2d(4, 3, dilation=0)])
def test_a_stride_or_dilation_of_zero_is_refused_when_the_graph_is_built(make):
    with pytest.raises(ShapeError, match="must be at least 1"):
        make(Builder().input(shape=(1, 3, 8, 8)))
