"""`Builder`: writes a model as one writes the computation, with symbolic values."""

import re
from contextlib import contextmanager

import numpy as np

from refquant.errors import ArgumentError, ShapeError, choose
from refquant.graph.model import Model
from refquant.graph.module_classes import class_name
from refquant.graph.node import Node
from refquant.graph.opset import graph_op
from refquant.graph.value import Value

__all__ = ["Builder"]

# Calls that PyTorch's tracer names after the function, not after the module that they stand in.
_FUNCTIONS = (
    "add", "sub", "mul", "div", "add_scalar", "mul_scalar", "cat", "stack", "flatten", "reshape", "matmul", "permute", "transpose", "squeeze", "unsqueeze", "slice", "select",
    "expand", "repeat", "repeat_interleave", "mean", "pad", "interpolate", "constant",
)  # fmt: skip


class Builder:
    """Builds a model from symbolic values.

    Parameters
    ----------
    arrays : dict of str to ndarray, optional
        Where parameters are looked up, under ``path + ".weight"`` and the like, as in PyTorch's ``state_dict``. Every array
        must be used in the end.
    seed : int, optional
        Without arrays: parameters are drawn from this seed.
    empty : bool
        Without arrays or a seed: parameters are zeros that take no memory, for questions about shapes alone.
    name : str
        Of the model.

    Examples
    --------
    >>> b = Builder(arrays={"fc.weight": np.eye(2, dtype=np.float32), "fc.bias": np.zeros(2, np.float32)})
    >>> model = b.build(b.input(shape=(None, 2)).linear(2, name="fc"))
    >>> model(np.float32([[1, 2]]))[0]
    array([[1., 2.]], dtype=float32)
    """

    def __init__(self, arrays=None, *, seed=None, empty=False, name="model"):
        if (arrays is not None) + (seed is not None) + bool(empty) > 1:
            raise ArgumentError("Builder: two of arrays, seed and empty are given; parameters come from one of them, leave out the others")
        self._arrays, self._empty = None if arrays is None else dict(arrays), empty
        self._used = set()
        self._rng = np.random.default_rng(0 if seed is None else seed)
        self._nodes, self._shapes, self._scope, self._name, self._classes = [], {}, [], name, {}

    @contextmanager
    def scope(self, name, module_class=None):
        """Put the nodes of a ``with`` block under a module's name, and say of which class it is.

        Parameters
        ----------
        name : str
        module_class : type or str, optional
            See ``classes`` of `Model`.

        Examples
        --------
        >>> b = Builder(seed=0)
        >>> x = b.input(shape=(None, 4))
        >>> with b.scope("head", "models.Head"):
        ...     y = x.linear(2, name="fc")
        >>> y.name, b.build(y).node("head_fc").path, dict(b.build(y).classes)
        ('head_fc', 'head.fc', {'head': 'models.Head'})
        """
        self._scope.append(name)
        if module_class is not None:
            path = ".".join(self._scope)
            self._classes[path] = class_name(module_class, f"Builder.scope {path!r}")
        try:
            yield self
        finally:
            self._scope.pop()

    def input(self, name="x", shape=None, dtype="float32"):
        """Add an input; None in `shape` stands for any size. Indices have dtype "int64"."""
        if shape is None:
            raise ArgumentError(f"Builder.input: shape of {name!r} is missing; give it, with None for the batch, such as (None, 3, 32, 32)")
        return self.append("input", [], {"shape": tuple(shape), "dtype": dtype}, name=name)

    def parameter(self, name, shape):
        """Add an array as a value, looked up under its name or drawn, such as a position embedding."""
        value = self._draw_or_find(".".join([*self._scope, name]), "value", tuple(shape))
        return self.append("constant", [], {}, {"value": value}, name=name)

    def path(self, op, name):
        """Return the dotted path of a new module."""
        return ".".join([*self._scope, name or self._unique(op, prefix="_".join(self._scope))])

    def append(self, op, values, attrs=None, params=None, *, name=None, path=None, target=None):
        """Append a node and return its value."""
        kind = graph_op(op, "Builder")
        for value in values:
            if not isinstance(value, Value) or value.builder is not self:
                raise ArgumentError(f"Builder: {op} got {value!r}, which is no value of this builder; pass what its own methods returned")
        if op in _FUNCTIONS and name is None:
            name, path = self._unique(op), ".".join(self._scope)
        else:
            path = path or self.path(op, name)
            name = self._unique(_identifier(path))
        node = Node(name, op, [v.name for v in values], attrs, params, target=target or kind.targets[0], path=path)
        shape = node.attrs["shape"] if op == "input" else kind.shape(node, *(v.shape for v in values))
        self._nodes.append(node)
        self._shapes[name] = shape
        return Value(self, name, shape)

    def weighted(self, op, value, shape, attrs, weight, bias, name, outputs=None):
        """Append a node with a weight and perhaps a bias, of as many `outputs` as the weight has unless given."""
        path = self.path(op, name)
        params = {"weight": self.array(path, "weight", shape) if weight is None else _given(path, "weight", weight, shape)}
        if bias is True:
            params["bias"] = self.array(path, "bias", (outputs or shape[0],))
        elif bias is not False and bias is not None:
            params["bias"] = _given(path, "bias", bias, (outputs or shape[0],))
        return self.append(op, [value], attrs, params, path=path)

    def array(self, path, key, shape):
        """Return a parameter: looked up, or drawn from the seed."""
        return self._draw_or_find(f"{path}.{key}", key, tuple(shape))

    def _draw_or_find(self, full, key, shape):
        if self._empty:
            return np.broadcast_to(np.float32(0), shape)
        if self._arrays is None:
            return _draw(self._rng, key, shape)
        choose(f"Builder {self._name!r}", "array", full, self._arrays)
        self._used.add(full)
        return _checked(full, self._arrays[full], shape)

    def build(self, *outputs):
        """Return the model that computes `outputs`.

        Raises
        ------
        ArgumentError
            Arrays that no node has taken.
        """
        unused = sorted(set(self._arrays or ()) - self._used)
        if unused:
            raise ArgumentError(f"Builder {self._name!r}: {len(unused)} arrays are not used, such as {unused[0]!r}; the architecture differs from the one they belong to")
        return Model(self._nodes, [v.name for v in outputs], name=self._name, classes=self._classes)

    def _unique(self, base, prefix=""):
        taken = {node.name for node in self._nodes}
        names = (base if k == 0 else f"{base}_{k}" for k in range(len(taken) + 1))
        return next(n for n in names if (f"{prefix}_{n}" if prefix else n) not in taken)


def _identifier(path):
    name = re.sub(r"\W", "_", path)
    return "_" + name if name[:1].isdigit() else name


def _given(path, key, value, shape):
    return _checked(f"{path}.{key}", value, shape)


def _checked(full, value, shape):
    value = np.asarray(value)
    if value.dtype != np.float32:
        raise ArgumentError(f"{full}: the array has dtype {value.dtype} but must be float32; convert it with .astype(np.float32)")
    if value.shape != tuple(shape):
        raise ShapeError(f"{full}: the array has shape {value.shape} but the layer needs {tuple(shape)}; correct the architecture or the array")
    return value


def _draw(rng, key, shape):
    """Parameters that keep the size of activations about the same from layer to layer."""
    if key == "weight" and len(shape) > 1:
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    if key in ("weight", "running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)
