"""PyTorch's FX workflow: the same network quantized by PyTorch itself, and the codes of each of its layers. Imports torch when imported."""

import copy
import operator
import warnings
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.ao.nn.intrinsic import _FusedModule
from torch.ao.quantization import get_default_qat_qconfig_mapping, get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx
from torch.nn import functional

from refquant.backends.torch_tensors import engine, to_numpy
from refquant.errors import ArgumentError
from refquant.graph import Builder, LayerBits
from refquant.verify.compare import compare

__all__ = ["prepared_module", "quantized_module", "placement", "module_calls", "layer_bits", "run_bits", "real_order", "LayerComparison", "compare_layers"]

_SUMS = (
    *(getattr(nn, f"{kind}{d}d") for kind in ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm", "AvgPool", "AdaptiveAvgPool") for d in (1, 2, 3)),
    nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.Softmax, nn.GELU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.SiLU,
)  # fmt: skip
_FUNCTIONS = {
    *(getattr(functional, f"{kind}{d}d") for kind in ("conv", "conv_transpose", "avg_pool", "adaptive_avg_pool") for d in (1, 2, 3)),
    functional.linear, functional.layer_norm, functional.group_norm, functional.instance_norm, functional.softmax, functional.gelu, functional.elu, functional.silu,
    torch.mean, torch.matmul, operator.matmul, torch.sigmoid, torch.tanh, torch.softmax,
}  # fmt: skip
_WEIGHTED = {functional.linear, *(getattr(functional, f"{kind}{d}d") for kind in ("conv", "conv_transpose") for d in (1, 2, 3))}
_METHODS = {"mean", "sigmoid", "tanh", "softmax", "matmul"}


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
    """Runs a module with every real sum, and every exponential, in float64, rounded once to float32."""

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        if isinstance(module, torch.fx.GraphModule):  # a standalone module
            return type(self)(module).run(*args)
        if hasattr(module, "weight_fake_quant"):
            return _trained(module, args[0])
        if not type(module).__module__.startswith("torch."):  # a module of the user's that was not looked into
            return _Float64Sums(torch.fx.symbolic_trace(module)).run(*args)
        layers = list(module.children()) if isinstance(module, (nn.Sequential, _FusedModule)) else [module]
        if not isinstance(layers[0], _SUMS) or args[0].is_quantized or type(layers[0]).__module__.startswith("torch.ao.nn.quantized.dynamic"):
            return super().call_module(target, args, kwargs)
        x = _in_double(layers[0], args[0])
        if len(args) == 2:  # a convolution, then a sum
            x = module.add(x, args[1])
        for layer in layers[1:]:
            x = _in_double(layer, x) if isinstance(layer, _SUMS) else layer(x)
        return x

    def call_function(self, target, args, kwargs):
        if target not in _FUNCTIONS or any(isinstance(a, torch.Tensor) and a.is_quantized for a in args):
            return super().call_function(target, args, kwargs)
        return target(*map(_double, args), **{k: _double(v) for k, v in kwargs.items()}).float()

    def call_method(self, target, args, kwargs):
        if target not in _METHODS or args[0].is_quantized:
            return super().call_method(target, args, kwargs)
        return getattr(args[0].double(), target)(*map(_double, args[1:]), **kwargs).float()


def _double(value):
    return value.double() if isinstance(value, torch.Tensor) and value.dtype == torch.float32 else value


def _in_double(layer, x):
    if hasattr(layer, "get_weight"):  # a layer of a reference model: its weight is a grid of float32 numbers
        plain = copy.copy(layer)
        weight = layer.get_weight().detach().double()
        plain.get_weight = lambda: weight
        bias = None if layer.bias is None else layer.bias.detach().double()
        plain._parameters = {**layer._parameters, "bias": None if bias is None else nn.Parameter(bias, requires_grad=False)}
        return plain(x.double()).float()
    return copy.deepcopy(layer).double()(x.double()).float()


def _trained(module, x):
    """What a layer of quantization-aware training computes, each sum in float64 and each step rounded to float32."""
    weight, norm, bias = module.weight, getattr(module, "bn", None), module.bias
    along = (1, -1, *[1] * (weight.dim() - 2))
    if norm is not None:
        # torch.sqrt of float32 goes to MKL, which on some processors rounds one result in five otherwise.
        factor = norm.weight / torch.sqrt((norm.running_var + norm.eps).double()).float()
        weight = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
    weight = module.weight_fake_quant(weight).double()
    added = bias.double() if bias is not None and norm is None else None
    y = functional.linear(x.double(), weight, added) if isinstance(module, nn.Linear) else module._conv_forward(x.double(), weight, added)
    y = y.float()
    if norm is not None:
        y = y / factor.reshape(along)
        y = _in_double(norm, y if bias is None else y + bias.reshape(along))
    return torch.relu(y) if "ReLU" in type(module).__name__ else y


def _module(module):
    if isinstance(module, str):
        from refquant.data import architectures_torch

        return architectures_torch.load(module)
    if not isinstance(module, nn.Module):
        raise ArgumentError(f"torch_fx: module is a {type(module).__name__}; pass a torch.nn.Module or the name of a bundled network")
    return copy.deepcopy(module).eval()


def prepared_module(module, backend, calibration, *, mapping=None, order=None, backend_config=None, qat=False, custom=None):
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
    backend_config : torch.ao.quantization.backend_config.BackendConfig, optional
    custom : torch.ao.quantization.fx.custom_config.PrepareCustomConfig, optional
    qat : bool
        ``prepare_qat_fx`` in ``eval`` mode, which a traced dropout keeps, and which the new layers are set to: nothing is trained, fake-quantizers observe.
    """
    module = _module(module)
    batches = [tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in (batch if isinstance(batch, tuple) else (batch,))) for batch in calibration]
    if not batches:
        raise ArgumentError("torch_fx: calibration is empty; give at least one batch")
    with engine(backend), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        prepare, default = (prepare_qat_fx, get_default_qat_qconfig_mapping) if qat else (prepare_fx, get_default_qconfig_mapping)
        prepared = prepare(module, mapping or default(backend), batches[0], prepare_custom_config=custom, backend_config=backend_config).eval()
        run = _Float64Sums(prepared).run if (order or real_order()) == "float64" else prepared
        for batch in batches:
            run(*batch)
    return prepared


def quantized_module(prepared, backend, backend_config=None):
    """Return PyTorch's quantized module of a calibrated one, packed for an engine."""
    with engine(backend), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return convert_fx(copy.deepcopy(prepared), backend_config=backend_config)


def placement(prepared):
    """Return where PyTorch's observers sit, as ``refquant.workflow.Prepared.placement`` does; a module's parameter is called ``"parameter"``."""
    numbers, rows = {}, []
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        if node.op == "call_module" and str(node.target).startswith("activation_post_process") and not _of_weight(node):
            value = _observed(node)
            rows.append(("parameter" if value.op == "get_attr" else value.name, numbers.setdefault(id(modules[node.target]), len(numbers))))
    return rows


def module_calls(prepared):
    """Return the modules that a prepared module calls, as ``[(node name, class name)]``: what was fused shows in the classes."""
    modules = dict(prepared.named_modules(remove_duplicate=False))
    calls = [n for n in prepared.graph.nodes if n.op == "call_module" and not str(n.target).startswith("activation_post_process")]
    return [(n.name, type(modules[n.target]).__name__) for n in calls]


def _observed(node):
    """Return the value that an observer sees, also behind another observer."""
    while node.op == "call_module" and str(node.target).startswith("activation_post_process"):
        node = node.args[0]
    return node


def _of_weight(node):
    """Whether an observer sees a function's weight, which refquant's graphs hold in the node."""
    return _observed(node).op == "get_attr" and all(user.target in _WEIGHTED and user.args[1] is node for user in node.users)


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
            # What goes into a standalone module, and comes out of it, was recorded where it was computed.
            passed = node.op in ("placeholder", "output") or node.op == "call_module" and isinstance(self.fetch_attr(node.target), torch.fx.GraphModule)
            if isinstance(y, torch.Tensor) and y.is_quantized and not passed:
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
