"""How much a model computes."""

import math

__all__ = ["multiply_adds"]


def multiply_adds(model, batch=1):
    """Return ``{node: multiply-adds}`` of the convolutions, fully connected layers and products of a model, for one batch.

    ``OC · IC/groups · KH · KW`` for each output position, of transposed convolutions for each input position; biases, norms and pools do not count, as is usual.

    Parameters
    ----------
    model : Model
        With known input shapes.
    batch : int

    Examples
    --------
    >>> from refquant.graph import Builder
    >>> b = Builder(seed=0)
    >>> multiply_adds(b.build(b.input(shape=(None, 3, 8, 8)).conv2d(4, 3, padding=1, name="c")))
    {'c': 6912}
    """
    shapes = model.shapes()
    counts = {}
    for node in model.nodes:
        weight = node.params.get("weight")
        if node.op.startswith("conv_transpose"):
            counts[node.name] = batch * math.prod(weight.shape) * math.prod(shapes[node.inputs[0]][2:])
        elif node.op.startswith("conv"):
            counts[node.name] = batch * math.prod(weight.shape) * math.prod(shapes[node.name][2:])
        elif node.op == "matmul":
            a, b = (shapes[name] for name in node.inputs)
            counts[node.name] = batch * math.prod(n or 1 for n in a) * b[-1]
        elif node.op == "linear":
            counts[node.name] = batch * math.prod(weight.shape) * math.prod(n or 1 for n in shapes[node.name][:-1])
    return counts
