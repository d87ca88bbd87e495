"""One pass over images that measures every layer."""

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.drift.causes import OWN, CauseSums, split_error
from refquant.drift.exact import codes_to_real, grid_range
from refquant.drift.measures import ErrorSums
from refquant.drift.pairing import recorded
from refquant.drift.report import Grid, LayerRecord, Values
from refquant.drift.rerun import Below
from refquant.drift.weights import weight_error

__all__ = ["LayerPass", "probe"]

BINS = 64


class _Sums:
    """What is collected of one layer."""

    def __init__(self, layer, extremes):
        scale = None if layer.out is None else layer.out.scale
        self.local, self.cumulative, self.impact = ErrorSums(scale), ErrorSums(scale), ErrorSums()
        self.causes = CauseSums()
        self.codes = None if layer.out is None else np.zeros(layer.out._type.qmax - layer.out._type.qmin + 1, np.int64)
        self.saturated = 0
        self.extremes = extremes
        low, high = float(extremes[0].min()), float(extremes[1].max())
        self.edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        self.counts = np.zeros(BINS, np.int64)


class LayerPass:
    """Measures layers batch by batch.

    Parameters
    ----------
    model, int8 : Model
    layers : list of Layer
    extremes : dict of str to (ndarray, ndarray)
        Least and greatest value of each channel of each node of the float model.
    """

    def __init__(self, model, int8, layers, extremes):
        self.model, self.int8, self.layers = model, int8, layers
        self.sums = [_Sums(layer, extremes[layer.origin]) for layer in layers]
        self.below = [Below(model, layer.origin) for layer in layers]

    def add(self, x, tick):
        """Take in one batch; `tick` is called after each layer."""
        real, codes = recorded(self.model, (x,)), recorded(self.int8, (x,))
        output = real[self.model.outputs[0]]
        for layer, sums, below in zip(self.layers, self.sums, self.below):
            y = real[layer.origin]
            split = split_error(layer, y, [real[i] for i in layer.input_origins], self.int8.numerics)
            sums.causes.add(y, split.errors)
            sums.local.add(y, y + split.total())
            sums.saturated += split.saturated
            sums.impact.add(output, below.run(real, (y + split.total(OWN)).astype(np.float32)))
            self._add_codes(layer, sums, y, codes[layer.name])
            tick()

    @staticmethod
    def _add_codes(layer, sums, y, value):
        sums.counts += np.histogram(y, sums.edges)[0]
        if not isinstance(value, QTensor):
            sums.cumulative.add(y, value)
            return
        sums.cumulative.add(y, codes_to_real(value))
        sums.codes += np.bincount(value.values.ravel().astype(np.int64) - layer.out._type.qmin, minlength=len(sums.codes))

    def records(self):
        """Return the `LayerRecord`s."""
        return tuple(_record(layer, sums) for layer, sums in zip(self.layers, self.sums))


def _record(layer, sums):
    counts, out = sums.codes, layer.out
    saturated = ends = occupancy = grid = None
    if out is not None:
        kind, total = out._type, max(int(counts.sum()), 1)
        ends = (int(counts[-1]) + (0 if out.zero_point == kind.qmin else int(counts[0]))) / total
        saturated = sums.saturated / total
        calibrated = counts[out.qmin - kind.qmin : out.qmax - kind.qmin + 1]
        occupancy = float((calibrated > 0).mean())
        low, high = grid_range(out)
        grid = Grid(scale=out.scale, zero_point=out.zero_point, dtype=out.dtype, qmin=out.qmin, qmax=out.qmax, low=low, high=high)
    return LayerRecord(
        name=layer.name, op=layer.label, origin=layer.origin, grid=grid, local=sums.local.error(), cumulative=sums.cumulative.error(),
        impact=sums.impact.error().sqnr, saturated=saturated, ends=ends, occupancy=occupancy, causes=sums.causes.causes(),
        weights=weight_error(layer), values=_values(sums),
    )  # fmt: skip


def _values(sums):
    low, high = (tuple(np.atleast_1d(v).tolist()) for v in sums.extremes)
    return Values(low=float(sums.edges[0]), high=float(sums.edges[-1]), counts=tuple(sums.counts.tolist()), channel_low=low, channel_high=high)


def probe(model, int8, variants, batches):
    """Return the SQNR of the network's output with errors of one layer put into the float network.

    Parameters
    ----------
    model, int8 : Model
    variants : dict of str to (Layer, tuple of str)
        A layer, as it is or changed, and which of its causes are put in.
    batches : list of ndarray

    Returns
    -------
    dict of str to float
        dB.
    """
    sums = {name: ErrorSums() for name in variants}
    below = {layer.origin: Below(model, layer.origin) for layer, _ in variants.values()}
    for x in batches:
        real = recorded(model, (x,))
        split = {}
        for name, (layer, causes) in variants.items():
            y = real[layer.origin]
            if id(layer) not in split:
                split[id(layer)] = split_error(layer, y, [real[i] for i in layer.input_origins], int8.numerics)
            output = below[layer.origin].run(real, (y + split[id(layer)].total(causes)).astype(np.float32))
            sums[name].add(real[model.outputs[0]], output)
    return {name: s.error().sqnr for name, s in sums.items()}
