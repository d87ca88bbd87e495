"""`from_export`: a program that ``torch.export`` captured as a `Model`. Imports torch when called."""

import numpy as np

from refquant.errors import ArgumentError, BackendMissing, UnsupportedError
from refquant.graph import Model, Node

__all__ = ["from_export"]


def from_export(program):
    """Convert an exported program.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        Of a module in eval mode, as ``torch.export.export`` gives it: operators of ATen, not decomposed further.

    Returns
    -------
    Model
        Nodes are named as the program names them. The first axis of inputs is open.

    Raises
    ------
    BackendMissing
        PyTorch is not installed.
    ArgumentError
        Something else than an exported program.
    UnsupportedError
        An operator that refquant's models do not have, with the node.

    Examples
    --------
    >>> import torch                                                            # doctest: +SKIP
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()).eval()     # doctest: +SKIP
    >>> from_export(torch.export.export(module, (torch.zeros(1, 4),))).nodes            # doctest: +SKIP
    (Node('input', 'input', []), Node('linear', 'linear', ['input']), Node('relu', 'relu', ['linear']))
    """
    try:
        import torch
    except ImportError as error:
        raise BackendMissing(f"from_export: needs PyTorch, which cannot be imported ({error}); pip install 'refquant[torch]'") from error
    if not isinstance(program, torch.export.ExportedProgram):
        raise ArgumentError(f"from_export: program is a {type(program).__name__} but must be a torch.export.ExportedProgram; call torch.export.export(module, inputs) first")
    return _Reader(torch, program.module()).read()


class _Reader:
    def __init__(self, torch, module):
        self.torch, self.module, self.nodes, self.classes = torch, module, [], {}

    def read(self):
        graph = self.module.graph
        for node in graph.nodes:
            if node.op == "placeholder":
                self.nodes.append(Node(node.name, "input", [], {"shape": (None, *node.meta["val"].shape[1:])}))
            elif node.op == "call_function" and not str(node.target).startswith("aten.sym_size"):
                self._append(node)
        outputs = next(n for n in graph.nodes if n.op == "output").args[0]
        layers = {n.path for n in self.nodes if n.is_module}
        classes = {path: kind for path, kind in self.classes.items() if path and path not in layers}
        return Model(self.nodes, [o.name for o in outputs], name=type(self.module).__name__, classes=classes)

    def _append(self, node):
        operator = str(node.target).removeprefix("aten.").partition(".")[0].rstrip("_")
        if operator not in _OPERATORS:
            raise UnsupportedError(f"from_export: {node.name!r} is {node.target}, which is not read; it knows {', '.join(sorted(_OPERATORS))}")
        schema = [argument.name for argument in node.target._schema.arguments]
        given = {a.name: a.default_value for a in node.target._schema.arguments}
        given.update(dict(zip(schema, node.args)), **node.kwargs)
        op, inputs, attrs, params = _OPERATORS[operator](given, self._array)
        for value in inputs:
            if not isinstance(value, self.torch.fx.Node) or value.op == "get_attr":
                raise UnsupportedError(f"from_export: {node.name!r} ({node.target}) reads the constant {value!r}, which is not supported; compute with values alone")
        target, path = self._source(node, op)
        self.nodes.append(Node(node.name, op, [v.name for v in inputs], attrs, params, target=target, path=path))

    def _array(self, node):
        value = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value.detach().cpu().numpy().astype(np.float32).copy()

    def _source(self, node, op):
        """Return the target and the path of a node: of the module that made it, or of the function that was called in one."""
        stack = list((node.meta.get("nn_module_stack") or {"": ("", "")}).values())
        self.classes.update((path, str(kind).replace("torch.nn.modules.container.", "torch.nn.")) for path, kind in stack)
        path, kind = stack[-1]
        name = f"nn.{str(kind).rpartition('.')[2]}"
        if str(kind).startswith("torch.nn.modules.") and ".container." not in str(kind):
            return name, path
        if op == "add":
            called = str((node.meta.get("torch_fn") or ("", ""))[1])
            return ("operator.iadd" if called.endswith("add_") else "torch.add" if called.startswith("builtin") else "operator.add"), path
        return None if op in ("cat", "flatten", "reshape", "matmul", "permute", "mul") else f"F.{op}", path


def _layer(op, *settings):
    def read(a, array):
        params = {"weight": array(a["weight"])}
        if a["bias"] is not None:
            params["bias"] = array(a["bias"])
        return op, [a["input"]], {key: _side(a[key]) for key in settings}, params

    return read


def _side(value):
    return (value[0] if len(set(value)) == 1 else tuple(value)) if isinstance(value, (list, tuple)) else value


def _norm(a, array):
    params = {key: array(a[key]) for key in ("weight", "bias", "running_mean", "running_var") if a[key] is not None}
    params.setdefault("weight", np.ones_like(params["running_mean"]))
    params.setdefault("bias", np.zeros_like(params["running_mean"]))
    return "batch_norm", [a["input"]], {"eps": a["eps"]}, params


def _unary(op, first="self", **settings):
    return lambda a, array: (op, [a[first]], {key: _side(a[source]) for key, source in settings.items()}, {})


def _binary(op):
    return lambda a, array: (op, [a["self"], a["other"]], {}, {})


def _max_pool2d(a, array):
    return "max_pool2d", [a["self"]], {**{k: _side(a[k]) for k in ("kernel_size", "padding", "dilation", "ceil_mode")}, "stride": _side(a["stride"]) if a["stride"] else None}, {}


def _avg_pool2d(a, array):
    attrs = {k: _side(a[k]) for k in ("kernel_size", "padding", "ceil_mode", "count_include_pad", "divisor_override")}
    return "avg_pool2d", [a["self"]], {**attrs, "stride": _side(a["stride"]) if a["stride"] else None}, {}


def _flatten(a, array):
    if a["end_dim"] != -1:
        raise UnsupportedError(f"from_export: flatten with end_dim={a['end_dim']} is not supported; flatten to the end")
    return "flatten", [a["self"]], {"start_dim": a["start_dim"]}, {}


def _reshape(a, array):
    shape = a["size"] if "size" in a else a["shape"]
    return "reshape", [a["self"]], {"shape": tuple(n if isinstance(n, int) else None for n in shape)}, {}


_GEOMETRY = "stride", "padding", "dilation", "groups"
_OPERATORS = {
    **{f"conv{d}d": _layer(f"conv{d}d", *_GEOMETRY) for d in (1, 2, 3)},
    "linear": _layer("linear"),
    "batch_norm": _norm,
    **{name: _unary(name) for name in ("relu", "relu6", "hardswish", "sigmoid", "tanh", "silu")},
    "hardtanh": _unary("hardtanh", min_val="min_val", max_val="max_val"),
    "leaky_relu": _unary("leaky_relu", negative_slope="negative_slope"),
    "gelu": _unary("gelu", approximate="approximate"),
    "softmax": _unary("softmax", dim="dim"),
    "dropout": _unary("dropout", "input"),
    "adaptive_avg_pool2d": _unary("adaptive_avg_pool2d", output_size="output_size"),
    "permute": _unary("permute", dims="dims"),
    "add": _binary("add"),
    "mul": _binary("mul"),
    "matmul": _binary("matmul"),
    "cat": lambda a, array: ("cat", list(a["tensors"]), {"dim": a["dim"]}, {}),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "flatten": _flatten,
    "view": _reshape,
    "reshape": _reshape,
}
