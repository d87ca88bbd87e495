"""The PT2E way: a quantizer annotates an exported graph, observers are inserted, values become codes, and Inductor's fusions are applied.

>>> from refquant import zoo
>>> from refquant.data import load_split
>>> from refquant.workflow import X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, lower_pt2e, prepare_pt2e
>>> x, _ = load_split("digits", "calibration")
>>> quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
>>> prepared = prepare_pt2e(zoo.load("digits_resnet"), quantizer)
>>> _ = [prepared(batch) for batch in x.reshape(4, 50, 1, 8, 8)]
>>> eager = convert_pt2e(prepared)
>>> lowered = lower_pt2e(eager)
>>> [len([n for n in model.nodes if n.op == "quantize"]) for model in (eager, lowered)]
[12, 2]
"""

from refquant.workflow.pt2e.annotation_graph import AnnotationGraph, GraphNode
from refquant.workflow.pt2e.composable_quantizer import ComposableQuantizer
from refquant.workflow.pt2e.convert_pt2e import convert_pt2e
from refquant.workflow.pt2e.lower_pt2e import PASSES, LoweredModel, lower_pt2e
from refquant.workflow.pt2e.prepare_pt2e import PreparedPT2E, prepare_pt2e
from refquant.workflow.pt2e.prepare_qat_pt2e import PreparedQatPT2E, prepare_qat_pt2e
from refquant.workflow.pt2e.quantization_config import QuantizationConfig, get_default_x86_inductor_quantization_config, get_x86_inductor_linear_dynamic_fp16_config
from refquant.workflow.pt2e.quantization_spec import (
    DerivedQuantizationSpec, FixedQParamsQuantizationSpec, QuantizationAnnotation, QuantizationSpec, SharedQuantizationSpec,
)  # fmt: skip
from refquant.workflow.pt2e.quantizer import Quantizer
from refquant.workflow.pt2e.x86_inductor_quantizer import X86InductorQuantizer

__all__ = [
    "Quantizer", "ComposableQuantizer", "X86InductorQuantizer", "QuantizationConfig", "AnnotationGraph", "GraphNode",
    "QuantizationSpec", "SharedQuantizationSpec", "FixedQParamsQuantizationSpec", "DerivedQuantizationSpec", "QuantizationAnnotation",
    "get_default_x86_inductor_quantization_config", "get_x86_inductor_linear_dynamic_fp16_config",
    "PreparedPT2E", "prepare_pt2e", "PreparedQatPT2E", "prepare_qat_pt2e", "convert_pt2e", "PASSES", "LoweredModel", "lower_pt2e",
]  # fmt: skip
