"""`to_onnx`: a `refquant.graph.Model` as an ONNX file, float or quantized in either of ONNX's two forms. Imports onnx when imported."""

import os
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

from refquant.core.files import check_writable, write_whole
from refquant.errors import ArgumentError, RefquantError, UnsupportedError, choose
from refquant.graph import Model
from refquant.interop.onnx.write import activations, elementwise, norms, pools, products, shaping, values
from refquant.interop.onnx.write.emitter import MICROSOFT, Emitter, Written

__all__ = ["to_onnx", "Export", "FORMS", "RULES"]

FORMS = ("float", "qdq", "qoperator")
RULES = {op: rule for family in (values, products, elementwise, activations, pools, norms, shaping) for op, rule in family.RULES.items()}
"""How each operation of `refquant.graph.OPS` is written; ``rule(emitter, node, *values)`` returns the value that was written."""

_OPSET, _IR = 21, 10
_MOST_BYTES = 2**31 - 1


class Export(NamedTuple):
    """What `to_onnx` wrote; ``print`` says what differs from the model in bits.

    Attributes
    ----------
    path : str
    form : str
        One of `FORMS`.
    nodes : int
    biases : tuple of BiasChange
        One for each layer whose float32 bias became int32, as ONNX wants it; a model that already computes under ``numerics="onnxruntime"``
        rounds it in the same way, so that nothing differs there.
    """

    path: str
    form: str
    nodes: int
    biases: tuple

    def __str__(self):
        lines = [f"{self.path}: {self.nodes} nodes, {self.form}"]
        moved = [b for b in self.biases if b.moved]
        if moved:
            most = max(moved, key=lambda b: b.codes)
            lines += [
                f"{len(moved)} float32 biases became int32 in units of x_scale * w_scale: {sum(b.moved for b in moved):,} of {sum(b.channels for b in moved):,} channels changed,",
                f"by at most {most.codes:.3g} of an output code (in {most.node}); an output whose real value lies that near to a rounding boundary moves by one code",
            ]
        lines += [f"{b.node}: the bias of {b.saturated} channels does not fit into int32 and saturates" for b in self.biases if b.saturated]
        return "\n".join(lines)


def to_onnx(model, path, *, format=None):
    """Write a model as an ONNX file, which `onnx.checker` has checked.

    Parameters
    ----------
    model : Model
        Float, or quantized by any workflow, or read from a quantized model.
    path : str or os.PathLike
        Written whole or not at all.
    format : {"float", "qdq", "qoperator"}, optional
        Of a quantized model: ``"qdq"``, float operators between DequantizeLinear and QuantizeLinear, which ONNX Runtime fuses when it loads
        the file and other tools read too (the default); or ``"qoperator"``, QLinearConv, QGemm and the like, partly of the domain ``com.microsoft``.

    Returns
    -------
    Export

    Raises
    ------
    UnsupportedError
        Operations that ONNX lacks: all of them are listed, with their nodes.
    ArgumentError
        No Model; a format that does not fit it; weights beyond the two gigabytes of an ONNX file.
    BackendMissing
        The package onnx is not installed.

    Notes
    -----
    *Exactness.* ONNX Runtime on x86-64 with AVX512-VNNI computes the very integers of ``model.run(x, numerics="onnxruntime")``, from the first
    quantized layer to the last, as long as no layer in between computes real numbers in an order of its own. In the form ``qdq``, int8 activations
    ask for its session setting ``session.qdqisint8allowed=1``. Under the model's own numerics the integers are others: each engine rounds in
    its own way, and ONNX has int32 biases alone. What that does to each layer is in the result.

    Examples
    --------
    >>> import os, tempfile
    >>> from refquant import zoo
    >>> export = to_onnx(zoo.load("digits_resnet"), os.path.join(tempfile.mkdtemp(), "digits.onnx"))
    >>> export.form, export.nodes, len(export.biases)
    ('float', 30, 0)
    """
    if not isinstance(model, Model):
        raise ArgumentError(f"to_onnx: model is a {type(model).__name__} but must be a refquant Model; convert PyTorch modules with refquant.interop.from_torch")
    form = choose("to_onnx", "format", format or ("qdq" if model.quantized else "float"), FORMS)
    if (form == "float") == model.quantized:
        kind, remedy = ("quantized", "take 'qdq' or 'qoperator'") if model.quantized else ("float", "quantize it first, see refquant.workflow, or take 'float'")
        raise ArgumentError(f"to_onnx: format={form!r} but the model is {kind}; {remedy}")
    check_writable(path)
    emit = Emitter(model, form)
    proto = _proto(model, emit, _written(model, emit))
    if proto.ByteSize() > _MOST_BYTES:
        raise ArgumentError(f"to_onnx: the model takes {proto.ByteSize():,} bytes but ONNX files end at {_MOST_BYTES:,}; export it in parts")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RefquantError(f"to_onnx: onnx.checker refuses what was written ({str(error)[:300]}); nothing was saved, please report the model") from error
    write_whole(path, proto.SerializeToString(deterministic=True))
    return Export(os.fspath(path), form, len(emit.nodes), tuple(emit.biases))


def _written(model, emit):
    """Write every node; return ``{name: Written}``, or refuse all nodes at once that cannot be written."""
    made, refused = {}, []
    for node in model.nodes:
        if node.op == "input" and node.name not in emit.shapes:
            emit.refuse(node, "has no shape, but ONNX files state it", "state it, with None for open sides")
        if node.op == "input":
            made[node.name] = Written(node.name, None, emit.shapes[node.name])
        elif all(name in made for name in node.inputs):
            try:
                made[node.name] = _write(emit, node, [made[name] for name in node.inputs])
            except UnsupportedError as error:
                refused.append(str(error).removeprefix("to_onnx: "))
    if refused:
        raise UnsupportedError("to_onnx: " + "; ".join(refused))
    return made


def _write(emit, node, inputs):
    if node.op not in RULES:
        emit.refuse(node, "has no form in ONNX that refquant knows")
    if any(value.shape is None for value in inputs):
        emit.refuse(node, "has inputs of unknown shape", "state the shape of the model's inputs")
    return RULES[node.op](emit, node, *inputs)


_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8}


def _proto(model, emit, made):
    nodes = [model.node(name) for name in model.inputs]
    inputs = [_info(n.name, n.attrs.get("dtype", "float32"), made[n.name].shape) for n in nodes]
    outputs = [_info(name, "float32" if made[name].qparams is None else made[name].qparams.storage.name, made[name].shape) for name in model.outputs]
    graph = helper.make_graph(emit.nodes, model.name, inputs, outputs, emit.constants)
    domains = {"", *(node.domain for node in emit.nodes)}
    opsets = [helper.make_opsetid("", _OPSET), *([helper.make_opsetid(MICROSOFT, 1)] if MICROSOFT in domains else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="refquant")


def _info(name, dtype, shape):
    sides = [("batch" if i == 0 else f"{name}_{i}") if n is None else n for i, n in enumerate(shape)]
    return helper.make_tensor_value_info(name, _TYPES[dtype], sides)
