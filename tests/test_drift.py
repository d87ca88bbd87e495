"""The drift analysis: its numbers against an independent recomputation, and planted faults that it must name."""

import numpy as np
import pytest

import refquant as rq
from refquant import data, zoo
from refquant.drift import CAUSES, analyse, even_out
from refquant.drift.causes import engine_value, split_error
from refquant.drift.exact import codes_to_real, exact_value
from refquant.drift.pairing import pair_layers, recorded
from refquant.graph import Builder
from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx


def converted(model, x, backend="onednn", numerics=None):
    prepared = prepare_fx(model, get_default_qconfig_mapping(backend), (x,))
    prepared(x)
    return convert_fx(prepared, numerics=numerics)


@pytest.fixture(scope="module")
def resnet():
    x, labels = data.load_split("digits", "test")
    seen, _ = data.load_split("digits", "calibration")
    model = zoo.load("digits_resnet")
    return model, converted(model, seen), x[:64], labels[:64]


@pytest.fixture(scope="module")
def healthy(resnet):
    return analyse(*resnet)


# --- properties ---


@pytest.mark.parametrize("name", data.NETWORKS)
@pytest.mark.parametrize("backend", ["x86", "onednn", "qnnpack"])
def test_causes_add_up_to_the_error_exactly(name, backend):
    x, _ = data.load_split(name, "calibration")
    model, x = zoo.load(name), x[:8]
    int8 = converted(model, x, backend)
    real, codes = recorded(model, (x,)), recorded(int8, (x,))
    layers = pair_layers(model, int8, codes)
    assert {layer.name for layer in layers} >= {n.name for n in int8.nodes if n.op in ("conv2d", "linear", "add", "cat", "quantize")}
    for layer in layers:
        y, inputs = real[layer.origin], [real[i] for i in layer.input_origins]
        split = split_error(layer, y, inputs, int8.numerics)
        assert tuple(split.errors) == CAUSES
        engine = codes_to_real(engine_value(layer, inputs, int8.numerics))
        np.testing.assert_allclose(split.total(), engine - y, atol=1e-12 * np.abs(y).max())


def test_exact_products_are_exact():
    rng = np.random.default_rng(0)
    x = rq.QTensor(rng.integers(0, 256, (3, 6, 7, 5)).astype(np.uint8), rq.QParams(0.03, 77, "uint8"))
    w = rq.QTensor(rng.integers(-128, 128, (4, 3, 3, 2)).astype(np.int8), rq.QParams(2.0 ** np.arange(-4, 0), np.zeros(4, int), "int8", axis=0))
    b = Builder(seed=0)
    node = b.build(b.input(shape=(None, 6, 7, 5)).conv2d(4, (3, 2), groups=2, padding=1, stride=(2, 1), dilation=(1, 2))).node("conv2d")
    node = node.replace(params={"weight": w})
    comp = exact_value(node, [x])
    xi = np.pad(x.values.astype(int) - 77, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for o in range(4):
        for i in range(comp.shape[2]):
            for j in range(comp.shape[3]):
                window = xi[:, o // 2 * 3 : o // 2 * 3 + 3, 2 * i : 2 * i + 3, j : j + 3 : 2]
                acc = (window * w.values[o].astype(int)).sum((1, 2, 3))
                np.testing.assert_array_equal(comp[:, o, i, j], acc * (0.03 * 2.0 ** (o - 4)))


def test_the_same_inputs_give_the_same_report(resnet):
    model, int8, x, labels = resnet
    ref = analyse(model, int8, x, labels)
    assert analyse(model, int8, x.copy(), list(labels)).to_json() == ref.to_json()
    comp = analyse(model, int8, list(np.split(x, [16])), list(np.split(labels, [16])))
    assert comp.accuracy == ref.accuracy
    for a, b in zip(comp.layers, ref.layers):
        np.testing.assert_allclose((a.local.sqnr, a.cumulative.sqnr, a.impact), (b.local.sqnr, b.cumulative.sqnr, b.impact), rtol=1e-12)


def test_accuracy_counts(resnet):
    model, int8, x, labels = resnet
    wrong = (labels + (np.arange(len(labels)) % 3 == 0)) % 10
    a = analyse(model, int8, x, wrong).accuracy
    fp32, codes = model(x)[0].argmax(1), int8(x)[0].argmax(1)
    assert (a.fp32, a.int8, a.changed) == ((fp32 == wrong).sum(), (codes == wrong).sum(), (fp32 != codes).sum())
    assert a.broken == ((fp32 == wrong) & (codes != wrong)).sum() and a.repaired == ((fp32 != wrong) & (codes == wrong)).sum()


def test_a_network_that_is_exact_in_int8_has_no_error():
    b = Builder(arrays={"fc.weight": np.eye(3, dtype=np.float32)})
    model = b.build(b.input(shape=(None, 3)).linear(3, bias=False, name="fc"))
    rng = np.random.default_rng(0)
    x = (rng.integers(0, 256, (64, 3)) / 256).astype(np.float32)
    x[0] = 255 / 256
    x[1] = 0
    int8 = converted(model, x)
    step = rq.QParams(1 / 256, 0, "uint8")
    weight = rq.QTensor(np.eye(3, dtype=np.int8) * 64, rq.QParams(1 / 64, 0, "int8"))
    nodes = [n.replace(attrs={**n.attrs, "out": step}) if n.op in ("quantize", "linear") else n for n in int8.nodes]
    nodes = [n.replace(params={**n.params, "weight": weight}) if n.op == "linear" else n for n in nodes]
    report = analyse(model, int8.with_nodes(nodes), x)
    assert all(r.local.sqnr == np.inf and r.cumulative.sqnr == np.inf and r.impact == np.inf for r in report.layers)
    assert "inf" in report.to_json() and "No layer makes an error" in report.to_text()
    assert report.to_html() and report.plot()


# --- planted faults ---


def with_node(int8, name, **changes):
    def changed(node):
        return node.replace(attrs={**node.attrs, **changes.get("attrs", {})}, params={**node.params, **changes.get("params", {})})

    return int8.with_nodes([changed(n) if n.name == name else n for n in int8.nodes])


def scaled_output(int8, name, factor):
    out = int8.node(name).attrs["out"]
    return with_node(int8, name, attrs={"out": rq.QParams(out.scale * factor, out.zero_point, out.dtype)})


def coarse_weights(int8, name, codes=6):
    """One scale for all channels, far too large."""
    weight = int8.node(name).params["weight"]
    real = rq.dequantize(rq.QTensor(weight.values, weight.qparams))
    return with_node(int8, name, params={"weight": rq.quantize(real, rq.QParams(np.abs(real).max() / codes, 0, "int8"))})


def wrong_scale(int8, name):
    """The right codes with scales that are a fifth too large."""
    weight = int8.node(name).params["weight"]
    q = weight.qparams
    return with_node(int8, name, params={"weight": rq.QTensor(weight.values, rq.QParams(q.scale * 1.2, q.zero_point, "int8", axis=0))})


FAULTS = {
    "coarse weights": (coarse_weights, "weights", "one weight scale per channel"),
    "wrong weight scale": (wrong_scale, "weights", "weight scales that hold the greatest weight"),
    "output range too narrow": (lambda m, n: scaled_output(m, n, 0.1), "range_out", "a range from the least to the greatest value"),
    "output range too wide": (lambda m, n: scaled_output(m, n, 60), "rounding", "a range from the least to the greatest value"),
}


@pytest.mark.parametrize("layer", ["stem_conv", "block1_conv2", "block3_conv1"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(resnet, healthy, fault, layer):
    plant, cause, remedy = FAULTS[fault]
    model, int8, x, labels = resnet
    report = analyse(model, plant(int8, layer), x, labels)
    verdict, record = report.verdict, report.layer(layer)
    assert (verdict.layer, verdict.cause) == (layer, cause), verdict
    assert verdict.remedy == remedy, verdict
    assert verdict.loss > 5 and layer in str(verdict)
    assert record.cause == cause and record.impact == min(r.impact for r in report.layers)
    assert (healthy.verdict.layer, healthy.verdict.remedy) != (layer, verdict.remedy)
    assert healthy.layer(layer).local.sqnr > record.local.sqnr + 5


def test_layers_behind_a_fault_inherit_it(resnet):
    model, int8, x, labels = resnet
    report = analyse(model, coarse_weights(int8, "block1_conv2"), x, labels)
    before, behind = report.layer("block1_conv1"), report.layer("block2_conv1")
    assert before.cumulative.sqnr > 30
    assert behind.local.sqnr > 30 and behind.cumulative.sqnr < 20


def test_a_narrow_range_is_charged_to_the_layer_that_owns_it_not_to_the_next(resnet):
    model, int8, x, labels = resnet
    report = analyse(model, scaled_output(int8, "block2_conv1", 0.2), x, labels)
    behind = report.layer("block2_conv2")
    assert behind.cause == "range_in" and behind.impact > 30
    assert report.verdict.layer == "block2_conv1"


def test_int16_saturation_is_charged_to_the_engine():
    rng = np.random.default_rng(1)
    b = Builder(seed=2)
    weight = rng.uniform(0.9, 1, (8, 1, 3, 3)).astype(np.float32)
    model = b.build(b.input(shape=(None, 8, 6, 6)).conv2d(8, 3, padding=1, groups=8, weight=weight, name="dw").adaptive_avg_pool2d().flatten().linear(5))
    x = rng.uniform(0.8, 1, (32, 8, 6, 6)).astype(np.float32)
    report = analyse(model, converted(model, x, "onednn", numerics="fbgemm"), x)
    assert (report.verdict.layer, report.verdict.cause) == ("dw", "engine")
    assert "reduce_range" in report.verdict.remedy
    assert analyse(model, converted(model, x, "onednn"), x).layer("dw").causes["engine"].share < 1e-6


def test_sensitivity_finds_the_fault(resnet):
    model, int8, x, labels = resnet
    report = analyse(model, coarse_weights(int8, "block1_conv1", codes=0.4), x, labels, sensitivity=True)
    assert min(report.layers, key=lambda r: r.only).name == "block1_conv1"
    assert max(report.layers, key=lambda r: r.without).name == "block1_conv1"
    healthy = int(((model(x)[0]).argmax(1) == labels).sum())
    assert all(r.only >= healthy - 1 for r in report.layers if r.name != "block1_conv1")


def test_without_labels_unchanged_answers_are_counted(resnet):
    model, int8, x, _ = resnet
    report = analyse(model, int8, x, sensitivity=True)
    assert report.accuracy.fp32 is None and all(r.only >= 63 for r in report.layers)
    assert "answers as in FP32" in report.to_text()


# --- evening out channels ---


@pytest.mark.parametrize("name", data.NETWORKS)
def test_evening_out_keeps_every_bit_of_the_float_network(name):
    x, _ = data.load_split(name, "calibration")
    model = zoo.load(name)
    even = even_out(model, [x[:32]])
    np.testing.assert_array_equal(even(x[32:64])[0].view(np.uint32), model(x[32:64])[0].view(np.uint32))
    changed = [n.name for n in even.nodes if any(not np.array_equal(p, model.node(n.name).params[k]) for k, p in n.params.items())]
    assert changed, "nothing was evened out"


def test_evening_out_reaches_convolutions_of_any_grouping():
    rng = np.random.default_rng(0)
    b = Builder(seed=1)
    x = b.input(shape=(None, 3, 8, 8))
    y = x.conv2d(8, 1).relu()
    y = y.max_pool2d(2).conv2d(12, 3, groups=4).batch_norm().relu()
    model = b.build(y.conv2d(6, 2, bias=False).flatten().linear(4))
    small = np.float32([1, 1e-3, 1, 0.02, 1, 1, 0.3, 1])
    conv = model.node("conv2d")
    nodes = [conv.replace(params={k: v * small.reshape(-1, *[1] * (v.ndim - 1)) for k, v in conv.params.items()}) if n is conv else n for n in model.nodes]
    model = model.with_nodes(nodes)
    x = rng.standard_normal((16, 3, 8, 8)).astype(np.float32)
    even = even_out(model, [x])
    np.testing.assert_array_equal(even(x)[0], model(x)[0])
    before, after = (np.abs(recorded(m, (x,))["relu"]).max((0, 2, 3)) for m in (model, even))
    assert before.max() / before.min() > 100 and after.max() / after.min() < 2.001


def test_evening_out_leaves_alone_what_others_read():
    b = Builder(seed=1)
    y = b.input(shape=(None, 3, 8, 8)).conv2d(8, 1).relu()
    z = y.conv2d(8, 1)
    model = b.build((y + z).flatten().linear(4))
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    even = even_out(model, [x])
    assert all(np.array_equal(p, model.node(n.name).params[k]) for n in even.nodes for k, p in n.params.items())
    with pytest.raises(rq.RefquantError, match="batches is empty"):
        even_out(model, [])


# --- ways in ---


def test_a_qconfig_mapping_is_converted_as_by_hand(resnet):
    model, int8, x, labels = resnet
    seen, _ = data.load_split("digits", "calibration")
    mapping = get_default_qconfig_mapping("onednn")
    report = analyse(model, mapping, x, labels, calibration=[seen], alternatives={"x86": get_default_qconfig_mapping("x86")})
    assert report.layers == analyse(model, int8, x, labels).layers or report.to_dict()["layers"] == analyse(model, int8, x, labels).to_dict()["layers"]
    assert [s.name for s in report.alternatives] == ["x86"]


def test_layers_left_in_float_are_told_apart(resnet):
    model, _, x, labels = resnet
    mapping = get_default_qconfig_mapping("onednn").set_module_name("block2", None)
    report = analyse(model, mapping, x, labels)
    names = [r.name for r in report.layers]
    assert "block2_conv1" not in names and {"block1_conv2", "block3_conv1"} <= set(names)
    assert all(np.isfinite(r.local.sqnr) for r in report.layers)


BAD = {
    "no images": (dict(batches=np.zeros((0, 1, 8, 8), np.float32)), "at least one image"),
    "no batches": (dict(batches=[]), "batches is empty"),
    "empty batch": (dict(batches=[np.zeros((0, 1, 8, 8), np.float32)]), "holds no image"),
    "float64": (dict(batches=np.zeros((4, 1, 8, 8))), "must be float32"),
    "a NaN": (dict(batches=np.full((4, 1, 8, 8), np.nan, np.float32)), "must be finite"),
    "wrong shape": (dict(batches=np.zeros((4, 1, 9, 8), np.float32)), r"must be \(N, 1, 8, 8\)"),
    "too few labels": (dict(labels=np.zeros(3, int)), "64 images"),
    "real labels": (dict(labels=np.zeros(64)), "must be integers"),
    "no layer images": (dict(layer_images=0), "layer_images=0"),
    "not a model": (dict(model="digits_resnet"), "must be a float refquant Model"),
    "not an int8 model": (dict(int8=3), "converted Model, a QConfig"),
    "a float model as int8": (dict(int8=zoo.load("digits_resnet").with_nodes(zoo.load("digits_resnet").nodes, numerics="fbgemm")), "no quantized layer"),
    "no profile": (dict(int8=zoo.load("digits_resnet")), "no profile"),
    "another network": (dict(model=zoo.load("digits_mobilenet")), "does not have"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(resnet, case):
    changes, message = BAD[case]
    arguments = dict(zip(("model", "int8", "batches", "labels"), resnet)) | {"labels": None} | changes
    with pytest.raises(rq.RefquantError, match=message):
        analyse(**arguments)


def test_an_unknown_layer_is_refused_with_the_nearest_name(resnet):
    with pytest.raises(rq.RefquantError, match="did you mean 'stem_conv'"):
        analyse(*resnet).layer("stem_con")
