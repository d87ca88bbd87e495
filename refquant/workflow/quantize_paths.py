"""The ways from a float model to an INT8 one, under one name each: FX, PT2E, ONNX Runtime's tool, and steps between them."""

from typing import Callable, NamedTuple

from refquant.errors import ArgumentError
from refquant.graph.model import Model
from refquant.observers import HistogramObserver, MinMaxObserver
from refquant.workflow.convert_fx import convert_fx
from refquant.workflow.prepare_fx import prepare_fx
from refquant.workflow.pt2e import X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, lower_pt2e, prepare_pt2e
from refquant.workflow.pt2e.fold_batch_norm import fold_batch_norms
from refquant.workflow.qconfig import QConfig, get_default_qconfig
from refquant.workflow.qconfig_mapping import QConfigMapping, get_default_qconfig_mapping
from refquant.workflow.quantize_static import quantize_static

__all__ = ["Path", "PATHS", "BRIDGES", "Quantized", "quantize_by"]


class Quantized(NamedTuple):
    """A model as one path quantizes it.

    Attributes
    ----------
    int8 : Model
    observers : dict of str to object
        By the observed value's node; empty where a path keeps none.
    seen : str
        How a path without observers finds ranges.
    """

    int8: Model
    observers: dict
    seen: str = ""


class Path(NamedTuple):
    """A way to quantize: its name, what it is in a few words, and the function of (model, batches)."""

    name: str
    title: str
    quantize: Callable


def _observers(model):
    """Return the observers of a prepared model by the value that they see."""
    found = {}
    for node in model.nodes:
        if node.op == "observe":
            value = model.node(node.inputs[0])
            while value.op == "observe":
                value = model.node(value.inputs[0])
            found[value.name] = node.attrs["observer"]
    return found


def _fx(mapping):
    def quantize(model, batches):
        prepared = prepare_fx(model, mapping(), (batches[0],))
        for batch in batches:
            prepared(batch)
        return Quantized(convert_fx(prepared), _observers(prepared.model))

    return quantize


def _pt2e(model, batches):
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(model, quantizer)
    for batch in batches:
        prepared(batch)
    return Quantized(lower_pt2e(convert_pt2e(prepared)), _observers(prepared.model))


def _ort(**options):
    def quantize(model, batches):
        # ONNX Runtime's own pre-processing folds batch norms before it quantizes.
        return Quantized(quantize_static(fold_batch_norms(model), batches, **options), {}, options.get("calibrate_method", "MinMax") + " calibrator")

    return quantize


def _exchanged(observer=HistogramObserver, **settings):
    """FX for x86 with other settings of its activation observer; ``eps`` is the weights' too."""

    def mapping():
        default = get_default_qconfig("x86")
        eps = {"eps": settings["eps"]} if "eps" in settings else {}
        activation = observer.with_args(dtype="quint8", **settings)
        return QConfigMapping("x86").set_global(QConfig(activation, default.weight.with_args(**eps)))

    return mapping


PATHS = (
    Path("fx", "FX, x86 default", _fx(lambda: get_default_qconfig_mapping("x86"))),
    Path("pt2e", "PT2E, X86InductorQuantizer default", _pt2e),
    Path("ort", "ONNX Runtime, quantize_static default", _ort()),
)
BRIDGES = (
    Path("fx, 8 bits", "FX with 256 codes (reduce_range=False)", _fx(_exchanged(reduce_range=False))),
    Path("fx, 8 bits, eps 2^-12", "and with PT2E's eps", _fx(_exchanged(reduce_range=False, eps=2**-12))),
    Path("fx, 8 bits, MinMax", "FX with 256 codes and MinMaxObserver", _fx(_exchanged(MinMaxObserver, reduce_range=False))),
    Path("ort, uint8", "quantize_static with uint8 activations", _ort(activation_type="uint8")),
    Path("ort, per channel", "quantize_static with a weight scale a channel", _ort(per_channel=True)),
)
"""One choice exchanged at a time, from one path toward another."""


def quantize_by(path, model, batches):
    """Quantize a model along a path.

    Raises
    ------
    ArgumentError
        No batches.
    """
    if not len(batches):
        raise ArgumentError(f"compare_paths: there are no calibration batches for {path.name}; give at least one")
    return path.quantize(model, batches)
