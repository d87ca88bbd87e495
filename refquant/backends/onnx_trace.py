"""ONNX Runtime on a whole model, with every value in between: imports onnx and onnxruntime when called.

Naming a value in between as an output keeps ONNX Runtime from fusing across it, so a model is looked into in two steps: a session writes the
model as it has fused it, and that model, each value now an output, runs once more without any rewriting. Its outputs are compared with those of
the session that a user would open, so that nobody has to believe that the two are the same.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refquant.errors import ArgumentError, BackendMissing

__all__ = ["Trace", "trace_model", "run_exposed", "run_session"]


class Trace(NamedTuple):
    """A model at work.

    Attributes
    ----------
    model : bytes
        As ONNX Runtime rewrote it.
    values : dict of str to ndarray
        Every value of that model.
    outputs : dict of str to ndarray
        What the user's session returns, with all optimizations.
    faithful : int
        How many elements of those outputs the rewritten model gives otherwise; 0 shows that it is the session's own.
    """

    model: bytes
    values: dict
    outputs: dict
    faithful: int


def _packages():
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise BackendMissing(f"engine onnxruntime: needs onnx and onnxruntime, which cannot be imported ({error}); pip install 'refquant[onnxruntime]'") from error
    return onnx, onnxruntime


def _session(runtime, source, level, path=None):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
    if path is not None:
        options.optimized_model_filepath = str(path)
    try:
        return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base but this
        raise ArgumentError(f"engine onnxruntime: refuses the model: {' '.join(str(error).split())[:300]}; export it again") from error


def _results(session, feeds):
    names = [o.name for o in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, feeds)))
    except Exception as error:
        raise ArgumentError(f"engine onnxruntime: cannot run the model: {' '.join(str(error).split())[:300]}; give data that fit its inputs") from error


def run_exposed(model, feeds):
    """Run a model as it is, without rewriting, and return every value by name.

    Parameters
    ----------
    model : bytes or ModelProto
    feeds : dict of str to ndarray
    """
    onnx, runtime = _packages()
    proto = onnx.ModelProto.FromString(model) if isinstance(model, bytes) else type(model).FromString(model.SerializeToString())
    there = {o.name for o in proto.graph.output}
    for node in proto.graph.node:
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name and name not in there)
        there.update(node.output)
    return _results(_session(runtime, proto.SerializeToString(), "ORT_DISABLE_ALL"), feeds)


def run_session(source, feeds):
    """Run a model as users do, with all optimizations, and return its outputs by name.

    Parameters
    ----------
    source : str, os.PathLike or bytes
    feeds : dict of str to ndarray
    """
    _, runtime = _packages()
    return _results(_session(runtime, source if isinstance(source, bytes) else str(source), "ORT_ENABLE_ALL"), feeds)


def trace_model(source, feeds):
    """Run a model in ONNX Runtime and return everything that it computes on the way.

    Parameters
    ----------
    source : str, os.PathLike or bytes
    feeds : dict of str to ndarray

    Returns
    -------
    Trace

    Raises
    ------
    BackendMissing
        onnx or onnxruntime is missing.
    ArgumentError
        ONNX Runtime refuses the model or the data.
    """
    _, runtime = _packages()
    source = source if isinstance(source, bytes) else str(source)
    outputs = run_session(source, feeds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fused.onnx"
        _session(runtime, source, "ORT_ENABLE_EXTENDED", path)
        model = path.read_bytes()
    values = run_exposed(model, feeds)
    other = sum(int(np.count_nonzero(values[name] != y)) if values[name].shape == y.shape else y.size for name, y in outputs.items())
    return Trace(model, values, outputs, other)
