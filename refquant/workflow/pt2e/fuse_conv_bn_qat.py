"""`fuse_conv_bn_qat`: in an annotated graph, a convolution with a batch norm behind it reads a scaled weight of its own."""

from dataclasses import replace

import numpy as np

from refquant.errors import UnsupportedError
from refquant.workflow.pt2e.annotation_graph import GraphNode
from refquant.workflow.pt2e.quantization_spec import DerivedQuantizationSpec, SharedQuantizationSpec

__all__ = ["fuse_conv_bn_qat"]

_FUSED = ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d")


def fuse_conv_bn_qat(graph):
    """Let each convolution that a batch norm alone reads have a weight of its own, which the norm scales, and a bias of zeros; annotations follow.

    Parameters
    ----------
    graph : AnnotationGraph
        With annotations; changed.

    Returns
    -------
    dict of str to str
        The batch norm behind each such convolution.

    Raises
    ------
    UnsupportedError
        Annotations that torchao does not take along.

    Source
    ------
    torchao 0.18, quantization/pt2e/qat_utils.py, ``_fuse_conv_bn_qat``.
    """
    fused, stand_in = {}, {}
    for op in _FUSED:
        for norm in list(graph.nodes):
            layer = norm.inputs[0] if norm.op == "batch_norm" else None
            if layer is not None and layer.op == op and layer.users == [norm]:
                _check(layer)
                fused[layer.name] = norm.name
                stand_in.update(_with_own_parameters(graph, layer))
    for node in graph.nodes:
        annotation = node.annotation
        if annotation is not None and stand_in:
            annotation.input_qspec_map = {key: _moved(spec, stand_in) for key, spec in annotation.input_qspec_map.items()}
            annotation.output_qspec = _moved(annotation.output_qspec, stand_in)
    return fused


def _check(layer):
    if layer.annotation is not None and len(layer.annotation.input_qspec_map) < 2:
        raise UnsupportedError(
            f"prepare_qat_pt2e: {layer.name!r} is marked as not to be quantized and has a batch norm, and torchao stops there;"
            " leave it unmarked, by rules for other modules instead of None for this one"
        )
    if layer.op.startswith("conv_transpose") and layer.attrs["groups"] > 1:
        raise UnsupportedError(f"prepare_qat_pt2e: {layer.name!r} is a transposed convolution in groups with a batch norm, which torchao cannot scale; leave the norm out")


def _with_own_parameters(graph, layer):
    """Give a convolution parameters of its own; return which they stand for."""
    made = {}
    for key in [k for k in ("weight", "bias") if k in layer.params]:
        old = layer.params[key]
        value = np.zeros_like(old.value) if key == "bias" else old.value
        new = GraphNode(f"{layer.name}_scaled_{key}", "parameter", path=old.path, shape=old.shape, value=value)
        old.users.remove(layer)
        new.users.append(layer)
        layer.params[key] = made[old] = new
        graph.nodes.insert(graph.nodes.index(layer), new)
    if layer.annotation is not None:
        specs = list(layer.annotation.input_qspec_map.values())  # torchao takes them by position: input, weight, bias
        layer.annotation.input_qspec_map = dict(zip((layer.inputs[0], *layer.params.values()), specs))
    return made


def _moved(spec, stand_in):
    place = lambda p: tuple(stand_in.get(n, n) for n in p) if isinstance(p, tuple) else stand_in.get(p, p)  # noqa: E731
    if isinstance(spec, SharedQuantizationSpec):
        return SharedQuantizationSpec(place(spec.edge_or_node))
    if isinstance(spec, DerivedQuantizationSpec):
        return replace(spec, derived_from=[place(p) for p in spec.derived_from])
    return spec
