"""Whole networks at batch 1, quantized by both sides from the same inputs."""

from functools import lru_cache
from statistics import median
from time import process_time
from typing import NamedTuple

import numpy as np

import refquant as rq
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.engines import limited_threads, torch_engine, torch_package
from refquant.backends.bench.gemm import ratios
from refquant.backends.bench.harness import geomean
from refquant.errors import BackendMissing
from refquant.graph import layer_bits
from refquant.graph.work import multiply_adds
from refquant.verify.held import profile_here

__all__ = ["NETWORKS", "Layer", "layer_times", "network_calls", "quantized_network", "kind_of"]

_ENGINE = "x86"
_JUDGED = ("resnet50", "mobilenet_v2")
_BLOG = "PyTorch states 2.97x for its x86 engine: the geomean of 69 networks on a Xeon Gold 6455B, 4 cores, batch 1"
_FP32, _INT8 = "torch FP32", "torch FX INT8 x86"


class Kind(NamedTuple):
    """How a network of the zoo is quantized and compared.

    Attributes
    ----------
    inputs : int
        How many it is calibrated with.
    only : str or None
        The kind of layer that is quantized; None: whatever the default mapping says.
    exact : int or None
        How many quantized values, the first ones, must agree, where the floats behind them depend on a library's exponential; None: all.
    """

    inputs: int = 16
    only: str = None
    exact: int = None


_KINDS = {
    "resnet18": Kind(), "resnet50": Kind(), "mobilenet_v2": Kind(), "vgg16": Kind(), "squeezenet1_1": Kind(),
    "bert_base_layer": Kind(4, "nn.Linear", 4),
}  # fmt: skip


class Network(NamedTuple):
    """A network before and after quantization, and the images it was calibrated with."""

    real: object
    int8: object
    images: np.ndarray


@lru_cache(maxsize=2)
def quantized_network(name):
    """Return refquant's side of a network of the zoo."""
    model, kind, workflow = rq.zoo.build(name), _KINDS[name], rq.workflow
    shape = (kind.inputs, *model.node(model.inputs[0]).attrs["shape"][1:])
    images = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    mapping = workflow.get_default_qconfig_mapping(_ENGINE)
    if kind.only:
        mapping = workflow.QConfigMapping(_ENGINE).set_object_type(kind.only, workflow.get_default_qconfig(_ENGINE))
    prepared = workflow.prepare_fx(model, mapping, (images,))
    prepared(images, real=_real_order())
    return Network(model, workflow.convert_fx(prepared, numerics=profile_here(_ENGINE)), images)


def _real_order():
    try:
        torch_engine(_ENGINE)
    except BackendMissing:
        return None
    from refquant.backends.torch_fx import real_order

    return real_order()


@lru_cache(maxsize=2)
def their_network(name):
    """Return PyTorch's side: (float32 module, quantized module)."""
    torch_engine(_ENGINE)
    from refquant.backends.torch_fx import prepared_module, quantized_module
    from refquant.backends.torch_module import to_torch

    network = quantized_network(name)
    module, mapping = to_torch(network.real), None
    if _KINDS[name].only:
        from torch.ao.quantization import QConfigMapping, get_default_qconfig

        layer = getattr(torch_package().nn, _KINDS[name].only.removeprefix("nn."))
        mapping = QConfigMapping().set_object_type(layer, get_default_qconfig(_ENGINE))
    return module, quantized_module(prepared_module(module, _ENGINE, [network.images], mapping=mapping), _ENGINE)


def _module_call(module, image):
    torch = torch_package()
    x = torch.from_numpy(image)

    def call():
        with torch.inference_mode():
            return module(x)

    return call


def _our_bits(name):
    """All codes inside and the output: the output alone could hide a difference that is rounded away."""
    network = quantized_network(name)
    return lambda y: _compared(name, layer_bits(network.int8, network.images[:1]), y)


def _their_bits(name):
    def bits(y):
        from refquant.backends.torch_fx import run_bits

        return _compared(name, run_bits(their_network(name)[1], _ENGINE, quantized_network(name).images[:1]), y.numpy())

    return bits


def _compared(name, rows, output):
    exact = _KINDS[name].exact
    return [output, *(row.codes for row in rows)] if exact is None else [row.codes for row in rows[:exact]]


def network_calls(name):
    """Return refquant's quantized network as a function of the threads to run on, and a function that makes PyTorch's call."""
    network = quantized_network(name)
    image = network.images[:1]
    return lambda threads: network.int8.run(image, threads=threads)[0], lambda: _module_call(their_network(name)[1], image)


def _case(name, settings):
    ours, theirs = network_calls(name)
    network = quantized_network(name)
    case = Case(name, operations=2.0 * sum(multiply_adds(network.real).values()))
    case.add("refquant", lambda: lambda: ours(settings.threads), Role.SUBJECT, bits=_our_bits(name))
    case.add(_INT8, theirs, bits=_their_bits(name))
    case.add(_FP32, lambda: _module_call(their_network(name)[0], network.images[:1]), Role.SHOWN)
    return case


def _notes(results):
    rows = [r for r in results if r.timed and _FP32 in r.samples]
    for r in rows:
        theirs = f", torch FX INT8 {r.ratio_over(_FP32, _INT8):.2f}x" if _INT8 in r.samples else ""
        yield f"{r.name}: over torch FP32 ({1e3 * r.seconds(_FP32):.1f} ms) refquant is {r.ratio_over(_FP32):.2f}x as fast{theirs}"
    if rows:
        mean = geomean(r.ratio_over(_FP32) for r in rows)
        yield f"geomean {mean:.2f}x. {_BLOG}."
    for r in results:
        if r.timed and r.ratio is not None and r.ratio < _BAR:
            yield f"{r.name}, where the time goes: {_profile(r.name)}"
    if any(r.name == "bert_base_layer" and r.timed for r in results):
        yield "bert_base_layer: bits are compared up to the first softmax; behind it floats depend on a library's exponential"


class Layer(NamedTuple):
    """One layer of a network: its name, kind, the shape of its output, seconds on one thread, multiplications and additions."""

    name: str
    kind: str
    shape: tuple
    seconds: float
    operations: float


def layer_times(name, runs=9):
    """Return the `Layer`s of a network of the zoo as refquant runs it, the quantized one: medians over some runs, what Python takes included."""
    network = quantized_network(name)
    image, counts = network.images[:1], multiply_adds(network.int8)
    with limited_threads(1):
        network.int8.run(image)
        rows = [network.int8.time_steps(image, clock=process_time) for _ in range(runs)]
    shapes = network.int8.shapes(image.shape)
    return [
        Layer(node.name, kind_of(node), shapes[node.name], median(row[node.name] for row in rows), 2.0 * counts.get(node.name, 0))
        for node in network.int8.nodes
        if node.op != "input"
    ]


def _profile(name):
    """Milliseconds by kind of layer, the greatest first."""
    kinds = {}
    for layer in layer_times(name):
        seconds, count = kinds.get(layer.kind, (0, 0))
        kinds[layer.kind] = seconds + layer.seconds, count + 1
    ordered = sorted(kinds.items(), key=lambda item: -item[1][0])
    return ", ".join(f"{kind} ({count}) {1e3 * seconds:.2f} ms" for kind, (seconds, count) in ordered)


def kind_of(node):
    """What a layer is called in a profile."""
    if not node.op.startswith("conv"):
        return node.op
    sides = "x".join(str(n) for n in node.params["weight"].shape[2:])
    return f"{'depthwise ' if node.attrs['groups'] > 1 else ''}{node.op} {sides}"


_BAR = 1.2


def _worst(results):
    return min(ratios(r for r in results if r.name in _JUDGED), default=None)


NETWORKS = Work(
    "networks",
    "Whole networks, batch 1, INT8 by the FX workflow with its x86 defaults",
    lambda: [Plan(name, "", lambda settings, name=name: _case(name, settings)) for name in _KINDS],
    bars=(Bar(f"worst ratio of {' and '.join(_JUDGED)}", _worst, _BAR),),
    notes=lambda results: list(_notes(results)),
)
