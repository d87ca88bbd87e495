"""Quantization-aware training's preparation: the layers, what they compute, and what becomes of them."""

import numpy as np
import pytest

from refquant import zoo
from refquant.data import load_split
from refquant.errors import ArgumentError, UnsupportedError
from refquant.graph import Builder, Model, Node
from refquant.workflow import QConfigMapping, convert_fx, get_default_qat_qconfig_mapping, layer_bits, prepare_fx, prepare_qat_fx

X = load_split("digits", "calibration")[0][:50]


def small(norm=True, bias=True):
    b = Builder(seed=0)
    y = b.input(shape=(None, 3, 6, 6)).conv2d(4, 3, bias=bias)
    y = (y.batch_norm() if norm else y).relu()
    return b.build(y.flatten().linear(5))


def batch(seed=0):
    return np.random.default_rng(seed).standard_normal((8, 3, 6, 6)).astype(np.float32)


def statistics(model):
    """Draw statistics that are not 0 and 1, so that a norm does something."""
    rng = np.random.default_rng(3)
    draw = {"running_mean": (-1, 1), "running_var": (0.3, 2), "weight": (-2, 2), "bias": (-1, 1)}
    new = lambda n: {k: rng.uniform(*draw[k], n.params[k].shape).astype(np.float32) for k in n.params}  # noqa: E731
    return model.with_nodes([n.replace(params=new(n)) if n.op == "batch_norm" else n for n in model.nodes])


def test_a_layer_computes_what_the_formula_says():
    """``bn(conv(x, fq(w · γ/σ)) / (γ/σ) + b)``, step by step."""
    model = statistics(small())
    prepared = prepare_qat_fx(model, get_default_qat_qconfig_mapping("x86"), (batch(),))
    layer, conv, norm = prepared.layers["conv2d"], model.node("conv2d"), model.node("batch_norm")
    seen = {}
    prepared(batch(), hooks=lambda node, value: seen.__setitem__(node.name, value), real="float64")
    factor = norm.params["weight"] / np.sqrt(norm.params["running_var"] + np.float32(norm.attrs["eps"]))
    scale = layer.fake_quant.grid().scale.reshape(-1, 1, 1, 1)
    rounded = np.rint(conv.params["weight"] * factor.reshape(-1, 1, 1, 1) / scale).clip(-128, 127) * scale
    x = seen["activation_post_process_0"].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    ref = np.einsum("nchwij,ocij->nohw", windows, rounded) / factor.reshape(1, -1, 1, 1) + conv.params["bias"].reshape(1, -1, 1, 1)
    p = {k: v.astype(np.float64).reshape(1, -1, 1, 1) for k, v in norm.params.items()}
    ref = np.maximum((ref - p["running_mean"]) / np.sqrt(p["running_var"] + norm.attrs["eps"]) * p["weight"] + p["bias"], 0)
    np.testing.assert_allclose(seen["conv2d"], ref, rtol=2e-5, atol=2e-5)  # rounded to float32 after each of five steps
    assert {"conv2d_scaled", "conv2d_divided", "conv2d_with_bias"} <= set(seen)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("version", [0, 1])
def test_conversion_takes_the_grid_of_the_fake_quantizer(norm, bias, version):
    prepared = prepare_qat_fx(statistics(small(norm, bias)), get_default_qat_qconfig_mapping("fbgemm", version), (batch(),))
    for seed in range(3):
        prepared(batch(seed))
    before = repr(prepared.layers)
    int8 = convert_fx(prepared)
    assert repr(prepared.layers) == before and [(r.name, r.codes.tobytes()) for r in layer_bits(convert_fx(prepared), batch())] == [(r.name, r.codes.tobytes()) for r in layer_bits(int8, batch())]
    weight = int8.node("conv2d").params["weight"]
    np.testing.assert_allclose(weight.qparams.scale, prepared.layers["conv2d"].fake_quant.calculate_qparams().scale, rtol=1e-3)
    assert int8.node("conv2d").op == "conv2d" and not any(n.op in ("batch_norm", "fake_quantize", "div") for n in int8.nodes)


def test_simulation_and_int8_agree_but_for_roundings():
    for name in ("digits_resnet", "digits_mobilenet"):
        prepared = prepare_qat_fx(zoo.load(name), get_default_qat_qconfig_mapping("onednn"), (X,))
        for _ in range(2):
            simulated, = prepared(X)
        int8, = convert_fx(prepared)(X)
        assert (int8.argmax(1) == simulated.argmax(1)).mean() > 0.95 and np.abs(int8 - simulated).max() < 0.15 * np.abs(simulated).max()


def test_weights_are_on_their_grid_where_preparing_for_calibration_leaves_them():
    trained = prepare_qat_fx(small(norm=False), get_default_qat_qconfig_mapping("x86"), (batch(),))
    plain = prepare_fx(small(norm=False), get_default_qat_qconfig_mapping("x86"), (batch(),))
    assert trained.placement == plain.placement and not np.array_equal(trained(batch())[0], plain(batch())[0])
    fresh = prepare_fx(small(norm=False), get_default_qat_qconfig_mapping("x86"), (batch(),))
    again = prepare_qat_fx(small(norm=False), get_default_qat_qconfig_mapping("x86"), (batch(),))
    for layer in again.layers.values():
        layer.fake_quant.disable_fake_quant()
    np.testing.assert_array_equal(again(batch())[0], fresh(batch())[0])


def test_a_layer_without_a_qconfig_keeps_its_norm_apart():
    model = statistics(small())
    prepared = prepare_qat_fx(model, get_default_qat_qconfig_mapping("x86").set_module_name("conv2d", None), (batch(),))
    assert prepared.layers["conv2d"].fake_quant is None
    prepared(batch())
    int8 = convert_fx(prepared)
    assert [n.op for n in int8.nodes][:4] == ["input", "conv2d", "batch_norm", "quantize"]
    seen = {}
    int8.run(batch(), hooks=lambda node, value: seen.__setitem__(node.name, value))
    ref = {}
    model.run(batch(), hooks=lambda node, value: ref.__setitem__(node.name, value))
    np.testing.assert_array_equal(seen["conv2d"], ref["relu"])


def test_one_module_called_twice_has_one_fake_quantizer():
    w = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    node = lambda name, source: Node(name, "linear", [source], params={"weight": w}, path="fc")  # noqa: E731
    model = Model([Node("x", "input", attrs={"shape": (None, 3)}), node("fc", "x"), node("fc_1", "fc")], "fc_1")
    x = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    prepared = prepare_qat_fx(model, get_default_qat_qconfig_mapping("x86"), (x,))
    prepared(x)
    assert prepared.layers["fc"] is prepared.layers["fc_1"] and prepared.layers["fc"].fake_quant.activation_post_process._batches == 2


def test_what_pytorch_has_no_layer_for():
    b = Builder(seed=0)
    model = b.build(b.input(shape=(None, 3, 6, 6)).conv2d(3, 3).batch_norm())
    weight = np.ones((3, 3, 3, 3), np.float32)
    model = model.with_nodes([Node(n.name, "conv_transpose2d", n.inputs, params={"weight": weight}) if n.op == "conv2d" else n for n in model.nodes])
    with pytest.raises(UnsupportedError, match="batch norm 'batch_norm'"):
        prepare_qat_fx(model, get_default_qat_qconfig_mapping("qnnpack"), (batch(),))
    with pytest.raises(ArgumentError, match="prepare_qat_fx: qconfig_mapping is a dict"):
        prepare_qat_fx(small(), {}, (batch(),))
    with pytest.raises(ArgumentError, match="prepare_qat_fx: backend_config is a str"):
        prepare_qat_fx(small(), QConfigMapping(), (batch(),), backend_config="x86")
