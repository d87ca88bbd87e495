"""What the ONNX text leaves open, or an engine does otherwise, as one filled-in form for each."""

from typing import Literal

from refquant.numerics.forms import Form
from refquant.numerics.record import record

__all__ = ["Rules", "SPECIFICATION", "RUNTIME", "rules_of"]


@record
class Rules(Form):
    """How a graph is executed, beyond what a profile says.

    Attributes
    ----------
    division
        QuantizeLinear divides in the precision of ``scale_type`` (ONNX since opset 13), or in ``float32``.
    flat_scale
        DynamicQuantizeLinear of all zeros: scale ``1/255`` (the reference implementation) or ``1``.
    nan_range
        NaN in the input of DynamicQuantizeLinear: the scale is NaN and the zero point 255 (``propagate``), or ``refuse``, as vectorized minima
        drop it or not by its place in memory.
    float8
        Casts: as the table of the ``text``, or as ``onnxruntime`` has it: NaN of E5M2 is 0x7F; without saturation E4M3FN turns [480, 496) into 448
        and E5M2 turns [61440, 65536) into NaN.
    small_integers
        Casts of real numbers to 4- and 2-bit integers: the fraction is cut off (``truncate``), or ``half_away``.
    kernels
        Operators of the domain com.microsoft: as ONNX Runtime's kernels compute them (``mlas``), or dequantized, computed in float32
        and quantized (``expanded``).
    """

    division: Literal["scale_type", "float32"]
    flat_scale: Literal["1/255", "1"]
    nan_range: Literal["propagate", "refuse"]
    float8: Literal["text", "onnxruntime"]
    small_integers: Literal["truncate", "half_away"]
    kernels: Literal["mlas", "expanded"]


# onnx 1.23, docs/Operators.md and onnx/reference/ops/op_dynamic_quantize_linear.py
SPECIFICATION = Rules(division="scale_type", flat_scale="1/255", nan_range="propagate", float8="text", small_integers="truncate", kernels="expanded")

# onnxruntime 1.32: core/providers/cpu/quantization/quantize_linear.cc, core/util/qmath.h, contrib_ops/cpu/quantization/
RUNTIME = Rules(division="float32", flat_scale="1", nan_range="refuse", float8="onnxruntime", small_integers="half_away", kernels="mlas")


def rules_of(profile):
    """Return the rules that go with a profile: those of ONNX Runtime for its profile and what is derived from it, else the text's."""
    return RUNTIME if profile.name.startswith("onnxruntime") else SPECIFICATION
