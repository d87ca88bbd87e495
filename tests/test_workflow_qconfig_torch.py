"""QConfigMapping beside PyTorch's: defaults, and one table of cases for every setter and their precedence."""

import operator
import warnings

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.ao.quantization.quantize_fx import prepare_fx  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from refquant import interop, observers, workflow  # noqa: E402
from refquant.errors import ArgumentError  # noqa: E402
from refquant.workflow.qconfig_mapping import object_type_names  # noqa: E402

BACKENDS = ("x86", "fbgemm", "onednn", "qnnpack")


class Leaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(self.conv(x).reshape(-1, 4, 6, 6) + x)


class Net(nn.Module):
    """Modules inside of modules, functions and methods."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.inner = Leaf(), Leaf(), nn.Sequential(Leaf(), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()))
        self.conv1, self.conv2, self.act = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Sigmoid()
        self.w = nn.Parameter(torch.randn(4, 4, 1, 1))

    def forward(self, x):
        x = self.b(self.a(F.relu(self.conv1(x))))
        x = F.conv2d(self.inner(x), self.w, None, (1, 1), (0, 0), (1, 1), 1)
        x = torch.add(self.conv2(x), x)
        return self.act(F.relu(x * x)).permute(0, 1, 3, 2)


def qconfigs(side):
    """Three that can be told apart, on either side."""
    if side is workflow:
        make, weight = observers.MinMaxObserver.with_args, observers.MinMaxObserver.with_args(dtype="qint8", qscheme="per_tensor_symmetric")
        return [workflow.QConfig(make(dtype="quint8", quant_min=0, quant_max=top), weight) for top in (127, 254, 255)]
    make, weight = tq.MinMaxObserver.with_args, tq.MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    return [tq.QConfig(make(dtype=torch.quint8, quant_min=0, quant_max=top), weight) for top in (127, 254, 255)]


# Each takes a mapping and three QConfigs and is carried out on both sides.
CASES = {
    "nothing": lambda m, p, q, r: m,
    "global": lambda m, p, q, r: m.set_global(p),
    "global None after a global": lambda m, p, q, r: m.set_global(p).set_global(None),
    "a module type": lambda m, p, q, r: m.set_object_type(nn.Linear, p),
    "a module type off": lambda m, p, q, r: m.set_global(p).set_object_type(nn.Linear, None),
    "a module type that is fused": lambda m, p, q, r: m.set_object_type(nn.Conv2d, p).set_object_type(nn.ReLU, p),
    "a module type that is fused, off": lambda m, p, q, r: m.set_global(p).set_object_type(nn.Conv2d, None),
    "a function": lambda m, p, q, r: m.set_global(p).set_object_type(operator.add, q),
    "another function of the same meaning": lambda m, p, q, r: m.set_global(p).set_object_type(torch.add, q),
    "a function that is fused": lambda m, p, q, r: m.set_global(p).set_object_type(F.relu, None),
    "a function with a weight": lambda m, p, q, r: m.set_global(p).set_object_type(F.conv2d, q),
    "products": lambda m, p, q, r: m.set_global(p).set_object_type(operator.mul, None),
    "a method": lambda m, p, q, r: m.set_global(p).set_object_type(method(m, "reshape"), None),
    "a method with another qconfig": lambda m, p, q, r: m.set_global(p).set_object_type(method(m, "permute"), q),
    "a type twice": lambda m, p, q, r: m.set_object_type(nn.Linear, p).set_object_type(nn.Linear, q),
    "a type over the global": lambda m, p, q, r: m.set_global(p).set_object_type(nn.Linear, q),
    "a type before the global": lambda m, p, q, r: m.set_object_type(nn.Linear, q).set_global(p),
    "a name": lambda m, p, q, r: m.set_module_name("a.conv", p),
    "a name around": lambda m, p, q, r: m.set_module_name("a", p),
    "the nearest name": lambda m, p, q, r: m.set_module_name("inner", p).set_module_name("inner.0", q).set_module_name("inner.0.conv", None),
    "the nearest name, in the other order": lambda m, p, q, r: m.set_module_name("inner.0.conv", None).set_module_name("inner.0", q).set_module_name("inner", p),
    "a name that is the beginning of another": lambda m, p, q, r: m.set_module_name("conv", p),
    "a name over a type": lambda m, p, q, r: m.set_object_type(nn.Linear, p).set_module_name("a.fc", q),
    "a name around over a type": lambda m, p, q, r: m.set_object_type(nn.Linear, p).set_module_name("a", q),
    "a name reaches functions inside": lambda m, p, q, r: m.set_global(p).set_object_type(operator.add, q).set_module_name("b", None),
    "a regular expression": lambda m, p, q, r: m.set_module_name_regex(r".*conv\d", p),
    "a regular expression matches beginnings": lambda m, p, q, r: m.set_module_name_regex("a", p),
    "a regular expression does not search": lambda m, p, q, r: m.set_module_name_regex("conv", p),
    "the first regular expression": lambda m, p, q, r: m.set_module_name_regex("a.*", p).set_module_name_regex("a.fc", q),
    "the first regular expression keeps its place": lambda m, p, q, r: m.set_module_name_regex("a.*", p).set_module_name_regex("a.fc", q).set_module_name_regex("a.*", r),
    "a regular expression over a type": lambda m, p, q, r: m.set_object_type(nn.Linear, p).set_module_name_regex("b", q),
    "a name over a regular expression": lambda m, p, q, r: m.set_module_name_regex(".*", p).set_module_name("b", q),
    "a name around over a regular expression": lambda m, p, q, r: m.set_module_name_regex(r"b\.fc", p).set_module_name("b", q),
    "a regular expression of nothing": lambda m, p, q, r: m.set_module_name_regex("", p),
    "a regular expression off": lambda m, p, q, r: m.set_global(p).set_module_name_regex(r"inner\.1", None),
    "order among modules": lambda m, p, q, r: m.set_global(p).set_module_name_object_type_order("", nn.Conv2d, 1, q),
    "order in a module": lambda m, p, q, r: m.set_global(p).set_module_name_object_type_order("a", nn.Linear, 0, None),
    "order of fused modules": lambda m, p, q, r: m.set_global(p).set_module_name_object_type_order("inner.1", nn.Conv2d, 0, q),
    "order of functions": lambda m, p, q, r: m.set_global(p).set_module_name_object_type_order("a", operator.add, 0, None),
    "order of functions at the top": lambda m, p, q, r: m.set_global(p).set_module_name_object_type_order("", operator.mul, 0, q),
    "order that is never reached": lambda m, p, q, r: m.set_global(p).set_module_name_object_type_order("a", operator.add, 1, None),
    "order of methods does not count": lambda m, p, q, r: m.set_global(p).set_module_name_object_type_order("a", method(m, "reshape"), 0, None),
    "order over a name": lambda m, p, q, r: m.set_module_name("a.fc", p).set_module_name_object_type_order("a", nn.Linear, 0, q),
    "order over all": lambda m, p, q, r: (
        m.set_global(p).set_object_type(nn.Linear, q).set_module_name_regex("a", None).set_module_name("a", r).set_module_name_object_type_order("a", nn.Linear, 0, q)
    ),
    "all of them": lambda m, p, q, r: (
        m.set_global(p).set_object_type(operator.add, None).set_module_name_regex(r"b\.", q).set_module_name("inner.0", r).set_module_name_object_type_order("b", nn.Conv2d, 0, None)
    ),
    "a class around functions": lambda m, p, q, r: m.set_global(p).set_object_type(Leaf, q),
    "a class around functions, off": lambda m, p, q, r: m.set_global(p).set_object_type(Leaf, None),
    "a class over a function": lambda m, p, q, r: m.set_global(p).set_object_type(operator.add, q).set_object_type(Leaf, r),
    "a class under a name": lambda m, p, q, r: m.set_global(p).set_object_type(Leaf, None).set_module_name("b", q),
    "a class under a regular expression": lambda m, p, q, r: m.set_object_type(Leaf, p).set_module_name_regex("b", q),
    "through a dictionary": lambda m, p, q, r: type(m).from_dict(
        m.set_global(p).set_object_type(operator.add, None).set_module_name_regex(r"b\.", q).set_module_name("inner.0", r).set_module_name_object_type_order("b", nn.Conv2d, 0, None).to_dict()
    ),
}  # fmt: skip


def method(mapping, name):
    """How either side spells a method."""
    return name if isinstance(mapping, tq.QConfigMapping) else f".{name}"



@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    module = Net().eval()
    return module, interop.from_torch(module, (torch.randn(2, 3, 6, 6),))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_setter_and_their_precedence(case, net):
    module, model = net
    ours = workflow.prepare_fx(model, case(workflow.QConfigMapping(), *qconfigs(workflow)), (torch.randn(2, 3, 6, 6).numpy(),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = prepare_fx(module, case(tq.QConfigMapping(), *qconfigs(tq)), (torch.randn(2, 3, 6, 6),))
    rows = [(n.inputs[0], n.attrs["observer"].quant_max) for n in ours.model.nodes if n.op == "observe"]
    modules = dict(theirs.named_modules(remove_duplicate=False))
    found = [(n.args[0], modules[n.target]) for n in theirs.graph.nodes if n.op == "call_module" and str(n.target).startswith("activation_post_process")]
    assert rows == [(value.name, observer.quant_max) for value, observer in found if value.op != "get_attr"]
    assert (not rows) == (not found)


def test_the_cases_differ(net):
    """Cases that gave one placement would show nothing of what sets them apart."""
    seen = {}
    for name, case in CASES.items():
        prepared = workflow.prepare_fx(net[1], case(workflow.QConfigMapping(), *qconfigs(workflow)), (torch.randn(2, 3, 6, 6).numpy(),))
        seen.setdefault(tuple((n.inputs[0], n.attrs["observer"].quant_max) for n in prepared.model.nodes if n.op == "observe"), []).append(name)
    assert len(seen) >= 25


def settings(factory, torch_factory):
    """Both sides' observers as plain values."""
    a, b = factory(), torch_factory()
    rows = []
    for observer in (a, b):
        inner = getattr(observer, "activation_post_process", observer)
        dtype = str(inner.dtype).removeprefix("torch.")
        row = [type(observer).__name__, type(inner).__name__, {"quint8": "uint8", "qint8": "int8"}.get(dtype, dtype), bool(getattr(inner, "is_dynamic", False))]
        row += [str(getattr(inner, "qscheme", None)).removeprefix("torch."), getattr(inner, "quant_min", None), getattr(inner, "quant_max", None)]
        if type(inner).__name__.startswith("FixedQParams"):
            row += [float(inner.scale), int(inner.zero_point)]
        elif type(inner).__name__ not in ("PlaceholderObserver", "NoopObserver", "ReuseInputObserver"):
            row += [float(inner.eps), getattr(inner, "averaging_constant", None), getattr(inner, "ch_axis", None)]
        rows.append(row)
    return rows


def check_same(ours, theirs):
    for side in ("activation", "weight"):
        a, b = settings(getattr(ours, side), getattr(theirs, side))
        if a[1] in ("PlaceholderObserver", "NoopObserver", "ReuseInputObserver"):
            a, b = a[:4], b[:4]
        assert a == b


MAPPINGS = {
    "post-training": (workflow.get_default_qconfig_mapping, tq.get_default_qconfig_mapping),
    "training": (workflow.get_default_qat_qconfig_mapping, tq.get_default_qat_qconfig_mapping),
    "training, version 0": (lambda b: workflow.get_default_qat_qconfig_mapping(b, 0), lambda b: tq.get_default_qat_qconfig_mapping(b, 0)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", MAPPINGS)
@pytest.mark.filterwarnings("ignore")
def test_default_mappings_hold_what_torchs_hold(kind, backend):
    ours, theirs = (make(backend) for make in MAPPINGS[kind])
    check_same(ours.global_qconfig, theirs.global_qconfig)
    expected = {(f".{k}" if isinstance(k, str) else object_type_names(k, "test")[0]): q for k, q in theirs.object_type_qconfigs.items()}
    assert list(ours.object_types) == list(expected)
    for target, qconfig in expected.items():
        check_same(ours.object_types[target], qconfig)


@pytest.mark.filterwarnings("ignore")
def test_dynamic_qconfigs():
    check_same(workflow.default_dynamic_qconfig, tq.default_dynamic_qconfig)
    check_same(workflow.per_channel_dynamic_qconfig, tq.per_channel_dynamic_qconfig)


@pytest.mark.parametrize("name", ["default_qconfig", "default_per_channel_qconfig", "default_symmetric_qnnpack_qconfig", "default_per_channel_symmetric_qnnpack_qconfig"])
def test_static_qconfigs(name):
    check_same(getattr(workflow, name), getattr(tq.qconfig, name))


def test_methods_and_classes_by_name():
    assert object_type_names("view", "") == (".view",) and object_type_names("models.Block", "") == ("models.Block",)
    assert object_type_names(Leaf, "") == (f"{__name__}.Leaf",)
    mapping = workflow.QConfigMapping().set_object_type(Leaf, None)
    assert workflow.QConfigMapping.from_dict(mapping.to_dict()) == mapping
    for typo in ("nn.Lienar", "veiw", "F.reluu"):
        with pytest.raises(ArgumentError, match="object_type="):
            workflow.QConfigMapping().set_object_type(typo, None)


def test_dictionaries_keep_everything():
    mapping = CASES["all of them"](workflow.QConfigMapping("onednn"), *qconfigs(workflow))
    again = workflow.QConfigMapping.from_dict(mapping.to_dict(), backend="onednn")
    assert again == mapping and repr(again) == repr(mapping)
    assert list(mapping.to_dict()) == list(tq.QConfigMapping().to_dict())
    with pytest.raises(ArgumentError, match="did you mean 'module_name'"):
        workflow.QConfigMapping.from_dict({"module_names": []})
