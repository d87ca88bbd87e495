"""`from_torch`: a PyTorch module as a `Model`, traced by ``torch.fx``. Imports torch when called."""

import numpy as np

from refquant.errors import ArgumentError, BackendMissing, UnsupportedError
from refquant.graph import Model, Node
from refquant.graph.opset import OPS, op_of_target

__all__ = ["from_torch"]


def from_torch(module, example_inputs):
    """Convert a module.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode, with float32 parameters, of layers that `refquant.graph.OPS` has.
    example_inputs : tuple of (torch.Tensor or ndarray)
        Their shapes become those of the inputs, the first axis (the batch) open.

    Returns
    -------
    Model
        Nodes are named as ``torch.fx`` names them; parameters are copied.

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
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(f"from_torch: module is a {type(module).__name__} but must be a torch.nn.Module; pass the network itself")
    if module.training:
        raise ArgumentError("from_torch: the module is in training mode, in which batch norms and dropout compute something else; call module.eval() first")
    if not isinstance(example_inputs, (tuple, list)):
        kind = type(example_inputs).__name__
        raise ArgumentError(f"from_torch: example_inputs is a {kind} but must be a tuple, one entry an input; write (x,)")
    try:
        graph = torch.fx.Tracer().trace(module)
    except Exception as error:  # whatever the module's own code raises on symbolic values
        raise UnsupportedError(f"from_torch: torch.fx cannot trace {type(module).__name__} ({error}); remove control flow that depends on values") from error
    return _Reader(torch, module, [tuple(np.shape(x)) for x in example_inputs]).read(graph)


class _Reader:
    """Turns the nodes of a ``torch.fx`` graph into those of a model, one by one."""

    def __init__(self, torch, module, shapes):
        self.torch, self.shapes, self.name = torch, shapes, type(module).__name__
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.functions = _functions(torch)
        self.nodes, self.batch_sizes = [], set()

    def read(self, graph):
        outputs = None
        placeholders = [n for n in graph.nodes if n.op == "placeholder"]
        if len(placeholders) != len(self.shapes):
            raise ArgumentError(f"from_torch: {len(self.shapes)} example inputs but {self.name} takes {len(placeholders)}; give one each")
        for node, shape in zip(placeholders, self.shapes):
            self.nodes.append(Node(node.name, "input", [], {"shape": (None, *shape[1:])}))
        for node in graph.nodes:
            if node.op == "output":
                outputs = node.args[0] if isinstance(node.args[0], (tuple, list)) else (node.args[0],)
            elif node.op != "placeholder" and not self._is_size(node):
                self._append(node)
        if any(not isinstance(o, self.torch.fx.Node) for o in outputs):
            raise UnsupportedError(f"from_torch: {self.name} returns {outputs!r}; return a tensor or a tuple of tensors")
        return Model(self.nodes, [o.name for o in outputs], name=self.name)

    def _append(self, node):
        if node.op == "call_module":
            module = self.modules[node.target]
            target, inputs = f"nn.{type(module).__name__}", list(node.args)
            convert = _MODULES.get(target) if type(module).__module__.startswith("torch.nn.") else None
            if convert is None:
                self._refuse(node, f"layer {type(module).__module__}.{type(module).__name__}")
            attrs, params = convert(module, self._place(node))
            path = node.target
        else:
            target = f".{node.target}" if node.op == "call_method" else self.functions.get(node.target)
            if target not in _CALLS or node.op == "get_attr":
                self._refuse(node, f"{node.op} {node.target}")
            inputs, attrs = _CALLS[target](self._place(node), *self._open(node.args), **node.kwargs)
            params, path = {}, self._scope(node)
        for value in inputs:
            if not isinstance(value, self.torch.fx.Node):
                self._refuse(node, f"{node.target} of the constant {value!r}")
        op = op_of_target(target, "from_torch").name
        self.nodes.append(Node(node.name, op, [v.name for v in inputs], attrs, params, target=target, path=path))

    def _place(self, node):
        return f"from_torch: {node.name!r}"

    def _refuse(self, node, what):
        known = ", ".join(sorted({t for op in OPS for t in op.targets if t in _MODULES or t in _CALLS}))
        raise UnsupportedError(f"{self._place(node)} is {what}, which refquant's models do not have; it knows {known}")

    def _is_size(self, node):
        """Whether a node only asks for the batch size: ``x.size(0)``, or ``x.shape`` and ``[0]`` of it."""
        size = node.op == "call_method" and node.target == "size" and node.args[1:] in ((0,), ())
        shape = node.op == "call_function" and node.target is getattr and node.args[1] == "shape"
        item = node.op == "call_function" and node.args and node.args[0] in self.batch_sizes and node.args[1] == 0
        if size or shape or item:
            self.batch_sizes.add(node)
        return size or shape or item

    def _open(self, args):
        """Return arguments with batch sizes replaced by None: the size of the input there."""
        if isinstance(args, (tuple, list)):
            return type(args)(self._open(a) for a in args)
        return None if isinstance(args, self.torch.fx.Node) and args in self.batch_sizes else args

    def _scope(self, node):
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return stack[-1][0] if stack else ""


def _functions(torch):
    """Return ``{function: target}`` of the functions that are understood."""
    import operator

    functional = torch.nn.functional
    names = ("relu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "dropout")
    table = {getattr(functional, name): f"F.{name}" for name in names}
    table.update({getattr(torch, name): f"torch.{name}" for name in ("add", "relu", "cat", "flatten", "reshape")})
    table.update({operator.add: "operator.add", operator.iadd: "operator.iadd"})
    return table


def _array(tensor, place, name):
    array = tensor.detach().cpu().numpy()
    if array.dtype != np.float32:
        raise ArgumentError(f"{place}: {name} has dtype {array.dtype} but must be float32; call module.float() first")
    return array.copy()


def _weights(module, place):
    params = {"weight": _array(module.weight, place, "weight")}
    if module.bias is not None:
        params["bias"] = _array(module.bias, place, "bias")
    return params


def _conv(module, place):
    if module.padding_mode != "zeros":
        raise UnsupportedError(f"{place}: padding_mode={module.padding_mode!r} is not supported; pad with zeros")
    padding = module.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size)]
        if padding == "same" and any(r % 2 for r in reach):
            raise UnsupportedError(f"{place}: padding='same' with an even window pads one side more than the other, which is not supported; use an odd window")
        padding = tuple(r // 2 if padding == "same" else 0 for r in reach)
    geometry = {"stride": module.stride, "padding": padding, "dilation": module.dilation}
    attrs = {key: value[0] if len(set(value)) == 1 else tuple(value) for key, value in geometry.items()}
    return {**attrs, "groups": module.groups}, _weights(module, place)


def _norm(module, place):
    if module.running_mean is None:
        raise UnsupportedError(f"{place}: the batch norm has no running statistics; use track_running_stats=True")
    names = ("weight", "bias", "running_mean", "running_var")
    params = {name: _array(getattr(module, name), place, name) for name in names if getattr(module, name) is not None}
    params.setdefault("weight", np.ones_like(params["running_mean"]))
    params.setdefault("bias", np.zeros_like(params["running_mean"]))
    return {"eps": module.eps}, params


def _attributes(*names):
    def convert(module, place):
        if getattr(module, "return_indices", False):
            raise UnsupportedError(f"{place}: return_indices=True is not supported; leave it out")
        return {name: getattr(module, name) for name in names}, {}

    return convert


def _flatten_module(module, place):
    return _flatten(place, None, module.start_dim, module.end_dim)[1], {}


_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MODULES = {
    "nn.Conv1d": _conv,
    "nn.Conv2d": _conv,
    "nn.Linear": lambda module, place: ({}, _weights(module, place)),
    "nn.BatchNorm1d": _norm,
    "nn.BatchNorm2d": _norm,
    "nn.ReLU": _attributes(),
    "nn.MaxPool2d": _attributes("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    "nn.AvgPool2d": _attributes(*_AVG_POOL),
    "nn.AdaptiveAvgPool2d": _attributes("output_size"),
    "nn.Flatten": _flatten_module,
    "nn.Dropout": _attributes(),
    "nn.Identity": _attributes(),
}


def _flatten(place, x, start_dim=0, end_dim=-1):
    if end_dim != -1:
        raise UnsupportedError(f"{place}: flatten with end_dim={end_dim} is not supported; flatten to the end")
    return [x], {"start_dim": start_dim}


def _add(place, a, b, *, alpha=1):
    if alpha != 1:
        raise UnsupportedError(f"{place}: add with alpha={alpha} is not supported; multiply first")
    return [a, b], {}


def _reshape(place, x, *shape):
    return [x], {"shape": tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else tuple(shape)}


def _max_pool(place, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    if return_indices:
        raise UnsupportedError(f"{place}: return_indices=True is not supported; leave it out")
    return [x], {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}


def _avg_pool(place, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    return [x], dict(zip(_AVG_POOL, (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)))


def _dropout(place, x, p=0.5, training=True, inplace=False):
    if training:
        raise UnsupportedError(f"{place}: dropout(training=True) draws random numbers; pass training=self.training")
    return [x], {}


def _cat(place, tensors, dim=0):
    return list(tensors), {"dim": dim}


def _relu(place, x, inplace=False):
    return [x], {}


_CALLS = {
    "operator.add": _add,
    "operator.iadd": _add,
    "torch.add": _add,
    "F.relu": _relu,
    "torch.relu": _relu,
    ".relu": _relu,
    "torch.cat": _cat,
    "torch.flatten": _flatten,
    ".flatten": _flatten,
    ".reshape": _reshape,
    ".view": _reshape,
    "torch.reshape": _reshape,
    "F.max_pool2d": _max_pool,
    "F.avg_pool2d": _avg_pool,
    "F.adaptive_avg_pool2d": lambda place, x, output_size: ([x], {"output_size": output_size}),
    "F.dropout": _dropout,
}
