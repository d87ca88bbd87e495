"""Whole networks at batch 1, quantized by both sides from the same sixteen images."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

import refquant as rq
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.engines import torch_engine, torch_package
from refquant.backends.bench.gemm import ratios
from refquant.backends.bench.harness import geomean
from refquant.errors import BackendMissing
from refquant.graph import layer_bits
from refquant.graph.work import multiply_adds

__all__ = ["NETWORKS", "network_calls"]

_NAMES = ("resnet18", "resnet50", "mobilenet_v2")
_ENGINE = "x86"
_IMAGES = 16
_BLOG = "PyTorch states 2.97x for its x86 engine: the geomean of 69 networks on a Xeon Gold 6455B, 4 cores, batch 1"
_FP32, _INT8 = "torch FP32", "torch FX INT8 x86"


class Network(NamedTuple):
    """A network before and after quantization, and the images it was calibrated with."""

    real: object
    int8: object
    images: np.ndarray


@lru_cache(maxsize=None)
def quantized_network(name):
    """Return refquant's side of a network of the zoo."""
    model = rq.zoo.build(name)
    images = np.random.default_rng(3).standard_normal((_IMAGES, 3, 224, 224)).astype(np.float32)
    workflow = rq.workflow
    prepared = workflow.prepare_fx(model, workflow.get_default_qconfig_mapping(_ENGINE), (images,))
    prepared(images, real=_real_order())
    return Network(model, workflow.convert_fx(prepared), images)


def _real_order():
    try:
        torch_engine(_ENGINE)
    except BackendMissing:
        return None
    from refquant.backends.torch_fx import real_order

    return real_order()


@lru_cache(maxsize=None)
def their_network(name):
    """Return PyTorch's side: (float32 module, quantized module)."""
    torch_engine(_ENGINE)
    from refquant.backends.torch_fx import prepared_module, quantized_module
    from refquant.backends.torch_module import to_torch

    network = quantized_network(name)
    module = to_torch(network.real)
    return module, quantized_module(prepared_module(module, _ENGINE, [network.images]), _ENGINE)


def _module_call(module, image):
    torch = torch_package()
    x = torch.from_numpy(image)

    def call():
        with torch.inference_mode():
            return module(x)

    return call


def _our_bits(name):
    """The output, and all codes inside: the output alone could hide a difference that is rounded away."""
    network = quantized_network(name)
    return lambda y: [y, *(row.codes for row in layer_bits(network.int8, network.images[:1]))]


def _their_bits(name):
    def bits(y):
        from refquant.backends.torch_fx import run_bits

        return [y.numpy(), *(row.codes for row in run_bits(their_network(name)[1], _ENGINE, quantized_network(name).images[:1]))]

    return bits


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


NETWORKS = Work(
    "networks",
    "Whole networks, 3x224x224, batch 1, INT8 by the FX workflow with its x86 defaults",
    lambda: [Plan(name, "", lambda settings, name=name: _case(name, settings)) for name in _NAMES],
    bars=(Bar("worst ratio", lambda rs: min(ratios(rs), default=None), 1.2),),
    notes=lambda results: list(_notes(results)),
)
