"""An ONNX graph that runs: every node by its executor, under a profile."""

import inspect
from typing import Callable, NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.errors import ArgumentError, RefquantError, ShapeError
from refquant.interop.onnx.call import Call
from refquant.interop.onnx.dtypes import numpy_dtype, type_of_array
from refquant.interop.onnx.rules import rules_of

__all__ = ["OnnxNode", "OnnxInput", "OnnxModel", "run_node", "check_arity"]


class OnnxNode(NamedTuple):
    """One node of an ONNX graph.

    Attributes
    ----------
    name : str
        Unique; made from the operator and its position where the file has none.
    op, domain : str
    inputs, outputs : tuple of str
        Names of values; an empty name is an input or output that is left out.
    attrs : dict
    opset : int
        Version of the domain.
    run : callable
    """

    name: str
    op: str
    domain: str
    inputs: tuple
    outputs: tuple
    attrs: dict
    opset: int
    run: Callable

    @property
    def place(self):
        """How messages call it."""
        return f"{self.op} {self.name!r}"


class OnnxInput(NamedTuple):
    """What a graph wants as an input: its name, `TensorType` and shape; None stands for a side of any length, or a shape of any kind."""

    name: str
    type: object
    shape: tuple


def check_arity(run, count, place):
    """Refuse a number of inputs that an executor does not take."""
    parameters = list(inspect.signature(run).parameters.values())[1:]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        most = None
    else:
        most = len(parameters)
    least = sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in parameters)
    if count < least or (most is not None and count > most):
        span = f"{least}" if most == least else f"{least} … {'any number' if most is None else most}"
        raise ArgumentError(f"{place}: has {count} inputs but takes {span}; the model is inconsistent, export it again")


def run_node(node, values, profile, rules):
    """Compute one node; whatever goes wrong is said with the node's name."""
    call = Call(node.place, node.attrs, node.opset, profile, len(node.outputs), rules)
    try:
        with np.errstate(all="ignore"):
            out = node.run(call, *values)
    except RefquantError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, ArithmeticError, AttributeError, MemoryError, RuntimeError) as error:
        shapes = ", ".join("–" if v is None else f"{v.dtype} {v.shape}" for v in values)
        text = str(error).split("\n")[0][:200]
        raise ArgumentError(f"{node.place}: cannot be computed from ({shapes}): {text}; the model is inconsistent with its input") from error
    out = out if isinstance(out, tuple) else (out,)
    if len(out) < sum(bool(n) for n in node.outputs):
        raise ArgumentError(f"{node.place}: names {len(node.outputs)} outputs but gives {len(out)}; refquant has no further outputs of this operator")
    return tuple(np.asarray(v) for v in out)


class OnnxModel:
    """An ONNX graph, ready to run.

    Build it with `refquant.interop.from_onnx`.

    Attributes
    ----------
    nodes : tuple of OnnxNode
        In order of execution.
    signature : tuple of OnnxInput
        What each input must be.
    inputs, outputs : tuple of str
        Names of values.
    constants : dict of ndarray
        The initializers.
    numerics : Numerics
        Whose arithmetic quantized nodes follow.
    """

    def __init__(self, nodes, signature, outputs, constants, numerics="onnx"):
        self.nodes, self.signature, self.outputs = tuple(nodes), tuple(signature), tuple(outputs)
        self.inputs = tuple(wanted.name for wanted in self.signature)
        self.constants = dict(constants)
        self.numerics = profiles.get(numerics)
        self._expiring = _last_uses(self.nodes, self.outputs)

    def __call__(self, *inputs, **options):
        """Same as `run`."""
        return self.run(*inputs, **options)

    def run(self, *inputs, hooks=(), numerics=None):
        """Run the model.

        Parameters
        ----------
        *inputs : array_like
            In the order of `inputs`; or one dict by name.
        hooks : callable or sequence of callable
            ``hook(node, value)`` is called with every value as it is computed, the outputs of a node in turn. What it returns, unless
            None, takes the value's place.
        numerics : str or Numerics, optional
            The profile of quantized nodes; the model's own unless given.

        Returns
        -------
        tuple of ndarray
        """
        values = {**self.constants, **self._bind(inputs)}
        profile = self.numerics if numerics is None else profiles.get(numerics)
        rules, hooks = rules_of(profile), (hooks,) if callable(hooks) else tuple(hooks)
        for i, node in enumerate(self.nodes):
            arrays = [values[name] if name else None for name in node.inputs]
            for name, value in zip(node.outputs, run_node(node, arrays, profile, rules)):
                if name:
                    values[name] = _hooked(hooks, node, value)
            for name in self._expiring.get(i, ()):
                values.pop(name, None)
        return tuple(values[name] for name in self.outputs)

    def requantized(self, nodes, constants, numerics, fuse_qdq=None):
        """Return a model of other nodes and constants with the same inputs and outputs.

        Parameters
        ----------
        nodes : sequence
            Of what has ``name``, ``op``, ``domain``, ``inputs``, ``outputs`` and ``attrs``, in order of execution.
        constants : dict of ndarray
        numerics : str or Numerics
        fuse_qdq : bool, optional
            As in `refquant.interop.from_onnx`.
        """
        from refquant.interop.onnx.rebuild import rebuilt

        return rebuilt(self, nodes, constants, numerics, fuse_qdq)

    def _bind(self, inputs):
        if len(inputs) == 1 and isinstance(inputs[0], dict):
            given = dict(inputs[0])
        elif len(inputs) > len(self.inputs):
            raise ArgumentError(f"model: {len(inputs)} inputs were given but there are {len(self.inputs)}: {list(self.inputs)}")
        else:
            given = dict(zip(self.inputs, inputs))
        for name in given:
            if name not in self.inputs and name not in self.constants:
                raise ArgumentError(f"model: there is no input {name!r}; the inputs are {list(self.inputs)}")
        missing = [name for name in self.inputs if name not in given]
        if missing:
            raise ArgumentError(f"model: input {missing[0]!r} is missing; give {len(self.inputs)} inputs: {list(self.inputs)}")
        wanted = {w.name: w for w in self.signature}
        return {name: _checked_input(wanted[name], value) if name in wanted else np.asarray(value) for name, value in given.items()}

    def __repr__(self):
        return f"OnnxModel({len(self.nodes)} nodes, inputs={list(self.inputs)}, outputs={list(self.outputs)}, numerics={self.numerics.name!r})"


def _last_uses(nodes, outputs):
    last = {}
    for i, node in enumerate(nodes):
        for name in (*node.inputs, *node.outputs):
            last[name] = i
    expiring = {}
    for name, i in last.items():
        if name and name not in outputs:
            expiring.setdefault(i, []).append(name)
    return expiring


def _hooked(hooks, node, value):
    for hook in hooks:
        other = hook(node, value)
        value = value if other is None else np.asarray(other)
    return value


def _checked_input(wanted, value):
    value = np.asarray(value)
    if wanted.type is not None:
        dtype, own = numpy_dtype(wanted.type), type_of_array(value, f"input {wanted.name!r}")
        if own.number != wanted.type.number:
            if value.dtype.kind not in "fiu" or dtype.kind != value.dtype.kind:
                raise ArgumentError(f"input {wanted.name!r}: has dtype {value.dtype} but must be {dtype}; convert it")
            value = value.astype(dtype)
    if wanted.shape is not None:
        fits = len(wanted.shape) == value.ndim and all(n in (None, m) for n, m in zip(wanted.shape, value.shape))
        if not fits:
            text = "(" + ", ".join("any" if n is None else str(n) for n in wanted.shape) + ")"
            raise ShapeError(f"input {wanted.name!r}: has shape {value.shape} but must be {text}; reshape it")
    return value
