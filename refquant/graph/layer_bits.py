"""`layer_bits`: the codes of every quantized value of a model, for comparison with an engine's."""

from typing import NamedTuple

import numpy as np

from refquant.core.qtensor import QTensor

__all__ = ["LayerBits", "layer_bits"]


class LayerBits(NamedTuple):
    """One quantized value: the node that computed it, its parameters, its codes."""

    name: str
    scale: float
    zero_point: int
    codes: np.ndarray


def layer_bits(model, *inputs, **options):
    """Run a model and return what each of its nodes on codes computed, in order.

    Parameters
    ----------
    model : Model
        One that works on codes, such as `refquant.workflow.convert_fx` returns.
    *inputs : ndarray of float32
    **options
        Of `Model.run`.

    Returns
    -------
    list of LayerBits
    """
    rows = []

    def record(node, value):
        if isinstance(value, QTensor):
            rows.append(LayerBits(node.name, value.qparams.scale, value.qparams.zero_point, np.array(value.values)))

    model.run(*inputs, hooks=record, **options)
    return rows
