"""Quantized models as fake-quantized float: what differs from the model on codes, and that a fault would show."""

import sys

import numpy as np
import pytest

from refquant import zoo
from refquant.core.qtensor import QTensor
from refquant.data import load_split
from refquant.errors import ArgumentError
from refquant.observers import FakeQuantize, MovingAverageMinMaxObserver, PerChannelMinMaxObserver
from refquant.workflow import QConfig, QConfigMapping, compare_simulation, convert_fx, get_default_qconfig_mapping, prepare_fx, quantize_static, simulate

PRODUCTS = ("conv2d", "linear")


def images(name):
    return load_split(name, "calibration")[0][:48]


def quantized(name, backend):
    x = images(name)
    if backend == "onnxruntime":
        return quantize_static(zoo.load(name), [x], activation_type="uint8"), x
    prepared = prepare_fx(zoo.load(name), get_default_qconfig_mapping(backend), (x,))
    prepared(x)
    return convert_fx(prepared), x


@pytest.mark.parametrize("backend", ["x86", "onednn", "qnnpack", "onnxruntime"])
@pytest.mark.parametrize("name", ["digits_resnet", "digits_mobilenet"])
def test_layers_differ_by_a_code_at_most_but_beyond_the_calibrated_range(name, backend):
    model, x = quantized(name, backend)
    rows = compare_simulation(model, x)
    assert {row.name for row in rows} == {n.name for n in model.nodes if isinstance(recorded(model, x)[n.name], QTensor)}
    assert sum(row.outputs for row in rows) > 100_000
    for row in rows:
        # QNNPACK rounds biases to the product of the scales, and so moves many codes by one.
        assert row.own <= row.outputs * (0.2 if "pool" in row.op or backend == "qnnpack" else 1e-3) + row.beyond
        assert row.own_most <= 1 or row.beyond, row
    if backend in ("onednn", "qnnpack", "onnxruntime"):
        assert not any(row.beyond for row in rows)


def recorded(model, x):
    values = {}
    model.run(x, hooks=lambda node, value: values.__setitem__(node.name, value))
    return values


def test_a_reduced_range_ends_sooner_in_the_simulation():
    model, _ = quantized("digits_resnet", "x86")
    x = images("digits_resnet") * np.float32(2)  # twice as bright as what was calibrated
    rows = compare_simulation(model, x)
    assert sum(row.beyond for row in rows) > 100
    assert max(row.own_most for row in rows) > 20


def test_the_simulation_is_float_throughout_and_close_to_the_model():
    model, x = quantized("digits_resnet", "onednn")
    real = simulate(model, x)
    values = recorded(real, x)
    assert all(isinstance(v, np.ndarray) and v.dtype == np.float32 for v in values.values())
    assert {n.op for n in real.nodes if n.name in {m.name for m in model.nodes if m.op in PRODUCTS}} == {"fake_quantize"}
    (ours,), (codes,) = real(x), model(x)
    assert np.abs(ours - codes).max() < 0.1 * np.abs(codes).max() and (ours.argmax(1) == codes.argmax(1)).mean() > 0.95


@pytest.mark.parametrize("what", ["weight", "bias"])
def test_a_planted_fault_is_found(what, monkeypatch):
    """One layer that is simulated otherwise than it computes."""
    module = sys.modules["refquant.workflow.simulate"]
    model, x = quantized("digits_resnet", "onednn")
    right, real = compare_simulation(model, x), module._real

    def wrong(node, grids):
        made = real(node, grids)
        if node.name != "block1_conv1":
            return made
        return made.replace(params={**made.params, what: made.params[what] + np.float32(0.01)})

    monkeypatch.setattr(module, "_real", wrong)
    for before, after in zip(right, compare_simulation(model, x), strict=True):
        assert (after.own > 20 * max(before.own, 1)) == (before.name == "block1_conv1")


def test_models_without_codes_are_refused():
    with pytest.raises(ArgumentError, match="has no value on codes; quantize it first"):
        simulate(zoo.load("digits_resnet"), images("digits_resnet"))


def test_fake_quantizers_take_part_in_a_prepared_model():
    """What a fake-quantizer hands on goes into the layers behind it."""
    x = images("digits_resnet")
    activation = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=3, dtype="quint8")
    mapping = QConfigMapping("onednn").set_global(QConfig(activation, PerChannelMinMaxObserver.with_args(dtype="qint8", qscheme="per_channel_symmetric")))
    prepared = prepare_fx(zoo.load("digits_resnet"), mapping, (x,))
    (coarse,) = prepared(x)
    for node in prepared.model.nodes:
        if node.op == "observe":
            node.attrs["observer"].disable_fake_quant()
    (fine,) = prepared(x)
    assert np.abs(coarse - fine).max() > 0.05 * np.abs(fine).max()
    values = recorded(prepared.model, x)
    assert len(np.unique(values["activation_post_process_0"])) > 4
