"""`audit`: would an INT8 network give other answers on a processor without VNNI, and which of its outputs hang on a rounding tie."""

import json
from dataclasses import asdict, dataclass, field

import numpy as np

from refquant.core.levels import check_level
from refquant.drift.accuracy import predictions
from refquant.drift.analyse import _batches, _first, _labels
from refquant.drift.audit_network import GraphNetwork, on_level
from refquant.drift.measures import sqnr
from refquant.drift.ties import undecided
from refquant.errors import ArgumentError, UnsupportedError
from refquant.verify.problem import oracle
from refquant.verify.saturation import channels_at_risk, product_of, saturated

__all__ = ["audit", "AuditReport", "LayerAudit", "NetworkAudit"]


@dataclass(frozen=True, kw_only=True)
class LayerAudit:
    """One layer, on the codes that the network with VNNI hands it.

    Attributes
    ----------
    name, label : str
    outputs, channels : int
    at_risk : int
        Channels with two neighbouring weights that could saturate on some codes; 0 is a proof that none ever does.
    saturated : int
        Accumulators that a saturated pair has changed, on these data.
    by_channel : dict of int to int
        The same by output channel.
    images : int
        Images with at least one of them.
    codes : int
        Outputs whose code is another one on that processor.
    most, mean : float
        The distance of such codes, in steps (LSB): the greatest, and the mean.
    ties : int
        Outputs within a float32 ulp of a rounding tie, in exact arithmetic.
    undecided : int
        Outputs on whose code `refquant.drift.ties.ENGINES` disagree.
    weights : bool
        Whether the layer multiplies weights; sums of tensors never saturate.
    """

    name: str
    label: str
    outputs: int
    channels: int
    at_risk: int = 0
    saturated: int = 0
    by_channel: dict = field(default_factory=dict)
    images: int = 0
    codes: int = 0
    most: int = 0
    mean: float = 0.0
    ties: int = None
    undecided: int = 0
    weights: bool = True


@dataclass(frozen=True, kw_only=True)
class NetworkAudit:
    """A network, quantized in one way, with VNNI and without.

    Attributes
    ----------
    name : str
        How it is quantized.
    right, right_there : int or None
        Right answers with VNNI and on the other processor; None without labels.
    changed : int or None
        Predictions that the other processor changes.
    outputs : int
        Numbers that it changes in the network's output.
    sqnr, sqnr_there : float or None
        Of the output against the float network's, dB; None without one.
    saturated, accumulators : int
        Of all layers with weights, on the images that layers are looked at with.
    """

    name: str
    right: int
    right_there: int
    changed: int
    outputs: int
    sqnr: float
    sqnr_there: float
    saturated: int
    accumulators: int


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """Everything an audit found.

    Attributes
    ----------
    model, numerics, level : str
    images, layer_images, output_size : int
        Images, those that layers are looked at with, numbers in the network's output for all of them.
    float_right : int or None
    networks : tuple of NetworkAudit
        The network as it is, then other choices.
    layers : tuple of LayerAudit
    skipped : dict of str to str
        Layers that cannot be audited, and why.
    """

    model: str
    numerics: str
    level: str
    images: int
    layer_images: int
    output_size: int
    float_right: int
    networks: tuple
    layers: tuple
    skipped: dict = field(default_factory=dict)

    def to_text(self, width=100):
        """Return the report for a terminal."""
        from refquant.drift.audit_text import audit_text

        return audit_text(self, width)

    def to_html(self):
        """Return the report as a page that needs nothing else."""
        from refquant.drift.audit_html import audit_page

        return audit_page(self)

    def to_json(self):
        """Return all numbers as JSON text."""
        return json.dumps(asdict(self), indent=1)


def audit(network, x, labels=None, *, level="avx2", reference=None, others=None, layer_images=32, progress=None):
    """Audit a quantized network.

    Parameters
    ----------
    network : Model, or an object with ``name``, ``numerics``, ``run(x, level)`` and ``layers(x)``
        As `refquant.drift.audit_network.GraphNetwork` has them.
    x : ndarray of float32, or sequence of them
        Images.
    labels : array_like of int, optional
    level : str
        The processor, one of `refquant.core.levels.LEVEL_NAMES`.
    reference : callable, optional
        The float network: ``reference(x)`` returns its output.
    others : dict of str to network, optional
        The same network quantized in other ways.
    layer_images : int
        How many images layers are looked at with.
    progress : callable, optional
        ``progress(done, total, what)``.

    Returns
    -------
    AuditReport

    Raises
    ------
    ArgumentError
        A model that is not quantized; images or labels that do not fit; a level that has VNNI for the engine.
    UnsupportedError
        What the engine does on that level is not known.

    Exactness
    ---------
    Codes with and without VNNI are the oracle's, bit for bit. Saturation is counted on int32 accumulators, ties in exact arithmetic.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx
    >>> x, labels = load_split("digits", "test")
    >>> prepared = prepare_fx(zoo.load("digits_resnet"), get_default_qconfig_mapping("onednn"), (x[:1],))
    >>> _ = prepared(x[:100])
    >>> report = audit(convert_fx(prepared), x[:32], labels[:32], layer_images=8)
    >>> report.networks[0].right, report.networks[0].saturated > 0
    (32, True)
    """
    check_level(level, "audit")
    network, others = _network(network), {name: _network(other) for name, other in (others or {}).items()}
    batches = _batches(x, "x")
    labels = None if labels is None else np.concatenate(_labels(labels, batches))
    few = _first(batches, layer_images)
    total, done = 1 + len(others) + len(few), 0

    def tick(what):
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, what)

    real = None if reference is None else np.concatenate([np.asarray(reference(b)) for b in batches])
    sums, skipped = {}, {}
    for b in few:
        for layer in network.layers(b):
            _add_layer(sums, skipped, layer, network.numerics, level)
        tick("layers")
    layers = tuple(_layer(s) for s in sums.values())
    audited = [layer for layer in layers if layer.weights and layer.name not in skipped]
    own = sum(layer.saturated for layer in audited), sum(layer.outputs for layer in audited)
    first, size = _audit_network("as it is", network, batches, own, labels, real, level)
    networks = [first]
    for name, each in others.items():
        tick(name)
        networks.append(_audit_network(name, each, batches, _saturation(each, few, level), labels, real, level)[0])
    tick("networks")
    right = None if real is None or labels is None or predictions(real) is None else int((predictions(real) == labels).sum())
    return AuditReport(
        model=network.name, numerics=network.numerics.name, level=level, images=sum(len(b) for b in batches), layer_images=sum(len(b) for b in few),
        output_size=size, float_right=right, networks=tuple(networks), layers=layers, skipped=skipped,
    )  # fmt: skip


def _network(network):
    if hasattr(network, "layers") and hasattr(network, "run"):
        return network
    if not getattr(network, "quantized", False):
        raise ArgumentError(f"audit: {network!r} is not quantized; convert it first, as with refquant.workflow.convert_fx")
    return GraphNetwork(network)


def _saturation(network, few, level):
    """Return (accumulators that saturate, accumulators) of all layers with weights."""
    hit = size = 0
    for x in few:
        for layer in network.layers(x):
            if layer.weights:
                try:
                    hit += int(saturated(layer.problem, on_level(network.numerics, level)).sum())
                    size += layer.codes.size
                except UnsupportedError:
                    continue
    return hit, size


def _audit_network(name, network, batches, saturation, labels, real, level):
    with_vnni, there = (np.concatenate([np.asarray(network.run(b, at)) for b in batches]) for at in (None, level))
    a, b = predictions(with_vnni), predictions(there)
    counts = [None if labels is None or p is None else int((p == labels).sum()) for p in (a, b)]
    found = NetworkAudit(
        name=name, right=counts[0], right_there=counts[1], changed=None if a is None else int((a != b).sum()), outputs=int((with_vnni != there).sum()),
        sqnr=None if real is None else float(sqnr(real, with_vnni)), sqnr_there=None if real is None else float(sqnr(real, there)),
        saturated=saturation[0], accumulators=saturation[1],
    )  # fmt: skip
    return found, with_vnni.size


def _add_layer(sums, skipped, layer, numerics, level):
    s = sums.setdefault(layer.name, {"name": layer.name, "label": layer.label, "outputs": 0, "channels": layer.codes.shape[1], "images": 0, "steps": [], "by": 0, "ties": 0, "undecided": 0, "weights": layer.weights})
    s["outputs"] += layer.codes.size
    s["ties"] = None if layer.ties is None else s["ties"] + int(layer.ties.sum())
    s["undecided"] += int(undecided(layer.problem, layer.codes).sum())
    if not layer.weights:
        return
    profile = on_level(numerics, level)
    try:
        there = oracle(layer.problem, profile)
        mask = saturated(layer.problem, profile)
        product = product_of(layer.problem, profile)
    except UnsupportedError as error:
        skipped[layer.name] = str(error)
        return
    s["at_risk"] = int(channels_at_risk(layer.problem["w"], product).sum())
    others = tuple(i for i in range(mask.ndim) if i != 1)
    s["by"] = s["by"] + mask.sum(others)
    s["images"] += int(mask.any(tuple(range(1, mask.ndim))).sum())
    steps = np.abs(there.astype(int) - layer.codes)
    s["steps"].append(steps[steps > 0])


def _layer(s):
    steps = np.concatenate([*s.pop("steps"), np.zeros(0, int)])
    by = {int(k): int(n) for k, n in enumerate(np.atleast_1d(s.pop("by"))) if n}
    return LayerAudit(
        **s, saturated=sum(by.values()), by_channel=by, codes=int(steps.size), most=int(steps.max(initial=0)), mean=float(steps.mean()) if steps.size else 0.0
    )
