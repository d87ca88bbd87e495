"""The PT2E path without PyTorch: specs, sharing, annotation, conversion, lowering, and what is refused."""

import numpy as np
import pytest

from refquant import QParams, workflow, zoo
from refquant.core.qtensor import QTensor
from refquant.data import load_split
from refquant.errors import ArgumentError, UnsupportedError
from refquant.graph import Builder, Model, Node
from refquant.observers import FixedQParamsObserver, HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver
from refquant.workflow import (
    ComposableQuantizer, DerivedQuantizationSpec, FixedQParamsQuantizationSpec, QuantizationAnnotation, QuantizationSpec, Quantizer, SharedQuantizationSpec,
    X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, lower_pt2e, prepare_pt2e,
)  # fmt: skip
from refquant.workflow.pt2e import PASSES, AnnotationGraph
from refquant.workflow.pt2e.partitions import Sources

CODES = QuantizationSpec("uint8", MinMaxObserver, 0, 255, "per_tensor_affine")
WEIGHT = QuantizationSpec("int8", PerChannelMinMaxObserver, -128, 127, "per_channel_symmetric", ch_axis=0)


def default():
    return X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def net(forward, shape=(None, 8, 6, 6), seed=0):
    builder = Builder(seed=seed)
    y = forward(builder.input(shape=shape))
    return builder.build(*(y if isinstance(y, tuple) else (y,)))


def lowered(model, x, quantizer=None, passes=PASSES):
    prepared = prepare_pt2e(model, quantizer or default())
    prepared(x)
    return lower_pt2e(convert_pt2e(prepared), passes)


class Own(Quantizer):
    """Annotates as a function of the graph says."""

    def __init__(self, function):
        self.function = function

    def annotate(self, graph):
        self.function(graph)
        return graph


def annotate(node, specs, output=None, **more):
    node.meta["quantization_annotation"] = QuantizationAnnotation(specs, output, **more)


# Observers and who shares them.


def test_a_histogram_sees_what_passes_and_its_readers_share_it():
    prepared = prepare_pt2e(net(lambda x: (x.conv2d(8, 3, name="a").relu(), x.conv2d(8, 1, name="b"))), default())
    assert prepared.placement == [("a_weight", 0), ("b_weight", 1), ("x", 2)]
    assert type(prepared.model.node("activation_post_process_0").attrs["observer"]) is HistogramObserver
    assert "observer" in str(prepared)


def test_cat_shares_one_observer_among_inputs_and_output():
    model = net(lambda x: x.conv2d(8, 3, name="a").relu().cat(x.conv2d(8, 3, name="b").relu()).conv2d(4, 1, name="c"))
    prepared = prepare_pt2e(model, default())
    number = dict(prepared.placement)
    assert number["relu"] == number["relu_1"] == number["cat"] != number["x"]


def test_sharing_can_be_declined():
    def both(implicit):
        def function(graph):
            a, b = (n for n in graph.nodes if n.op == "linear")
            annotate(a, {a.inputs[0]: CODES}, CODES, allow_implicit_sharing=implicit)
            annotate(b, {b.inputs[0]: CODES}, CODES, allow_implicit_sharing=implicit)

        model = net(lambda x: x.linear(4, name="a").linear(4, name="b"), (None, 4))
        return [number for _, number in prepare_pt2e(model, Own(function)).placement]

    assert both(True) == [0, 1, 2] and both(False) == [0, 1, 2, 3]


def test_a_shared_spec_joins_values_of_different_nodes():
    def function(graph):
        a, b = graph.node("a"), graph.node("b")
        annotate(a, {a.inputs[0]: CODES}, CODES)
        annotate(b, {}, SharedQuantizationSpec(a))

    prepared = prepare_pt2e(net(lambda x: (x.linear(4, name="a"), x.linear(4, name="b")), (None, 4)), Own(function))
    assert prepared.placement == [("x", 0), ("a", 1), ("b", 1)]


def test_fixed_and_derived_parameters():
    bias = lambda observers: (observers[0].calculate_qparams().scale * observers[1].calculate_qparams().scale, 0)  # noqa: E731

    def function(graph):
        node = graph.node("fc")
        x, w, b = node.args
        fixed = FixedQParamsQuantizationSpec("uint8", 1 / 64, 128, 0, 255, "per_tensor_affine")
        weight = FixedQParamsQuantizationSpec("int8", 1 / 32, 0, -128, 127, "per_tensor_symmetric")
        derived = DerivedQuantizationSpec([(x, node), (w, node)], bias, "int32", -(2**31), 2**31 - 1, "per_tensor_symmetric")
        annotate(node, {x: fixed, w: weight, b: derived})

    prepared = prepare_pt2e(net(lambda x: x.linear(3, name="fc"), (None, 4)), Own(function))
    prepared(images(2, 4))
    model = convert_pt2e(prepared)
    assert model.node("x_quantize").attrs["out"] == QParams(1 / 64, 128, "uint8")
    assert model.node("fc").params["bias"].qparams == QParams(1 / 2048, 0, "int32")
    x = images(5, 4, seed=1)
    q = np.clip(np.rint(x * 64) + 128, 0, 255) - 128
    w, b = model.node("fc").params["weight"].values.astype(float), model.node("fc").params["bias"].values.astype(float)
    assert np.array_equal(model(x)[0], (q @ w.T + b) / 2048)


def test_observers_can_be_changed_before_they_are_placed():
    class Changed(Own):
        def prepare_obs_or_fq_callback(self, graph, observers):
            for place in list(observers):
                if place is graph.node("fc"):
                    observers[place] = FixedQParamsObserver(0.5, 7)

    def function(graph):
        annotate(graph.node("fc"), {}, CODES)

    prepared = prepare_pt2e(net(lambda x: x.linear(3, name="fc"), (None, 4)), Changed(function))
    prepared(images(2, 4))
    assert convert_pt2e(prepared).node("fc_quantize").attrs["out"] == QParams(0.5, 7, "uint8")


@pytest.mark.parametrize(
    "spec, message",
    [
        (lambda graph: SharedQuantizationSpec(graph.node("x")), "points to x, which has no spec"),
        (lambda graph: SharedQuantizationSpec(graph.node("fc")), "comes later in the graph"),
        (lambda graph: DerivedQuantizationSpec([graph.node("x")], None, "int32"), "points to x"),
    ],
)
def test_specs_that_point_to_nothing(spec, message):
    def function(graph):
        annotate(graph.node("fc"), {}, spec(graph))

    with pytest.raises(ArgumentError, match=message):
        prepare_pt2e(net(lambda x: x.linear(3, name="fc"), (None, 4)), Own(function))


# X86InductorQuantizer.


def test_what_stands_for_one_layer():
    nodes = [Node("x", "input", attrs={"shape": (None, 4)}), Node("a", "add", ["x", "x"]), Node("b", "add", ["a", "a"], target="torch.add"), Node("c", "add", ["b", "b"])]
    graph = AnnotationGraph(Model(nodes, ["c"]))
    named = lambda parts: [[n.name for n in p.nodes] for p in parts]  # noqa: E731
    assert named(Sources(graph).of("add")) == [["a", "b"], ["c"]]
    assert named(Sources(graph, strict=True).of("operator.add", "torch.add")) == [["a"], ["c"], ["b"]]


def test_a_module_used_twice_is_refused_or_kept_apart_as_exported():
    def model():
        nodes = [Node("x", "input", attrs={"shape": (None, 2, 4, 4)})]
        weight = np.ones((2, 2, 1, 1), np.float32)
        nodes += [Node("c", "conv2d", ["x"], params={"weight": weight}), Node("r", "relu", ["c"], path="act")]
        nodes += [Node("d", "conv2d", ["r"], params={"weight": weight}), Node("s", "relu", ["d"], path="act")]
        return Model(nodes, ["s"])

    with pytest.raises(UnsupportedError, match="r, s stand for one layer .* strict=True"):
        prepare_pt2e(model(), default())
    quantizer = X86InductorQuantizer(strict=True).set_global(get_default_x86_inductor_quantization_config())
    assert len(prepare_pt2e(model(), quantizer).placement) == 4


@pytest.mark.parametrize(
    "forward, message",
    [
        (lambda x: x.conv2d(8, 1, name="c") + 1.0, "'add_scalar' adds a number to the output of 'c'"),
        (lambda x: (x.conv2d(8, 1, name="unread"), x.relu())[1], "nobody reads unread"),
    ],
)
def test_where_torchaos_quantizer_stops(forward, message):
    with pytest.raises(UnsupportedError, match=message):
        prepare_pt2e(net(forward), default())


def test_rules_and_what_they_leave_out():
    config, dynamic = get_default_x86_inductor_quantization_config(), get_default_x86_inductor_quantization_config(is_dynamic=True)
    quantizer = X86InductorQuantizer().set_global(config)
    with pytest.warns(UserWarning, match="do not mix"):
        quantizer.set_module_name_qconfig("fc", dynamic)
    with pytest.warns(UserWarning, match="no rule can reach 'nn.Conv1d'"):
        quantizer.set_module_type_qconfig("nn.Conv1d", config)
    with pytest.warns(UserWarning, match="no rule can reach 'F.relu'"):
        quantizer.set_function_type_qconfig("F.relu", config)
    assert (quantizer.module_name_qconfig, quantizer.operator_type_qconfig) == ({}, {})
    with pytest.warns(UserWarning, match="no global configuration"):
        assert X86InductorQuantizer().get_global_quantization_config() is None
    with pytest.raises(ArgumentError, match="is a dict"):
        quantizer.set_global({})


def test_composed_quantizers_leave_each_other_alone():
    def mark(graph):
        annotate(graph.node("fc"), {}, CODES)

    model = net(lambda x: x.linear(3, name="fc").relu(), (None, 4))
    both = ComposableQuantizer([Own(mark), Own(lambda graph: annotate(graph.node("relu"), {}, CODES))])
    assert [name for name, _ in prepare_pt2e(model, both).placement] == ["fc", "relu"]
    with pytest.raises(ArgumentError, match="Own has changed the annotation of 'fc'"):
        prepare_pt2e(model, ComposableQuantizer([Own(mark), Own(mark)]))
    with pytest.raises(ArgumentError, match="Own has removed the annotation of 'fc'"):
        prepare_pt2e(model, ComposableQuantizer([Own(mark), Own(lambda graph: graph.node("fc").meta.clear())]))


# Conversion and lowering.


def test_reduced_range_ends_where_a_layer_is_fused():
    x = images(4, 8, 6, 6)
    model = net(lambda v: v.conv2d(8, 3, name="c").relu().max_pool2d(2))
    prepared = prepare_pt2e(model, X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(reduce_range=True)))
    prepared(x)
    eager = convert_pt2e(prepared)
    fused = lower_pt2e(eager)
    most = {}
    for name, m in (("eager", eager), ("fused", fused)):
        m.run(4 * x, hooks=lambda n, v, name=name: most.setdefault(name, []).append(int(v.values.max())) if isinstance(v, QTensor) else None, real="float64")
    assert most["eager"][1] == 127 and most["fused"][1] == 255


def test_each_pass_can_be_left_out_and_says_what_it_did():
    x = images(4, 8, 6, 6)
    model = net(lambda v: (v.conv2d(8, 3, padding=1, name="a").hardswish().conv2d(8, 1, name="b") + v.conv2d(8, 1, name="c")).relu().max_pool2d(2).flatten().linear(5, name="fc"))
    done = lowered(model, x)
    assert [f.name for f in done.fusions] == ["qlinear", "qconv", "qconv", "qconv", "qconv_binary", "qconv_unary", "qconv_unary", "qreshape", "qmaxpool2d"]
    assert done.node("a").attrs["activation"] == "hardswish" and done.node("b").inputs == ("a", "c") and "qconv_binary: b -> add" in str(done)
    for name in ("qconv_unary", "qconv_binary", "qlinear", "qconv", "qreshape"):
        other = lowered(model, x, passes=[p for p in PASSES if p != name])
        assert not [f for f in other.fusions if f.name == name]
        assert np.allclose(other(x)[0], done(x)[0], atol=0.1)
    assert lowered(model, x, passes=()).fusions == ()
    with pytest.raises(ArgumentError, match="qconvs"):
        lowered(model, x, passes=["qconvs"])


def test_a_sum_is_written_over_only_what_nothing_else_reads():
    x = images(4, 8, 6, 6)
    free = lowered(net(lambda v: (v.conv2d(8, 1, name="a").relu().conv2d(8, 1, name="b") + v.conv2d(8, 1, name="c")).relu().conv2d(8, 1)), x)
    assert free.node("b").inputs == ("a", "c") and free.node("b").attrs["out"] is not None

    def busy(v):
        a = v.conv2d(8, 1, name="a").relu()
        return (v.conv2d(8, 1, name="b") + a).relu().conv2d(8, 1, name="last"), a.conv2d(8, 1, name="later")

    fused = lowered(net(busy), x)
    assert fused.node("b").inputs == ("x_quantize", "relu_dequantize") and fused.node("b").attrs["out"] is None


def test_weights_per_tensor_are_not_lowered():
    def function(graph):
        node = graph.node("fc")
        annotate(node, {node.inputs[0]: CODES, node.params["weight"]: QuantizationSpec("int8", MinMaxObserver, -128, 127, "per_tensor_symmetric")}, CODES)

    done = lowered(net(lambda v: v.linear(3, name="fc"), (None, 4)), images(3, 4), Own(function))
    assert done.fusions == () and isinstance(done.node("fc").params["weight"], QTensor)


def test_the_bundled_networks_keep_their_accuracy():
    x, _ = load_split("digits", "calibration")
    test, labels = load_split("digits", "test")
    for name in ("digits_resnet", "digits_mobilenet"):
        prepared = prepare_pt2e(zoo.load(name), default())
        for batch in x.reshape(4, 50, 1, 8, 8):
            prepared(batch)
        eager = convert_pt2e(prepared)
        for model in (eager, lower_pt2e(eager)):
            assert (model(test)[0].argmax(1) == labels).mean() > 0.97


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: prepare_pt2e("net", default()), ArgumentError, "model is a str"),
        (lambda: prepare_pt2e(zoo.load("digits_resnet"), "x86"), ArgumentError, "quantizer is a str"),
        (lambda: convert_pt2e(prepare_pt2e(zoo.load("digits_resnet"), default())), ArgumentError, "has seen no data"),
        (lambda: convert_pt2e(zoo.load("digits_resnet")), ArgumentError, "must come from prepare_pt2e"),
        (lambda: prepare_pt2e(zoo.load("digits_resnet"), default())(np.zeros((0, 1, 8, 8), np.float32)), ArgumentError, "batch is empty"),
        (lambda: lower_pt2e(3), ArgumentError, "model is a int"),
        (lambda: QuantizationSpec("uint8", MinMaxObserver(), 0, 255), ArgumentError, "makes no observers"),
        (lambda: QuantizationSpec("uint8", MinMaxObserver, 9, 3), ArgumentError, "must be <= quant_max"),
        (lambda: QuantizationSpec("uint8", MinMaxObserver, ch_axis=-1), ArgumentError, "must not be negative"),
        (lambda: ComposableQuantizer([3]), ArgumentError, "3 is a int"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_quantized_model_is_not_prepared_again():
    x = images(2, 4)
    prepared = prepare_pt2e(net(lambda v: v.linear(3), (None, 4)), default())
    prepared(x)
    with pytest.raises(ArgumentError, match="prepared or quantized already"):
        prepare_pt2e(convert_pt2e(prepared), default())
    assert set(workflow.__all__) >= {"X86InductorQuantizer", "prepare_pt2e", "convert_pt2e", "lower_pt2e"}
