"""`compare_paths`: one network, one calibration set, several ways to INT8, side by side."""

from typing import NamedTuple

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.drift.accuracy import Tally
from refquant.drift.measures import ErrorSums
from refquant.drift.paths_report import PathAccuracy, PathsReport, TensorRow, WeightRow
from refquant.drift.paths_why import why_tensors, why_weights
from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.ops import dequantize
from refquant.workflow import compare_simulation
from refquant.workflow.pt2e.fold_batch_norm import fold_batch_norms
from refquant.workflow.quantize_paths import BRIDGES, PATHS, quantize_by

__all__ = ["compare_paths", "Seen"]

_BATCH = 128


class Seen(NamedTuple):
    """How one path holds one tensor.

    Attributes
    ----------
    node : str
        Of the path's own model.
    by : {"kernel", "quantize node"}
        Whether a layer computes these codes itself, or real numbers are quantized.
    qparams : QParams
    observer : str
        What found the range.
    eps : float or None
        The least scale, where the path has one.
    shared : str or None
        The tensor whose parameters these are, if they are another's.
    """

    node: str
    by: str
    qparams: QParams
    observer: str
    eps: float
    shared: str


def compare_paths(model, calibration, x=None, labels=None, *, paths=None, bridges=True, simulate=False, layer_images=64, progress=None):
    """Quantize a model along several paths and compare every tensor.

    Parameters
    ----------
    model : Model
        On float32 arrays.
    calibration : ndarray or sequence of ndarray
        One batch, or batches; the same for all paths.
    x : ndarray, optional
        Test inputs; the first calibration batch unless given.
    labels : ndarray of int, optional
    paths : sequence of str, optional
        Among ``"fx"``, ``"pt2e"`` and ``"ort"``; all unless given.
    bridges : bool
        Also exchange one choice at a time, and count the tensors that then have another path's parameters to the bit.
    simulate : bool
        Also compare each path's codes with its fake-quantized float form.
    layer_images : int
        How many test inputs the tensors are looked at with.
    progress : callable, optional
        ``progress(done, total, what)``.

    Returns
    -------
    PathsReport

    Raises
    ------
    ArgumentError
        Unknown paths, no data, labels that are not as many as inputs.
    UnsupportedError
        No path takes the network; what one alone refuses stands in the report.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> seen, _ = load_split("digits", "calibration")
    >>> x, labels = load_split("digits", "test")
    >>> report = compare_paths(zoo.load("digits_resnet"), seen[:64], x[:64], labels[:64], bridges=False)
    >>> [(name, q.qparams.qmax + 1, q.qparams.scale) for name, q in report.tensors[0].seen.items() if name != "ort"]
    [('fx', 128, 0.007870171219110489), ('pt2e', 256, 0.003919653594493866)]
    >>> print(report.tensors[0].why[0])
    codes: fx 128 (7 bits, reduce_range), pt2e 256, ort 256
    """
    by_name = {path.name: path for path in PATHS}
    chosen = [by_name[choose("compare_paths", "path", name, by_name)] for name in (by_name if paths is None else paths)]
    batches = [np.asarray(b) for b in (calibration if isinstance(calibration, (list, tuple)) else [calibration])]
    if not chosen or not batches or not all(len(b) for b in batches):
        raise ArgumentError("compare_paths: paths or calibration is empty; give at least one path and one batch with one input")
    x = batches[0] if x is None else np.asarray(x)
    if not len(x) or labels is not None and len(labels) != len(x):
        raise ArgumentError(f"compare_paths: {len(x)} test inputs and {'no' if labels is None else len(labels)} labels; give inputs, and a label for each")
    others = list(BRIDGES) if bridges else []
    total, done = len(chosen) + len(others) + 1, 0
    folded, made, refused = fold_batch_norms(model), {}, {}
    for path in (*chosen, *others):
        if progress:
            progress(done, total, path.name)
        try:
            made[path.name] = quantize_by(path, model, batches)
        except UnsupportedError as error:
            refused[path.name] = str(error)
        done += 1
    main = [path.name for path in chosen if path.name in made]
    if not main:
        raise UnsupportedError(f"compare_paths: no path takes {model.name!r}: {'; '.join(f'{name}: {why}' for name, why in refused.items())}")
    look = x[:layer_images]
    held = {name: _held(folded, q, look) for name, q in made.items()}
    ranges = _ranges(folded, batches)
    tensors = _tensor_rows(folded, {name: held[name] for name in main}, made, look, ranges)
    return PathsReport(
        model=model.name, images=len(x), layer_images=len(look), calibration=sum(map(len, batches)),
        titles={path.name: path.title for path in (*chosen, *others)}, engines={name: made[name].int8.numerics.name for name in made},
        refused=refused,
        accuracy=_accuracy(model, made, x, labels), tensors=tensors, weights=_weight_rows(folded, {name: made[name].int8 for name in main}),
        bridges=_bridges(held, main, [p.name for p in others if p.name in made]),
        simulation={name: compare_simulation(made[name].int8, look) for name in main} if simulate else {},
    )  # fmt: skip


def origin(folded, int8, name):
    """Return the tensor of the float model, batch norms folded, that a node of a quantized model stands for, or None."""
    known, node = {n.name for n in folded.nodes}, int8.node(name)
    found = next((s for s in reversed(node.sources) if s in known), None)
    if found is None and node.op in ("quantize", "dequantize", "requantize") or node.op in ("quantize", "dequantize"):
        return origin(folded, int8, node.inputs[0])
    return found


def _held(folded, quantized, x):
    """Return ``{tensor: (Seen, dequantized values)}`` of one path."""
    int8, found, first = quantized.int8, {}, {}
    observers = {}
    for value, observer in quantized.observers.items():
        name = value if value in {n.name for n in folded.nodes} else None
        fused = next((n for n in int8.nodes if value == n.name or value in n.sources), None)
        name = name if fused is None else origin(folded, int8, fused.name) if value == fused.name else value
        if name is not None:
            observers.setdefault(name, observer)

    def record(node, value):
        name = origin(folded, int8, node.name) if isinstance(value, QTensor) else None
        if name is None:
            return
        observer = observers.get(name)
        shared = None if observer is None else first.setdefault(id(observer), name)
        kind = quantized.seen if observer is None else type(observer).__name__
        by = "quantize node" if node.op == "quantize" else "kernel"
        seen = Seen(node.name, by, value.qparams, kind or "of its input", getattr(observer, "eps", None), None if shared in (None, name) else shared)
        found[name] = seen, dequantize(value, numerics=int8.numerics)

    int8.run(x, hooks=record)
    return found


def _ranges(folded, batches):
    """Return the least and the greatest number of each tensor of the float model over the calibration."""
    found = {}

    def record(node, value):
        low, high = float(value.min()), float(value.max())
        known = found.get(node.name, (low, high))
        found[node.name] = min(low, known[0]), max(high, known[1])

    for batch in batches:
        folded.run(batch, hooks=record)
    return found


def _tensor_rows(folded, held, made, x, ranges):
    reals = {}
    folded.run(x, hooks=lambda node, value: reals.__setitem__(node.name, value))
    rows = []
    for node in folded.nodes:
        seen = {name: held[name][node.name][0] for name in held if node.name in held[name]}
        if not seen:
            continue
        quality = {}
        for name in seen:
            sums = ErrorSums()
            sums.add(reals[node.name], held[name][node.name][1])
            quality[name] = sums.error().sqnr
        inside = {name: _fused_into(made[name].int8, node.name) for name in held if name not in seen}
        rows.append(TensorRow(node.name, node.op, ranges[node.name], seen, quality, tuple(why_tensors(seen, inside, ranges[node.name]))))
    return rows


def _fused_into(int8, name):
    """Return the layer of a path in which a tensor lives and dies, or None where it stays float."""
    return next((n.name for n in int8.nodes if name in n.sources[:-1]), None)


def _weight_rows(folded, models):
    """Compare the quantized weights of every layer."""
    rows = []
    for node in folded.nodes:
        if "weight" not in node.params:
            continue
        found = {}
        for name, int8 in models.items():
            holder = next((n for n in int8.nodes if node.name in n.sources and hasattr(n.params.get("weight"), "qparams")), None)
            if holder is not None:
                weight = holder.params["weight"]
                found[name] = QTensor(np.asarray(weight.values), weight.qparams)
        if found:
            rows.append(WeightRow(node.name, {k: w.qparams for k, w in found.items()}, _differing(found), tuple(why_weights(found))))
    return rows


def _differing(found):
    """Return ``{(path, path): how many codes differ}``; None where shapes do."""
    names = list(found)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return {(a, b): int(np.count_nonzero(found[a].values != found[b].values)) if found[a].shape == found[b].shape else None for a, b in pairs}


def _accuracy(model, made, x, labels):
    tally = Tally()
    for start in range(0, len(x), _BATCH):
        part = slice(start, start + _BATCH)
        (reference, *_) = model(x[part])
        tally.add(reference, None if labels is None else labels[part], {name: q.int8(x[part])[0] for name, q in made.items()})
    rows = []
    for name in made:
        step = tally.step(name)
        rows.append(PathAccuracy(name, step.sqnr, step.changed, step.correct, tally.fp32 if tally.labelled else None))
    return rows


def _bridges(held, main, others):
    """Count the tensors that an exchange of one choice gives the parameters of another path, or of another exchange, to the bit."""
    rows = []
    for name in others:
        for target in (*main, *(o for o in others if o.startswith("ort") and o != name)):
            both = [t for t in held[name] if t in held[target]]
            same = [t for t in both if _parameters(held[name][t][0]) == _parameters(held[target][t][0])]
            rows.append((name, target, len(same), len(both)))
    return rows


def _parameters(seen):
    q = seen.qparams
    return q.dtype, q.scale, q.zero_point
