"""Standalone modules beside PyTorch's: placement, parameters and every code, inside and outside."""

import re
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from refquant import interop, workflow  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.cli.verify_models import numerics_here  # noqa: E402
from refquant.errors import ArgumentError, ShapeError, UnsupportedError  # noqa: E402

warnings.filterwarnings("ignore", module="torch")


class Block(nn.Module):
    """Two convolutions with a batch norm, a function and a sum."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.relu(self.bn(self.conv(x)))
        return F.relu(self.last(y)) + y


class Joined(nn.Module):
    """Two inputs, joined."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 4, 1)

    def forward(self, x, y):
        return self.conv(torch.cat([x, y], 1))


class Net(nn.Module):
    """A forward over the layers that all cases have."""

    def __init__(self, forward, block):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.other, self.block, self.head, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), block(), nn.Conv2d(4, 4, 1), nn.ReLU()
        self._forward = forward
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.3, 2)
        self.eval()

    def forward(self, x):
        return self._forward(self, x)


def small():
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())


FORWARDS = {
    "convolution and relu": (lambda m, x: m.head(m.block(m.first(x))), small),
    "a block": (lambda m, x: m.head(m.relu(m.block(m.relu(m.first(x))))), Block),
    "first of all": (lambda m, x: m.head(m.block(x)), Block),
    "last of all": (lambda m, x: m.block(m.first(x)), Block),
    "alone": (lambda m, x: m.block(x), Block),
    "read twice": (lambda m, x: (lambda y: m.head(y) + F.max_pool2d(y, 3, 1, 1))(m.block(m.first(x))), Block),
    "shares its input": (lambda m, x: (lambda y: m.block(y) + m.head(y))(m.first(x)), Block),
    "two inputs": (lambda m, x: m.head(m.block(m.first(x), m.other(x))), Joined),
    "pools around": (lambda m, x: F.avg_pool2d(m.block(F.max_pool2d(m.first(x), 2)), 2), small),
    "borders that fuse nothing": (lambda m, x: m.relu(m.block(m.first(x))), lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1))),
    "without weights": (lambda m, x: m.head(m.block(m.first(x))), lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))),
}
CODES = [((), ()), ((0,), ()), ((), (0,)), ((0,), (0,))]


def batches():
    rng = np.random.default_rng(0)
    return [rng.standard_normal((4, 4, 6, 6)).astype(np.float32) * (1 + i) for i in range(2)]


def both(forward, block, engine, inputs, outputs, inner=(None, None), outer=(None, None)):
    """Prepare a network under both workflows, and calibrate it in float64."""
    module, data = Net(forward, block), batches()
    values = (torch.from_numpy(data[0]),) * (2 if block is Joined else 1)
    theirs_inside = PrepareCustomConfig().set_input_quantized_indexes(list(inputs)).set_output_quantized_indexes(list(outputs))
    theirs = PrepareCustomConfig().set_standalone_module_name("block", inner[1], values, theirs_inside, None)
    ours_inside = workflow.PrepareCustomConfig().set_input_quantized_indexes(inputs).set_output_quantized_indexes(outputs)
    ours = workflow.PrepareCustomConfig().set_standalone_module_name("block", inner[0], tuple(v.numpy() for v in values), ours_inside, None)
    reference = torch_fx.prepared_module(module, engine, data, mapping=outer[1], order="float64", custom=theirs)
    prepared = workflow.prepare_fx(interop.from_torch(module, (data[0],)), outer[0] or workflow.get_default_qconfig_mapping(engine), (data[0],), ours)
    for batch in data:
        prepared(batch, real="float64")
    return prepared, reference, data


def agree(prepared, reference, data, engine):
    """Compare where observers sit, then every parameter and code; returns how many values are quantized."""
    outer, parts = prepared.apart()
    plain = lambda rows: [(re.sub(r"_\d+$", "", name), k) for name, k in rows]  # noqa: E731 - PyTorch counts names outside for themselves
    assert plain(outer.placement) == plain(torch_fx.placement(reference))
    numbers = lambda rows: [k for _, k in rows]  # noqa: E731 - inside, PyTorch's names begin at the module
    assert numbers(parts["block"].placement) == numbers(torch_fx.placement(reference.block))
    return same_codes(workflow.convert_fx(prepared, numerics_here(engine)), torch_fx.quantized_module(reference, engine), data[1], engine)


def same_codes(int8, converted, x, engine):
    """Compare every parameter and code, and the outputs; returns how many values are quantized."""
    theirs = torch_fx.run_bits(converted, engine, x, order="float64")
    rows = torch_fx.compare_layers(workflow.layer_bits(int8, x, real="float64"), theirs)
    assert all(row.exact for row in rows), [row for row in rows if not row.exact][0]
    with torch_fx.engine(engine), torch.no_grad():
        expected = torch_fx._Float64Sums(converted).run(torch.from_numpy(x))
    for y, z in zip(int8.run(x, real="float64"), expected if isinstance(expected, (list, tuple)) else [expected], strict=True):
        np.testing.assert_array_equal(y.view(np.uint32), z.numpy().view(np.uint32))
    return len(rows)


@pytest.mark.parametrize("inputs, outputs", CODES)
@pytest.mark.parametrize("engine", ["fbgemm", "x86"])
@pytest.mark.parametrize("name", FORWARDS)
def test_standalone_modules_agree(name, engine, inputs, outputs):
    forward, block = FORWARDS[name]
    if block is Joined and inputs:
        inputs = (0, 1)
    if name == "without weights" and not inputs and outputs:
        outputs = ()  # the relu shares its input's observer, and there is none
    assert agree(*both(forward, block, engine, inputs, outputs), engine) >= (name != "without weights")


def qconfigs(engine):
    """A QConfig of both sides that is not the default one."""
    ours = workflow.get_default_qconfig("qnnpack" if engine != "qnnpack" else "fbgemm")
    return ours, tq.get_default_qconfig("qnnpack" if engine != "qnnpack" else "fbgemm")


@pytest.mark.parametrize("inputs, outputs", CODES)
@pytest.mark.parametrize("engine", ["fbgemm", "x86", "qnnpack"])
def test_another_qconfig_inside(engine, inputs, outputs):
    ours, theirs = qconfigs(engine)
    inner = workflow.QConfigMapping().set_global(ours).set_module_name("last", None), tq.QConfigMapping().set_global(theirs).set_module_name("last", None)
    prepared, *rest = both(FORWARDS["a block"][0], Block, engine, inputs, outputs, inner)
    assert agree(prepared, *rest, engine) >= 5
    assert prepared.qconfigs["block_conv"] == ours != prepared.qconfigs["head"] and prepared.qconfigs["block_last"] is None


@pytest.mark.parametrize("engine", ["fbgemm", "x86"])
def test_between_float_layers(engine):
    """The surroundings have no QConfig, so that nothing is quantized for the module, whatever it wants."""
    ours, theirs = workflow.get_default_qconfig_mapping(engine), tq.get_default_qconfig_mapping(engine)
    inner = workflow.get_default_qconfig_mapping(engine), tq.get_default_qconfig_mapping(engine)
    outer = ours.set_global(None).set_object_type("nn.Conv2d", None), theirs.set_global(None).set_object_type(nn.Conv2d, None)
    for outputs in ((), (0,)):
        prepared, *rest = both(FORWARDS["a block"][0], Block, engine, (), outputs, inner, outer)
        assert agree(prepared, *rest, engine) >= 4
    prepared, *_ = both(FORWARDS["a block"][0], Block, engine, (0,), (), inner, outer)
    with pytest.raises(UnsupportedError, match="standalone module 'block' wants codes but 'first' is not quantized"):
        workflow.convert_fx(prepared)


def test_a_wrong_qconfig_inside_is_found():
    inner = workflow.QConfigMapping().set_global(workflow.get_default_qconfig("qnnpack")), None
    with pytest.raises(AssertionError):
        agree(*both(FORWARDS["convolution and relu"][0], small, "fbgemm", (), (), inner), "fbgemm")


def test_reference_models_keep_modules_apart():
    prepared, reference, data = both(FORWARDS["a block"][0], Block, "fbgemm", (0,), (0,))
    with torch_fx.engine("fbgemm"):
        converted = tq.quantize_fx.convert_to_reference_fx(reference)
    rows = torch_fx.compare_layers(
        workflow.layer_bits(workflow.convert_to_reference_fx(prepared), data[1], real="float64"), torch_fx.run_bits(converted, "fbgemm", data[1], order="float64")
    )
    assert len(rows) == 7 and all(row.exact for row in rows)


def _prepare(forward, block, path="block", custom=None, example=None, mapping=None, prepare=None):
    x = batches()[0]
    config = workflow.PrepareCustomConfig().set_standalone_module_name(path, mapping, (x,) if example is None else example, custom, None)
    return (prepare or workflow.prepare_fx)(interop.from_torch(Net(forward, block), (x,)), workflow.get_default_qconfig_mapping("fbgemm"), (x,), config)


def _convert(*arguments):
    prepared = _prepare(*arguments)
    prepared(batches()[0])
    return workflow.convert_fx(prepared)


ONE = FORWARDS["a block"][0]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: _prepare(ONE, Block, "blok"), ArgumentError, "standalone module 'blok': no node lies in it"),
        (lambda: _prepare(ONE, Block, "first"), UnsupportedError, "'first': is a layer"),
        (lambda: _prepare(lambda m, x: m.block(m.block(x)), small), UnsupportedError, "may be called more than once"),
        (lambda: _prepare(lambda m, x: m.block(F.relu(m.block(x))), small), UnsupportedError, "may be called more than once"),
        (lambda: _prepare(lambda m, x: m.block[1](F.relu(m.block[0](x))), small), ArgumentError, "must have inputs and one output"),
        (lambda: _prepare(lambda m, x: (lambda y: m.block[1](F.relu(y) + y))(m.block[0](x)), small), ArgumentError, "must have inputs and one output"),
        (lambda: _prepare(ONE, Block, example=(batches()[0][:, :3],)), ShapeError, "block"),
        (lambda: _prepare(ONE, Block, example=batches()[0]), ArgumentError, "standalone module 'block': example_inputs is a ndarray"),
        (lambda: _prepare(ONE, Block, mapping=3), ArgumentError, "standalone module 'block': qconfig_mapping is a int"),
        (lambda: _prepare(ONE, Block, custom={}), ArgumentError, "prepare_custom_config is a dict"),
        (lambda: _prepare(ONE, Block, custom=workflow.PrepareCustomConfig().set_input_quantized_indexes([1])), ArgumentError, "index 1 but there are 1"),
        (lambda: _prepare(ONE, Block, prepare=workflow.prepare_qat_fx), UnsupportedError, "use prepare_fx"),
        (lambda: _prepare(ONE, Block).standalone and workflow.PrepareCustomConfig().set_standalone_module_name("", None, (), None, None), ArgumentError, "must be a path"),
        (lambda: _convert(ONE, Block, "block", workflow.PrepareCustomConfig().set_output_quantized_indexes([0]), None, workflow.QConfigMapping()), UnsupportedError, "its last layer is not quantized"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()
