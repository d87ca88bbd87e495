"""What both fronts ask of a model before they prepare it."""

from refquant.errors import ArgumentError
from refquant.graph.model import Model

__all__ = ["check_float_model"]


def check_float_model(place, model):
    """Raise unless `model` is a `Model` that nobody has prepared or quantized."""
    if not isinstance(model, Model):
        kind = type(model).__name__
        raise ArgumentError(f"{place}: model is a {kind} but must be a refquant Model; convert PyTorch modules with refquant.interop.from_torch")
    if any(n.op in ("observe", "quantize", "dequantize") for n in model.nodes):
        raise ArgumentError(f"{place}: model {model.name!r} is prepared or quantized already; pass the float model")
