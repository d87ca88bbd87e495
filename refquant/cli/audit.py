"""Audit an INT8 network: would it saturate on a CPU without VNNI, where, how badly, and which of its outputs hang on a rounding tie."""

import os
import shutil

from refquant.cli.console import Progress
from refquant.cli.drift import add_quantization, load_images, load_network, progress_line, recipe_of
from refquant.cli.numbers import count
from refquant.cli.outputs import check_outputs, say_written
from refquant.core.files import write_whole

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant audit digits_resnet --backend onednn                   a bundled network, on its own test images
  refquant audit glyphs_net --backend onednn --isa avx512 --limit 256 --html audit.html
  refquant audit model.onnx --data images.npz --json audit.json   a float network, quantized here, or one that is quantized already

FILE.npz as for refquant drift. A float network is quantized by the options above, and by other choices for comparison; a quantized ONNX model is \
audited as ONNX Runtime runs it.
"""


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a bundled network (digits_resnet, digits_mobilenet, glyphs_net) or an ONNX file")
    parser.add_argument("--isa", default="avx2", metavar="LEVEL", help="the processor: sse41, avx2, avx512, avx512_vbmi, … (default: avx2)")
    parser.add_argument("--data", metavar="FILE.npz", help="test images and labels; a bundled network has its own")
    parser.add_argument("--no-labels", action="store_true", help="compare predictions only")
    parser.add_argument("--limit", type=count, metavar="N", help="take the first N test images (default: all)")
    parser.add_argument("--layer-images", type=count, default=32, metavar="N", help="look at the layers with the first N (default: 32)")
    add_quantization(parser)
    out = parser.add_argument_group("report")
    out.add_argument("--html", metavar="FILE", help="write a page that needs nothing else")
    out.add_argument("--json", metavar="FILE", help="write all numbers")


def run(arguments):
    """Audit, print, write; exit status 0."""
    from refquant.core.levels import check_level
    from refquant.drift.audit import audit

    check_level(arguments.isa, "audit")
    check_outputs("audit", arguments.html, arguments.json)
    network, reference, others, x, labels = _networks(arguments)
    line = Progress()
    try:
        report = audit(
            network, x, labels, level=arguments.isa, reference=reference, others=others, layer_images=arguments.layer_images,
            progress=lambda done, total, what: line.show(progress_line(done, total, what)),
        )  # fmt: skip
    finally:
        line.clear()
    if arguments.html:
        write_whole(arguments.html, report.to_html().encode())
    if arguments.json:
        write_whole(arguments.json, (report.to_json() + "\n").encode())
    print(report.to_text(min(max(shutil.get_terminal_size((100, 24)).columns, 80), 120)), end="")
    say_written(arguments.html, arguments.json)
    return 0


def _networks(arguments):
    """Return (network, float network or None, other choices, images, labels)."""
    from refquant.cli.onnx_layers import quantized_network

    quantized = quantized_network(arguments.model) if os.path.isfile(arguments.model) else None
    recipe = None if quantized else recipe_of(arguments, "audit")
    model = None if quantized else load_network(arguments.model, "audit")
    x, labels, calibration, _ = load_images(arguments, "audit")
    if arguments.limit is not None:
        x, labels = x[: arguments.limit], None if labels is None else labels[: arguments.limit]
    if quantized:
        return quantized, None, {}, x, labels
    seen = x if calibration is None else calibration
    choices = {
        "activations of 7 bits (reduce_range)": recipe._replace(reduce_range=True),
        "weights of 7 bits": recipe._replace(narrow_weights=True, reduce_range=False),
        "activations of 8 bits": recipe._replace(reduce_range=False),
    }
    others = {name: _converted(model, other, seen) for name, other in choices.items() if other != recipe}
    return _converted(model, recipe, seen), lambda batch: model(batch)[0], others, x, labels


def _converted(model, recipe, calibration, batch=64):
    from refquant.workflow import convert_fx, prepare_fx

    prepared = prepare_fx(model, recipe.mapping(), example_inputs=(calibration[:1],))
    for i in range(0, len(calibration), batch):
        prepared(calibration[i : i + batch])
    return convert_fx(prepared)
