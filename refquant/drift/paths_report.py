"""`PathsReport`: what `compare_paths` finds, as text, JSON and a page."""

import json
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from refquant.core.files import write_whole
from refquant.drift.paths_why import codes_of

__all__ = ["PathsReport", "TensorRow", "WeightRow", "PathAccuracy"]


class TensorRow(NamedTuple):
    """A tensor of the float model, batch norms folded.

    Attributes
    ----------
    name, op : str
    range : (float, float)
        Over the calibration.
    seen : dict of str to Seen
        By path; without those that do not quantize it.
    sqnr : dict of str to float
        Of what the path holds against the float value, in dB.
    why : tuple of str
        Why the paths differ; empty where they do not.
    """

    name: str
    op: str
    range: tuple
    seen: dict
    sqnr: dict
    why: tuple


class WeightRow(NamedTuple):
    """The weights of a layer: parameters by path, how many codes differ by pair of paths, and why."""

    name: str
    qparams: dict
    differing: dict
    why: tuple


class PathAccuracy(NamedTuple):
    """A path's output against the float network's: dB, changed predictions, right ones, and those that are right in float (or None)."""

    path: str
    sqnr: float
    changed: int
    correct: int
    fp32: int


@dataclass(frozen=True)
class PathsReport:
    """Paths side by side.

    Attributes
    ----------
    model : str
    images, layer_images, calibration : int
        How many inputs outputs, tensors and ranges rest on.
    titles, engines, refused : dict of str to str
        By path: what it is, whose numerics it runs under, and why it does not take the network.
    accuracy : list of PathAccuracy
    tensors : list of TensorRow
    weights : list of WeightRow
    bridges : list of tuple
        (exchange, path, tensors with the same parameters to the bit, tensors in both).
    simulation : dict of str to list of SimulatedLayer
        By path, if asked for.
    """

    model: str
    images: int
    layer_images: int
    calibration: int
    titles: dict
    engines: dict
    refused: dict
    accuracy: list
    tensors: list
    weights: list
    bridges: list
    simulation: dict

    def to_text(self, width=120):
        """Return the report as text."""
        from refquant.drift.paths_text import paths_text

        return paths_text(self, width)

    def to_dict(self):
        """Return all numbers as plain objects."""
        return {
            "model": self.model, "images": self.images, "layer_images": self.layer_images, "calibration": self.calibration,
            "paths": [{"name": name, "title": self.titles[name], "numerics": self.engines[name]} for name in self.engines],
            "refused": self.refused,
            "accuracy": [row._asdict() for row in self.accuracy],
            "tensors": [_tensor(row) for row in self.tensors],
            "weights": [_weight(row) for row in self.weights],
            "bridges": [dict(zip(("exchange", "path", "same", "of"), row)) for row in self.bridges],
            "simulation": {name: [_layer(row) for row in rows] for name, rows in self.simulation.items()},
        }  # fmt: skip

    def to_json(self, path):
        """Write all numbers to a file, whole or not at all; an infinite SQNR is the string ``"inf"``."""
        write_whole(path, (json.dumps(_plain(self.to_dict()), indent=1) + "\n").encode())

    def to_html(self, path):
        """Write a page that needs nothing else."""
        from refquant.drift.paths_page import paths_page

        write_whole(path, paths_page(self).encode())


def _plain(value):
    """Return dicts, lists, strings and numbers."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    value = value.tolist() if hasattr(value, "tolist") else value
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def _qparams(q):
    return {"dtype": q.dtype, "codes": codes_of(q), "quant_min": q.qmin, "quant_max": q.qmax, "scale": q.scale, "zero_point": q.zero_point}


def _tensor(row):
    seen = {name: {**s._asdict(), "qparams": _qparams(s.qparams), "sqnr": row.sqnr[name]} for name, s in row.seen.items()}
    return {"name": row.name, "op": row.op, "range": list(row.range), "paths": seen, "why": list(row.why)}


def _weight(row):
    pairs = [{"paths": list(pair), "differing": count} for pair, count in row.differing.items()]
    return {"name": row.name, "paths": {name: _qparams(q) for name, q in row.qparams.items()}, "pairs": pairs, "why": list(row.why)}


def _layer(row):
    return {**row._asdict(), "qparams": _qparams(row.qparams)}
