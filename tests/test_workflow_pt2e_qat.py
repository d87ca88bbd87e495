"""PT2E's preparation for quantization-aware training: what a pass computes, what its statistics do, and what becomes of it."""

import numpy as np
import pytest

from refquant import zoo
from refquant.data import load_split
from refquant.errors import ArgumentError, ShapeError, UnsupportedError
from refquant.graph import Builder, Model, Node
from refquant.workflow import (
    QuantizationAnnotation, Quantizer, SharedQuantizationSpec, X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, lower_pt2e, prepare_pt2e, prepare_qat_pt2e,
)  # fmt: skip
from refquant.workflow.prepared_parts import parts_of
from refquant.workflow.pt2e.batch_norm_state import BatchNormState

CONFIG = get_default_x86_inductor_quantization_config(is_qat=True)
STATISTICS = {"running_mean": (-1, 1), "running_var": (0.3, 2), "weight": (-2, 2), "bias": (-1, 1)}


def quantizer():
    return X86InductorQuantizer().set_global(CONFIG)


def net(bias=True, eps=1e-5, function=lambda y: y.relu()):
    b = Builder(seed=0)
    y = function(b.input(shape=(None, 3, 6, 6)).conv2d(4, 3, bias=bias).batch_norm(eps=eps))
    model = b.build(y.flatten().linear(5))
    rng = np.random.default_rng(3)
    draw = lambda n: {k: rng.uniform(*STATISTICS[k], v.shape).astype(np.float32) for k, v in n.params.items()}  # noqa: E731
    return model.with_nodes([n.replace(params=draw(n)) if n.op == "batch_norm" else n for n in model.nodes])


def batch(seed=0, size=8):
    return np.random.default_rng(seed).standard_normal((size, 3, 6, 6)).astype(np.float32)


def weight_of(prepared):
    return next(p.observer for p in prepared.parameters if p.readers == (("conv2d", "weight"),))


def seen_in(prepared, x):
    seen = {}
    prepared(x, hooks=lambda node, value: seen.__setitem__(node.name, np.array(value)), real="float64")
    return seen


def convolution(x, w):
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, w)


@pytest.mark.parametrize("bias", [True, False])
def test_a_pass_in_training_computes_what_the_formula_says(bias):
    """``bn(conv(x, fq(w · f)) / f + b)``, the norm by the statistics of the batch."""
    model = net(bias)
    prepared = prepare_qat_pt2e(model, quantizer())
    conv, norm = model.node("conv2d"), {k: v.astype(np.float64).reshape(1, -1, 1, 1) for k, v in model.node("batch_norm").params.items()}
    seen = seen_in(prepared, batch())
    factor = norm["weight"] / np.sqrt(norm["running_var"] + 1e-5)
    scale = weight_of(prepared).grid().scale.astype(np.float64).reshape(-1, 1, 1, 1)
    rounded = np.rint(conv.params["weight"] * factor.reshape(-1, 1, 1, 1) / scale).clip(-128, 127) * scale
    x = seen[next(n.name for n in prepared.model.nodes if n.inputs == ("x",))]
    y = convolution(x, rounded) / factor + (conv.params["bias"].reshape(1, -1, 1, 1) if bias else 0)
    mean, var = y.mean((0, 2, 3), keepdims=True), y.var((0, 2, 3), keepdims=True)
    ref = (y - mean) / np.sqrt(var + 1e-5) * norm["weight"] + norm["bias"]
    np.testing.assert_allclose(seen["batch_norm"], ref, rtol=2e-4, atol=2e-5)  # the steps before round to float32
    size = y.size // 4
    held = prepared.norms["batch_norm"].params
    np.testing.assert_allclose(held["running_mean"], (0.1 * mean + 0.9 * norm["running_mean"]).reshape(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(held["running_var"], (0.1 * var * size / (size - 1) + 0.9 * norm["running_var"]).reshape(-1), rtol=1e-5)
    assert np.array_equal(model.node("batch_norm").params["running_mean"], norm["running_mean"].astype(np.float32).reshape(-1))


def test_evaluation_leaves_statistics_alone_and_uses_them():
    prepared = prepare_qat_pt2e(net(), quantizer()).eval()
    before = {k: v.copy() for k, v in prepared.norms["batch_norm"].params.items()}
    seen = seen_in(prepared, batch())
    assert all(np.array_equal(before[k], v) for k, v in prepared.norms["batch_norm"].params.items()) and not prepared.training
    p = {k: v.astype(np.float64).reshape(1, -1, 1, 1) for k, v in before.items()}
    ref = (seen["batch_norm_with_bias"] - p["running_mean"]) / np.sqrt(p["running_var"] + 1e-5) * p["weight"] + p["bias"]
    np.testing.assert_array_equal(seen["batch_norm"], ref.astype(np.float32))
    assert prepared.train().training and not np.array_equal(seen_in(prepared, batch())["batch_norm"], seen["batch_norm"])


def test_statistics_of_a_batch():
    one = np.ones(2, np.float32)
    norm = BatchNormState({"weight": 2 * one, "bias": one, "running_mean": 0 * one, "running_var": one}, eps=0.0, momentum=0.5)
    x = np.float32([[0, 10], [4, 30], [2, 20]])
    y = norm(x)
    np.testing.assert_array_equal(y, (2 * (x - [2, 20]) / np.sqrt([8 / 3, 200 / 3]) + 1).astype(np.float32))
    assert norm.params["running_mean"].tolist() == [1, 10] and norm.params["running_var"].tolist() == [2.5, 50.5]
    np.testing.assert_array_equal(norm.factor(), 2 * one / np.sqrt(np.float32([2.5, 50.5])))
    for shape in ((1, 2), (0, 2), (3,)):
        with pytest.raises(ShapeError, match="must have more than one"):
            norm(np.zeros(shape, np.float32))


@pytest.mark.parametrize("bias", [True, False])
def test_conversion_folds_by_running_statistics_on_the_grid_that_was_found(bias):
    prepared = prepare_qat_pt2e(net(bias), quantizer())
    for seed in range(3):
        prepared(batch(seed))
    model = convert_pt2e(prepared)
    assert [n.op for n in model.nodes] == ["input", "quantize", "dequantize", "conv2d", "relu", "quantize", "dequantize", "flatten", "quantize", "dequantize", "linear"]
    weight, observer = model.node("conv2d").params["weight"], weight_of(prepared)
    np.testing.assert_array_equal(weight.qparams.scale, observer.calculate_qparams().scale)
    p = prepared.norms["batch_norm"].params
    folded = net(bias).node("conv2d").params["weight"] * (p["weight"] / np.sqrt(p["running_var"] + np.float32(1e-5))).reshape(-1, 1, 1, 1)
    assert np.abs(weight.values - np.rint(folded / weight.qparams.scale.reshape(-1, 1, 1, 1)).clip(-128, 127)).max() <= 1  # another order of two roundings
    again = convert_pt2e(prepared)
    assert np.array_equal(again(batch())[0], model(batch())[0]) and prepared.training
    assert {f.name for f in lower_pt2e(model).fusions} == {"qlinear", "qconv", "qconv_unary", "qreshape"}


def test_a_norm_that_is_not_behind_a_convolution_alone_stays():
    b = Builder(seed=0)
    conv = b.input(shape=(None, 3, 6, 6)).conv2d(3, 3, padding=1)
    prepared = prepare_qat_pt2e(b.build(conv.batch_norm() + conv), quantizer())
    assert not prepared.fused and list(prepared.norms) == ["batch_norm"]
    prepared(batch())
    assert any(n.op == "batch_norm" for n in convert_pt2e(prepared).nodes)
    np.testing.assert_array_equal(convert_pt2e(prepared).node("batch_norm").params["running_mean"], prepared.norms["batch_norm"].params["running_mean"])


def test_settings_that_torchao_forgets():
    model = net(eps=0.125)
    right, as_torchao = prepare_qat_pt2e(model, quantizer(), momentum=0.5), prepare_qat_pt2e(model, quantizer(), momentum=0.5, defects=("fixed_eps",))
    assert [(p.norms["batch_norm"].eps, p.norms["batch_norm"].momentum) for p in (right, as_torchao)] == [(0.125, 0.5), (1e-5, 0.1)]
    assert not np.array_equal(right(batch())[0], as_torchao(batch())[0])


class ConvOnly(Quantizer):
    """Annotates convolutions with weight before input, which torchao takes by position, and lets the output share."""

    def annotate(self, graph):
        for node in graph.nodes:
            if node.op == "conv2d":
                specs = {node.inputs[0]: CONFIG.input_activation, node.params["weight"]: CONFIG.weight}
                node.meta["quantization_annotation"] = QuantizationAnnotation(specs)
            if node.op == "relu":
                conv = node.inputs[0].inputs[0]
                node.meta["quantization_annotation"] = QuantizationAnnotation(output_qspec=SharedQuantizationSpec((conv.inputs[0], conv)))
        return graph


def test_shared_specs_follow_into_the_fused_graph():
    prepared = prepare_qat_pt2e(net(), ConvOnly())
    numbers = dict(prepared.placement)
    assert numbers["x"] == numbers["relu"] != numbers["conv2d_scaled_weight"]


def test_the_bundled_networks_keep_their_accuracy():
    x, _ = load_split("digits", "calibration")
    test, labels = load_split("digits", "test")
    prepared = prepare_qat_pt2e(zoo.load("digits_resnet"), quantizer())
    for part in x.reshape(4, 50, 1, 8, 8):
        prepared.eval()(part)
    assert (convert_pt2e(prepared)(test)[0].argmax(1) == labels).mean() > 0.95


def test_what_nobody_reads_is_dropped_after_annotation_alone():
    b = Builder(seed=0)
    y = b.input(shape=(None, 3, 6, 6)).conv2d(3, 3, padding=1).batch_norm()
    y.sigmoid()
    assert [n.op for n in prepare_qat_pt2e(b.build(y.relu()), quantizer()).model.nodes if n.op != "observe"] == ["input", "conv2d", "batch_norm", "relu"]
    y.conv2d(2, 1).relu()
    with pytest.raises(UnsupportedError, match="nobody reads relu"):
        prepare_qat_pt2e(b.build(y.relu()), quantizer())


def test_what_is_refused():
    left_out = quantizer().set_module_name_qconfig("conv2d", None).set_module_name_qconfig("batch_norm", None)
    b = Builder(seed=0)
    twice = b.build(b.input(shape=(None, 3, 6, 6)).conv2d(3, 3).batch_norm())
    norm = twice.node("batch_norm")
    twice = Model([*twice.nodes, Node("again", "batch_norm", ["batch_norm"], dict(norm.attrs), norm.params, target=norm.target, path=norm.path)], "again")
    for call, error, message in (
        (lambda: prepare_qat_pt2e(net(), quantizer(), momentum=2), ArgumentError, "momentum=2 must be between 0 and 1"),
        (lambda: prepare_qat_pt2e(net(), quantizer(), defects=("eps",)), ArgumentError, "defect"),
        (lambda: prepare_qat_pt2e(net(), None), ArgumentError, "prepare_qat_pt2e: quantizer is a NoneType"),
        (lambda: prepare_qat_pt2e(twice, quantizer()), UnsupportedError, "called several times"),
        (lambda: prepare_qat_pt2e(net(), left_out), UnsupportedError, "torchao stops there"),
        (lambda: convert_pt2e(prepare_qat_pt2e(net(), quantizer())), ArgumentError, "has seen no data"),
        (lambda: parts_of(prepare_qat_pt2e(net(), quantizer())), UnsupportedError, "is in training"),
    ):
        with pytest.raises(error, match=message):
            call()
    with pytest.warns(UserWarning, match="do not mix"):
        X86InductorQuantizer().set_global(CONFIG).set_module_name_qconfig("a", get_default_x86_inductor_quantization_config())
    assert prepare_pt2e(net(), quantizer()).parameters
