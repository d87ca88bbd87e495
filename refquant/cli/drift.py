"""Find out where INT8 costs a network accuracy: layer by layer, cause by cause."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from refquant.cli.console import Progress
from refquant.cli.numbers import count
from refquant.cli.outputs import check_outputs, say_written
from refquant.core.archive import read_archive, read_array
from refquant.errors import ArgumentError, RefquantError, choose
from refquant.workflow.qconfig import BACKENDS

__all__ = ["EXAMPLES", "add_arguments", "run", "Recipe", "read_data", "add_quantization", "recipe_of", "load_network", "load_images", "progress_line"]

EXAMPLES = """examples:
  refquant drift digits_mobilenet                           a bundled network, on its own test images
  refquant drift digits_mobilenet --per-tensor --html drift.html
  refquant drift glyphs_net --no-reduce-range --observer minmax --limit 512
  refquant drift glyphs_net --limit 256 --sensitivity       also one layer at a time
  refquant drift model.onnx --data images.npz --json drift.json

FILE.npz holds x, float32 (N, C, H, W) as the network takes it; labels, integers (N,); and, if the network shall not be \
calibrated on x itself, calibration, float32 like x.
"""

_MOST_BYTES = 1 << 34
_OBSERVERS = {"histogram": "HistogramObserver", "minmax": "MinMaxObserver", "moving-average": "MovingAverageMinMaxObserver"}


class Recipe(NamedTuple):
    """How a network is quantized, in four choices.

    Attributes
    ----------
    backend : str
    per_tensor : bool
        One scale for all weights of a layer, or one for each output channel.
    observer : {"histogram", "minmax", "moving-average"}
        Of the activations.
    reduce_range : bool
        Codes 0 … 127, or 0 … 255.
    narrow_weights : bool
        Weights −64 … 63, or −128 … 127.

    Examples
    --------
    >>> recipe = Recipe("x86", True, "histogram", True)
    >>> list(recipe.neighbours())
    ['one weight scale per channel', 'activations of 256 codes', 'MinMaxObserver']
    """

    backend: str
    per_tensor: bool
    observer: str
    reduce_range: bool
    narrow_weights: bool = False

    def mapping(self):
        """Return the QConfigMapping."""
        from refquant import observers
        from refquant.workflow import QConfig, QConfigMapping, get_default_qconfig

        activation = getattr(observers, _OBSERVERS[self.observer]).with_args(dtype="quint8", reduce_range=self.reduce_range)
        weight = get_default_qconfig("qnnpack" if self.per_tensor else "onednn").weight
        weight = weight.with_args(reduce_range=True) if self.narrow_weights else weight
        return QConfigMapping(self.backend).set_global(QConfig(activation, weight))

    def neighbours(self):
        """Return ``{name: QConfigMapping}`` of the recipes that differ in one choice."""
        other = "minmax" if self.observer == "histogram" else "histogram"
        recipes = {
            "one weight scale per channel" if self.per_tensor else "one weight scale per layer": self._replace(per_tensor=not self.per_tensor),
            f"activations of {256 if self.reduce_range else 128} codes": self._replace(reduce_range=not self.reduce_range),
            _OBSERVERS[other]: self._replace(observer=other),
        }
        return {name: recipe.mapping() for name, recipe in recipes.items()}


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a bundled network (digits_resnet, digits_mobilenet, glyphs_net) or an ONNX file")
    parser.add_argument("--data", metavar="FILE.npz", help="test images and labels; a bundled network has its own")
    parser.add_argument("--no-labels", action="store_true", help="compare predictions only")
    parser.add_argument("--limit", type=count, metavar="N", help="take the first N test images (default: all)")
    parser.add_argument("--layer-images", type=count, default=128, metavar="N", help="look at the layers with the first N (default: 128)")
    how = add_quantization(parser)
    how.add_argument("--no-alternatives", action="store_true", help="do not measure other choices beside this one")
    out = parser.add_argument_group("report")
    out.add_argument("--sensitivity", action="store_true", help="quantize one layer at a time, and leave out one at a time")
    out.add_argument("--html", metavar="FILE", help="write a page that needs nothing else")
    out.add_argument("--json", metavar="FILE", help="write all numbers")
    out.add_argument("--plot", metavar="FILE.png", help="write a picture (png, svg or pdf)")


def add_quantization(parser):
    """Declare the options that `recipe_of` reads; return their group."""
    how = parser.add_argument_group("quantization")
    how.add_argument("--backend", default="x86", metavar="NAME", help=f"{', '.join(BACKENDS)} (default: x86)")
    how.add_argument("--observer", default="histogram", metavar="NAME", help=f"{', '.join(_OBSERVERS)} (default: histogram)")
    how.add_argument("--per-tensor", action="store_true", default=None, help="one weight scale per layer (default: per channel, but for qnnpack)")
    codes = how.add_mutually_exclusive_group()
    codes.add_argument("--reduce-range", action="store_true", default=None, help="activations of 128 codes (the default of x86 and fbgemm)")
    codes.add_argument("--no-reduce-range", action="store_false", dest="reduce_range", help="activations of 256 codes (the default of onednn and qnnpack)")
    return how


def run(arguments):
    """Analyse, print, write; exit status 0."""
    from refquant.drift import analyse

    recipe = recipe_of(arguments)
    _check_outputs(arguments)
    model = load_network(arguments.model)
    x, labels, calibration, notes = load_images(arguments)
    if arguments.limit is not None:
        x, labels = x[: arguments.limit], None if labels is None else labels[: arguments.limit]
    line = Progress()
    try:
        report = analyse(
            model, recipe.mapping(), x, labels, calibration=calibration, alternatives={} if arguments.no_alternatives else recipe.neighbours(),
            even=not arguments.no_alternatives, layer_images=arguments.layer_images, sensitivity=arguments.sensitivity, notes=notes,
            progress=lambda done, total, what: line.show(progress_line(done, total, what)),
        )  # fmt: skip
    finally:
        line.clear()
    report = replace(report, settings=f"{report.settings}, {_OBSERVERS[recipe.observer]}")
    _write(report, arguments)
    print(report.to_text(min(max(shutil.get_terminal_size((100, 24)).columns, 80), 120)), end="")
    say_written(arguments.html, arguments.json, arguments.plot)
    return 0


def progress_line(done, total, what):
    """Return a bar for a progress line."""
    filled = 24 * done // total
    return f"{'█' * filled}{'░' * (24 - filled)} {100 * done // total:3d} %  {what}"


def recipe_of(arguments, place="drift"):
    """Return the `Recipe` that the options name."""
    backend = choose(place, "--backend", arguments.backend, BACKENDS)
    observer = choose(place, "--observer", arguments.observer, _OBSERVERS)
    per_tensor = backend == "qnnpack" if arguments.per_tensor is None else arguments.per_tensor
    reduce_range = backend in ("x86", "fbgemm") if arguments.reduce_range is None else arguments.reduce_range
    return Recipe(backend, per_tensor, observer, reduce_range)


def _check_outputs(arguments):
    from refquant.drift.plot import check_format

    check_outputs("drift", arguments.html, arguments.json, arguments.plot)
    if arguments.plot:
        check_format(arguments.plot)


def _write(report, arguments):
    if arguments.html:
        report.to_html(arguments.html)
    if arguments.json:
        report.to_json(arguments.json)
    if arguments.plot:
        report.plot(arguments.plot)


def load_network(name, place="drift"):
    """Return a bundled network, or that of an ONNX file or of refquant's own (.npz)."""
    from refquant import data, interop, zoo

    if os.path.exists(name) or name.endswith((".onnx", ".npz")):
        if not os.path.isfile(name):
            raise RefquantError(f"{place}: model {name} must be a readable file, but there is none; correct the path")
        if name.endswith(".npz"):
            return interop.load(name)
        model = interop.from_onnx(name, as_graph=True, fuse_qdq=True)
        return model.with_nodes(model.nodes, name=Path(name).stem)
    return zoo.load(choose(place, "model", name, data.NETWORKS))


def load_images(arguments, place="drift"):
    """Return (x, labels, calibration, notes)."""
    from refquant import data

    if arguments.data is not None:
        x, labels, calibration = read_data(arguments.data, labels=not arguments.no_labels, place=place)
    elif arguments.model in data.NETWORKS:
        x, labels = data.load_split(arguments.model, "test")
        calibration, _ = data.load_split(arguments.model, "calibration")
    else:
        raise ArgumentError(f"{place}: {arguments.model} is no bundled network, so it needs test images; give --data FILE.npz with arrays x and labels")
    notes = () if calibration is not None else ("the network was calibrated on the test images themselves; add an array calibration to the data",)
    return x, None if arguments.no_labels else labels, calibration, notes


def read_data(path, *, labels=True, place="drift"):
    """Read test images from a file of arrays.

    Parameters
    ----------
    path : str
        An ``.npz`` file with ``x``, ``labels`` and perhaps ``calibration``.
    labels : bool
        Whether it must have labels.
    place : str
        Who asks, for messages.

    Returns
    -------
    x, labels, calibration : ndarray
        The last two None where they are missing.

    Raises
    ------
    ArgumentError
        A file that is missing or damaged, an array that is missing.
    """
    place, remedy = f"{place}: data file {path}", "write it anew with numpy.savez"
    members = read_archive(path, place, lambda name: name.endswith(".npy"), most_entries=1000, most_bytes=_MOST_BYTES, remedy=remedy)
    names = [name[:-4] for name in members]
    arrays = {name: read_array(members[f"{name}.npy"], name, place) for name in ("x", "labels", "calibration") if name in names}
    for name in ("x", "labels") if labels else ("x",):
        if name not in arrays:
            found = ", ".join(names) or "nothing"
            remedy = "; or pass --no-labels to compare predictions only" if name == "labels" else ""
            raise ArgumentError(f"{place} has no array {name!r} (it holds {found}); add it with numpy.savez{remedy}")
    return arrays["x"], arrays.get("labels"), arrays.get("calibration")
