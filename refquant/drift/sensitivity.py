"""One layer at a time: quantize only it, or leave only it in float, and count right answers."""

import numpy as np

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.drift.accuracy import predictions
from refquant.drift.causes import engine_value
from refquant.drift.exact import codes_to_real, real_value
from refquant.drift.pairing import recorded
from refquant.drift.rerun import Below

__all__ = ["sensitivity", "left_in_float"]


def left_in_float(layer, inputs, numerics):
    """Return a layer's value in the quantized network if it computed in float, with its float weights.

    Its inputs are the reals that the codes before it say; its output is quantized for the layers after it.

    Parameters
    ----------
    layer : Layer
    inputs : list of (QTensor or ndarray)
    numerics : str or Numerics
    """
    reals = [codes_to_real(x) if isinstance(x, QTensor) else x for x in inputs]
    y = real_value(layer.node, reals, layer.weight).astype(np.float32)
    return y if layer.out is None else ops.quantize(y, layer.out, numerics=numerics)


def sensitivity(model, int8, layers, batches, labels, tick):
    """Return ``{layer name: (only, without)}``: right answers, or answers that stay as they were where `labels` is None.

    Parameters
    ----------
    model, int8 : Model
    layers : list of Layer
    batches : list of ndarray
    labels : list of ndarray, or None
    tick : callable
        Called after each layer of each batch.
    """
    only = {layer.name: 0 for layer in layers}
    without = dict(only)
    alone = {layer.name: Below(model, layer.origin) for layer in layers}
    others = {layer.name: Below(int8, layer.name) for layer in layers}
    for k, x in enumerate(batches):
        real, codes = recorded(model, (x,)), recorded(int8, (x,))
        wanted = predictions(real[model.outputs[0]]) if labels is None else labels[k]
        for layer in layers:
            value = engine_value(layer, [real[i] for i in layer.input_origins], int8.numerics)
            value = codes_to_real(value).astype(np.float32) if isinstance(value, QTensor) else value
            only[layer.name] += int((predictions(alone[layer.name].run(real, value)) == wanted).sum())
            value = left_in_float(layer, [codes[i] for i in layer.node.inputs], int8.numerics)
            without[layer.name] += int((predictions(others[layer.name].run(codes, value)) == wanted).sum())
            tick()
    return {name: (only[name], without[name]) for name in only}
