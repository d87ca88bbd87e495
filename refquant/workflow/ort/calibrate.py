"""From calibration batches to the range of every tensor, as ONNX Runtime's four calibrators find them.

Batches are run one after the other and their values forgotten. The histogram methods run them twice where all data counts at once: first for the
ends of the histogram, then for its counts, which gives the same counts as all data in memory.
"""

import numpy as np

from refquant.errors import ArgumentError, RangeError
from refquant.observers.distribution_observer import DistributionObserver
from refquant.observers.entropy_observer import EntropyObserver
from refquant.observers.percentile_observer import PercentileObserver

__all__ = ["calibrate", "calibrated_names"]


def calibrated_names(graph, options):
    """Return the names of all values, constants apart, that operators of the kinds to be quantized read or write."""
    names = {}
    for node in graph.nodes:
        if node.op in options.op_types_to_quantize:
            names.update(dict.fromkeys(name for name in (*node.inputs, *node.outputs) if name and name not in graph.constants))
    return list(names)


def calibrate(run, batches, options):
    """Return ``{name: (low, high)}``, float32.

    Parameters
    ----------
    run : callable
        ``run(batch, see)`` runs the model and calls ``see(name, array)`` for every float tensor that counts.
    batches : iterable
        Run twice by the histogram methods, so it must be a sequence there.
    options : QuantizationOptions

    Raises
    ------
    ArgumentError
        No batch.
    RangeError
        A NaN or an infinity in the data, with the tensor's name.
    """
    batches = _Counted(batches)
    groups = _groups(batches, options["CalibStridedMinMax"])
    found = _min_max(run, groups, options) if options.calibrate_method == "MinMax" else _by_histogram(run, groups, options)
    if not batches.count:
        raise ArgumentError("quantize_static: calibration_batches is empty, so no range is known; give batches, or tensor_ranges")
    return found


class _Counted:
    """Batches, and how many there were."""

    def __init__(self, batches):
        self.batches, self.count = batches, 0

    def __iter__(self):
        for batch in self.batches:
            self.count += 1
            yield batch


def _groups(batches, stride):
    """Return the batches as lists that are collected at once: all in one, or `stride` each."""
    if not stride:
        return [batches]
    batches = list(batches)
    if len(batches) % stride:
        raise ArgumentError(f"quantize_static: {len(batches)} batches are not divisible by CalibStridedMinMax={stride}; leave some out")
    return [batches[i : i + stride] for i in range(0, len(batches), stride)]


def _min_max(run, groups, options):
    merged = {}
    for group in groups:
        ends = {}
        for batch in group:
            run(batch, lambda name, x, ends=ends: ends.setdefault(name, []).append(_ends(name, x)))
        for name, pairs in ends.items():
            new = _of_group(np.array(pairs, np.float32), options)
            merged[name] = _merged(merged.get(name), new, options)
    return merged


def _ends(name, x):
    if not x.size:
        raise RangeError(f"quantize_static: {name!r} is empty in a calibration batch; give batches with data")
    low, high = x.min(), x.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RangeError(f"quantize_static: {name!r} reaches [{low}, {high}] in a calibration batch; find out where NaN or infinities come from")
    return low, high


def _of_group(pairs, options):
    """The range of some batches: their extremes, or the means of theirs in float32."""
    lows, highs = (np.ascontiguousarray(ends.reshape(-1, 1)) for ends in pairs.T)
    low, high = (ends.mean(axis=0)[0] for ends in (lows, highs)) if options["CalibMovingAverage"] else (lows.min(), highs.max())
    if options["CalibTensorRangeSymmetric"]:
        high = max(abs(low), abs(high))
        low = -high
    return low, high


def _merged(old, new, options):
    if old is None:
        return new
    if options["CalibMovingAverage"]:
        factor = np.float32(options["CalibMovingAverageConstant"])
        return tuple(o + factor * (n - o) for o, n in zip(old, new))
    return min(old[0], new[0]), max(old[1], new[1])


def _by_histogram(run, groups, options):
    observers = {}
    if len(groups) == 1:
        groups = [list(groups[0])]
        _lay_out(run, groups[0], options, observers)
        for batch in groups[0]:
            run(batch, lambda name, x: _observe(observers, name, x, options))
    else:
        for group in groups:
            _collect(run, group, options, observers)
    return {name: (np.float32(obs.min_val), np.float32(obs.max_val)) for name, obs in observers.items()}


def _lay_out(run, batches, options, observers):
    """Run all batches for the ends of the histograms."""
    magnitudes = options.calibrate_method == "Percentile" and _symmetric(options)
    ends = {}

    def see(name, x):
        low, high = _ends(name, np.abs(x) if magnitudes else x)
        old = ends.get(name, (low, high))
        ends[name] = min(old[0], low), max(old[1], high)

    for batch in batches:
        run(batch, see)
    for name, (low, high) in ends.items():
        observers[name] = _observer(options)
        observers[name].histogram.fix(low, high)


def _collect(run, batches, options, observers):
    """Count the batches of one group at once, as the bins grow by what a group holds."""
    values = {}
    for batch in batches:
        run(batch, lambda name, x: values.setdefault(name, []).append(x.reshape(-1)))
    for name, parts in values.items():
        _observe(observers, name, np.concatenate(parts), options)


def _observe(observers, name, x, options):
    if name not in observers:
        observers[name] = _observer(options)
    try:
        observers[name](x)
    except RangeError as error:
        raise RangeError(f"quantize_static: {name!r}: {error}") from error


def _symmetric(options):
    given = options["CalibTensorRangeSymmetric"]
    return True if given is None else bool(given)


def _observer(options):
    if options.calibrate_method == "Entropy":
        return EntropyObserver(128, 128)
    if options.calibrate_method == "Percentile":
        return PercentileObserver(options["CalibPercentile"], 2048, _symmetric(options))
    return DistributionObserver(2048)
