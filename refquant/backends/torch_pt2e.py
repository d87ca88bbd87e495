"""PyTorch's PT2E workflow, as torchao has it: the same network exported, annotated, calibrated and converted. Imports torch and torchao when imported."""

import copy
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from refquant.backends.torch_fx import real_order
from refquant.errors import ArgumentError

__all__ = [
    "QuantizedValue", "exported", "prepared_module", "converted_module", "annotations", "placement", "run_quantized", "default_quantizer",
    "numbered", "numbered_operations", "operations", "spec_text", "Float64Sums",
]  # fmt: skip

_aten = torch.ops.aten
_IN_FLOAT64 = {
    _aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default, _aten.conv_transpose2d.input, _aten.linear.default, _aten.matmul.default,
    _aten.batch_norm.default, _aten.layer_norm.default, _aten.avg_pool2d.default, _aten.adaptive_avg_pool2d.default, _aten.mean.dim,
    _aten.softmax.int, _aten.sqrt.default, _aten.sigmoid.default, _aten.silu.default, _aten.gelu.default, _aten.tanh.default,
}  # fmt: skip
_NO_OPERATION = ("sym_size", "_guards_fn", "getitem")


class QuantizedValue(NamedTuple):
    """A value that a quantize node makes: the operation whose output it is, by its place in the graph, its parameters, its codes."""

    place: tuple
    scale: float
    zero_point: int
    codes: np.ndarray


def default_quantizer(**options):
    """Return torchao's X86InductorQuantizer with its default configuration for all."""
    return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(**options))


def exported(module, example, strict=False, training=False):
    """Return ``torch.export``'s module of a network, for batches of the size of `example`; in training, dropouts have probability 0."""
    module = copy.deepcopy(module).train(training)
    for part in module.modules():
        if training and isinstance(part, torch.nn.modules.dropout._DropoutNd):
            part.p = 0.0
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in (example if isinstance(example, tuple) else (example,)))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(module, inputs, strict=strict).module()


def prepared_module(module, calibration, *, quantizer=None, strict=False, order=None):
    """Return torchao's prepared module, calibrated.

    Parameters
    ----------
    module : torch.nn.Module
    calibration : sequence of ndarray
        Batches of one size.
    quantizer : torchao quantizer, optional
        X86InductorQuantizer with its default configuration unless given.
    strict : bool
        How the module is exported.
    order : str, optional
        ``"float64"`` runs real sums in float64, rounded once; `refquant.backends.torch_fx.real_order` unless given.
    """
    batches = [torch.from_numpy(np.ascontiguousarray(batch)) for batch in calibration]
    if not batches:
        raise ArgumentError("torch_pt2e: calibration is empty; give at least one batch")
    graph = exported(module, calibration[0], strict)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        prepared = prepare_pt2e(graph, quantizer or default_quantizer())
        run = _runner(prepared, order)
        for batch in batches:
            run(batch)
    return prepared


def converted_module(prepared):
    """Return torchao's converted module of a calibrated one, which is used up: a copy's annotations would point to the nodes of the original."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return convert_pt2e(prepared)


class Float64Sums(torch.fx.Interpreter):
    """Runs a module with every real sum, and every function of libm, in float64, rounded once to float32."""

    def call_function(self, target, args, kwargs):
        if target is _aten.batch_norm.default and args[5]:
            return _trained_norm(*args)
        if target not in _IN_FLOAT64:
            return super().call_function(target, args, kwargs)
        return target(*torch.utils._pytree.tree_map(_wide, args), **kwargs).float()


def _wide(value):
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _trained_norm(x, weight, bias, mean, var, *settings):
    """A batch norm in training, whose running statistics follow, rounded once too."""
    wide = [v.double() for v in (x, weight, bias, mean, var)]
    y = _aten.batch_norm.default(*wide, *settings)
    for held, new in zip((mean, var), wide[3:]):
        held.copy_(new)
    return y.float()


def _runner(module, order):
    return Float64Sums(module).run if (order or real_order()) == "float64" else module


def operations(graph):
    """Return ``{name of an operation of the network: its place}``, inputs first, in the order that `numbered_operations` noted, or of execution."""
    nodes, constant = [n for n in graph.nodes if n.op == "placeholder"], _of_parameters(graph)
    for node in graph.nodes:
        text = str(node.target)
        inserted = node in constant or _undoes_scaling(node, constant) or text.startswith("activation_post_process") or "quantized_decomposed" in text
        if node.op in ("call_function", "call_module") and not inserted and not any(part in text for part in _NO_OPERATION):
            nodes.append(node)
    return {node.name: i for i, node in enumerate(sorted(nodes, key=lambda node: node.meta.get("refquant_order", 0)))}


def numbered_operations(module):
    """Note the order of a module's nodes, and return it: a convolution whose batch norm scales it is moved to where the norm is read first, and takes its notes along."""
    for i, node in enumerate(module.graph.nodes):
        node.meta["refquant_order"] = i
    return module


def _of_parameters(graph):
    """Return the nodes that depend on parameters alone: these, their observers, and what training for a batch norm computes of them."""
    found = set()
    for node in graph.nodes:
        if node.op == "get_attr" or node.all_input_nodes and all(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _undoes_scaling(node, constant):
    """Whether a node stands between a convolution with scaled weights and its batch norm: it divides by the factor, or adds the bias."""
    second = node.args[1] if len(node.args) > 1 else None
    return node.target in (_aten.div.Tensor, _aten.add.Tensor) and second in constant and second.target is _aten.reshape.default


def _place(node, places):
    """Return where a node stands: ``("value", place)``, ``("parameter", name)`` or ``("output",)``."""
    if node.op == "output":
        return ("output",)
    if node.name in places:
        return "value", places[node.name]
    while node.op != "get_attr":
        node = node.args[0]
    return "parameter", str(node.target).replace(".", "_").replace("_weight_bias", "_bias")


def _is_observer(node):
    return node.op == "call_module" and str(node.target).startswith("activation_post_process")


def annotations(prepared):
    """Return ``{place of an operation: (specs of its inputs by place, spec of its output)}`` of a prepared module."""
    found, place, constant = {}, partial(_place, places=operations(prepared.graph)), _of_parameters(prepared.graph)
    for node in prepared.graph.nodes:
        annotation = node.meta.get("quantization_annotation")
        if annotation is None or _is_observer(node) or node.op != "get_attr" and node in constant:
            continue
        if node.op == "get_attr" and not annotation.input_qspec_map and annotation.output_qspec is None:  # a mark that asks for nothing: strict export tells parameters by their module
            continue
        inputs = sorted((place(value), spec_text(spec, place)) for value, spec in annotation.input_qspec_map.items())
        found[place(node)] = tuple(inputs), spec_text(annotation.output_qspec, place)
    return found


def spec_text(spec, place):
    """Return a quantization spec of either side as text; `place` tells where a node stands."""
    if spec is None:
        return "none"
    if hasattr(spec, "edge_or_node"):
        other = spec.edge_or_node
        return "shared " + str(tuple(map(place, other)) if isinstance(other, tuple) else place(other))
    plain = lambda value: str(value).rpartition(".")[2]  # noqa: E731
    told = f"{plain(spec.dtype)} {spec.quant_min} {spec.quant_max} {plain(spec.qscheme)} {getattr(spec, 'ch_axis', None)} {spec.is_dynamic}"
    if hasattr(spec, "scale"):
        return f"{told} fixed {spec.scale} {spec.zero_point}"
    sources = getattr(spec, "derived_from", ())
    return told + "".join(f" from {tuple(map(place, source)) if isinstance(source, tuple) else place(source)}" for source in sources)


def placement(prepared):
    """Return every observed tensor of a prepared module.

    Returns
    -------
    list of tuple
        ``(place of the tensor, places of who reads it behind the observer, number of its observer, scale, zero point)``, sorted; scale and
        zero point as tuples. Two rows of one number share an observer.
    """
    places, rows = operations(prepared.graph), []
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        if not _is_observer(node):
            continue
        source = node.args[0]
        while _is_observer(source):
            source = source.args[0]
        observer = modules[node.target]
        readers = tuple(sorted(_place(user, places) for user in node.users if not _is_observer(user)))
        rows.append((_place(source, places), readers, id(observer), *_qparams(observer)))
    return numbered(rows)


def numbered(rows):
    """Sort rows of `placement` and number observers by their first appearance."""
    numbers = {}
    return [(*row[:2], numbers.setdefault(row[2], len(numbers)), *row[3:]) for row in sorted(rows, key=lambda row: row[:2])]


def _qparams(observer):
    if observer.dtype not in (torch.uint8, torch.int8, torch.int32) or getattr(observer, "is_dynamic", False):
        return (), ()
    scale, zero = observer.calculate_qparams()
    return tuple(scale.reshape(-1).tolist()), tuple(zero.reshape(-1).tolist())


def run_quantized(prepared, *inputs, order=None, places=None):
    """Convert a calibrated module, run it and return ``(outputs, its quantized values sorted by place)``; `places` are those of its operations, unless they have moved."""
    places, rows = places or operations(prepared.graph), []
    for node in prepared.graph.nodes:  # conversion gives some nodes new names, but leaves them what was noted
        node.meta["refquant_place"] = places.get(node.name)
    converted = converted_module(prepared)

    class Recorder(Float64Sums if (order or real_order()) == "float64" else torch.fx.Interpreter):
        def run_node(self, node):
            y = super().run_node(node)
            if "quantize_per_tensor" in str(node.target) and "dequantize" not in str(node.target):
                source = node.args[0]
                while "quantized_decomposed" in str(source.target):
                    source = source.args[0]
                scale, zero = (v.item() if isinstance(v, torch.Tensor) else v for v in self.map_nodes_to_values(node.args[1:3], node))
                rows.append(QuantizedValue(("value", source.meta["refquant_place"]), scale, zero, y.numpy().copy()))
            return y

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = Recorder(converted).run(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return tuple(y.numpy() for y in outputs), sorted(rows, key=lambda row: row[:3])
