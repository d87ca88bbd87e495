"""`analyse`: float against INT8, layer by layer."""

from dataclasses import replace

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.drift.accuracy import Tally
from refquant.drift.even_out import even_out
from refquant.drift.exact import codes_to_real
from refquant.drift.layer_pass import LayerPass
from refquant.drift.pairing import pair_layers, recorded
from refquant.drift.report import Report
from refquant.drift.sensitivity import sensitivity as one_at_a_time
from refquant.drift.simulate import grid_hook, real_model
from refquant.drift.verdict import judge
from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.graph.model import Model
from refquant.workflow import QConfig, QConfigMapping, convert_fx, prepare_fx

__all__ = ["analyse"]

EVEN = "channels evened out"
BATCH = 64
LAYER_IMAGES = 128


def analyse(
    model, int8, batches, labels=None, *, calibration=None, alternatives=None, even=False, layer_images=LAYER_IMAGES, sensitivity=False,
    numerics=None, notes=(), progress=None,
):  # fmt: skip
    """Find out where quantization costs a network accuracy.

    Parameters
    ----------
    model : Model
        The float network, with one input.
    int8 : Model, QConfig or QConfigMapping
        The network converted from it, or how to convert it.
    batches : ndarray of float32, or sequence of them
        Test images; an array is cut into batches of 64.
    labels : array_like of int, optional
        The right class of each image.
    calibration : ndarray of float32, or sequence of them, optional
        What the network is calibrated with, if it is still to be converted; `batches` unless given.
    alternatives : dict of str to (Model, QConfig or QConfigMapping), optional
        Other ways to convert, which are measured beside.
    even : bool
        Also measure the network with its channels evened out (`even_out`), if it is still to be converted.
    layer_images : int
        How many images, from the first on, the layers are looked at with; accuracy is measured on all.
    sensitivity : bool
        Also quantize one layer at a time, and leave out one at a time, on all images.
    numerics : str or Numerics, optional
        The profile that quantized networks run under, if not their own.
    notes : sequence of str
        Remarks that the report shall carry.
    progress : callable, optional
        ``progress(done, total, what)``.

    Returns
    -------
    Report

    Raises
    ------
    ArgumentError, ShapeError, RangeError
        Models that do not belong together, no images, images that do not fit or hold a NaN, labels that do not fit.

    Exactness
    ---------
    The quantized network runs in its engine's arithmetic, bit for bit. Causes are told apart in exact arithmetic (`refquant.drift.causes`);
    measures are sums in float64. The same inputs give the same report.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import get_default_qconfig_mapping
    >>> x, labels = load_split("digits", "test")
    >>> seen, _ = load_split("digits", "calibration")
    >>> report = analyse(zoo.load("digits_resnet"), get_default_qconfig_mapping("onednn"), x[:64], labels[:64], calibration=seen)
    >>> report.accuracy.drop, len(report.layers)
    (0.0, 14)
    >>> bool(report.layer("stem_conv").local.sqnr > 35)
    True
    """
    if not isinstance(model, Model) or model.quantized or len(model.inputs) != 1:
        raise ArgumentError(f"drift: model must be a float refquant Model with one input, not {model!r}; load it with refquant.zoo or refquant.interop")
    batches = _batches(batches, "batches")
    labels = None if labels is None else _labels(labels, batches)
    calibration = batches if calibration is None else _batches(calibration, "calibration")
    others = {name: _converted(model, other, calibration, numerics) for name, other in (alternatives or {}).items()}
    if even and not isinstance(int8, Model):
        others[EVEN] = _converted(even_out(model, calibration), int8, calibration, numerics)
    int8 = _converted(model, int8, calibration, numerics)
    layers = pair_layers(model, int8, recorded(int8, (batches[0],)))
    few = _first(batches, layer_images)
    ticker = _Ticker(progress, len(batches) + len(few) * len(layers) + sensitivity * len(batches) * len(layers))

    tally, extremes = _tally(model, int8, layers, others, batches, labels, ticker.of("accuracy"))
    layer_pass = LayerPass(model, int8, layers, extremes)
    for x in few:
        layer_pass.add(x, ticker.of("layers"))
    records = layer_pass.records()
    if sensitivity:
        counts = one_at_a_time(model, int8, layers, batches, labels, ticker.of("one layer at a time"))
        records = tuple(replace(r, only=counts[r.name][0], without=counts[r.name][1]) for r in records)
    accuracy = tally.accuracy("INT8")
    steps = tuple(tally.step(name) for name in ("weights only", "activations only", "both, exact arithmetic", "INT8"))
    tried = tuple(tally.step(f"alternative {name}") for name in others)
    tried = tuple(replace(step, name=name) for step, name in zip(tried, others))
    verdict = judge(model, int8, layers, records, accuracy, steps, tried, few)
    return Report(
        model=model.name, settings=settings_text(int8, layers), accuracy=accuracy, steps=steps, alternatives=tried, layers=records,
        layer_images=sum(len(x) for x in few), verdict=verdict, notes=tuple(notes),
    )  # fmt: skip


def settings_text(int8, layers):
    """Return how a network is quantized, in words."""
    weights = [layer.node.params["weight"] for layer in layers if layer.weight is not None]
    kinds = {"per channel" if getattr(w, "qparams", None) is not None and w.qparams.per_channel else "per tensor" for w in weights}
    outs = [layer.out for layer in layers if layer.out is not None]
    codes = sorted({out.qmax - out.qmin + 1 for out in outs})
    name = getattr(int8.numerics, "name", int8.numerics)
    parts = [f"numerics {name}", f"weights {' and '.join(sorted(kinds))}" if kinds else "no weights"]
    return ", ".join([*parts, f"activations of {' or '.join(map(str, codes))} codes"])


class _Ticker:
    """Counts work for a progress bar."""

    def __init__(self, progress, total):
        self.progress, self.total, self.done = progress, total, 0

    def of(self, what):
        def tick():
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.total, what)

        return tick


def _tally(model, int8, layers, others, batches, labels, tick):
    """Return (Tally, extremes of the float network's values)."""
    tally, extremes = Tally(), {}

    def widen(node, value):
        others = tuple(a for a in range(value.ndim) if a != 1 or value.ndim == 1)
        low, high = extremes.get(node.name, (np.inf, -np.inf))
        extremes[node.name] = np.minimum(low, value.min(others)), np.maximum(high, value.max(others))

    weights, floats = real_model(int8, layers, weights=True), real_model(int8, layers, weights=False)
    hook = grid_hook(layers)
    for k, x in enumerate(batches):
        outputs = {
            "INT8": int8(x),
            "weights only": weights(x),
            "activations only": floats(x, hooks=hook),
            "both, exact arithmetic": weights(x, hooks=hook),
            **{f"alternative {name}": other(x) for name, other in others.items()},
        }
        reference = model(x, hooks=widen)[0]
        tally.add(reference, None if labels is None else labels[k], {name: _real(y[0]) for name, y in outputs.items()})
        tick()
    if labels is not None and not tally.labelled:
        raise ShapeError(
            f"drift: the output of model {model.name!r} has shape {reference.shape} but labels need (N, classes);"
            " leave out labels, or add the layer that gives scores"
        )
    return tally, extremes


def _real(value):
    return codes_to_real(value) if isinstance(value, QTensor) else value


def _converted(model, int8, calibration, numerics):
    if isinstance(int8, QConfig):
        int8 = QConfigMapping().set_global(int8)
    if isinstance(int8, QConfigMapping):
        prepared = prepare_fx(model, int8, example_inputs=(calibration[0],))
        for x in calibration:
            prepared(x)
        return convert_fx(prepared, numerics=numerics)
    if not isinstance(int8, Model):
        kind = type(int8).__name__
        raise ArgumentError(f"drift: int8 is a {kind} but must be a converted Model, a QConfig or a QConfigMapping; try get_default_qconfig_mapping('x86')")
    if numerics is None and int8.numerics is None:
        raise ArgumentError(f"drift: model {int8.name!r} has no profile to run under; give numerics=, such as numerics='fbgemm'")
    return int8 if numerics is None else int8.with_nodes(int8.nodes, numerics=numerics)


def _batches(batches, name):
    if isinstance(batches, np.ndarray):
        if batches.ndim < 2 or not len(batches):
            raise ShapeError(f"drift: {name} has shape {batches.shape} but must hold at least one image, (N, C, H, W); give more data")
        batches = [batches[k : k + BATCH] for k in range(0, len(batches), BATCH)]
    batches = [np.asarray(x) for x in batches]
    if not batches:
        raise ArgumentError(f"drift: {name} is empty; give at least one batch")
    for k, x in enumerate(batches):
        if x.dtype != np.float32:
            raise ArgumentError(f"drift: {name}[{k}] has dtype {x.dtype} but must be float32; convert it with x.astype(np.float32)")
        if not x.size:
            raise ShapeError(f"drift: {name}[{k}] has shape {x.shape}, which holds no image; leave the batch out")
        if not np.isfinite(x).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
            raise RangeError(f"drift: {name}[{k}]{list(place)} is {x[place]} but inputs must be finite; drop that image")
    return batches


def _labels(labels, batches):
    """Return the labels cut as the batches are."""
    if isinstance(labels, (list, tuple)) and len(labels) and np.ndim(labels[0]):
        labels = np.concatenate([np.asarray(part) for part in labels])
    labels = np.asarray(labels)
    images = sum(len(x) for x in batches)
    if labels.dtype.kind not in "iu":
        raise ArgumentError(f"drift: labels have dtype {labels.dtype} but must be integers, the number of each image's class; convert them")
    if labels.shape != (images,):
        raise ShapeError(f"drift: labels have shape {labels.shape} but there are {images} images; give one label an image")
    return np.split(labels, np.cumsum([len(x) for x in batches])[:-1])


def _first(batches, images):
    if images < 1:
        raise RangeError(f"drift: layer_images={images} must be at least 1; give more images")
    kept, left = [], images
    for x in batches:
        if left > 0:
            kept.append(x[:left])
            left -= len(kept[-1])
    return kept
