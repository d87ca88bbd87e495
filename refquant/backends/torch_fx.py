"""PyTorch's FX workflow: the same network quantized by PyTorch itself, and the codes of each of its layers. Imports torch when imported."""

import copy
import warnings
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.nn import functional

from refquant.backends.torch_tensors import engine, to_numpy
from refquant.errors import ArgumentError
from refquant.graph import Builder, LayerBits
from refquant.verify.compare import compare

__all__ = ["prepared_module", "quantized_module", "placement", "layer_bits", "run_bits", "real_order", "LayerComparison", "compare_layers"]

_SUMS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_SUM_FUNCTIONS = (functional.avg_pool2d, functional.adaptive_avg_pool2d)


@lru_cache(maxsize=None)
def real_order():
    """Return the order of `refquant.ops.real.ORDERS` in which PyTorch sums on this CPU, ``"float64"`` if it is none of them.

    Three layers are tried. Where PyTorch sums in another order, parity is tested with both sides in float64: then
    `prepared_module` runs PyTorch's layers in float64 and rounds to float32.
    """
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    x, deep, point, fc = draw(32, 48, 8, 8), draw(32, 48, 3, 3), draw(64, 48, 1, 1), draw(20, 48 * 64)
    builder = Builder()
    value = builder.input(shape=x.shape)
    layers = value.conv2d(32, 3, padding=1, bias=False, weight=deep), value.conv2d(64, 1, bias=False, weight=point)
    ours = builder.build(*layers, value.flatten().linear(20, bias=False, weight=fc))(x)
    x, deep, point, fc = (torch.from_numpy(v) for v in (x, deep, point, fc))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    theirs = functional.conv2d(x, deep, padding=1), functional.conv2d(x, point), functional.linear(x.flatten(1), fc)
    torch.set_num_threads(threads)
    return "torch_avx512" if all(np.array_equal(a, b.numpy()) for a, b in zip(ours, theirs)) else "float64"


class _Float64Sums(torch.fx.Interpreter):
    """Runs a module with every real sum in float64, rounded once to float32."""

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        layers = list(module) if isinstance(module, nn.Sequential) else [module]
        if not isinstance(layers[0], _SUMS) or args[0].is_quantized:
            return super().call_module(target, args, kwargs)
        x = args[0].double()
        for layer in layers:
            x = copy.deepcopy(layer).double()(x)
        return x.float()

    def call_function(self, target, args, kwargs):
        if target not in _SUM_FUNCTIONS or args[0].is_quantized:
            return super().call_function(target, args, kwargs)
        return target(*(a.double() if isinstance(a, torch.Tensor) else a for a in args), **kwargs).float()


def _module(module):
    if isinstance(module, str):
        from refquant.data import architectures_torch

        return architectures_torch.load(module)
    if not isinstance(module, nn.Module):
        raise ArgumentError(f"torch_fx: module is a {type(module).__name__}; pass a torch.nn.Module or the name of a bundled network")
    return copy.deepcopy(module).eval()


def prepared_module(module, backend, calibration, *, mapping=None, order=None):
    """Return PyTorch's prepared module, calibrated.

    Parameters
    ----------
    module : torch.nn.Module or str
        Or the name of a bundled network.
    backend : {"x86", "fbgemm", "onednn", "qnnpack"}
    calibration : sequence of ndarray
        Batches. PyTorch's order of summation is known for batches of 16 images and more.
    mapping : torch.ao.quantization.QConfigMapping, optional
        PyTorch's default for the backend unless given.
    order : str, optional
        ``"float64"`` runs real sums in float64; `real_order` unless given.
    """
    module = _module(module)
    batches = [torch.from_numpy(np.ascontiguousarray(batch)) for batch in calibration]
    if not batches:
        raise ArgumentError("torch_fx: calibration is empty; give at least one batch")
    with engine(backend), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        prepared = prepare_fx(module, mapping or get_default_qconfig_mapping(backend), (batches[0],))
        run = _Float64Sums(prepared).run if (order or real_order()) == "float64" else prepared
        for batch in batches:
            run(batch)
    return prepared


def quantized_module(prepared, backend):
    """Return PyTorch's quantized module of a calibrated one, packed for an engine."""
    with engine(backend), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return convert_fx(copy.deepcopy(prepared))


def placement(prepared):
    """Return where PyTorch's observers sit, as ``refquant.workflow.Prepared.placement`` does."""
    numbers, rows = {}, []
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        if node.op == "call_module" and str(node.target).startswith("activation_post_process"):
            rows.append((node.args[0].name, numbers.setdefault(id(modules[node.target]), len(numbers))))
    return rows


def layer_bits(module, backend, calibration, x=None, *, mapping=None, order=None):
    """Quantize a module with PyTorch, run it and return what each quantized node computed, in order.

    Parameters
    ----------
    module, backend, calibration, mapping, order
        As for `prepared_module`.
    x : ndarray of float32, optional
        What the quantized module is run on; the first calibration batch unless given.

    Returns
    -------
    list of LayerBits
        Names are those of PyTorch's converted graph.
    """
    calibration = list(calibration)
    converted = quantized_module(prepared_module(module, backend, calibration, mapping=mapping, order=order), backend)
    return run_bits(converted, backend, calibration[0] if x is None else x, order=order)


def run_bits(converted, backend, *inputs, order=None):
    """Run a quantized module under its engine and return what each quantized node computed, in order.

    Layers that were left in float32 see channels-last tensors, which PyTorch sums in orders that refquant does not define: with
    ``order="float64"`` they run in float64.
    """
    rows = []

    class Recorder(_Float64Sums if (order or real_order()) == "float64" else torch.fx.Interpreter):
        def run_node(self, node):
            y = super().run_node(node)
            if isinstance(y, torch.Tensor) and y.is_quantized:
                rows.append(LayerBits(node.name, y.q_scale(), y.q_zero_point(), to_numpy(y).copy()))
            return y

    with engine(backend), torch.no_grad():
        Recorder(converted).run(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
    return rows


class LayerComparison(NamedTuple):
    """One layer on both sides.

    Attributes
    ----------
    name, their_name : str
    scales, zero_points : tuple
        Ours and theirs.
    codes : refquant.verify.compare.Comparison
    """

    name: str
    their_name: str
    scales: tuple
    zero_points: tuple
    codes: object

    @property
    def exact(self):
        """Whether parameters and all codes agree."""
        return self.scales[0] == self.scales[1] and self.zero_points[0] == self.zero_points[1] and self.codes.exact


def compare_layers(ours, theirs):
    """Compare two lists of layers, one by one in order.

    Parameters
    ----------
    ours, theirs : list of LayerBits

    Returns
    -------
    list of LayerComparison

    Raises
    ------
    ArgumentError
        The lists have different lengths: layers were fused or quantized differently, so there is nothing to compare one by one.
    """
    if len(ours) != len(theirs):
        names = ", ".join(r.name for r in ours), ", ".join(r.name for r in theirs)
        raise ArgumentError(f"compare_layers: {len(ours)} quantized values here ({names[0]}) but {len(theirs)} there ({names[1]}); the graphs differ, compare their placement")
    return [
        LayerComparison(a.name, b.name, (a.scale, b.scale), (a.zero_point, b.zero_point), compare(a.codes, b.codes))
        for a, b in zip(ours, theirs)
    ]  # fmt: skip
