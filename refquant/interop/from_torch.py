"""`from_torch`: a PyTorch module as a `Model`, traced by ``torch.fx``. Imports torch when called."""

import numpy as np

from refquant.errors import ArgumentError, BackendMissing, UnsupportedError
from refquant.graph import Model, Node
from refquant.graph.opset import OPS, graph_op, op_of_target
from refquant.interop.torch_calls import CALLS
from refquant.interop.torch_layers import LAYERS, array_of

__all__ = ["from_torch", "Reader"]


def from_torch(module, example_inputs=None, *, numerics=None):
    """Convert a module, or a program that ``torch.export`` captured.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        In eval mode, with float32 parameters, of layers that `refquant.graph.OPS` has. A program needs no inputs, see `from_export`.
    example_inputs : tuple of (torch.Tensor or ndarray)
        Their shapes become those of the inputs, the first axis (the batch) open.
    numerics : str or Numerics, optional
        Of a module that ``convert_fx`` quantized: the profile that it runs under, ``torch.backends.quantized.engine`` unless given.

    Returns
    -------
    Model
        Nodes are named as ``torch.fx`` names them; parameters are copied. A quantized module gives a model on the same codes: packed weights
        are unpacked, scales and zero points taken over.

    Raises
    ------
    BackendMissing
        PyTorch is not installed.
    ArgumentError
        Not a module, or one in training mode; inputs that are no tuple, or not as many as the module takes.
    UnsupportedError
        A module that cannot be traced, or a layer that refquant does not have.

    Examples
    --------
    >>> import torch                                                    # doctest: +SKIP
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()).eval()         # doctest: +SKIP
    >>> [n.name for n in from_torch(module, (torch.zeros(1, 4),)).nodes]                    # doctest: +SKIP
    ['input_1', '_0', '_1']
    """
    try:
        import torch
    except ImportError as error:
        raise BackendMissing(f"from_torch: needs PyTorch, which cannot be imported ({error}); pip install 'refquant[torch]'") from error
    from refquant.interop.from_export import from_export
    from refquant.interop.from_quantized import QuantizedReader, is_quantized

    if isinstance(module, torch.export.ExportedProgram):
        return from_export(module)
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(f"from_torch: module is a {type(module).__name__} but must be a torch.nn.Module; pass the network itself")
    if module.training:
        raise ArgumentError("from_torch: the module is in training mode, in which batch norms and dropout compute something else; call module.eval() first")
    if not isinstance(example_inputs, (tuple, list)):
        kind = type(example_inputs).__name__
        raise ArgumentError(f"from_torch: example_inputs is a {kind} but must be a tuple, one entry an input; write (x,)")
    dtypes = [str(x.dtype).removeprefix("torch.") for x in example_inputs]
    given = torch, module, [tuple(np.shape(x)) for x in example_inputs], dtypes
    if is_quantized(torch, module):
        model = QuantizedReader(*given).read(module.graph)
        return model.with_nodes(model.nodes, numerics=numerics or torch.backends.quantized.engine)
    try:
        graph = torch.fx.Tracer().trace(module)
    except Exception as error:  # whatever the module's own code raises on symbolic values
        raise UnsupportedError(f"from_torch: torch.fx cannot trace {type(module).__name__} ({error}); remove control flow that depends on values") from error
    return Reader(*given).read(graph)


class Reader:
    """Turns the nodes of a ``torch.fx`` graph into those of a model, one by one.

    What a module computes with sizes is worked out on the way; the batch size is None there. Parts of a split are slices.
    """

    def __init__(self, torch, module, shapes, dtypes):
        self.torch, self.module, self.given, self.name = torch, module, list(zip(shapes, dtypes)), type(module).__name__
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.functions = _functions(torch)
        self.nodes, self.shapes, self.known, self.parts = [], {}, {}, {}

    def read(self, graph):
        outputs = None
        placeholders = [n for n in graph.nodes if n.op == "placeholder"]
        if len(placeholders) != len(self.given):
            raise ArgumentError(f"from_torch: {len(self.given)} example inputs but {self.name} takes {len(placeholders)}; give one each")
        for node, (shape, dtype) in zip(placeholders, self.given):
            self._put(Node(node.name, "input", [], {"shape": (None, *shape[1:]), "dtype": dtype}))
        for node in graph.nodes:
            if node.op == "output":
                outputs = node.args[0] if isinstance(node.args[0], (tuple, list)) else (node.args[0],)
            elif node.op != "placeholder" and not self._worked_out(node):
                self._append(node)
        if any(not isinstance(o, self.torch.fx.Node) for o in outputs):
            raise UnsupportedError(f"from_torch: {self.name} returns {outputs!r}; return a tensor or a tuple of tensors")
        return Model(self.nodes, [self._value(o, o) for o in outputs], name=self.name, classes=self._classes())

    def _classes(self):
        """Return the classes of the modules that nodes lie in, but for layers, whose targets name them."""
        layers = {n.path for n in self.nodes if n.is_module}
        around = {".".join(parts[:k]) for parts in (n.path.split(".") for n in self.nodes) for k in range(1, len(parts) + 1)} - layers
        return {path: type(module) for path, module in self.modules.items() if path in around and path and type(module) is not self.torch.nn.Module}

    def _put(self, node):
        self.nodes.append(node)
        attrs, inputs = node.attrs, (self.shapes[i] for i in node.inputs)
        self.shapes[node.name] = attrs["shape"] if node.op == "input" else graph_op(node.op, "from_torch").shape(node, *inputs)

    def _append(self, node):
        params = {}
        if node.op == "call_module":
            module = self.modules[node.target]
            target, inputs, path = f"nn.{type(module).__name__}", list(node.args), node.target
            convert = LAYERS.get(target) if type(module).__module__.startswith("torch.nn.") else None
            if convert is None:
                self._refuse(node, f"layer {type(module).__module__}.{type(module).__name__}")
            op = op_of_target(target, "from_torch").name
            attrs, params = convert(module, self._place(node))
        else:
            target, path = f".{node.target}" if node.op == "call_method" else self.functions.get(node.target), self._scope(node)
            rule = CALLS.get(op_of_target(target, "from_torch").name) if target in TARGETS else None
            if rule is None:
                self._refuse(node, f"{node.op} {node.target}")
            op, inputs, attrs, *more = self._call(rule, node)
            params = more[0] if more else {}
        self._put(Node(node.name, op, [self._value(v, node) for v in inputs], attrs, params, target=target, path=path))

    def _call(self, rule, node):
        args, kwargs = self._plain(node.args), {key: self._plain(value) for key, value in node.kwargs.items()}
        try:
            return rule(self._place(node), *args, **kwargs)
        except TypeError as error:
            raise UnsupportedError(f"{self._place(node)}: {node.target} with arguments that are not understood ({error}); use its usual form") from error

    def _value(self, value, node):
        """Return the name of the model's node for an argument; an array becomes a constant."""
        if isinstance(value, self.torch.fx.Node) and value.name in self.shapes:
            return value.name
        array = self.known.get(value) if isinstance(value, self.torch.fx.Node) else value
        if not isinstance(array, np.ndarray):
            self._refuse(node, f"{node.target} of the constant {value!r}")
        name = value.name if isinstance(value, self.torch.fx.Node) else f"{node.name}_constant"
        self._put(Node(name, "constant", [], {}, {"value": array}, path=self._scope(node)))
        return name

    def _place(self, node):
        return f"from_torch: {node.name!r}"

    def _refuse(self, node, what):
        known = ", ".join(sorted(t for t in TARGETS if t in LAYERS or op_of_target(t, "from_torch").name in CALLS))
        raise UnsupportedError(f"{self._place(node)} is {what}, which refquant's models do not have; it knows {known}")

    def _worked_out(self, node):
        """Whether a node is a parameter, a size or a number made of sizes, part of a split, or a part of a value: dealt with here."""
        if node.op == "get_attr":
            value = self.module
            for part in node.target.split("."):
                value = getattr(value, part)
            self.known[node] = array_of(value, self._place(node), node.target)
            return True
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        first = node.args[0] if node.args else None
        shape = self.shapes.get(getattr(first, "name", None))
        if node.op == "call_module":
            return False
        if name == "_assert":
            return True
        if shape is not None and (name in ("size", "dim") or node.target is getattr):
            return self._size(node, name, shape)
        if name in ("chunk", "split") and shape is not None:
            self.parts[node] = self._split(node, name, shape, *self._plain(node.args[1:]), **node.kwargs)
            return True
        if name == "getitem" and first in self.parts:
            self._put(Node(node.name, "slice", [first.args[0].name], self.parts[first][node.args[1]], target="operator.getitem", path=self._scope(node)))
            return True
        if name == "getitem" and shape is not None:
            return self._index(node, shape, self._plain(node.args[1]))
        if node.op == "call_function" and node.args and all(self._is_known(a) for a in node.args) and node.target.__module__ == "_operator":
            self.known[node] = node.target(*self._plain(node.args))
            return True
        return False

    def _size(self, node, name, shape):
        if name == "dim" or node.target is getattr and node.args[1] == "ndim":
            self.known[node] = len(shape)
        elif name == "size" and len(node.args) + len(node.kwargs) > 1:
            self.known[node] = shape[node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)]
        elif name == "size" or node.args[1] == "shape":
            self.known[node] = tuple(shape)
        return node in self.known

    def _split(self, node, name, shape, count, dim=0):
        total = shape[dim]
        if total is None:
            self._refuse(node, f"a {name} of the batch")
        size = -(-total // count) if name == "chunk" else count
        sizes = [min(size, total - k) for k in range(0, total, size)] if isinstance(size, int) else list(size)
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        return [{"dim": dim, "start": end - length, "stop": end} for length, end in zip(sizes, ends)]

    def _index(self, node, shape, index):
        """A chain of parts along single axes; the last one has the node's name."""
        index = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in index:
            at = index.index(Ellipsis)
            index[at : at + 1] = [slice(None)] * (len(shape) - len(index) + 1)
        steps, dim = [], 0
        for entry in index:
            if isinstance(entry, int):
                steps.append(("select", {"dim": dim, "index": entry}))
                continue
            if not isinstance(entry, slice):
                self._refuse(node, f"an index of {entry!r}")
            if entry != slice(None):
                steps.append(("slice", {"dim": dim, "start": entry.start, "stop": entry.stop, "step": entry.step or 1}))
            dim += 1
        name = node.args[0].name
        for k, (op, attrs) in enumerate(steps or [("identity", {})]):
            made = node.name if k >= len(steps) - 1 else f"{node.name}_{k}"
            self._put(Node(made, op, [name], attrs, target="operator.getitem", path=self._scope(node)))
            name = made
        return True

    def _is_known(self, value):
        return not isinstance(value, self.torch.fx.Node) or value in self.known

    def _plain(self, value):
        """Return arguments with what was worked out in its place."""
        if isinstance(value, (tuple, list)):
            return type(value)(self._plain(v) for v in value)
        if isinstance(value, slice):
            return slice(*(self._plain(v) for v in (value.start, value.stop, value.step)))
        return self.known.get(value, value) if isinstance(value, self.torch.fx.Node) else value

    def _scope(self, node):
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return stack[-1][0] if stack else ""


TARGETS = {target for op in OPS for target in op.targets}


def _functions(torch):
    """Return ``{function: target}`` of the functions that models know."""
    import operator

    homes = {"F": torch.nn.functional, "torch": torch, "operator": operator}
    table = {}
    for target in (t for op in OPS for t in op.targets):
        home, _, name = target.partition(".")
        if home in homes and hasattr(homes[home], name):
            table.setdefault(getattr(homes[home], name), target)
    return table
