"""Custom configs by class, custom modules and nested standalone modules beside PyTorch's: placement, parameters and every code."""

import copy
import re
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.ao.nn import quantized as nnq  # noqa: E402
from torch.ao.quantization.fx import custom_config as theirs_custom  # noqa: E402
from torch.ao.quantization.quant_type import QuantType  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from test_workflow_standalone_torch import same_codes  # noqa: E402

import refquant as rq  # noqa: E402
from refquant import interop, workflow  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.cli.verify_models import numerics_here  # noqa: E402
from refquant.errors import ArgumentError, UnsupportedError  # noqa: E402
from refquant.observers import MinMaxObserver, PlaceholderObserver  # noqa: E402

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


# Custom modules, as in PyTorch's test_custom_module_class.


class Custom(nn.Module):
    """The float module."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x)


class TheirObserved(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return F.linear(x.double(), self.linear.weight.double(), self.linear.bias.double()).float()

    @classmethod
    def from_float(cls, module):
        observed = cls(module.linear if isinstance(module, Custom) else module)
        observed.qconfig = module.qconfig
        return observed


class _TheirQuantized(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

    @classmethod
    def from_observed(cls, observed):
        observed.linear.qconfig = observed.qconfig
        if hasattr(observed, "activation_post_process"):
            observed.linear.activation_post_process = observed.activation_post_process
        return cls(cls.kind.from_float(observed.linear))


class TheirStatic(_TheirQuantized):
    kind = nnq.Linear


class TheirDynamic(_TheirQuantized):
    kind = nnq.dynamic.Linear


class TheirWeightOnly(_TheirQuantized):
    """A float layer with its weight on the grid."""

    def forward(self, x):
        return F.linear(x.double(), self.linear.weight.double(), self.linear.bias.double()).float()

    @classmethod
    def from_observed(cls, observed):
        weight = observed.qconfig.weight()
        weight(observed.linear.weight)
        scale, zero = weight.calculate_qparams()
        on_grid = torch.quantize_per_tensor(observed.linear.weight.detach(), float(scale), int(zero), torch.qint8).dequantize()
        linear = nn.Linear(3, 3)
        linear.weight, linear.bias = nn.Parameter(on_grid), observed.linear.bias
        return cls(linear.eval())


class Observed:
    """Ours: what the part computes, in float32."""

    def __init__(self, part):
        self.part, self.qconfig = part, part.qconfig

    @classmethod
    def from_float(cls, part):
        return cls(part)

    def __call__(self, x, **options):
        return self.part(x, **options)[0]


class _Quantized:
    def __init__(self, node, qconfig, out):
        observer = qconfig.weight()
        observer(node.params["weight"])
        self.weight, self.bias, self.out = rq.quantize(node.params["weight"], observer.calculate_qparams(), numerics="fbgemm"), node.params["bias"], out

    @classmethod
    def from_observed(cls, observed):
        node = next(n for n in getattr(observed, "part", observed).nodes if n.op == "linear")
        output = getattr(observed, "activation_post_process", None)
        return cls(node, observed.qconfig, output and output.calculate_qparams())


class Static(_Quantized):
    def __call__(self, x, numerics, **options):
        return rq.ops.linear(x, self.weight, self.bias, out=self.out, numerics=numerics)


class Dynamic(_Quantized):
    def __call__(self, x, numerics, **options):
        return rq.ops.linear_dynamic(x, self.weight, self.bias, numerics=numerics, reduce_range=True)


class WeightOnly(_Quantized):
    def __call__(self, x, real, **options):
        from refquant.graph import Builder

        b = Builder()
        y = b.input(shape=x.shape).linear(3, weight=rq.dequantize(self.weight, numerics="fbgemm"), bias=self.bias)
        return b.build(y)(x, real=real)[0]


def fc():
    return nn.Linear(3, 3)


WEIGHT_ONLY = (
    workflow.QConfig(PlaceholderObserver.with_args(dtype="float32"), MinMaxObserver.with_args(dtype="qint8", qscheme="per_tensor_symmetric")),
    tq.QConfig(tq.PlaceholderObserver.with_args(dtype=torch.float32), tq.default_weight_observer),
)
KINDS = {
    "static": ((workflow.get_default_qconfig(ENGINE), tq.get_default_qconfig(ENGINE)), Static, TheirStatic),
    "dynamic": ((workflow.default_dynamic_qconfig, tq.default_dynamic_qconfig), Dynamic, TheirDynamic),
    "weight_only": (WEIGHT_ONLY, WeightOnly, TheirWeightOnly),
}


def custom(kind, modules, float_class=Custom, opaque=False):
    """Prepare a net with custom modules on both sides; returns what `agree` takes."""
    qconfigs, ours, theirs = KINDS[kind]

    def configure(config, side):
        if opaque:
            return config.set_non_traceable_module_classes([float_class])
        return config.set_float_to_observed_mapping(float_class, TheirObserved if side else Observed)

    mappings = workflow.QConfigMapping().set_global(qconfigs[0]), tq.QConfigMapping().set_global(qconfigs[1])
    prepared, reference, data = both(Net(**modules), configure, batches((5, 3)), mappings)
    observed = (float_class, float_class) if opaque else (Observed, TheirObserved)
    swaps = (
        workflow.ConvertCustomConfig().set_observed_to_quantized_mapping(observed[0], ours, kind),
        theirs_custom.ConvertCustomConfig().set_observed_to_quantized_mapping(observed[1], theirs, QuantType[kind.upper()]),
    )
    return prepared, reference, data, swaps


@pytest.mark.parametrize("modules", [dict(linear=fc, custom=Custom), dict(custom=Custom), dict(custom=Custom, relu=nn.ReLU, other=Custom, last=fc)], ids=["behind a layer", "alone", "two"])
def test_custom_modules(modules):
    prepared, reference, data, swaps = custom("static", modules)
    same_placement(prepared, reference)
    assert type(prepared.model.node("custom").attrs["function"]) is Observed
    assert agree(prepared, reference, data, swaps) >= 2
    node = workflow.convert_fx(prepared, ENGINE, swaps[0]).node("custom")
    assert type(node.attrs["function"]) is Static and not hasattr(prepared.model.node("custom").attrs["function"], "activation_post_process")


@pytest.mark.parametrize("kind", ["dynamic", "weight_only"])
def test_a_float_module_that_is_swapped_when_it_is_converted(kind):
    """PyTorch's own test of the dynamic type: the float module is non-traceable, and stands for its observed one."""
    prepared, reference, data, swaps = custom(kind, dict(linear=fc, custom=Custom, last=fc), opaque=True)
    same_placement(prepared, reference)
    agree(prepared, reference, data, swaps)
    assert type(workflow.convert_fx(prepared, ENGINE, swaps[0]).node("custom").attrs["function"]) is KINDS[kind][1]


def test_custom_layers():
    """A layer's class; one that is fused is none of it any more."""
    prepared, reference, data, swaps = custom("static", dict(a=fc, b=fc, relu=nn.ReLU), nn.Linear)
    same_placement(prepared, reference)
    assert agree(prepared, reference, data, swaps) == 3 and [n.name for n in prepared.model.nodes if n.op == "call"] == ["a"]


class OuterRows(nn.Module):
    """A custom module in a block."""

    def __init__(self):
        super().__init__()
        self.first, self.custom, self.last = fc(), Custom(), fc()

    def forward(self, x):
        return self.last(self.custom(self.first(x)))


def test_a_custom_module_in_a_standalone_one():
    """PyTorch observes it where it is non-traceable too, and swaps none there when it converts."""
    data = batches((5, 3))
    *_, swaps = custom("static", dict(custom=Custom))

    def configure(config, side):
        inside = type(config)().set_float_to_observed_mapping(Custom, TheirObserved if side else Observed).set_non_traceable_module_classes([Custom])
        return config.set_standalone_module_class(OuterRows, None, (torch.from_numpy(data[0]) if side else data[0],), inside, None)

    prepared, reference, _ = both(Net(first=fc, outer=OuterRows, last=fc), configure, data)
    assert same_placement(prepared, reference) == 1 and agree(prepared, reference, data, swaps) >= 5
    assert type(workflow.convert_fx(prepared, ENGINE, swaps[0]).node("custom").attrs["function"]) is Observed


def test_modules_that_are_not_looked_into_in_training():
    module, data, config = Net(first=conv, a=Block, head=conv), batches(), theirs_custom.PrepareCustomConfig().set_non_traceable_module_classes([Block])
    reference = torch_fx.prepared_module(module, ENGINE, data, order="float64", custom=config, qat=True)
    own = workflow.PrepareCustomConfig().set_non_traceable_module_classes([Block])
    prepared = workflow.prepare_qat_fx(interop.from_torch(module, (data[0],)), workflow.get_default_qat_qconfig_mapping(ENGINE), (data[0],), own)
    for batch in data:
        prepared(batch, real="float64")
    assert same_placement(prepared, reference) == 0 and set(prepared.layers) == {"first", "head"} and agree(prepared, reference, data) == 4


def test_without_a_qconfig_a_custom_module_stays_float():
    prepared, reference, data, swaps = custom("static", dict(linear=fc, custom=Custom, last=fc))
    mappings = [m.set_module_name("custom", None) for m in (workflow.get_default_qconfig_mapping(ENGINE), tq.get_default_qconfig_mapping(ENGINE))]
    configure = lambda config, side: config.set_float_to_observed_mapping(Custom, TheirObserved if side else Observed)  # noqa: E731
    prepared, reference, data = both(Net(linear=fc, custom=Custom, last=fc), configure, data, mappings)
    same_placement(prepared, reference)
    assert agree(prepared, reference, data, swaps) == 4 and not [n for n in prepared.model.nodes if n.op == "call"]


def test_what_is_not_swapped_stays_observed():
    prepared, reference, data, _ = custom("static", dict(linear=fc, custom=Custom, last=fc))
    assert agree(prepared, reference, data) >= 4


def test_a_wrong_quantized_class_is_found(monkeypatch):
    """A product more or less, one code, an output that is not the observer's."""
    faults = [
        lambda self, x, numerics, **o: rq.ops.linear(x, self.weight, None, out=self.out, numerics=numerics),
        lambda self, x, numerics, **o: rq.QTensor(rq.ops.linear(x, self.weight, self.bias, out=self.out, numerics=numerics).values ^ 1, self.out),
        lambda self, x, numerics, **o: rq.ops.linear(x, self.weight, self.bias, out=x.qparams, numerics=numerics),
    ]
    for fault in faults:
        prepared, reference, data, swaps = custom("static", dict(linear=fc, custom=Custom, last=fc))
        monkeypatch.setattr(Static, "__call__", fault)
        with pytest.raises(AssertionError):
            agree(prepared, reference, data, swaps)


# What is refused.


class NotAMapping:
    pass


def _with(configure, module=None, data=None):
    data = batches() if data is None else data
    module = Net(first=conv, a=Block, head=conv) if module is None else module
    return workflow.prepare_fx(interop.from_torch(module, (data[0],)), workflow.get_default_qconfig_mapping(ENGINE), (data[0],), configure(workflow.PrepareCustomConfig()))


def _no_output_observer():
    prepared, *_, swaps = custom("static", dict(linear=fc, custom=Custom), opaque=True)
    return workflow.convert_fx(prepared, ENGINE, swaps[0])


def _dynamic_qconfig():
    config, x = workflow.PrepareCustomConfig().set_float_to_observed_mapping(Custom, Observed), batches((5, 3))[0]
    workflow.prepare_fx(interop.from_torch(Net(custom=Custom), (x,)), workflow.QConfigMapping().set_global(workflow.default_dynamic_qconfig), (x,), config)


REFUSED = {
    "a name that no module has": (lambda: _with(lambda c: c.set_non_traceable_module_classes(["Blok"])), ArgumentError, "class='Blok'.*Block"),
    "no class": (lambda: workflow.PrepareCustomConfig().set_non_traceable_module_classes([3]), ArgumentError, "must be a class or its name"),
    "no list": (lambda: workflow.PrepareCustomConfig().set_non_traceable_module_classes(Block), ArgumentError, "must be a list"),
    "a layer's class": (lambda: _with(lambda c: standalone(c, 0, nn.Conv2d)), UnsupportedError, "'first': is a layer"),
    "no from_float": (lambda: workflow.PrepareCustomConfig().set_float_to_observed_mapping(Block, NotAMapping), ArgumentError, "class method from_float"),
    "no from_observed": (lambda: workflow.ConvertCustomConfig().set_observed_to_quantized_mapping(Observed, NotAMapping), ArgumentError, "class method from_observed"),
    "an unknown quant type": (lambda: workflow.PrepareCustomConfig().set_float_to_observed_mapping(Block, Observed, "int4"), ArgumentError, "quant_type='int4'"),
    "observed and dynamic": (lambda: workflow.PrepareCustomConfig().set_float_to_observed_mapping(Block, Observed, "dynamic"), ArgumentError, "for 'static' alone"),
    "another quant type": (_dynamic_qconfig, ArgumentError, "not under the quant type 'dynamic'"),
    "static without an observer": (_no_output_observer, UnsupportedError, "its output is not observed"),
    "called twice": (lambda: _with(lambda c: c.set_float_to_observed_mapping(Block, Observed), _twice()), UnsupportedError, "may be called more than once"),
    "in training": (
        lambda: workflow.prepare_qat_fx(interop.from_torch(Net(a=conv), (batches()[0],)), workflow.get_default_qat_qconfig_mapping(), (batches()[0],), standalone(workflow.PrepareCustomConfig(), 0, Block)),
        UnsupportedError, "use prepare_fx",
    ),
}  # fmt: skip


def _twice():
    module = Net(a=Block)
    module.names = ["a", "a"]
    return module


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_settings_are_dictionaries_too():
    """PyTorch's keys, from its own dictionary."""
    inner = workflow.PrepareCustomConfig().set_input_quantized_indexes([0])
    ours = workflow.PrepareCustomConfig().set_standalone_module_class(Block, None, (1,), inner, None).set_float_to_observed_mapping(Custom, Observed)
    theirs = theirs_custom.PrepareCustomConfig().set_standalone_module_class(Block, None, (1,), theirs_custom.PrepareCustomConfig().set_input_quantized_indexes([0]), None)
    theirs.set_float_to_observed_mapping(Custom, Observed)
    assert ours.to_dict()["standalone_module_class"] == theirs.to_dict()["standalone_module_class"]
    assert workflow.PrepareCustomConfig.from_dict(theirs.to_dict()).to_dict() == ours.to_dict()
    swaps = workflow.ConvertCustomConfig().set_observed_to_quantized_mapping(Observed, Static)
    assert swaps.to_dict() == theirs_custom.ConvertCustomConfig().set_observed_to_quantized_mapping(Observed, Static).to_dict() == workflow.ConvertCustomConfig.from_dict(swaps.to_dict()).to_dict()
