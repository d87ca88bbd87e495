"""refquant's FX workflow beside PyTorch's own: observers, scales, zero points and every code of every layer."""

import json
import operator
import sys
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import record_workflow_vectors as recorded  # noqa: E402
import torch.ao.nn.intrinsic as nni  # noqa: E402
from forward_module import ForwardModule  # noqa: E402
from refquant.data import architectures_torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.nn.utils import fusion  # noqa: E402

from refquant import data, interop, observers, workflow, zoo  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.backends.machine import profile_here  # noqa: E402
from refquant.errors import ArgumentError, UnsupportedError  # noqa: E402
from refquant.workflow import fuse_fx  # noqa: E402

BACKENDS = ("fbgemm", "qnnpack", "onednn", "x86")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prepared_pair(name, backend, mappings=None, order=None):
    """The same network prepared and calibrated on both sides."""
    order = order or torch_fx.real_order()
    ours_mapping, their_mapping = mappings or (workflow.get_default_qconfig_mapping(backend), None)
    batches = recorded.calibration(name)
    ours = workflow.prepare_fx(zoo.load(name), ours_mapping, (batches[0],))
    for batch in batches:
        ours(batch, real=order)
    return ours, torch_fx.prepared_module(name, backend, batches, mapping=their_mapping, order=order)


# The bundled networks.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", zoo.names())
def test_every_code_of_every_layer_agrees(name, backend):
    x = data.load_split(name, "test")[0][: 64 if name == "glyphs_net" else 500]
    ours, theirs = prepared_pair(name, backend)
    assert ours.placement == torch_fx.placement(theirs)
    bits = torch_fx.run_bits(torch_fx.quantized_module(theirs, backend), backend, x)
    rows = torch_fx.compare_layers(workflow.layer_bits(workflow.convert_fx(ours, profile_here(backend)), x), bits)
    assert len(rows) >= 15
    assert [row for row in rows if not row.exact] == []


def in_order(module, x):
    """Run a float module as PyTorch does on this CPU, or with every sum in float64 where that order is not refquant's."""
    traced = torch.fx.symbolic_trace(module.eval())
    with torch.no_grad():
        run = traced if torch_fx.real_order() == "torch_avx512" else torch_fx._Float64Sums(traced).run
        return run(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("name", zoo.names())
def test_the_float_forward_has_the_same_bits(name):
    x = data.load_split(name, "test")[0][:512]
    theirs = in_order(architectures_torch.load(name), x)
    assert np.array_equal(zoo.load(name).run(x, real=torch_fx.real_order())[0], theirs)


if torch_fx.real_order() == "torch_avx512":  # the order in which they were calibrated

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_the_recorded_vectors_are_torchs(backend):
        name = "digits_resnet"
        bits = torch_fx.layer_bits(name, backend, recorded.calibration(name), recorded.images(name))
        assert [recorded.row(b) for b in bits] == json.loads(recorded.PATH.read_text())[name][backend]


def test_planted_differences_are_found():
    ours, theirs = prepared_pair("digits_resnet", "x86")
    x = recorded.images("digits_resnet")
    bits = torch_fx.run_bits(torch_fx.quantized_module(theirs, "x86"), "x86", x)
    int8 = workflow.convert_fx(ours, profile_here("x86"))
    other = workflow.layer_bits(int8, x, numerics=int8.numerics.replace(rounding="half_away"))
    assert not all(row.exact for row in torch_fx.compare_layers(other, bits))
    right = workflow.layer_bits(int8, x)
    scaled = [b if i != 5 else b._replace(scale=np.nextafter(b.scale, 1)) for i, b in enumerate(bits)]
    assert [i for i, row in enumerate(torch_fx.compare_layers(right, scaled)) if not row.exact] == [5]
    changed = [b if i != 7 else b._replace(codes=np.where(np.arange(b.codes.size).reshape(b.codes.shape) == 9, b.codes ^ 1, b.codes)) for i, b in enumerate(bits)]
    rows = torch_fx.compare_layers(right, changed)
    assert [i for i, row in enumerate(rows) if not row.exact] == [7] and rows[7].codes.differing == 1
    with pytest.raises(ArgumentError, match="16 quantized values here .* but 15 there"):
        torch_fx.compare_layers(workflow.layer_bits(int8, x), bits[:-1])


# Mappings: each changes both sides in the same way.


def minmax(side, activation="quint8", weight="qint8", scheme="per_tensor_symmetric"):
    if side is tq:
        make = tq.MinMaxObserver.with_args
        return tq.QConfig(make(dtype=getattr(torch, activation)), make(dtype=getattr(torch, weight), qscheme=getattr(torch, scheme)))
    make = observers.MinMaxObserver.with_args
    return workflow.QConfig(make(dtype=activation), make(dtype=weight, qscheme=scheme))


def default(side):
    return side.get_default_qconfig("x86")


MAPPINGS = {
    "a block stays float": lambda m, side: m.set_module_name("block1", None),
    "a layer stays float": lambda m, side: m.set_module_name("block1.conv1", None),
    "by regular expression": lambda m, side: m.set_module_name_regex(r"block\d\.conv2", None),
    "pools have no qconfig": lambda m, side: m.set_object_type(nn.MaxPool2d, None),
    "sums stay float": lambda m, side: m.set_object_type(operator.add, None),
    "unfused convolutions stay float": lambda m, side: m.set_object_type(nn.Conv2d, None),
    "flatten has no qconfig": lambda m, side: m.set_object_type(torch.flatten, None),
    "one block only": lambda m, side: m.set_global(None).set_module_name("block2", default(side)),
    "one layer only": lambda m, side: m.set_global(None).set_module_name("block2.conv1", default(side)),
    "all but the last": lambda m, side: m.set_module_name_regex(".*", None).set_module_name("fc", default(side)),
    "first convolution of a block": lambda m, side: m.set_module_name_object_type_order("block1", nn.Conv2d, 0, None),
    "a fused type by order": lambda m, side: m.set_module_name_object_type_order("block1", nni.ConvReLU2d, 0, None),
    "a sum by order": lambda m, side: m.set_module_name_object_type_order("block2", operator.add, 0, None),
    "types together": lambda m, side: m.set_object_type(nn.Conv2d, minmax(side)).set_object_type(nn.ReLU, minmax(side)),
    "two kinds of observers": lambda m, side: m.set_module_name("block2", minmax(side)).set_module_name("block2.conv2", default(side)),
    "uint8 weights have no kernel": lambda m, side: m.set_module_name("block2.conv1", minmax(side, weight="quint8", scheme="per_tensor_affine")),
    "int8 activations have no kernel": lambda m, side: m.set_module_name("block2.conv1", minmax(side, activation="qint8")),
    "int8 activations of a pool": lambda m, side: m.set_module_name("maxpool", minmax(side, activation="qint8")),
    "minimum and maximum": lambda m, side: m.set_global(minmax(side)),
}


@pytest.mark.parametrize("change", MAPPINGS.values(), ids=MAPPINGS)
def test_mappings_mean_the_same(change):
    mappings = change(workflow.get_default_qconfig_mapping("x86"), workflow), change(tq.get_default_qconfig_mapping("x86"), tq)
    ours, theirs = prepared_pair("digits_resnet", "x86", mappings, order="float64")
    assert ours.placement == torch_fx.placement(theirs)
    x = recorded.images("digits_resnet")
    bits = torch_fx.run_bits(torch_fx.quantized_module(theirs, "x86"), "x86", x, order="float64")
    rows = torch_fx.compare_layers(workflow.layer_bits(workflow.convert_fx(ours, profile_here("x86")), x, real="float64"), bits)
    assert [row for row in rows if not row.exact] == []


def test_both_sides_refuse_types_that_fuse_but_differ():
    ours = workflow.QConfigMapping().set_object_type(nn.Conv2d, default(workflow))
    theirs = tq.QConfigMapping().set_object_type(nn.Conv2d, default(tq))
    with pytest.raises(ArgumentError, match="fused with nn.ReLU"):
        prepared_pair("digits_resnet", "x86", (ours, None))
    with pytest.raises(LookupError, match="same qconfigs"):
        torch_fx.prepared_module("digits_resnet", "x86", recorded.calibration("digits_resnet"), mapping=theirs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:Please use quant_min")
def test_default_qconfigs_have_torchs_arguments(backend):
    theirs, ours = tq.get_default_qconfig(backend), workflow.get_default_qconfig(backend)
    for side in ("activation", "weight"):
        a, b = getattr(ours, side)(), getattr(theirs, side)()
        assert type(a).__name__ == type(b).__name__
        assert (a.quant_min, a.quant_max, a.eps) == (b.quant_min, b.quant_max, b.eps.item())
        assert a.qscheme == str(b.qscheme).removeprefix("torch.")
        assert {"uint8": torch.quint8, "int8": torch.qint8}[a.dtype] == b.dtype


# Folding, and modules that come from PyTorch.


@pytest.mark.parametrize("bias", [False, True])
def test_folded_weights_have_torchs_bits(bias):
    torch.manual_seed(0)
    for layer, norm, x in ((nn.Conv2d(5, 8, 3, bias=bias), nn.BatchNorm2d(8), torch.zeros(2, 5, 6, 6)), (nn.Linear(5, 8, bias=bias), nn.BatchNorm1d(8), torch.zeros(2, 5))):
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.01, 3)
        node = fuse_fx(interop.from_torch(nn.Sequential(layer, norm).eval(), (x,))).nodes[1]
        fold = fusion.fuse_conv_bn_eval if isinstance(layer, nn.Conv2d) else fusion.fuse_linear_bn_eval
        theirs = fold(layer.eval(), norm.eval())
        assert np.array_equal(node.params["weight"], theirs.weight.detach().numpy())
        assert np.array_equal(node.params["bias"], theirs.bias.detach().numpy())


@pytest.mark.parametrize("name", zoo.names())
def test_from_torch_gives_the_network_of_the_zoo(name):
    expected = zoo.load(name)
    x = torch.zeros(1, *expected.node("x").attrs["shape"][1:])
    model = interop.from_torch(architectures_torch.load(name), (x,))
    assert [n.name for n in model.nodes] == [n.name for n in torch.fx.symbolic_trace(architectures_torch.load(name)).graph.nodes][:-1]
    for a, b in zip(model.nodes, expected.nodes, strict=True):
        assert (a.name, a.op, a.inputs, a.target, a.path, dict(a.attrs)) == (b.name, b.op, b.inputs, b.target, b.path, dict(b.attrs))
        assert all(np.array_equal(a.params[k], b.params[k]) for k in b.params)


def converted(forward, x=None, **layers):
    x = torch.randn(16, 3, 8, 8) if x is None else x
    module = ForwardModule(forward, **layers).eval()
    model = interop.from_torch(module, (x,))
    with torch.no_grad():
        theirs = module(x)
    ours = model.run(x.numpy(), real="float64")
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-5)
    return model


def test_from_torch_understands_the_usual_spellings():
    converted(lambda m, x: F.relu(torch.add(x, x)) + x.relu())
    converted(lambda m, x: m.c(x).view(x.size(0), -1), c=nn.Conv2d(3, 4, 3, padding="same", dilation=2))
    converted(lambda m, x: m.f(x).reshape(x.shape[0], 3, -1), f=nn.Identity())
    converted(lambda m, x: m.l(torch.flatten(F.adaptive_avg_pool2d(x, (2, 2)), 1)), l=nn.Linear(12, 3, bias=False))
    converted(lambda m, x: torch.cat((F.max_pool2d(x, 3, 2), F.avg_pool2d(x, 3, 2)), dim=1))
    converted(lambda m, x: m.n(m.c(x)), x=torch.randn(16, 3, 9), c=nn.Conv1d(3, 4, 3, stride=2), n=nn.BatchNorm1d(4, affine=False))
    converted(lambda m, x: (m.d(x), F.dropout(x, training=m.training)), d=nn.Dropout())
    model = converted(lambda m, x: m.p(m.a(x)).flatten(1), p=nn.AvgPool2d(2, ceil_mode=True), a=nn.AdaptiveAvgPool2d((None, 5)))
    assert model.shapes()["flatten"] == (None, 3 * 4 * 3)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: interop.from_torch("resnet", ()), ArgumentError, "module is a str"),
        (lambda: interop.from_torch(nn.ReLU(), (torch.zeros(1),)), ArgumentError, r"call module.eval\(\)"),
        (lambda: interop.from_torch(nn.ReLU().eval(), torch.zeros(1)), ArgumentError, r"must be a tuple.*write \(x,\)"),
        (lambda: interop.from_torch(nn.Sequential(nn.ReLU()).eval(), ()), ArgumentError, "0 example inputs but Sequential takes 1"),
        (lambda: converted(lambda m, x: m.g(x), g=nn.Mish()), UnsupportedError, "'g' is layer torch.nn.modules.activation.Mish"),
        (lambda: converted(lambda m, x: torch.sub(1, x)), UnsupportedError, "constant 1"),
        (lambda: converted(lambda m, x: x // x), UnsupportedError, "'floordiv' is call_function"),
        (lambda: converted(lambda m, x: torch.add(x, x, alpha=2)), UnsupportedError, "alpha=2"),
        (lambda: converted(lambda m, x: x.sum()), UnsupportedError, "'sum_1' is call_method sum"),
        (lambda: converted(lambda m, x: m.c(x), c=nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), UnsupportedError, "padding_mode='reflect'"),
        (lambda: converted(lambda m, x: m.c(x), c=nn.Conv2d(3, 4, 2, padding="same")), UnsupportedError, "even window"),
        (lambda: converted(lambda m, x: m.c(x), c=nn.Conv2d(3, 4, 2).double()), ArgumentError, "float64 but must be float32"),
        (lambda: converted(lambda m, x: m.n(x), n=nn.BatchNorm2d(3, track_running_stats=False)), UnsupportedError, "no running statistics"),
        (lambda: converted(lambda m, x: x if x.sum() > 0 else -x), UnsupportedError, "cannot trace ForwardModule"),
        (lambda: converted(lambda m, x: F.dropout(x, training=True)), UnsupportedError, "draws random numbers"),
        (lambda: converted(lambda m, x: {"y": m.r(x)}, r=nn.ReLU()), UnsupportedError, "return a tensor or a tuple"),
        (lambda: torch_fx.prepared_module("digits_resnet", "x86", []), ArgumentError, "calibration is empty"),
        (lambda: torch_fx.prepared_module(3, "x86", [np.zeros(3)]), ArgumentError, "module is a int"),
    ],
)  # fmt: skip
def test_from_torch_errors(call, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error, match=message):
            call()


def test_without_torch_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    from refquant.errors import BackendMissing

    with pytest.raises(BackendMissing, match=r"pip install 'refquant\[torch\]'"):
        interop.from_torch(None, ())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "shape, oc, kernel, stride, padding, groups",
    [
        ((16, 3, 16, 16), 8, 5, 1, 2, 1),
        ((20, 40, 7, 7), 24, 3, 2, 1, 1),
        ((16, 300, 14, 14), 64, 1, 1, 0, 1),
        ((16, 16, 5, 5), 32, 1, 2, 0, 1),
        ((16, 24, 9, 9), 24, 3, 1, 1, 24),
        ((16, 8, 9, 9), 16, 3, 1, 1, 8),
        ((16, 32, 8, 8), 64, 3, 1, 1, 4),
    ],
)  # fmt: skip
def test_real_convolutions_have_torchs_bits(shape, oc, kernel, stride, padding, groups, bias):
    check_real(nn.Conv2d(shape[1], oc, kernel, stride, padding, groups=groups, bias=bias), shape)


@pytest.mark.parametrize("n, k, oc", [(16, 124, 62), (50, 32, 10), (16, 384, 20), (17, 500, 100)])
def test_real_linear_layers_have_torchs_bits(n, k, oc):
    check_real(nn.Linear(k, oc), (n, k))


@pytest.mark.parametrize(
    "layer",
    [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((3, 4)), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, count_include_pad=False), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(5)],
    ids=str,
)
def test_real_pools_and_norms_have_torchs_bits(layer):
    for size in (7, 9, 14):
        check_real(layer, (16, 5, size, size))


def check_real(layer, shape):
    """One layer on both sides, in the order of this CPU."""
    torch.manual_seed(sum(shape))
    if isinstance(layer, nn.BatchNorm2d):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.1, 2)
        layer.weight.data.normal_()
    module, x = nn.Sequential(layer).eval(), torch.randn(*shape)
    ours = interop.from_torch(module, (x,)).run(x.numpy(), real=torch_fx.real_order())[0]
    assert np.array_equal(ours, in_order(module, x.numpy()))
