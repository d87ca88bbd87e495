"""`fold_batch_norms`: batch norms go into the layers before them, as ``prepare_pt2e`` does to an exported program."""

import numpy as np

from refquant.errors import UnsupportedError
from refquant.ops import real

__all__ = ["fold_batch_norms"]


def fold_batch_norms(model):
    """Fold each batch norm that follows a convolution or a linear layer on two axes into its weights.

    As in torchao, other readers of the layer get the folded layer's values too, and a layer whose module is used twice is folded once.

    Parameters
    ----------
    model : Model

    Returns
    -------
    Model

    Source
    ------
    torchao 0.18, quantization/pt2e/utils.py, ``_fuse_conv_bn_`` and ``_fuse_linear_bn_``.

    Examples
    --------
    >>> from refquant import zoo
    >>> [n.name for n in fold_batch_norms(zoo.load("digits_resnet")).nodes][:4]
    ['x', 'stem_conv', 'stem_relu', 'block1_conv1']
    """
    nodes = {n.name: n for n in model.nodes}
    shapes = model.shapes() if all(model.node(i).attrs["shape"] is not None for i in model.inputs) else {}
    folded, behind = set(), {}
    for op in ("conv", "linear"):
        for norm in model.nodes:
            if norm.op != "batch_norm" or norm.name in behind:
                continue
            layer = nodes[behind.get(norm.inputs[0], norm.inputs[0])]
            if not layer.op.startswith(op) or op == "linear" and len(shapes.get(layer.name, ())) > 2:
                continue
            behind[norm.name] = layer.name
            if _place(layer) not in folded:
                folded.add(_place(layer))
                params = _folded(layer, norm)
                same = [n for n in nodes.values() if _place(n) == _place(layer)]
                nodes.update({n.name: n.replace(params={**n.params, **params}) for n in same})
    kept = [nodes[n.name] for n in model.nodes if n.name not in behind]
    kept = [n.replace(inputs=[behind.get(i, i) for i in n.inputs]) for n in kept]
    return model.with_nodes(kept, outputs=[behind.get(o, o) for o in model.outputs])


def _place(layer):
    return (layer.path, layer.target) if layer.is_module else layer.name


def _folded(layer, norm):
    p = norm.params
    weight, transposed = layer.params["weight"], layer.op.startswith("conv_transpose")
    if transposed and layer.attrs["groups"] > 1:
        raise UnsupportedError(f"prepare_pt2e: {norm.name!r} cannot be folded into {layer.name!r}, a transposed convolution in groups, and torchao stops there; fold it before, or leave it out")
    fold = real.fold_linear_bn if layer.op == "linear" else real.fold_conv_bn
    weight = weight.swapaxes(0, 1) if transposed else weight
    weight, bias = fold(weight, layer.params.get("bias"), p["running_mean"], p["running_var"], p["weight"], p["bias"], norm.attrs["eps"])
    return {"weight": np.ascontiguousarray(weight.swapaxes(0, 1) if transposed else weight), "bias": bias}
