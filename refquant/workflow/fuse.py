"""`fuse_fx`: chains of layers become one node, batch norms go into weights."""

import warnings

import numpy as np

from refquant.errors import UnsupportedError
from refquant.graph.match import find_patterns
from refquant.ops import real
from refquant.workflow.backend_patterns import get_backend_config
from refquant.workflow.custom_config import FuseCustomConfig, preserve

__all__ = ["fuse_fx", "fuse"]

_FOLDS = {"conv": real.fold_conv_bn, "conv_transpose": real.fold_conv_transpose_bn, "linear": real.fold_linear_bn}


def fuse_fx(model, backend_config=None, fuse_custom_config=None):
    """Fuse layers of a float model as `prepare_fx` does, without observers.

    Parameters
    ----------
    model : Model
    backend_config : BackendConfig, optional
        Its lines with ``fused`` are what is fused; PyTorch's native table unless given.
    fuse_custom_config : FuseCustomConfig, optional

    Returns
    -------
    Model
        On float32 arrays. A fused node has the name and path of the layer that it begins with, and all of them as ``sources``.

    Warns
    -----
    UserWarning
        A module that is called more than once and fused at one of its calls. PyTorch puts the fused module at the module's place, so that *every* call of
        it computes what the last fusion made of it; so does refquant.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/fuse.py and fuse_handler.py.

    Examples
    --------
    >>> from refquant import zoo
    >>> [n.name for n in fuse_fx(zoo.load("digits_resnet")).nodes][:4]
    ['x', 'stem_conv', 'block1_conv1', 'block1_conv2']
    """
    fused = fuse(model, backend_config or get_backend_config())
    return preserve(model, fused, (fuse_custom_config or FuseCustomConfig()).preserved_attributes, "fuse_fx")


def fuse(model, backend_config, left_alone=()):
    """Same as `fuse_fx` with a given table, and nodes that no pattern reaches."""
    matches = find_patterns(model, backend_config.fusions, left_alone)
    gone = {node.name: match.root.name for match in matches.values() for node in match.nodes}
    nodes = []
    for node in model.nodes:
        match = matches.get(node.name)
        if match is not None and node is not match.last:
            continue
        # Where the last of the pattern stood: the order of nodes is the order in which a shared observer sees their values.
        node = node if match is None else _fused(match)
        nodes.append(node.replace(inputs=[gone.get(i, i) for i in node.inputs]))
    nodes = _one_module_one_function(nodes, {m.root.path for m in matches.values()})
    return model.with_nodes(nodes, outputs=[gone.get(o, o) for o in model.outputs])


def _fused(match):
    root, params, attrs = match.root, dict(match.root.params), dict(match.root.attrs)
    for node in match.nodes:
        if node.op in ("leaky_relu", "tanh") and not node.is_module:
            raise UnsupportedError(f"fuse_fx: {node.name!r} is {node.target} behind {root.name!r}; PyTorch fuses it as a module alone and breaks off at the function, use nn.LeakyReLU or nn.Tanh")
        if node.op == "batch_norm" and root.op != "batch_norm":
            params.update(_folded(root, node))
        elif node.op == "leaky_relu":
            attrs["activation"] = ("leaky_relu", node.attrs["negative_slope"])
        elif node.op in ("relu", "tanh"):
            attrs["activation"] = node.op
    sources = [name for node in reversed(match.nodes) for name in node.sources]
    return root.replace(inputs=[*root.inputs, *match.others], attrs=attrs, params=params, target=match.pattern.fused, sources=sources)


def _folded(root, norm):
    fold = _FOLDS[root.op.rstrip("123d")]
    p = norm.params
    bias = root.params.get("bias")
    weight, bias = fold(root.params["weight"], bias, p["running_mean"], p["running_var"], p["weight"], p["bias"], norm.attrs["eps"])
    return {"weight": np.ascontiguousarray(weight), "bias": bias}


def _one_module_one_function(nodes, fused_paths):
    """Give all calls of a module what the last fusion of one of them made of it."""
    last = {n.path: n for n in nodes if n.is_module and n.path in fused_paths and len(n.sources) > 1}
    changed = []
    for node in nodes:
        other = last.get(node.path) if node.is_module else None
        if other is not None and (node.target, node.sources[1:]) != (other.target, other.sources[1:]):
            if len(node.inputs) != len(other.inputs):
                raise UnsupportedError(
                    f"fuse_fx: module {node.path!r} is called as {node.name!r} too, but {' + '.join(other.sources)} became one module with"
                    f" {len(other.inputs)} inputs, so that PyTorch's model cannot run; give the two calls modules of their own"
                )
            warnings.warn(f"fuse_fx: module {node.path!r} is called more than once; {node.name!r} computes what {' + '.join(other.sources)} was fused to, as in PyTorch", stacklevel=4)
            node = node.replace(target=other.target, params=other.params, attrs=other.attrs)
        changed.append(node)
    return changed
