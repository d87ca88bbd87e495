"""Custom configs by class and nested standalone modules beside PyTorch's: placement, parameters and every code."""

import copy
import re
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.ao.quantization.fx import custom_config as theirs_custom  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from test_workflow_standalone_torch import same_codes  # noqa: E402

from refquant import interop, workflow  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.cli.verify_models import numerics_here  # noqa: E402
from refquant.errors import ArgumentError  # noqa: E402

warnings.filterwarnings("ignore", module="torch")
ENGINE = "fbgemm"


class Block(nn.Module):
    """A convolution, a function and a sum."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x)) + x


class Sub(Block):
    """Another class, to PyTorch."""


class Pool(nn.Module):
    """What has a kernel on codes, if it is looked into."""

    def forward(self, x):
        return F.max_pool2d(x, 3, 1, 1)


class Outer(nn.Module):
    """A block in a block."""

    def __init__(self, inner=Block):
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(4, 4, 1), inner(), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.last(self.inner(self.first(x)))


class Net(nn.Module):
    """Modules in a row."""

    def __init__(self, **modules):
        super().__init__()
        torch.manual_seed(0)
        self.names = list(modules)
        for name, make in modules.items():
            setattr(self, name, make())
        self.eval()

    def forward(self, x):
        for name in self.names:
            x = getattr(self, name)(x)
        return x


def conv():
    return nn.Conv2d(4, 4, 1)


def batches(shape=(4, 4, 6, 6)):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) * (1 + i) for i in range(2)]


def both(module, configure, data=None, mappings=None):
    """Prepare a network under both workflows, and calibrate it in float64. ``configure(config, side)`` fills a config in."""
    data = batches() if data is None else data
    ours, theirs = configure(workflow.PrepareCustomConfig(), 0), configure(theirs_custom.PrepareCustomConfig(), 1)
    mappings = mappings or (workflow.get_default_qconfig_mapping(ENGINE), tq.get_default_qconfig_mapping(ENGINE))
    reference = torch_fx.prepared_module(module, ENGINE, data, mapping=mappings[1], order="float64", custom=theirs)
    prepared = workflow.prepare_fx(interop.from_torch(module, (data[0],)), mappings[0], (data[0],), ours)
    for batch in data:
        prepared(batch, real="float64")
    return prepared, reference, data


def same_placement(prepared, reference, inside=False):
    """Compare where observers sit, outside and in each standalone module, where PyTorch's names begin anew; returns how many modules there are."""
    outer, parts = prepared.apart()
    plain = lambda rows: [(inside or re.sub(r"_\d+$", "", name), k) for name, k in rows]  # noqa: E731
    assert plain(outer.placement) == plain(torch_fx.placement(reference))
    count = 0
    for name, part in parts.items():
        if isinstance(part, workflow.Prepared):
            count += 1 + same_placement(part, reference.get_submodule(outer.model.node(name).path), inside=True)
    return count


def agree(prepared, reference, data, swaps=(None, None)):
    """Compare every parameter and code, and the output; returns how many values are quantized."""
    with torch_fx.engine(ENGINE), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        converted = tq.quantize_fx.convert_fx(copy.deepcopy(reference), convert_custom_config=swaps[1])
    return same_codes(workflow.convert_fx(prepared, numerics_here(ENGINE), swaps[0]), converted, data[1], ENGINE)


# Standalone modules by class.


def standalone(config, side, kind, inputs=(), outputs=(), mapping=None, how="class"):
    """Set a standalone module on one side."""
    value = batches()[0]
    inside = type(config)().set_input_quantized_indexes(list(inputs)).set_output_quantized_indexes(list(outputs))
    return getattr(config, f"set_standalone_module_{how}")(kind, mapping and mapping[side], (torch.from_numpy(value) if side else value,), inside, None)


@pytest.mark.parametrize("codes", [((), ()), ((0,), ()), ((0,), (0,))])
def test_standalone_modules_by_class(codes):
    """Both modules of the class, and not the one of a subclass."""
    module = Net(first=conv, a=Block, mid=conv, b=Block, c=Sub, head=conv)
    prepared, reference, data = both(module, lambda config, side: standalone(config, side, Block, *codes))
    assert same_placement(prepared, reference) == 2 and set(prepared.standalone[1]) == {"a", "b"}
    assert agree(prepared, reference, data) >= 6


def test_a_path_counts_before_a_class():
    ours, theirs = workflow.get_default_qconfig("qnnpack"), tq.get_default_qconfig("qnnpack")
    mapping = workflow.QConfigMapping().set_global(ours), tq.QConfigMapping().set_global(theirs)
    module = Net(first=conv, a=Block, mid=conv, b=Block, head=conv)

    def configure(config, side):
        return standalone(standalone(config, side, "b", (), (0,), mapping, "name"), side, Block, (0,), ())

    prepared, reference, data = both(module, configure)
    assert same_placement(prepared, reference) == 2 and agree(prepared, reference, data) >= 6
    assert prepared.qconfigs["b_conv"] == ours != prepared.qconfigs["a_conv"]
    # The fault: the class counts first, which other places and other codes tell.
    wrong, *_ = both(module, lambda config, side: standalone(config, side, Block, (0,), ()))
    with pytest.raises((AssertionError, ArgumentError)):
        same_placement(wrong, reference)
    with pytest.raises((AssertionError, ArgumentError)):
        agree(wrong, reference, data)


def test_a_name_stands_for_its_class():
    prepared, reference, data = both(Net(first=conv, a=Block, c=Sub), lambda config, side: standalone(config, side, Block if side else "Block"))
    assert same_placement(prepared, reference) == 1 and agree(prepared, reference, data) >= 4


# Modules that are not looked into.


@pytest.mark.parametrize("kinds", [[Block], [Block, Pool], [nn.Conv2d]])
def test_non_traceable_classes(kinds):
    """A pool would run on codes if it were looked into; a layer is one node anyway and is quantized all the same."""
    prepared, reference, data = both(Net(first=conv, a=Block, c=Sub, pool=Pool, head=conv), lambda config, side: config.set_non_traceable_module_classes(kinds))
    assert same_placement(prepared, reference) == 0
    assert agree(prepared, reference, data) >= 5


def test_non_traceable_names_of_layers_and_pools():
    module = Net(first=conv, pool=Pool, head=conv)
    prepared, reference, data = both(module, lambda config, side: config.set_non_traceable_module_names(["first", "pool"]))
    same_placement(prepared, reference)
    assert agree(prepared, reference, data) == 4
    looked_into, other, _ = both(module, lambda config, side: config)
    assert agree(looked_into, other, data) == 4
    with pytest.raises((AssertionError, ArgumentError)):
        agree(looked_into, reference, data)


# Standalone modules in one another.


def nested(config, side, opaque):
    """A standalone Outer with a standalone Block inside, which PyTorch sees where it is non-traceable alone."""
    value = batches()[0]
    inside = standalone(type(config)(), side, "inner", (0,), (0,), how="name")
    if opaque:
        inside.set_non_traceable_module_names(["inner"])
    return config.set_standalone_module_name("outer", None, (torch.from_numpy(value) if side else value,), inside, None)


@pytest.mark.parametrize("opaque", [True, False])
def test_standalone_modules_in_one_another(opaque):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepared, reference, data = both(Net(first=conv, outer=Outer, head=conv), lambda config, side: nested(config, side, opaque))
    assert any("lies in a standalone module" in str(w.message) for w in caught) == (not opaque)
    assert same_placement(prepared, reference) == 1 + opaque
    assert bool(prepared.standalone[1]["outer"].standalone[1]) == opaque
    assert agree(prepared, reference, data) >= 6


def test_what_lies_in_a_part_is_part_of_it():
    """Of modules in one another the outermost counts, whatever it is."""

    def configure(config, side):
        return standalone(config, side, Block).set_non_traceable_module_classes([Outer])

    prepared, reference, data = both(Net(first=conv, outer=Outer, a=Block, head=conv), configure)
    assert same_placement(prepared, reference) == 1 and agree(prepared, reference, data) >= 4


def test_modules_that_are_not_looked_into_in_training():
    module, data, config = Net(first=conv, a=Block, head=conv), batches(), theirs_custom.PrepareCustomConfig().set_non_traceable_module_classes([Block])
    reference = torch_fx.prepared_module(module, ENGINE, data, order="float64", custom=config, qat=True)
    own = workflow.PrepareCustomConfig().set_non_traceable_module_classes([Block])
    prepared = workflow.prepare_qat_fx(interop.from_torch(module, (data[0],)), workflow.get_default_qat_qconfig_mapping(ENGINE), (data[0],), own)
    for batch in data:
        prepared(batch, real="float64")
    assert same_placement(prepared, reference) == 0 and set(prepared.layers) == {"first", "head"} and agree(prepared, reference, data) == 4
