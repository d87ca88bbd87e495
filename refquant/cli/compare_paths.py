"""Quantize one network by FX, by PT2E and by ONNX Runtime's rules, and show where and why they differ."""

import shutil

from refquant.cli.console import Progress
from refquant.cli.drift import load_images, load_network, progress_line
from refquant.cli.numbers import count
from refquant.cli.outputs import check_outputs, say_written
from refquant.errors import ArgumentError, choose

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant compare-paths digits_resnet                      a bundled network, on its own images
  refquant compare-paths glyphs_net --limit 512 --html paths.html
  refquant compare-paths digits_mobilenet --simulate        also INT8 beside fake-quantized float, layer by layer
  refquant compare-paths model.onnx --data images.npz --json paths.json
  refquant compare-paths resnet18 --width 0.25 --size 64    a published architecture with seeded weights, on noise

FILE.npz holds x, float32 as the network takes it; labels, integers (N,), unless --no-labels; and perhaps calibration.
"""

_PATHS = ("fx", "pt2e", "ort")
_NOISE = 32


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a bundled network, an ONNX file, or an architecture of refquant zoo")
    parser.add_argument("--data", metavar="FILE.npz", help="test inputs and labels; a bundled network has its own")
    parser.add_argument("--no-labels", action="store_true", help="compare predictions only")
    parser.add_argument("--limit", type=count, metavar="N", help="take the first N test inputs (default: all)")
    parser.add_argument("--calibrate", type=count, default=200, metavar="N", help="calibrate on the first N inputs (default: 200)")
    parser.add_argument("--layer-images", type=count, default=64, metavar="N", help="look at the tensors with the first N (default: 64)")
    parser.add_argument("--paths", default=",".join(_PATHS), metavar="LIST", help="fx, pt2e, ort (default: all)")
    parser.add_argument("--no-bridges", action="store_true", help="do not exchange one choice at a time")
    parser.add_argument("--simulate", action="store_true", help="compare each path with its fake-quantized float form")
    parser.add_argument("--size", type=count, metavar="N", help="of a published architecture: height and width")
    parser.add_argument("--width", type=float, default=1.0, metavar="F", help="of a published architecture: factor of all channels")
    out = parser.add_argument_group("report")
    out.add_argument("--html", metavar="FILE", help="write a page that needs nothing else")
    out.add_argument("--json", metavar="FILE", help="write all numbers")


def run(arguments):
    """Compare, print, write; exit status 0."""
    from refquant.drift import compare_paths

    paths = [choose("compare-paths", "--paths", name.strip(), _PATHS) for name in arguments.paths.split(",")]
    check_outputs("compare-paths", arguments.html, arguments.json)
    model, x, labels, calibration = _network_and_data(arguments)
    x, labels = x[: arguments.limit], None if labels is None else labels[: arguments.limit]
    line = Progress()
    try:
        report = compare_paths(
            model, [calibration[i : i + 50] for i in range(0, min(len(calibration), arguments.calibrate), 50)], x, labels, paths=paths,
            bridges=not arguments.no_bridges, simulate=arguments.simulate, layer_images=arguments.layer_images,
            progress=lambda done, total, what: line.show(progress_line(done, total, what)),
        )  # fmt: skip
    finally:
        line.clear()
    if arguments.html:
        report.to_html(arguments.html)
    if arguments.json:
        report.to_json(arguments.json)
    print(report.to_text(min(max(shutil.get_terminal_size((110, 24)).columns, 90), 140)), end="")
    say_written(arguments.html, arguments.json)
    return 0


def _network_and_data(arguments):
    """Return (model, x, labels, calibration)."""
    import numpy as np

    from refquant import zoo

    published = arguments.model in zoo.architectures()
    if not published and (arguments.size is not None or arguments.width != 1):
        raise ArgumentError(f"compare-paths: --size and --width go with an architecture of refquant zoo, but {arguments.model} is none; leave them out")
    model = zoo.build(arguments.model, size=arguments.size, width=arguments.width) if published else load_network(arguments.model, "compare-paths")
    if published and arguments.data is None:
        shape = model.node(model.inputs[0]).attrs["shape"]
        noise = np.random.default_rng(0).standard_normal((2 * _NOISE, *shape[1:])).astype(np.float32)
        return model, noise[:_NOISE], None, noise[_NOISE:]
    x, labels, calibration, _ = load_images(arguments, "compare-paths")
    return model, x, labels, x if calibration is None else calibration
