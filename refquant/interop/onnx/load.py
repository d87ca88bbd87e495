"""`from_onnx`: read a model that may be damaged or hostile, and say what is wrong with it."""

import os
from functools import lru_cache

from refquant.errors import ArgumentError, BackendMissing, RefquantError, UnsupportedError
from refquant.interop.onnx import qdq
from refquant.interop.onnx.checks import checked_graph, checked_opsets
from refquant.interop.onnx.external import ExternalData
from refquant.interop.onnx.lower import to_graph
from refquant.interop.onnx.model import OnnxModel

__all__ = ["from_onnx", "read_proto", "import_onnx"]

_MOST_FILE_BYTES = 2**31


def import_onnx():
    """Return the package onnx, or say how to get it."""
    try:
        import onnx
    except ImportError:
        raise BackendMissing("reading ONNX models needs the package onnx: pip install onnx") from None
    return onnx


def from_onnx(source, *, base_dir=None, numerics="onnx", as_graph=None, outputs=None, fuse_qdq=None):
    """Load an ONNX model.

    The file is read, checked and never executed as anything but arithmetic: subgraphs, functions and unknown operators are refused,
    sizes are checked before memory is asked for, and external data is read from the model's own folder alone.

    Parameters
    ----------
    source : str, os.PathLike, bytes or onnx.ModelProto
        A file, its content, or the parsed message.
    base_dir : str or os.PathLike, optional
        Folder of external data; the file's own folder unless given.
    numerics : str or Numerics
        Whose arithmetic quantized operators follow.
    as_graph : bool, optional
        True: return a `refquant.graph.Model`, as quantization workflows take it, or say which node it lacks. False: return an
        `OnnxModel`, which knows many more operators. Unless given, the first where it is possible.
    outputs : sequence of str, optional
        Names of values to return in place of the file's outputs; what they do not need is left out.
    fuse_qdq : bool or "basic", optional
        Compute "dequantize, operator, quantize" as one operator on codes where ONNX Runtime does so by default, see
        `refquant.interop.onnx.qdq`; ``"basic"``: write the model anew as its level of that name does, but fuse nothing; False: as with optimizations disabled.
        Unless given: True for the profile ``"onnxruntime"``, and False for others.

    Returns
    -------
    refquant.graph.Model or OnnxModel
        Either way: ``y, = model(x)``, ``model.nodes`` and ``model.run(x, hooks=...)``.

    Raises
    ------
    ArgumentError, RangeError
        A damaged or inconsistent file.
    UnsupportedError
        Operators, types or constructs that refquant lacks; the message names node and remedy.
    BackendMissing
        The package onnx is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import TensorProto, helper
    >>> x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="r")], "g", [x], [y])
    >>> model = from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString())
    >>> y, = model(np.float32([-1, 2]))
    >>> y.tolist(), [n.name for n in model.nodes]
    ([0.0, 2.0], ['x', 'r'])
    """
    proto, folder = read_proto(source)
    folder = folder if base_dir is None else base_dir
    opsets = checked_opsets(proto)
    model = checked_graph(proto, opsets, None if folder is None else ExternalData(folder), numerics, outputs)
    level = qdq.fusion_level(model.numerics, fuse_qdq)
    if level:
        nodes, constants = qdq.fuse_qdq(model.nodes, model.outputs, model.constants, level, lru_cache(lambda: _shapes(proto)))
        model = OnnxModel(nodes, model.signature, model.outputs, constants, model.numerics)
    if as_graph is False:
        return model
    try:
        return to_graph(model)
    except UnsupportedError:
        if as_graph:
            raise
        return model


def _shapes(proto):
    """Return the shapes of values that onnx infers, by name; none where it cannot."""
    onnx = import_onnx()
    try:
        graph = onnx.shape_inference.infer_shapes(proto).graph
    except Exception:
        return {}
    infos = [info for info in (*graph.input, *graph.value_info, *graph.output) if info.type.tensor_type.HasField("shape")]
    return {info.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim) for info in infos}


def read_proto(source):
    """Return (ModelProto, folder or None)."""
    onnx = import_onnx()
    if isinstance(source, onnx.ModelProto):
        return source, None
    folder, name = None, "the bytes given"
    if isinstance(source, (str, os.PathLike)):
        folder, name = os.path.dirname(os.path.abspath(source)), repr(os.fspath(source))
        source = _read(source, name)
    if not isinstance(source, (bytes, bytearray, memoryview)):
        raise ArgumentError(f"from_onnx: source must be a path, bytes or a ModelProto, not {type(source).__name__}")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(bytes(source))
    except RefquantError:
        raise
    except Exception as error:
        raise ArgumentError(f"from_onnx: {name} is no ONNX model, or is cut off ({len(source)} bytes): {str(error)[:120]}; export or copy it again") from error
    return proto, folder


def _read(path, name):
    if not os.path.isfile(path):
        raise ArgumentError(f"from_onnx: {name} is no file; give the path of an .onnx file")
    size = os.path.getsize(path)
    if size > _MOST_FILE_BYTES:
        raise ArgumentError(f"from_onnx: {name} has {size:,} bytes but ONNX files end at {_MOST_FILE_BYTES:,}; keep weights as external data")
    with open(path, "rb") as file:
        return file.read()
