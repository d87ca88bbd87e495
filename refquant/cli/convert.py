"""Read a model, quantize it if asked to, and write it as an ONNX file or as refquant's own."""

from pathlib import Path

from refquant.cli.console import Progress
from refquant.cli.drift import load_network, read_data
from refquant.core.files import check_writable
from refquant.errors import ArgumentError, choose
from refquant.workflow.qconfig import BACKENDS

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant convert digits_resnet digits.onnx                             a bundled network as a float ONNX file
  refquant convert digits_resnet digits.onnx --quantize x86              quantized as PyTorch's FX workflow does it, in QDQ form
  refquant convert model.onnx int8.onnx --quantize ort --data images.npz --format qoperator
  refquant convert int8.onnx int8.npz                                    a quantized ONNX file as refquant's own
  refquant convert int8.npz int8.onnx                                    and back

MODEL is a bundled network, an ONNX file (.onnx) or refquant's own (.npz); OUT ends in .onnx or .npz, which says what it becomes.
FILE.npz holds x, float32 (N, …) as the network takes it, in batches of 32.
"""

_WAYS = (*BACKENDS, "pt2e", "ort")
_BATCH, _BATCHES = 32, 8


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a bundled network, an ONNX file, or refquant's own file")
    parser.add_argument("out", metavar="OUT", help="the file to write: .onnx or .npz")
    parser.add_argument("--quantize", metavar="WAY", help=f"{', '.join(BACKENDS)}: PyTorch's FX workflow for that engine; pt2e: its successor; ort: ONNX Runtime's quantize_static")
    parser.add_argument("--data", metavar="FILE.npz", help="images to calibrate on; a bundled network has its own")
    parser.add_argument("--format", metavar="FORM", help="of a quantized ONNX file: qdq (default) or qoperator")


def run(arguments):
    """Convert and return the exit status."""
    out = Path(arguments.out)
    choose("convert", "ending of OUT", out.suffix, (".onnx", ".npz"))
    check_writable(out)
    if arguments.format is not None and out.suffix != ".onnx":
        raise ArgumentError(f"convert: --format is that of an ONNX file, but {out.name} is none; leave it out, or let OUT end in .onnx")
    if arguments.data is not None and arguments.quantize is None:
        raise ArgumentError("convert: --data calibrates a model that is quantized; add --quantize, or leave --data out")
    model = load_network(arguments.model, place="convert")
    if arguments.quantize is not None:
        model = _quantized(model, arguments)
    return _write(model, out, arguments.format)


def _quantized(model, arguments):
    way = choose("convert", "--quantize", arguments.quantize, _WAYS)
    x = _images(arguments)[: _BATCH * _BATCHES]
    batches, line = [x[i : i + _BATCH] for i in range(0, len(x), _BATCH)], Progress()
    line.show(f"calibrating on {len(x)} images")
    try:
        return _QUANTIZE.get(way, _fx)(model, batches, way)
    finally:
        line.clear()


def _images(arguments):
    from refquant import data

    if arguments.data is not None:
        return read_data(arguments.data, labels=False, place="convert")[0]
    if arguments.model in data.NETWORKS:
        return data.load_split(arguments.model, "calibration")[0]
    raise ArgumentError(f"convert: {arguments.model} is no bundled network, so there is nothing to calibrate it on; give --data FILE.npz with an array x")


def _fx(model, batches, backend):
    from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx

    prepared = prepare_fx(model, get_default_qconfig_mapping(backend), example_inputs=(batches[0],))
    for batch in batches:
        prepared(batch)
    return convert_fx(prepared)


def _pt2e(model, batches, _):
    from refquant.workflow import X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, prepare_pt2e

    prepared = prepare_pt2e(model, X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config()))
    for batch in batches:
        prepared(batch)
    return convert_pt2e(prepared)


def _ort(model, batches, _):
    from refquant.workflow import quantize_static

    return quantize_static(model, batches, activation_type="uint8", per_channel=True)


_QUANTIZE = {"pt2e": _pt2e, "ort": _ort}


def _write(model, out, form):
    from refquant import interop

    if out.suffix == ".npz":
        interop.save(model, out)
        print(f"{out}: {len(model.nodes)} nodes, refquant's own format")
    else:
        print(interop.to_onnx(model, out, format=form))
    return 0
