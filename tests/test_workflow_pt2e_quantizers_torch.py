"""A user's own quantizers beside torchao: chains of shared specs, biases in derived units, what shares an observer by itself, quantizers in turn.

One rule, written once, annotates both sides' graphs: it is given a `Side`, which finds nodes and makes specs.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchao")
pytestmark = pytest.mark.engine

import torchao.quantization.pt2e.observer as ao_observers  # noqa: E402
from forward_module import ForwardModule  # noqa: E402
from torch import nn  # noqa: E402
from torchao.quantization.pt2e import quantizer as ao_quantizer  # noqa: E402
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86  # noqa: E402

from refquant import interop, observers, workflow  # noqa: E402
from refquant.cli import pt2e_parity  # noqa: E402

_ATEN = {
    "conv2d": "conv2d.default", "linear": "linear.default", "add": "add.Tensor", "mul": "mul.Tensor", "relu": "relu.default", "cat": "cat.default", "max_pool2d": "max_pool2d.default",
    "sigmoid": "sigmoid.default", "flatten": "flatten.using_ints",
}  # fmt: skip


class Ours:
    """refquant's graph and specs."""

    kinds, base = workflow, workflow.Quantizer

    def __init__(self, graph):
        self.graph = graph

    def nodes(self, op):
        return [n for n in self.graph.nodes if n.op == op]

    def inputs(self, node):
        return node.inputs

    def weight(self, node):
        return node.params["weight"]

    def bias(self, node):
        return node.params["bias"]

    @staticmethod
    def name(text):
        return text

    @staticmethod
    def observer(name, **arguments):
        return getattr(observers, name).with_args(**arguments)

    @staticmethod
    def product_of_scales(found):
        scale = np.float32(1)
        for observer in found:
            scale = np.asarray(scale * np.asarray(observer.calculate_qparams().scale, np.float32))
        return scale, np.zeros(scale.shape, np.int64)


class Theirs:
    """torchao's."""

    kinds, base = ao_quantizer, ao_quantizer.Quantizer

    def __init__(self, graph):
        self.graph = graph.graph

    def nodes(self, op):
        return [n for n in self.graph.nodes if str(n.target) == "aten." + _ATEN[op]]

    def inputs(self, node):
        sources = node.args[0] if isinstance(node.args[0], (list, tuple)) else [a for a in node.args if isinstance(a, torch.fx.Node) and a.op != "get_attr"]
        return tuple(sources)

    def weight(self, node):
        return node.args[1]

    def bias(self, node):
        return node.args[2]

    @staticmethod
    def name(text):
        return getattr(torch, text)

    @staticmethod
    def observer(name, **arguments):
        return getattr(ao_observers, name).with_args(**arguments)

    @staticmethod
    def product_of_scales(found):
        scale = torch.ones(1)
        for observer in found:
            scale = scale * observer.calculate_qparams()[0]
        return scale, torch.zeros(scale.shape, dtype=torch.int32)


class Rule:
    """Specs of one side, and annotations."""

    def __init__(self, side):
        self.side = side
        self.codes = self.spec()
        self.narrow = self.spec(quant_max=127)
        self.weights = self.spec("int8", "MinMaxObserver", -127, 127, "per_tensor_symmetric")
        self.channels = self.spec("int8", "PerChannelMinMaxObserver", -127, 127, "per_channel_symmetric", 0)

    def spec(self, dtype="uint8", observer="MinMaxObserver", quant_min=0, quant_max=255, scheme="per_tensor_affine", ch_axis=None):
        made = self.side.observer(observer, eps=2.0**-12)
        return self.side.kinds.QuantizationSpec(self.side.name(dtype), made, quant_min, quant_max, self.side.name(scheme), ch_axis)

    def fixed(self, scale, zero, dtype="uint8", quant_min=0, quant_max=255, scheme="per_tensor_affine"):
        return self.side.kinds.FixedQParamsQuantizationSpec(self.side.name(dtype), scale, zero, quant_min, quant_max, self.side.name(scheme))

    def shared(self, place):
        return self.side.kinds.SharedQuantizationSpec(place)

    def derived(self, *places, scheme="per_tensor_symmetric", ch_axis=None):
        arguments = self.side.product_of_scales, self.side.name("int32"), -(2**31), 2**31 - 1, self.side.name(scheme), ch_axis
        return self.side.kinds.DerivedQuantizationSpec(list(places), *arguments)

    def write(self, node, specs, output=None, sharing=True):
        made = self.side.kinds.QuantizationAnnotation(input_qspec_map=specs, output_qspec=output, allow_implicit_sharing=sharing, _annotated=True)
        node.meta["quantization_annotation"] = made

    def layer(self, node, codes=None, weights=None, output=None, **more):
        first = self.side.inputs(node)[0]
        self.write(node, {first: codes or self.codes, self.side.weight(node): weights or self.weights}, output, **more)


def derived_bias(scheme):
    def rule(r, side):
        for node in side.nodes("conv2d") + side.nodes("linear"):
            first, weight = side.inputs(node)[0], side.weight(node)
            per_channel = scheme == "per_channel_symmetric"
            bias = r.derived((first, node), (weight, node), scheme=scheme, ch_axis=0 if per_channel else None)
            r.write(node, {first: r.codes, weight: r.channels if per_channel else r.weights, side.bias(node): bias}, r.codes)

    return rule


def chain(r, side):
    """conv -> relu -> max pool, each in the units of the one before: node, edge, node."""
    for conv, relu, pool in zip(side.nodes("conv2d"), side.nodes("relu"), side.nodes("max_pool2d")):
        r.layer(conv, output=r.codes)
        r.write(relu, {conv: r.shared(conv)}, r.shared((conv, relu)))
        r.write(pool, {relu: r.shared(relu)}, r.shared((relu, pool)))


def sums_in_one_unit(r, side):
    for conv in side.nodes("conv2d"):
        r.layer(conv, output=r.codes)
    for add in side.nodes("add"):
        a, b = side.inputs(add)
        r.write(add, {a: r.codes, b: r.shared((a, add))}, r.shared((a, add)))


def cat_in_one_unit(r, side):
    for conv in side.nodes("conv2d"):
        r.layer(conv, output=r.codes)
    for cat in side.nodes("cat"):
        first, *others = side.inputs(cat)
        edge = (first, cat)
        r.write(cat, {first: r.codes, **{other: r.shared(edge) for other in others}}, r.shared(edge))


def readers(sharing):
    def rule(r, side):
        for number, conv in enumerate(side.nodes("conv2d")):
            r.layer(conv, sharing=sharing or number != 1, output=r.codes)

    return rule


def readers_that_differ(r, side):
    """An output of 8 bits, one reader of 8 bits, one of 7."""
    for number, conv in enumerate(side.nodes("conv2d")):
        r.layer(conv, r.narrow if number == 2 else r.codes, output=r.codes)


def output_as_input(r, side):
    """The last output takes the units of the first input, across the network."""
    first, *_, last = side.nodes("conv2d")
    for conv in side.nodes("conv2d"):
        r.layer(conv, output=r.shared((side.inputs(first)[0], first)) if conv is last else r.codes)


def fixed_and_shared_with_fixed(r, side):
    for conv in side.nodes("conv2d"):
        r.layer(conv, output=r.codes)
    for sigmoid, mul in zip(side.nodes("sigmoid"), side.nodes("mul")):
        r.write(sigmoid, {side.inputs(sigmoid)[0]: r.codes}, r.fixed(1 / 256, 0))
        a, b = side.inputs(mul)
        r.write(mul, {a: r.codes, b: r.shared(sigmoid)}, r.codes)


def sixteen_bits(r, side):
    wide = r.spec("int16", "MovingAverageMinMaxObserver", -(2**15), 2**15 - 1, "per_tensor_symmetric")
    for conv in side.nodes("conv2d"):
        r.layer(conv, wide, r.channels, wide)


def a_circle_of_edges(r, side):
    """Two edges of two readers point to each other's value: the first has the spec, the second shares, the third shares the second."""
    convs = side.nodes("conv2d")
    r.layer(convs[0], output=r.codes)
    value = side.inputs(convs[1])[0]
    r.layer(convs[1])
    r.write(convs[2], {value: r.shared((value, convs[1])), side.weight(convs[2]): r.shared((side.weight(convs[1]), convs[1]))}, r.shared((value, convs[2])))


def conv(kernel=1):
    return nn.Conv2d(8, 8, kernel, padding=kernel // 2)


def three(m, x):
    y = m.a(x)
    return m.b(y) + m.c(y)


THREE = {"a": conv(3), "b": conv(), "c": conv()}
CASES = {
    "bias in units of the product": (derived_bias("per_tensor_symmetric"), lambda m, x: m.f(m.a(x).flatten(1)), {"a": conv(3), "f": nn.Linear(288, 5)}),
    "bias in units of the product, per channel": (derived_bias("per_channel_symmetric"), lambda m, x: m.f(m.a(x).flatten(1)), {"a": conv(3), "f": nn.Linear(288, 5)}),
    "a chain of shared specs": (chain, lambda m, x: m.p2(m.r2(m.b(m.p(m.r(m.a(x)))))), {"a": conv(3), "r": nn.ReLU(), "p": nn.MaxPool2d(2), "b": conv(), "r2": nn.ReLU(), "p2": nn.MaxPool2d(2)}),
    "a sum in one unit": (sums_in_one_unit, lambda m, x: m.c(m.a(x) + m.b(x)) + x, THREE),
    "a concatenation in one unit": (cat_in_one_unit, lambda m, x: torch.cat([m.a(x), m.b(x), m.c(x)], 1), THREE),
    "readers of one value": (readers(True), three, THREE),
    "readers of one value, one for itself": (readers(False), three, THREE),
    "readers of one value in other units": (readers_that_differ, three, THREE),
    "an output in units of the input": (output_as_input, lambda m, x: m.c(m.b(m.a(x))), THREE),
    "fixed units, and who shares them": (fixed_and_shared_with_fixed, lambda m, x: m.a(x) * m.b(x).sigmoid(), {"a": conv(3), "b": conv()}),
    "sixteen bits": (sixteen_bits, three, THREE),
    "a weight in units of another": (a_circle_of_edges, three, THREE),
}  # fmt: skip


def quantizer(side_type, rule):
    class Own(side_type.base):
        def annotate(self, graph):
            side = side_type(graph)
            rule(Rule(side), side)
            return graph

        def validate(self, graph):
            pass

    return Own()


def network(forward, layers):
    torch.manual_seed(0)
    for layer in layers.values():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    module = ForwardModule(forward, **layers).eval()
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((6, 8, 6, 6)).astype(np.float32) * (1 + i) for i in range(2)]
    return module, interop.from_torch(module, (torch.from_numpy(batches[0]),)), batches


@pytest.mark.parametrize("name", CASES)
def test_a_rule_means_the_same_on_both_sides(name):
    rule, forward, layers = CASES[name]
    found = pt2e_parity.compare_eager(*network(forward, layers), quantizers=(quantizer(Ours, rule), quantizer(Theirs, rule)))
    assert found.verdict == "equal" and found.counts["codes"] > 2000, found


def linear_only(r, side):
    for node in side.nodes("linear"):
        r.layer(node, output=r.codes)


def test_quantizers_in_turn():
    """One's own for linear layers, then X86InductorQuantizer for the rest, which skips what is annotated."""
    config = workflow.get_default_x86_inductor_quantization_config()
    ours = workflow.ComposableQuantizer([quantizer(Ours, sums_in_one_unit), quantizer(Ours, linear_only)])
    theirs = ao_quantizer.ComposableQuantizer([quantizer(Theirs, sums_in_one_unit), quantizer(Theirs, linear_only)])
    case = network(lambda m, x: m.f((m.a(x) + m.b(x)).flatten(1)), {"a": conv(3), "b": conv(), "f": nn.Linear(288, 5)})
    found = pt2e_parity.compare_eager(*case, quantizers=(ours, theirs))
    assert found.verdict == "equal" and found.counts["values"] == 6, found
    ours = workflow.ComposableQuantizer([quantizer(Ours, linear_only), workflow.X86InductorQuantizer().set_function_type_qconfig("F.conv2d", config)])
    their_x86 = x86.X86InductorQuantizer().set_function_type_qconfig(torch.nn.functional.conv2d, x86.get_default_x86_inductor_quantization_config())
    theirs = ao_quantizer.ComposableQuantizer([quantizer(Theirs, linear_only), their_x86])
    case = network(lambda m, x: m.f(m.b(m.r(m.a(x))).flatten(1)), {"a": conv(3), "r": nn.ReLU(), "b": conv(), "f": nn.Linear(288, 5)})
    found = pt2e_parity.compare_eager(*case, quantizers=(ours, theirs))
    assert found.verdict == "equal", found


def test_a_quantizer_that_overwrites_is_refused_by_both():
    case = network(lambda m, x: m.f(x.flatten(1)), {"f": nn.Linear(288, 5)})
    pairs = [kind([quantizer(side, linear_only), quantizer(side, linear_only)]) for kind, side in ((workflow.ComposableQuantizer, Ours), (ao_quantizer.ComposableQuantizer, Theirs))]
    assert pt2e_parity.compare_eager(*case, quantizers=pairs).verdict == "both refuse"
