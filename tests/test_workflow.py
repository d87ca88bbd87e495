"""The FX workflow without PyTorch: recorded bits, structure, errors, and faults that the comparison must find."""

import json

import numpy as np
import pytest
import record_workflow_vectors as recorded

from refquant import observers, workflow, zoo
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError, UnsupportedError
from refquant.graph import Builder, Node
from refquant.ops import PackedWeights
from refquant.workflow import QConfig, QConfigMapping, convert_fx, get_default_qconfig, get_default_qconfig_mapping, layer_bits, prepare_fx

VECTORS = json.loads(recorded.PATH.read_text())


def prepared_network(name, backend):
    batches = recorded.calibration(name)
    prepared = prepare_fx(zoo.load(name), get_default_qconfig_mapping(backend), (batches[0],))
    for batch in batches:
        prepared(batch)
    return prepared


def differing(model, name, backend):
    """Return the positions of layers whose scale, zero point or codes differ from the recorded ones."""
    ours = [recorded.row(layer) for layer in layer_bits(model, recorded.images(name))]
    theirs = VECTORS[name][backend]
    assert len(ours) == len(theirs)
    return [i for i, (a, b) in enumerate(zip(ours, theirs)) if a[1:] != b[1:]]


@pytest.fixture(scope="module")
def resnet():
    return prepared_network("digits_resnet", "x86")


@pytest.mark.parametrize("name, backend", recorded.CASES)
def test_every_layer_has_torchs_recorded_bits(name, backend):
    int8 = convert_fx(prepared_network(name, backend))
    assert int8.numerics.name == backend
    assert differing(int8, name, backend) == []


# Faults that the comparison must find.


def test_swapped_observers_are_found(resnet):
    nodes = list(resnet.model.nodes)
    i, j = (next(k for k, n in enumerate(nodes) if n.op == "observe" and n.inputs[0] == name) for name in ("block1_conv1", "block1_conv2"))
    a, b = nodes[i].attrs["observer"], nodes[j].attrs["observer"]
    nodes[i], nodes[j] = nodes[i].replace(attrs={"observer": b}), nodes[j].replace(attrs={"observer": a})
    swapped = resnet.with_model(resnet.model.with_nodes(nodes))
    assert differing(convert_fx(swapped), "digits_resnet", "x86")[:2] == [2, 3]


def test_a_lost_relu_is_found(resnet):
    int8 = convert_fx(resnet)
    node = int8.node("add_1")
    assert node.attrs["activation"] == "relu"
    without = [n if n is not node else n.replace(attrs={**n.attrs, "activation": None, "out": node.attrs["out"]}) for n in int8.nodes]
    # The output's zero point is 0, so saturation does what the ReLU would do: no bit can differ.
    assert node.attrs["out"].zero_point == 0 and differing(int8.with_nodes(without), "digits_resnet", "x86") == []
    conv = int8.node("block1_conv2")
    with_relu = [n if n is not conv else n.replace(attrs={**n.attrs, "activation": "relu"}) for n in int8.nodes]
    assert differing(int8.with_nodes(with_relu), "digits_resnet", "x86")[0] == 3


def test_another_observer_a_bias_of_one_ulp_and_a_wrong_code_are_found(resnet):
    int8 = convert_fx(resnet)
    minmax = QConfigMapping("x86").set_global(QConfig(observers.MinMaxObserver.with_args(reduce_range=True), get_default_qconfig("x86").weight))
    batches = recorded.calibration("digits_resnet")
    other = prepare_fx(zoo.load("digits_resnet"), minmax, (batches[0],))
    for batch in batches:
        other(batch)
    assert differing(convert_fx(other), "digits_resnet", "x86")
    conv = int8.node("stem_conv")
    codes = conv.params["weight"].values.copy()
    codes[3, 0, 1, 1] += 1
    wrong = QTensor(codes, conv.params["weight"].qparams)
    nodes = [n if n is not conv else n.replace(params={**n.params, "weight": wrong}) for n in int8.nodes]
    assert differing(int8.with_nodes(nodes), "digits_resnet", "x86")[0] == 1


def test_an_unfused_relu_changes_the_placement():
    x = recorded.calibration("digits_resnet")[0]
    model = zoo.load("digits_resnet")
    nodes = [n if n.name != "stem_relu" else n.replace(target="torch.relu") for n in model.nodes]
    mapping = get_default_qconfig_mapping("x86")
    fused, unfused = (prepare_fx(m, mapping, (x,)).placement for m in (model, model.with_nodes(nodes)))
    assert ("stem_relu", 2) in unfused and fused != unfused


# Structure.


def test_codes_stay_codes_between_layers(resnet):
    int8 = convert_fx(resnet)
    kinds = {}
    int8.run(recorded.images("digits_resnet"), hooks=lambda node, value: kinds.update({node.name: type(value)}))
    assert [name for name, kind in kinds.items() if kind is np.ndarray] == ["x", "fc_dequantize"]
    assert sum(n.op in ("quantize", "dequantize") for n in int8.nodes) == 2
    assert all(isinstance(n.params["weight"], PackedWeights) for n in int8.nodes if "weight" in n.params)
    assert all(n.params["bias"].dtype == np.float32 for n in int8.nodes if "bias" in n.params)


def test_every_float_node_is_a_source_of_one_quantized_node(resnet):
    int8 = convert_fx(resnet)
    sources = [s for n in int8.nodes if n.op not in ("input", "quantize", "dequantize") for s in n.sources]
    assert sorted(sources) == sorted(n.name for n in zoo.load("digits_resnet").nodes if n.op != "input")
    assert int8.node("add").sources == ("add", "block1_relu2")


def test_pools_and_flatten_share_the_observer_before_them(resnet):
    numbers = dict(resnet.placement)
    assert numbers["maxpool"] == numbers["block1_relu2"]
    assert numbers["avgpool"] == numbers["flatten"] == numbers["block3_relu2"] != numbers["fc"]


def test_all_inputs_of_a_cat_share_one_observer():
    b = Builder(seed=3)
    x = b.input(shape=(None, 3, 8, 8))
    y = x.conv2d(8, 1, name="left").cat(x.conv2d(8, 3, padding=1, name="right"))
    batch = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    prepared = prepare_fx(b.build(y), get_default_qconfig_mapping("fbgemm"), (batch,))
    numbers = dict(prepared.placement)
    assert numbers["left"] == numbers["right"] == numbers["cat"]
    prepared(batch)
    rows = {r.name: (r.scale, r.zero_point) for r in layer_bits(convert_fx(prepared), batch)}
    assert rows["left"] == rows["right"] == rows["cat"]


def test_texts_show_observers_and_fusions(resnet):
    text = str(resnet)
    assert "HistogramObserver" in text and "as block1_relu2" in text
    int8 = str(convert_fx(resnet))
    assert "conv2d+relu" in int8 and "add+relu" in int8 and "numerics x86" in int8 and "int8 per channel" in int8
    assert "made of" in int8 and "block1_conv2 + block1_bn2" in int8
    assert repr(resnet) == "<Prepared 'digits_resnet': 16 observed values, 4 batches seen>"


def test_conversion_leaves_the_prepared_model_as_it_is(resnet):
    first, second = convert_fx(resnet), convert_fx(resnet, numerics="onednn")
    assert second.numerics.name == "onednn"
    assert differing(first, "digits_resnet", "x86") == []
    y1, y2 = first(recorded.images("digits_resnet"))[0], resnet(recorded.images("digits_resnet"))[0]
    assert y1.shape == y2.shape


def test_a_layer_can_stay_float():
    batches = recorded.calibration("digits_resnet")
    prepared = prepare_fx(zoo.load("digits_resnet"), get_default_qconfig_mapping("x86").set_module_name("block1.conv1", None), (batches[0],))
    prepared(batches[0])
    int8 = convert_fx(prepared)
    assert int8.node("block1_conv1").params["weight"].dtype == np.float32
    assert int8.node(int8.node("block1_conv1").inputs[0]).op == "dequantize"
    assert int8.users("block1_conv1")[0].op == "quantize"


def test_nothing_quantized_is_the_fused_float_model():
    batches = recorded.calibration("digits_resnet")
    prepared = prepare_fx(zoo.load("digits_resnet"), QConfigMapping(), (batches[0],))
    y, = prepared(batches[0])
    z, = convert_fx(prepared)(batches[0])
    assert prepared.placement == [] and np.array_equal(y, z)


def test_precedence_of_rules():
    x = recorded.calibration("digits_resnet")[0]
    q = get_default_qconfig("x86")

    def observed(mapping):
        return [name for name, _ in prepare_fx(zoo.load("digits_resnet"), mapping, (x,)).placement]

    base = QConfigMapping("x86").set_global(None)
    assert observed(base) == []
    assert observed(base.set_object_type("linear", q)) == ["flatten", "fc"]
    assert observed(base.set_module_name_regex("f.", None)) == []
    assert observed(base.set_module_name("fc", q)) == ["flatten", "fc"]
    assert observed(base.set_module_name_object_type_order("", "linear", 0, None)) == []
    assert observed(QConfigMapping("x86").set_module_name("block2", q).set_module_name("block2.conv2", None)) == [
        "maxpool", "block2_conv1", "block2_conv2", "block2_shortcut_conv", "block2_relu2",
    ]  # fmt: skip


# Errors: rule, value, place, remedy.


def batch():
    return np.zeros((16, 1, 8, 8), np.float32)


def mapping():
    return get_default_qconfig_mapping("x86")


def calibrated(model):
    prepared = prepare_fx(model, mapping(), (batch(),))
    prepared(batch())
    return prepared


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: prepare_fx("resnet", mapping(), (batch(),)), ArgumentError, "model is a str .*from_torch"),
        (lambda: prepare_fx(zoo.load("digits_resnet"), {}, (batch(),)), ArgumentError, "qconfig_mapping is a dict; pass a QConfigMapping"),
        (lambda: prepare_fx(zoo.load("digits_resnet"), mapping(), batch()), ArgumentError, r"must be a tuple, .* write \(x,\)"),
        (lambda: prepare_fx(zoo.load("digits_resnet"), mapping(), ()), ArgumentError, "0 inputs given but it has 1"),
        (lambda: prepare_fx(zoo.load("digits_resnet"), mapping(), (batch()[:, :, :7],)), ShapeError, r"\(16, 1, 7, 8\) but must be \(N, 1, 8, 8\)"),
        (lambda: prepare_fx(zoo.load("digits_resnet"), mapping(), (batch().astype(np.float64),)), ArgumentError, "float64 but must be float32"),
        (lambda: prepare_fx(convert_fx(calibrated(zoo.load("digits_resnet"))), mapping(), (batch(),)), ArgumentError, "quantized already"),
        (lambda: convert_fx(prepare_fx(zoo.load("digits_resnet"), mapping(), (batch(),))), ArgumentError, r"has seen no data.*call prepared\(batch\)"),
        (lambda: convert_fx(zoo.load("digits_resnet")), ArgumentError, "must come from prepare_fx"),
        (lambda: prepare_fx(zoo.load("digits_resnet"), mapping(), (batch(),))(batch()[:0]), ArgumentError, "calibration batch is empty"),
        (lambda: convert_fx(calibrated(zoo.load("digits_resnet")), numerics="x87"), ArgumentError, "did you mean 'x86'"),
        (lambda: convert_fx(calibrated(zoo.load("digits_resnet")), backend_config=workflow.get_backend_config("onednn")), ArgumentError, "but the model was prepared with"),
        (lambda: workflow.fuse_fx(zoo.load("digits_resnet"), fuse_custom_config=workflow.FuseCustomConfig().set_preserved_attributes(["a"])), ArgumentError, "no attribute 'a'"),
        (lambda: workflow.FuseCustomConfig.from_dict({"preserved": []}), ArgumentError, "key='preserved'"),
        (lambda: get_default_qconfig_mapping("arm"), ArgumentError, "choose one of 'x86', 'fbgemm', 'onednn', 'qnnpack'"),
        (lambda: QConfig(observers.MinMaxObserver(), observers.MinMaxObserver), ArgumentError, "which all layers would share"),
        (lambda: QConfig(None, observers.MinMaxObserver), ArgumentError, "makes no observers"),
        (lambda: mapping().set_global("int8"), ArgumentError, "must be a QConfig, or None"),
        (lambda: mapping().set_object_type("nn.Conv2", None), ArgumentError, "did you mean 'nn.Conv2d'"),
        (lambda: mapping().set_module_name_regex("(", None), ArgumentError, "no regular expression"),
        (
            lambda: prepare_fx(zoo.load("digits_resnet"), QConfigMapping().set_object_type("nn.Conv2d", get_default_qconfig()), (batch(),)),
            ArgumentError,
            r"'stem_conv' is nn.Conv2d fused with nn.ReLU.*set_module_name\('stem.conv'",
        ),
        (lambda: convert_fx(_with_activation(observers.NoopObserver)), UnsupportedError, "the observer of 'x': .*keeps no range"),
        (lambda: convert_fx(_with_activation(observers.PerChannelMinMaxObserver)), UnsupportedError, "activations are quantized per tensor"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()


def _with_activation(activation):
    qconfig = QConfig(activation.with_args(dtype="quint8"), get_default_qconfig("x86").weight)
    prepared = prepare_fx(zoo.load("digits_resnet"), QConfigMapping().set_global(qconfig), (batch(),))
    prepared(batch())
    return prepared


def test_a_nan_in_the_calibration_data_is_named():
    x = batch()
    x[3, 0, 2, 2] = np.nan
    prepared = prepare_fx(zoo.load("digits_resnet"), mapping(), (x,))
    with pytest.raises(ValueError, match="node 'activation_post_process_0'.*NaN"):
        prepared(x)


def test_reshape_before_the_first_layer_leaves_it_float_as_in_torch():
    b = Builder(seed=0)
    y = b.input(shape=(None, 4, 4)).reshape(None, 16).linear(16, name="first").linear(12, name="second")
    x = np.random.default_rng(0).standard_normal((16, 4, 4)).astype(np.float32)
    prepared = prepare_fx(b.build(y), mapping(), (x,))
    assert [name for name, _ in prepared.placement] == ["first", "second"]
    prepared(x)
    int8 = convert_fx(prepared)
    weight = int8.node("first").params["weight"]
    assert weight.dtype == np.float32 and len(np.unique(weight[0] / np.abs(weight[0]).max() * 127.5)) <= 16
    assert isinstance(int8.node("second").params["weight"], PackedWeights)
    assert Node("a", "relu", ["x"]).sources == ("a",)


def test_what_pytorch_wants_again_is_taken():
    """The table at the conversion, and attributes of the model through a fusion."""
    prepared = calibrated(zoo.load("digits_resnet"))
    ref, comp = convert_fx(prepared), convert_fx(prepared, backend_config=workflow.get_backend_config())
    np.testing.assert_array_equal(comp(batch())[0], ref(batch())[0])
    model = zoo.load("digits_resnet")
    model.labels = ["zero"]
    assert workflow.fuse_fx(model, fuse_custom_config=workflow.FuseCustomConfig.from_dict({"preserved_attributes": ["labels"]})).labels == ["zero"]
    assert not hasattr(workflow.fuse_fx(model), "labels")
