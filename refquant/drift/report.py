"""`Report`: everything an analysis found, as plain records."""

import json
import math
from dataclasses import dataclass, field

from refquant.drift.measures import Error
from refquant.drift.weights import WeightError

__all__ = ["Accuracy", "Step", "Values", "Grid", "LayerRecord", "Verdict", "Report"]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What quantization does to a classifier's answers.

    Attributes
    ----------
    images : int
    fp32, int8 : int or None
        Right answers; None without labels.
    changed : int or None
        Predictions that differ; None where the output is not one score a class.
    broken, repaired : int or None
        Predictions that went from right to wrong, and from wrong to right.
    """

    images: int
    fp32: int = None
    int8: int = None
    changed: int = None
    broken: int = None
    repaired: int = None

    @property
    def drop(self):
        """Lost accuracy in points (per cent of the images); None without labels."""
        return None if self.fp32 is None else 100 * (self.fp32 - self.int8) / self.images


@dataclass(frozen=True, kw_only=True)
class Step:
    """The network between float and INT8, or converted in another way.

    Attributes
    ----------
    name : str
    correct, changed : int or None
        Right answers; predictions that differ from FP32.
    sqnr : float
        Of the network's output against FP32, dB.
    """

    name: str
    correct: int
    changed: int
    sqnr: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid of a layer's output: parameters, and the range of reals that its codes can say."""

    scale: float
    zero_point: int
    dtype: str
    qmin: int
    qmax: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Values:
    """The float network's values of a layer.

    Attributes
    ----------
    low, high : float
        The least and the greatest on all images.
    counts : tuple of int
        Equal bins from `low` to `high`, on the images that the layers are looked at with.
    channel_low, channel_high : tuple of float
        The least and the greatest of each channel on all images.
    """

    low: float
    high: float
    counts: tuple
    channel_low: tuple
    channel_high: tuple

    @property
    def magnitudes(self):
        """The greatest magnitude of each channel."""
        return tuple(max(abs(a), abs(b)) for a, b in zip(self.channel_low, self.channel_high))


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """One layer.

    Attributes
    ----------
    name, op, origin : str
        Node of the quantized model, its operation, and the node of the float model whose value it stands for.
    grid : Grid or None
        Of the output.
    local : Error
        This layer alone quantized, fed with the float network's values.
    cumulative : Error
        The quantized network's value against the float network's.
    impact : float
        SQNR of the network's output when nothing is quantized but this layer's own weights and output, dB.
    saturated : float
        Share of the outputs that are cut off at an end of the dtype by more than half a step, this layer alone being quantized.
    ends : float
        Share of the quantized network's codes that are the first or the last of the dtype; the first does not count where it stands for 0.
    occupancy : float
        Share of the calibrated codes that occur.
    causes : dict of str to Cause
        The local error, split.
    weights : WeightError or None
    values : Values
    only, without : int or None
        Right answers (without labels: unchanged predictions) with this layer alone quantized, and with this layer alone left
        in float; filled in by ``sensitivity=True``.
    """

    name: str
    op: str
    origin: str
    grid: Grid
    local: Error
    cumulative: Error
    impact: float
    saturated: float
    ends: float
    occupancy: float
    causes: dict
    weights: WeightError
    values: Values
    only: int = None
    without: int = None

    @property
    def cause(self):
        """The cause with the greatest share of the local error."""
        return max(self.causes, key=lambda name: self.causes[name].share)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The report in words.

    Attributes
    ----------
    layer : str
        The layer whose own grids harm the network's output most.
    cause : str
        What in that layer does it.
    loss : float
        dB of the output's SQNR that this cause takes, all other layers being float.
    remedy : str
        What to change.
    sentences : tuple of str
    """

    layer: str
    cause: str
    loss: float
    remedy: str
    sentences: tuple

    def __str__(self):
        return " ".join(self.sentences)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `refquant.drift.analyse` found; ``print`` shows it.

    Attributes
    ----------
    model : str
    settings : str
        How the network is quantized.
    accuracy : Accuracy
    steps : tuple of Step
        From float to INT8: weights alone, activations alone, both on their grids in exact arithmetic, the engine.
    alternatives : tuple of Step
        Converted in other ways.
    layers : tuple of LayerRecord
        In order of execution.
    layer_images : int
        How many images the layers were looked at with.
    verdict : Verdict
    notes : tuple of str
        What a reader must know, such as data that calibrated the network and test it too.
    """

    model: str
    settings: str
    accuracy: Accuracy
    steps: tuple
    alternatives: tuple
    layers: tuple
    layer_images: int
    verdict: Verdict
    notes: tuple = field(default=())

    def layer(self, name):
        """Return the record of a layer; close names are suggested if there is none."""
        from refquant.errors import choose

        by_name = {record.name: record for record in self.layers}
        return by_name[choose("Report", "layer", name, by_name)]

    def to_dict(self):
        """Return plain dicts, lists, strings and numbers; an infinite SQNR is the string ``"inf"``."""
        return _plain(self)

    def to_json(self, path=None):
        """Return the report as JSON; with `path`, write it there instead, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"
        return _written(text, path)

    def to_html(self, path=None):
        """Return the report as one page of HTML that needs nothing else; with `path`, write it there instead, whole or not at all."""
        from refquant.drift.html import page

        return _written(page(self), path)

    def plot(self, path=None):
        """Draw the report with matplotlib; with `path`, write the picture there, whole or not at all.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from refquant.drift.plot import figure, save

        drawn = figure(self)
        if path is not None:
            save(drawn, path)
        return drawn

    def to_text(self, width=100):
        """Return the report as text of `width` columns."""
        from refquant.drift.text import text

        return text(self, width)

    def __str__(self):
        return self.to_text()


def _written(text, path):
    if path is None:
        return text
    from refquant.core.files import write_whole

    write_whole(path, text.encode("utf-8"))
    return None


def _plain(value):
    """Return `value` as what JSON can hold."""
    if isinstance(value, Error):
        return _plain(value.to_dict())
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
