"""`Builder`: writes a model as one writes the computation, with symbolic values."""

from contextlib import contextmanager

import numpy as np

from refquant.errors import ArgumentError, ShapeError, choose
from refquant.graph.model import Model
from refquant.graph.node import Node
from refquant.graph.opset import graph_op
from refquant.graph.shapes import pair
from refquant.graph.table import shape_text

__all__ = ["Builder", "Value"]

# Calls that PyTorch's tracer names after the function, not after the module that they stand in.
_FUNCTIONS = ("add", "cat", "flatten", "reshape", "matmul", "permute", "scale")


class Value:
    """The value of a node of a model under construction; its methods append nodes.

    Examples
    --------
    A residual block:

    >>> def block(x, channels, stride=1):
    ...     y = x.conv2d(channels, 3, stride=stride, padding=1, bias=False).batch_norm().relu()
    ...     y = y.conv2d(channels, 3, padding=1, bias=False).batch_norm()
    ...     if stride != 1 or x.channels != channels:
    ...         x = x.conv2d(channels, 1, stride=stride, bias=False).batch_norm()
    ...     return (y + x).relu()
    >>> b = Builder(seed=1)
    >>> y = block(b.input(shape=(None, 16, 8, 8)), 32, stride=2)
    >>> y.shape, y.name
    ((None, 32, 4, 4), 'relu_1')
    """

    __slots__ = ("builder", "name", "shape")

    def __init__(self, builder, name, shape):
        self.builder, self.name, self.shape = builder, name, shape

    @property
    def channels(self):
        """The size of axis 1."""
        if len(self.shape) < 2 or self.shape[1] is None:
            raise ShapeError(f"Value {self.name!r}: shape {shape_text(self.shape)} has no known axis 1; state the input's shape")
        return self.shape[1]

    def conv2d(self, channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, bias=True, weight=None, name=None):
        """Append a convolution with `channels` outputs; `weight` and `bias` may be arrays, else the builder finds or draws them."""
        shape = (channels, self.channels // groups, *pair(kernel_size, 2))
        attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return self.builder.weighted("conv2d", self, shape, attrs, weight, bias, name)

    def conv1d(self, channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, bias=True, weight=None, name=None):
        """Append a one-dimensional convolution."""
        attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return self.builder.weighted("conv1d", self, (channels, self.channels // groups, kernel_size), attrs, weight, bias, name)

    def linear(self, features, *, bias=True, weight=None, name=None):
        """Append a fully connected layer with `features` outputs."""
        if not self.shape or self.shape[-1] is None:
            raise ShapeError(f"Value {self.name!r}: shape {shape_text(self.shape)} has no known last axis; state the input's shape")
        return self.builder.weighted("linear", self, (features, self.shape[-1]), {}, weight, bias, name)

    def batch_norm(self, *, eps=1e-5, params=None, name=None):
        """Append a batch norm; `params` may hold the arrays weight, bias, running_mean, running_var."""
        path = self.builder.path("batch_norm", name)
        params = params or {key: self.builder.array(path, key, (self.channels,)) for key in ("weight", "bias", "running_mean", "running_var")}
        target = "nn.BatchNorm2d" if len(self.shape) == 4 else "nn.BatchNorm1d"
        return self.builder.append("batch_norm", [self], {"eps": eps}, params, path=path, target=target)

    def relu(self, *, name=None):
        """Append a ReLU."""
        return self.builder.append("relu", [self], name=name)

    def max_pool2d(self, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, name=None):
        """Append a maximum pool."""
        attrs = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
        return self.builder.append("max_pool2d", [self], attrs, name=name)

    def avg_pool2d(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, *, name=None):
        """Append an average pool."""
        attrs = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
        return self.builder.append("avg_pool2d", [self], attrs, name=name)

    def adaptive_avg_pool2d(self, output_size=1, *, name=None):
        """Append an average pool into `output_size` windows."""
        return self.builder.append("adaptive_avg_pool2d", [self], {"output_size": output_size}, name=name)

    def flatten(self, start_dim=1, *, name=None):
        """Append a flattening of all axes from `start_dim` on."""
        return self.builder.append("flatten", [self], {"start_dim": start_dim}, name=name)

    def reshape(self, *shape, name=None):
        """Append a reshape."""
        return self.builder.append("reshape", [self], {"shape": tuple(shape)}, name=name)

    def layer_norm(self, *, eps=1e-5, name=None):
        """Append a layer norm over the last axis."""
        path = self.builder.path("layer_norm", name)
        params = {key: self.builder.array(path, key, self.shape[-1:]) for key in ("weight", "bias")}
        return self.builder.append("layer_norm", [self], {"eps": eps}, params, path=path)

    def softmax(self, dim=-1, *, name=None):
        """Append a softmax."""
        return self.builder.append("softmax", [self], {"dim": dim}, name=name)

    def gelu(self, *, name=None):
        """Append a GELU."""
        return self.builder.append("gelu", [self], name=name)

    def permute(self, *dims, name=None):
        """Append a reordering of axes."""
        return self.builder.append("permute", [self], {"dims": tuple(dims)}, name=name)

    def scale(self, factor, *, name=None):
        """Append a product with a number."""
        return self.builder.append("scale", [self], {"factor": float(factor)}, name=name)

    def dropout(self, *, name=None):
        """Append a dropout, which does nothing at inference."""
        return self.builder.append("dropout", [self], name=name)

    def cat(self, *others, dim=1, name=None):
        """Append the concatenation of this value and others."""
        return self.builder.append("cat", [self, *others], {"dim": dim}, name=name)

    def __add__(self, other):
        if not isinstance(other, Value):
            return NotImplemented
        return self.builder.append("add", [self, other])

    def __matmul__(self, other):
        if not isinstance(other, Value):
            return NotImplemented
        return self.builder.append("matmul", [self, other])

    def __repr__(self):
        return f"<Value {self.name!r} {shape_text(self.shape)}>"


class Builder:
    """Builds a model from symbolic values.

    Parameters
    ----------
    arrays : dict of str to ndarray, optional
        Where parameters are looked up, under ``path + ".weight"`` and the like, as in PyTorch's ``state_dict``. Every array
        must be used in the end.
    seed : int, optional
        Without arrays: parameters are drawn from this seed.
    name : str
        Of the model.

    Examples
    --------
    >>> b = Builder(arrays={"fc.weight": np.eye(2, dtype=np.float32), "fc.bias": np.zeros(2, np.float32)})
    >>> model = b.build(b.input(shape=(None, 2)).linear(2, name="fc"))
    >>> model(np.float32([[1, 2]]))[0]
    array([[1., 2.]], dtype=float32)
    """

    def __init__(self, arrays=None, *, seed=None, name="model"):
        if arrays is not None and seed is not None:
            raise ArgumentError("Builder: both arrays and a seed are given; parameters come from one of the two, leave out the other")
        self._arrays = None if arrays is None else dict(arrays)
        self._used = set()
        self._rng = np.random.default_rng(0 if seed is None else seed)
        self._nodes, self._shapes, self._scope, self._name = [], {}, [], name

    @contextmanager
    def scope(self, name):
        """Put the nodes of a ``with`` block under a module's name.

        Examples
        --------
        >>> b = Builder(seed=0)
        >>> x = b.input(shape=(None, 4))
        >>> with b.scope("head"):
        ...     y = x.linear(2, name="fc")
        >>> y.name, b.build(y).node("head_fc").path
        ('head_fc', 'head.fc')
        """
        self._scope.append(name)
        try:
            yield self
        finally:
            self._scope.pop()

    def input(self, name="x", shape=None):
        """Add an input; None in `shape` stands for any size."""
        if shape is None:
            raise ArgumentError(f"Builder.input: shape of {name!r} is missing; give it, with None for the batch, such as (None, 3, 32, 32)")
        return self.append("input", [], {"shape": tuple(shape)}, name=name)

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

    def weighted(self, op, value, shape, attrs, weight, bias, name):
        """Append a node with a weight and perhaps a bias."""
        path = self.path(op, name)
        params = {"weight": self.array(path, "weight", shape) if weight is None else _given(path, "weight", weight, shape)}
        if bias is True:
            params["bias"] = self.array(path, "bias", shape[:1])
        elif bias is not False and bias is not None:
            params["bias"] = _given(path, "bias", bias, shape[:1])
        return self.append(op, [value], attrs, params, path=path)

    def array(self, path, key, shape):
        """Return a parameter: looked up, or drawn from the seed."""
        if self._arrays is None:
            return _draw(self._rng, key, shape)
        full = f"{path}.{key}"
        choose(f"Builder {self._name!r}", "array", full, self._arrays)
        self._used.add(full)
        return _given(path, key, self._arrays[full], shape)

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
        return Model(self._nodes, [v.name for v in outputs], name=self._name)

    def _unique(self, base, prefix=""):
        taken = {node.name for node in self._nodes}
        names = (base if k == 0 else f"{base}_{k}" for k in range(len(taken) + 1))
        return next(n for n in names if (f"{prefix}_{n}" if prefix else n) not in taken)


def _identifier(path):
    name = path.replace(".", "_")
    return "_" + name if name[:1].isdigit() else name


def _given(path, key, value, shape):
    value = np.asarray(value)
    if value.dtype != np.float32:
        raise ArgumentError(f"{path}.{key}: the array has dtype {value.dtype} but must be float32; convert it with .astype(np.float32)")
    if value.shape != tuple(shape):
        raise ShapeError(f"{path}.{key}: the array has shape {value.shape} but the layer needs {tuple(shape)}; correct the architecture or the array")
    return value


def _draw(rng, key, shape):
    """Parameters that keep the size of activations about the same from layer to layer."""
    if key == "weight" and len(shape) > 1:
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    if key in ("weight", "running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)
