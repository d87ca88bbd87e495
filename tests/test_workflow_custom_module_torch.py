"""Custom modules beside PyTorch's, as in its test_custom_module_class: placement, parameters and every code; what custom configs refuse."""

import warnings

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.ao.nn import quantized as nnq  # noqa: E402
from torch.ao.quantization.fx import custom_config as theirs_custom  # noqa: E402
from torch.ao.quantization.quant_type import QuantType  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from test_workflow_custom_torch import ENGINE, Block, Net, agree, batches, both, conv, same_placement, standalone  # noqa: E402

import refquant as rq  # noqa: E402
from refquant import interop, workflow  # noqa: E402
from refquant.errors import ArgumentError, UnsupportedError  # noqa: E402
from refquant.observers import MinMaxObserver, PlaceholderObserver  # noqa: E402

warnings.filterwarnings("ignore", module="torch")


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
