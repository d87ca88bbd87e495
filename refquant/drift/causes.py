"""The causes of a layer's error, told apart by ablation in exact arithmetic.

From the float layer to the quantized one, one thing changes at a time::

    y                      the float network's value
    range_in               the inputs are clipped to their grids' ranges
    range_out              the output is clipped to its grid's range
    weights                the weights move onto their grid
    inputs                 the inputs move onto their grids
    rounding               the output moves onto its grid, in exact arithmetic (requantization)
    engine                 the engine's code where it is not a nearest one: float32 scales, rounded biases, int16 saturation

Clipping comes first, so that a value that is cut off anyway is not charged to what it is cut off from. Each cause is the difference
between two neighbours; together they are the error, exactly.
"""

from typing import NamedTuple

import numpy as np

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.drift.exact import clipped, codes_to_real, exact_value, on_grid, real_value
from refquant.drift.measures import decibels
from refquant.drift.pairing import weight_reals
from refquant.graph.opset import Context, graph_op

__all__ = ["CAUSES", "INHERITED", "OWN", "Cause", "CauseSums", "Split", "engine_value", "split_error"]

CAUSES = ("range_in", "range_out", "weights", "inputs", "rounding", "engine")
INHERITED = ("range_in", "inputs")
"""Causes that lie in the grid of another layer: the one that made the input."""
OWN = tuple(name for name in CAUSES if name not in INHERITED)
"""Causes that lie in a layer's own weights, output grid and arithmetic."""


class Cause(NamedTuple):
    """What one cause contributes to a layer's error.

    Attributes
    ----------
    share : float
        ``Σ eᵢ·e / Σ e·e``, of the cause's error eᵢ and the layer's error e: the shares of a layer add up to 1. A
        cause that makes up for others has a negative share.
    sqnr : float
        dB with this cause alone.
    """

    share: float
    sqnr: float


class Split(NamedTuple):
    """The error of a layer that alone is quantized.

    Attributes
    ----------
    errors : dict of str to ndarray of float64
        One array a cause, in the order of `CAUSES`; their sum is the error.
    saturated : int
        How many outputs lie outside of the grid's range by more than half a step, before they are rounded.
    """

    errors: dict
    saturated: int

    def total(self, names=CAUSES):
        """Return the sum of the errors of some causes."""
        return sum(self.errors[name] for name in names)


def engine_value(layer, inputs, numerics):
    """Return what a layer of the quantized model makes of real inputs: it quantizes them as the engine does, then runs.

    Parameters
    ----------
    layer : Layer
    inputs : list of ndarray of float32
    numerics : str or Numerics

    Returns
    -------
    QTensor or ndarray
    """
    codes = quantized_inputs(layer, inputs, numerics)
    return graph_op(layer.node.op, "drift").run(Context(numerics, "torch_avx512", 1), layer.node, *codes)


def quantized_inputs(layer, inputs, numerics):
    """Return the inputs as codes, where the layer takes codes."""
    return [x if grid is None else ops.quantize(x, grid, numerics=numerics) for x, grid in zip(inputs, layer.grids)]


def split_error(layer, y, inputs, numerics):
    """Return the `Split` of a layer's error, the layer alone being quantized.

    Parameters
    ----------
    layer : Layer
    y : ndarray of float32
        The float network's value of this layer.
    inputs : list of ndarray of float32
        The float network's values that go in.
    numerics : str or Numerics

    Notes
    -----
    An output grid per channel is one that no engine has: it tells what evenly ranged channels would be worth, and the engine's own
    arithmetic is then left out.
    """
    node, out = layer.node, layer.out
    cut = [clipped(x, grid) for x, grid in zip(inputs, layer.grids)]
    within = all(np.array_equal(x, c) for x, c in zip(inputs, cut))
    real = real_value(node, inputs, layer.weight)
    cut_in = real if within else real_value(node, cut, layer.weight)
    cut_out = clipped(cut_in, out)
    weights = cut_out if layer.weight is None else clipped(real_value(node, cut, weight_reals(node)), out)
    wide = exact_value(node, quantized_inputs(layer, inputs, numerics))
    exact = clipped(wide, out)
    rounded = engine = on_grid(exact, out)
    if out is None or not out.per_channel:
        engine = engine_value(layer, inputs, numerics)
        engine = codes_to_real(engine) if isinstance(engine, QTensor) else np.asarray(engine, np.float64)
        rounded = _ties_as(engine, rounded, exact, out)
    saturated = 0 if out is None else int((np.abs(wide - exact) > np.max(out.scale) / 2).sum())
    steps = (cut_in - real, cut_out - cut_in, weights - cut_out, exact - weights, rounded - exact, (engine - rounded) + (real - y))
    return Split(dict(zip(CAUSES, steps)), saturated)


def _ties_as(engine, rounded, exact, out):
    """Halfway between two codes either is right: take the one that the engine takes."""
    if out is None:
        return rounded
    tie = np.abs(engine - exact) <= np.abs(rounded - exact) + 1e-9 * out.scale
    return np.where(tie, engine, rounded)


class CauseSums:
    """Collects shares over batches.

    Examples
    --------
    >>> sums = CauseSums()
    >>> sums.add(np.float32([8.0]), {"weights": np.array([0.75]), "rounding": np.array([0.25])})
    >>> {name: cause.share for name, cause in sums.causes().items()}
    {'weights': 0.75, 'rounding': 0.25}
    """

    def __init__(self):
        self.signal = self.noise = 0.0
        self.projection, self.energy = {}, {}

    def add(self, y, errors):
        """Take in one batch: the reference and the errors by cause."""
        total = sum(errors.values())
        self.signal += float(np.square(np.asarray(y, np.float64)).sum())
        self.noise += float(np.square(total).sum())
        for name, error in errors.items():
            self.projection[name] = self.projection.get(name, 0.0) + float((error * total).sum())
            self.energy[name] = self.energy.get(name, 0.0) + float(np.square(error).sum())

    def causes(self):
        """Return ``{name: Cause}``; shares are 0 where there is no error."""
        return {
            name: Cause(self.projection[name] / self.noise if self.noise else 0.0, decibels(self.signal, self.energy[name]))
            for name in self.projection
        }
