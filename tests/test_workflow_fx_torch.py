"""refquant's FX workflow beside PyTorch's own beyond the defaults: other tables, dynamic layers, custom configs, reference models, reused modules."""

import copy
import importlib
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.ao.quantization import quantize_fx  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from refquant import interop, observers, workflow  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.backends.torch_tensors import engine  # noqa: E402
from refquant.cli.verify_models import compare_network, numerics_here  # noqa: E402
from refquant.errors import ArgumentError, UnsupportedError  # noqa: E402

warnings.filterwarnings("ignore", module="torch")


class Net(nn.Module):
    """A module whose forward is a function of its layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        torch.manual_seed(0)
        for name, layer in layers.items():
            setattr(self, name, layer() if isinstance(layer, type(lambda: 0)) else layer)
        self._forward = forward
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.3, 2)
                nn.init.uniform_(module.weight, 0.3, 2)
                nn.init.normal_(module.bias, 0, 0.3)
        self.eval()

    def forward(self, x):
        return self._forward(self, x)


def images(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape or (8, 4, 6, 6)).astype(np.float32) * (1 + i) for i in range(2)]


def same(module, engine_name="fbgemm", batches=None, **options):
    """Compare a module under both workflows, with everything in float64."""
    result = compare_network("case", engine_name, (module, batches or images()), **options)
    assert result.exact, result.first
    assert result.layers > 1
    return result


def tables(name):
    """refquant's and PyTorch's table of an engine."""
    theirs = getattr(importlib.import_module(f"torch.ao.quantization.backend_config.{name}"), f"get_{name}_backend_config")()
    return workflow.get_backend_config(name), theirs


CONV = {"conv": lambda: nn.Conv2d(4, 4, 3, padding=1), "other": lambda: nn.Conv2d(4, 4, 1), "bn": lambda: nn.BatchNorm2d(4), "relu": lambda: nn.ReLU()}

SUMS = {
    "left": lambda m, x: m.conv(x) + F.relu(m.other(x)),
    "right": lambda m, x: F.relu(m.other(x)) + m.conv(x),
    "torch.add": lambda m, x: torch.add(m.conv(x), F.relu(m.other(x))),
    "both are convolutions": lambda m, x: m.conv(x) + m.other(x),
    "batch norm, left": lambda m, x: m.bn(m.conv(x)) + x,
    "batch norm, right": lambda m, x: torch.add(x, m.bn(m.conv(x))),
    "relu, left": lambda m, x: m.relu(m.conv(x) + F.relu(m.other(x))),
    "relu, right": lambda m, x: m.relu(torch.add(x, m.conv(x))),
    "batch norm and relu, left": lambda m, x: m.relu(m.bn(m.conv(x)) + m.other(x)),
    "batch norm and relu, right": lambda m, x: m.relu(x + m.bn(m.conv(x))),
    "F.relu is not fused": lambda m, x: F.relu(m.conv(x) + x),
    "a second reader prevents it": lambda m, x: (lambda y: (y + x, y))(m.conv(x)),
}


@pytest.mark.parametrize("forward", SUMS.values(), ids=SUMS)
def test_onednn_takes_sums_into_convolutions(forward):
    result = same(Net(forward, **CONV), "onednn", backend_config=tables("onednn"))
    assert bool(result.fused) == (forward is not SUMS["a second reader prevents it"])


ROWS = {"fc": lambda: nn.Linear(12, 8), "bn": lambda: nn.BatchNorm1d(8), "leaky": lambda: nn.LeakyReLU(0.2), "tanh": lambda: nn.Tanh(), "last": lambda: nn.Linear(8, 5)}

LAYERS = {
    "leaky relu": lambda m, x: m.last(m.leaky(m.fc(x))),
    "F.leaky_relu": lambda m, x: m.last(F.leaky_relu(m.fc(x), 0.3)),
    "batch norm and leaky relu": lambda m, x: m.last(m.leaky(m.bn(m.fc(x)))),
    "tanh": lambda m, x: m.last(m.tanh(m.fc(x))),
    "torch.tanh": lambda m, x: m.last(torch.tanh(m.fc(x))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_onednn_takes_functions_into_linear_layers(name):
    module, tabled = Net(LAYERS[name], **ROWS), tables("onednn")
    mappings = [workflow.QConfigMapping("onednn").set_global(workflow.get_default_qconfig("onednn")), tq.QConfigMapping().set_global(tq.get_default_qconfig("onednn"))]
    if name in ("F.leaky_relu", "torch.tanh"):  # PyTorch makes modules of no function but F.relu, and its fused module refuses the rest
        with pytest.raises(AssertionError, match="Incorrect types for input modules: Linear and"):
            torch_fx.prepared_module(module, "onednn", images(8, 12), mapping=mappings[1], backend_config=tabled[1])
        with pytest.raises(UnsupportedError, match="PyTorch fuses it as a module alone"):
            workflow.fuse_fx(interop.from_torch(module, (images(8, 12)[0],)), tabled[0])
        return
    result = same(module, "onednn", images(8, 12), mappings=tuple(mappings), backend_config=tabled)
    assert result.fused == 1


def test_both_sides_refuse_onednns_tanh_under_the_default_mapping():
    module, (ours, theirs) = Net(LAYERS["tanh"], **ROWS), tables("onednn")
    with pytest.raises(LookupError, match="same qconfigs"):
        torch_fx.prepared_module(module, "onednn", images(8, 12), backend_config=theirs)
    model = interop.from_torch(module, (images(8, 12)[0],))
    with pytest.raises(ArgumentError, match="nn.Linear fused with nn.Tanh"):
        workflow.prepare_fx(model, workflow.get_default_qconfig_mapping("onednn"), (images(8, 12)[0],), backend_config=ours)


@pytest.mark.parametrize("name", ["fbgemm", "x86", "qnnpack"])
def test_other_tables_place_as_torchs(name):
    forward = lambda m, x: F.layer_norm(m.relu(m.bn(m.conv(x)) * 2.0) + torch.sigmoid(m.other(x)), (6,))  # noqa: E731
    same(Net(forward, **CONV), name, backend_config=tables(name))


@pytest.mark.parametrize("engine_name, count", [("fbgemm", 2), ("onednn", 0)])
def test_a_table_of_ones_own(engine_name, count):
    """Linear layers alone, and only with seven bits, which oneDNN's default does not keep to."""
    kinds = importlib.import_module("torch.ao.quantization.backend_config")
    reference = importlib.import_module("torch.ao.nn.quantized.reference")
    seven = kinds.DTypeWithConstraints(dtype=torch.quint8, quant_min_lower_bound=0, quant_max_upper_bound=127)
    config = kinds.DTypeConfig(input_dtype=seven, output_dtype=seven, weight_dtype=torch.qint8, bias_dtype=torch.float)
    row = kinds.BackendPatternConfig(nn.Linear).set_dtype_configs([config]).set_root_module(nn.Linear).set_reference_quantized_module(reference.Linear)
    theirs = kinds.BackendConfig("own").set_backend_pattern_config(row)
    small, weight = workflow.DTypeWithConstraints("uint8", 0, 127), workflow.DTypeWithConstraints("int8")
    ours = workflow.BackendConfig("own", [workflow.BackendPatternConfig("nn.Linear", (workflow.DTypeConfig(small, small, weight, "float32"),), weighted=True)])
    module, batches = Net(lambda m, x: m.last(F.relu(m.fc(x))), **layers()), images(8, 12)
    model = interop.from_torch(module, (batches[0],))
    prepared = workflow.prepare_fx(model, workflow.get_default_qconfig_mapping(engine_name), (batches[0],), backend_config=ours)
    reference = torch_fx.prepared_module(module, engine_name, batches, backend_config=theirs, order="float64")
    assert prepared.placement == torch_fx.placement(reference) and len(prepared.observed) == count
    if count:
        same(module, engine_name, batches, backend_config=(ours, theirs))


def test_symmetric_int8_activations_are_qnnpacks_alone():
    """Its table takes int8 activations with scales of 2**-12 and more; others leave such layers float."""
    make, weight = {"reduce_range": False, "eps": 2**-12}, {"quant_min": -127, "quant_max": 127, "eps": 2**-12}
    ours = workflow.QConfig(
        observers.HistogramObserver.with_args(dtype="qint8", **make), observers.MinMaxObserver.with_args(dtype="qint8", qscheme="per_tensor_symmetric", **weight)
    )
    mapping = workflow.QConfigMapping("qnnpack").set_global(ours)
    theirs = tq.QConfigMapping().set_global(tq.qconfig.default_symmetric_qnnpack_qconfig)
    module = Net(lambda m, x: m.other(m.relu(m.conv(x))), **CONV)
    for name, count in (("qnnpack", 3), ("native", 0)):
        model = interop.from_torch(module, (images()[0],))
        placed = workflow.prepare_fx(model, mapping, (images()[0],), backend_config=workflow.get_backend_config(name)).placement
        prepared = torch_fx.prepared_module(module, "qnnpack", images(), mapping=theirs, backend_config=tables(name)[1])
        assert placed == torch_fx.placement(prepared) and len(placed) == count


# Structures that are easy to get wrong.

STRUCTURES = {
    "linear, batch norm, relu into a shared observer": (lambda m, x: torch.cat([F.relu(m.bn(m.fc(x))), m.last(m.fc2(x))], 1), (8, 12)),
    "functional dropout": (lambda m, x: m.last(F.dropout(m.fc(x), 0.5, m.training)), (8, 12)),
    "functional linear with weights": (lambda m, x: F.linear(F.relu(F.linear(x, m.fc.weight, m.fc.bias)), m.last.weight), (8, 12)),
    "functional linear before a relu module": (lambda m, x: m.relu(F.linear(x, m.fc.weight, bias=m.fc.bias)), (8, 12)),
    "a value twice in a cat": (lambda m, x: (lambda y: torch.cat([y, y, x], 1))(m.fc(x)), (8, 12)),
    "a value added to itself": (lambda m, x: (lambda y: m.last(y + y))(m.fc(x)), (8, 12)),
    "a value times itself": (lambda m, x: (lambda y: F.relu(y * y))(m.fc(x)), (8, 12)),
    "numbers": (lambda m, x: F.relu(m.fc(x) * 3.0) + (m.fc2(x)[:, :8] + 1.5), (8, 12)),
    "the input goes out too": (lambda m, x: (m.fc(x), x), (8, 12)),
    "an output that is read on": (lambda m, x: (lambda y: (y, m.last(y), F.relu(y)))(m.fc(x)), (8, 12)),
    "one value out twice": (lambda m, x: (lambda y: (y, y))(m.fc(x)), (8, 12)),
    "a relu read twice": (lambda m, x: (lambda y: m.last(y) + m.last2(y))(F.relu(m.fc(x))), (8, 12)),
    "shapes between layers": (lambda m, x: m.fc(x.reshape(-1, 2, 12).transpose(0, 1).permute(1, 0, 2).squeeze(1).unsqueeze(1).flatten(1)[:, :12]), (8, 12)),
    "pools that share from the input on": (lambda m, x: m.conv(F.max_pool2d(F.avg_pool2d(x, 2), 2)), (8, 4, 8, 8)),
    "a mean": (lambda m, x: m.head(m.conv(x).mean((2, 3))), (8, 4, 6, 6)),
    "means that keep": (lambda m, x: torch.mean(m.conv(x), (2, 3), keepdim=True), (8, 4, 6, 6)),
    "resizing": (lambda m, x: m.conv2(F.interpolate(m.conv(x), scale_factor=2.0, mode="nearest")), (8, 4, 6, 6)),
    "a sum in place": (lambda m, x: m.last(in_place(m.fc(x), m.fc2(x))), (8, 12)),
    "a part of a value": (lambda m, x: (lambda y: m.last(torch.cat([y.chunk(2, 1)[1], y[:, :4]], 1)) + y)(m.fc(x)), (8, 12)),
    "a parameter is added": (lambda m, x: m.last(m.fc(x) + m.table), (8, 12)),
    "functions without a form on codes": (lambda m, x: m.last(F.silu(F.gelu(m.fc(x)))) + F.softmax(m.fc2(x), -1), (8, 12)),
    "nothing is quantized": (lambda m, x: (F.gelu(x), m.fc(F.relu(x))), (8, 12)),
    "a product of two values": (lambda m, x: (lambda y: m.last(torch.matmul(F.relu(y), y)))(m.fc(x)), (8, 12)),
    "limits": (lambda m, x: m.last(torch.clamp(m.fc(x), -0.5, 0.75)), (8, 12)),
    "a flatten module": (lambda m, x: m.fc3(m.flat(m.conv(x))), (8, 4, 6, 6)),
    "sequences": (lambda m, x: F.relu(m.norm1(m.seq(x))) + F.avg_pool1d(F.relu(m.seq(x)), 3, 1, 1), (8, 4, 15)),
    "volumes": (lambda m, x: F.adaptive_avg_pool3d(m.relu(m.norm3(m.vol(x))) + m.relu(m.norm3b(x)), 1), (8, 4, 5, 6, 7)),
    "pooled volumes": (lambda m, x: m.vol(F.avg_pool3d(x, 2)), (8, 4, 8, 8, 8)),
    "an identity and a dropout": (lambda m, x: m.drop(m.identity(m.conv(x))), (8, 4, 6, 6)),
}


def in_place(a, b):
    a += b
    return a


def layers():
    rows = {"fc": nn.Linear(12, 8), "fc2": nn.Linear(12, 8), "bn": nn.BatchNorm1d(8), "last": nn.Linear(8, 8), "last2": nn.Linear(8, 8), "relu": nn.ReLU()}
    rows |= {"seq": nn.Conv1d(4, 4, 3, padding=1), "norm1": nn.BatchNorm1d(4), "vol": nn.Conv3d(4, 4, 3, padding=1), "norm3": nn.BatchNorm3d(4), "norm3b": nn.BatchNorm3d(4)}
    rows |= {"flat": nn.Flatten(), "fc3": nn.Linear(144, 5), "table": nn.Parameter(torch.randn(8, 8))}
    return {**rows, "conv": nn.Conv2d(4, 4, 3, padding=1), "conv2": nn.Conv2d(4, 4, 1), "head": nn.Linear(4, 3), "drop": nn.Dropout(), "identity": nn.Identity()}


@pytest.mark.parametrize("engine_name", ["fbgemm", "qnnpack"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_agree(name, engine_name):
    forward, shape = STRUCTURES[name]
    same(Net(forward, **layers()), engine_name, images(*shape))


@pytest.mark.parametrize("engine_name", ["fbgemm", "qnnpack"])
def test_two_inputs_agree(engine_name):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.left, self.right, self.last = nn.Linear(12, 8), nn.Linear(10, 8), nn.Linear(8, 4)

        def forward(self, x, y):
            both = self.left(x) + self.right(y)
            return self.last(F.relu(both)), torch.cat([both, y], 1)

    batches = list(zip(images(8, 12), images(8, 10, seed=1)))
    same(Two().eval(), engine_name, batches)


# One module, several calls: PyTorch swaps the module, so that the last call decides for all.


def test_calls_of_one_module_share_what_the_last_made_of_it():
    module = Net(lambda m, x: m.conv2(m.act(m.conv(m.act(m.conv(x) * 0.1)))), conv=nn.Conv2d(4, 4, 3, padding=1), conv2=nn.Conv2d(4, 4, 1), act=nn.Hardswish())
    same(module, "fbgemm")
    int8 = converted(module)
    scales = [n.attrs["out"].scale for n in int8.nodes if n.op == "hardswish"]
    assert len(scales) == 2 and scales[0] == scales[1]


def test_a_module_that_is_fused_at_one_call_is_fused_at_all():
    module = Net(lambda m, x: m.conv(F.relu(m.conv(x))), conv=nn.Conv2d(4, 4, 3, padding=1))
    model = interop.from_torch(module, (images()[0],))
    with pytest.warns(UserWarning, match="module 'conv' is called more than once; 'conv_1' computes what conv \\+ relu was fused to"):
        fused = workflow.fuse_fx(model)
    theirs = quantize_fx.fuse_fx(copy.deepcopy(module))
    x = images()[0]
    with torch.no_grad():
        np.testing.assert_allclose(fused.run(x, real="float64")[0], theirs(torch.from_numpy(x)).numpy(), atol=1e-5)
        assert (theirs(torch.from_numpy(x)) >= 0).all() and (module(torch.from_numpy(x)) < 0).any()
    same(module, "fbgemm")


def converted(module, **options):
    x = images()[0]
    prepared = workflow.prepare_fx(interop.from_torch(module, (x,)), workflow.get_default_qconfig_mapping("fbgemm"), (x,), **options)
    prepared(x, real="float64")
    return workflow.convert_fx(prepared)


# Dynamic layers.

DYNAMIC = {
    "linear": lambda m, x: m.last(m.fc(x)),
    "linear and relu": lambda m, x: m.last(m.relu(m.fc(x))),
    "linear and F.relu": lambda m, x: m.last(F.relu(m.fc(x))),
    "functions": lambda m, x: F.relu(F.linear(F.linear(x, m.fc.weight, m.fc.bias), m.last.weight)),
    "a relu with a second reader": lambda m, x: (lambda y: (F.relu(y), y))(F.linear(x, m.fc.weight, m.fc.bias)),
    "two readers of one input": lambda m, x: m.fc(x) + m.fc2(x),
    "convolutions stay float": lambda m, x: m.fc(m.conv(x.reshape(-1, 4, 6, 2)).reshape(-1, 12)),
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("engine_name", ["fbgemm", "qnnpack", "onednn"])
@pytest.mark.parametrize("name", DYNAMIC)
def test_dynamic_layers_agree(name, engine_name, per_channel):
    module, x = Net(DYNAMIC[name], **layers()), images(8, 12)[0]
    if name == "convolutions stay float":
        x = images(8, 48)[0]
    side = "per_channel_dynamic_qconfig" if per_channel else "default_dynamic_qconfig"
    ours, theirs = workflow.QConfigMapping(engine_name).set_global(getattr(workflow, side)), tq.QConfigMapping().set_global(getattr(tq, side))
    prepared = workflow.prepare_fx(interop.from_torch(module, (x,)), ours, (x,))
    reference = torch_fx.prepared_module(module, engine_name, [x], mapping=theirs)
    assert prepared.placement == torch_fx.placement(reference)
    converted = torch_fx.quantized_module(reference, engine_name)
    int8 = workflow.convert_fx(prepared, numerics_here(engine_name))
    with engine(engine_name), torch.no_grad():
        expected = torch_fx._Float64Sums(converted).run(torch.from_numpy(x))
    expected = expected if isinstance(expected, tuple) else (expected,)
    for a, b in zip(int8.run(x, real="float64"), expected, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    assert any(n.op == "linear_dynamic" for n in int8.nodes)
