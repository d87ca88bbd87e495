"""One network through PT2E on both sides: refquant's workflow, and torchao's own."""

from functools import partial

import numpy as np

from refquant.backends.machine import profile_here
from refquant.cli.pt2e_verdict import Parity, first_difference, verdict_of
from refquant.core.qtensor import QTensor
from refquant.errors import RefquantError, UnsupportedError
from refquant.ops import PackedWeights
from refquant.workflow import X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, lower_pt2e, prepare_pt2e
from refquant.workflow.pt2e.lower_pt2e import DEFECTS

__all__ = ["compare_eager", "compare_lowered", "compare_compiled", "compare_layers", "compare_operator", "our_annotations", "our_placement"]


def our_quantizer(strict=False):
    """Return the default quantizer."""
    return X86InductorQuantizer(strict).set_global(get_default_x86_inductor_quantization_config())


def _places(graph):
    """Return ``{name of an operation: its place}``, inputs first."""
    nodes = [n for n in graph.nodes if n.op not in ("parameter", "output")]
    return {n.name: i for i, n in enumerate(sorted(nodes, key=lambda n: n.op != "input"))}


def _place(node, places):
    if node.op == "output":
        return ("output",)
    return ("parameter", node.path.replace(".", "_")) if node.op == "parameter" else ("value", places[node.name])


def our_annotations(prepared):
    """As `refquant.backends.torch_pt2e.annotations`."""
    from refquant.backends.torch_pt2e import spec_text

    found, place = {}, partial(_place, places=_places(prepared.graph))
    for node in prepared.graph.nodes:
        if node.annotation is not None:
            inputs = sorted((place(value), spec_text(spec, place)) for value, spec in node.annotation.input_qspec_map.items())
            found[place(node)] = tuple(inputs), spec_text(node.annotation.output_qspec, place)
    return found


def our_placement(prepared):
    """As `refquant.backends.torch_pt2e.placement`, before its rows are numbered."""
    places, rows = _places(prepared.graph), []
    nodes = {n.name: n for n in prepared.graph.nodes}
    behind = {n.name: n.inputs[0] for n in prepared.model.nodes if n.op == "observe"}
    for p in prepared.parameters:
        readers = tuple(sorted({("value", places[name]) for name, _ in p.readers}))
        rows.append((_place(nodes[p.name], places), readers, id(p.observer), *_qparams(p.observer)))
    for name in behind:
        value, observer = name, prepared.model.node(name).attrs["observer"]
        while value in behind:
            value = behind[value]
        readers = [("value", places[u.name]) for u in prepared.model.users(name) if u.op != "observe"] + [("output",)] * (name in prepared.model.outputs)
        rows.append((("value", places[value]), tuple(sorted(readers)), id(observer), *_qparams(observer)))
    return rows


def _qparams(observer):
    if observer.is_dynamic or observer.dtype not in ("uint8", "int8", "int32"):
        return (), ()
    q = observer.calculate_qparams()
    return tuple(np.atleast_1d(q.scale).tolist()), tuple(np.atleast_1d(q.zero_point).tolist())


def run_quantized(model, graph, x, order):
    places, rows = _places(graph), []
    source = {n.name: n.inputs[0] for n in model.nodes if n.op in ("quantize", "quantize_dynamic", "dequantize")}

    def record(node, value):
        if node.op in ("quantize", "quantize_dynamic"):
            name = node.inputs[0]
            while name in source:
                name = source[name]
            rows.append((("value", places[name]), value.qparams.scale, value.qparams.zero_point, np.array(value.values)))

    return model.run(x, hooks=record, real=order), sorted(rows, key=lambda row: row[:3])


def _prepared(module, model, batches, strict, order, quantizers):
    """Return (ours, theirs), or the Parity of a refusal."""
    from refquant.backends import torch_pt2e

    ours_by, theirs_by = quantizers or (our_quantizer(strict), torch_pt2e.default_quantizer())
    theirs = failure = None
    try:
        theirs = torch_pt2e.prepared_module(module, batches, quantizer=theirs_by, strict=strict, order=order)
    except (ValueError, AssertionError, IndexError, AttributeError, TypeError, RuntimeError) as error:  # what torchao's quantizer raises
        failure = error
    try:
        ours = prepare_pt2e(model, ours_by)
    except RefquantError as error:
        return Parity("both refuse", {}, str(error)) if failure is not None else Parity("ours refuses", {}, str(error))
    if failure is not None:
        return Parity("theirs refuses", {}, f"{type(failure).__name__}: {failure}")
    for batch in batches:
        ours(batch, real=order)
    return ours, theirs


def compare_eager(module, model, batches, *, strict=False, order="float64", quantizers=None):
    """Compare annotations, observers with their scales and zero points, every code and the outputs of the converted model in eager mode.

    Parameters
    ----------
    module : torch.nn.Module
    model : Model
        The same network.
    batches : sequence of ndarray
        For calibration; the last one is run.
    strict : bool
        How the module is exported.
    order : str
        Of real sums on both sides.
    quantizers : tuple, optional
        Ours and torchao's; the default ones unless given.

    Returns
    -------
    Parity
    """
    from refquant.backends import torch_pt2e

    pair = _prepared(module, model, batches, strict, order, quantizers)
    if isinstance(pair, Parity):
        return pair
    ours, theirs = pair
    a, b = our_annotations(ours), torch_pt2e.annotations(theirs)
    if a != b:
        place = next(k for k in sorted({*a, *b}) if a.get(k) != b.get(k))
        return Parity("annotations", {}, f"{place}: {a.get(place)} here, {b.get(place)} there")
    a, b = torch_pt2e.numbered(our_placement(ours)), torch_pt2e.placement(theirs)
    if a != b:
        return Parity("observers", {}, first_difference(a, b))
    y, rows = run_quantized(convert_pt2e(ours), ours.graph, batches[-1], order)
    their_y, their_rows = torch_pt2e.run_quantized(theirs, batches[-1], order=order)
    counts = {"observers": len(a), "values": len(rows), "codes": sum(r[3].size for r in rows)}
    if [r[:3] for r in rows] != [r[:3] for r in their_rows]:
        return Parity("values", counts, first_difference([r[:3] for r in rows], [r[:3] for r in their_rows]))
    return verdict_of(counts, [(r[3], t[3]) for r, t in zip(rows, their_rows)], y, their_y)


def compare_lowered(module, model, batches, *, strict=False, quantizers=None):
    """Compare the layers that `lower_pt2e` and TorchInductor fuse, what each reads and computes, and the outputs; real sums in float64 on both sides.

    Returns
    -------
    Parity
    """
    from refquant.backends import torch_inductor

    return compare_layers(_prepared(module, model, batches, strict, "float64", quantizers), batches[-1], torch_inductor.run_lowered, "float64")


def compare_compiled(module, model, batches, *, strict=False, quantizers=None):
    """As `compare_lowered`, but the program that TorchInductor compiles runs as it is; ours with real sums in its order, and with its defects.

    Both are calibrated with real sums in float64, so that they have the same scales.
    """
    from refquant.backends import torch_inductor

    return compare_layers(_prepared(module, model, batches, strict, "float64", quantizers), batches[-1], torch_inductor.run_compiled, "inductor")


def compare_layers(pair, x, run_theirs, order):
    """Compare the layers and the outputs of (ours, theirs), calibrated; a Parity instead of them is returned as it is.

    Parameters
    ----------
    pair : tuple or Parity
    x : ndarray
    run_theirs : callable
        Of `refquant.backends.torch_inductor`.
    order : str
        Of our real sums.

    Returns
    -------
    Parity
    """
    from refquant.backends.torch_inductor import CompilationFailed

    if isinstance(pair, Parity):
        return pair
    ours, theirs = pair
    try:
        their_y, their_layers = run_theirs(theirs, x)
    except CompilationFailed as error:
        return Parity("inductor fails", {}, str(error))
    try:
        y, layers = run_our_layers(lower_pt2e(convert_pt2e(ours), defects=DEFECTS if order == "inductor" else ()), x, order)
    except UnsupportedError as error:
        return Parity("not described", {}, str(error))
    key = lambda layer: tuple(layer[:6])  # noqa: E731
    in_order = lambda layer: (*key(layer), layer[7].size, layer[7].tobytes())  # noqa: E731 - layers may share all that tells them
    a, b = sorted(layers, key=in_order), sorted(their_layers, key=in_order)
    counts = {"layers": len(a), "sums": sum(layer[3] for layer in a), "numbers": sum(v.size for layer in a for v in layer[6:8])}
    if [key(v) for v in a] != [key(v) for v in b]:
        return Parity("fusions", counts, first_difference([key(v)[1:] for v in a], [key(v)[1:] for v in b]))
    sizes = [[(v[7].size, v[6].size) for v in layers] for layers in (a, b)]
    if sizes[0] != sizes[1]:
        return Parity("shapes", counts, "numbers read and made: " + first_difference(*sizes))
    return verdict_of(counts, [(v[i], w[i].reshape(v[i].shape)) for v, w in zip(a, b) for i in (6, 7)], y, their_y)


def compare_operator(operator, seed):
    """Compare what a compiled operator of `refquant.cli.pt2e_operators.OPERATORS` computes with the oracle's under the order ``inductor``.

    Returns
    -------
    Parity
    """
    import torch

    from refquant.backends.torch_inductor import compiled
    from refquant.cli.pt2e_operators import inputs_of, run_ours

    inputs = inputs_of(operator, seed)
    y, their_y = run_ours(operator, inputs), compiled(operator.theirs(torch), *inputs)
    if (y.shape, y.dtype) != (their_y.shape, their_y.dtype):
        return Parity("outputs", {"numbers": y.size, "differing": 0}, f"{y.dtype} {y.shape} here, {their_y.dtype} {their_y.shape} there")
    return verdict_of({"numbers": y.size}, [(y, their_y)], (), ())


def run_our_layers(lowered, x, order="float64"):
    """Run a lowered model; return its outputs and its layers on codes, told as `refquant.backends.torch_inductor.LoweredLayer` tells them."""
    rows, seen = [], {}
    plain = lambda value: np.array(value.values if isinstance(value, QTensor) else value)  # noqa: E731

    def record(node, value):
        seen[node.name] = value
        weight, activation = node.params.get("weight"), node.attrs.get("activation")
        if isinstance(weight, PackedWeights):
            activation = () if activation is None else (activation,) if isinstance(activation, str) else (activation[0], *map(float, activation[1:]))
            scale, zero = (value.qparams.scale, value.qparams.zero_point) if isinstance(value, QTensor) else (1.0, 0)
            told = weight.qparams.scale.astype(np.float32).tobytes(), "conv" if node.op.startswith("conv") else "linear", activation
            rows.append((*told, len(node.inputs) == 2, scale, zero, plain(value), plain(seen[node.inputs[0]])))

    return lowered.run(x, hooks=record, real=order, numerics=profile_here("inductor")), rows
