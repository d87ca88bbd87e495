"""Post-training quantization over a graph.

>>> from refquant import zoo
>>> from refquant.data import load_split
>>> from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx
>>> x, _ = load_split("digits", "calibration")
>>> prepared = prepare_fx(zoo.load("digits_mobilenet"), get_default_qconfig_mapping("onednn"), example_inputs=(x[:50],))
>>> _ = [prepared(batch) for batch in x.reshape(4, 50, 1, 8, 8)]
>>> int8 = convert_fx(prepared)
>>> y, = int8(x[:16])
>>> y.shape
(16, 10)
"""

from refquant.graph.layer_bits import LayerBits, layer_bits
from refquant.workflow.backend_config import NOT_OBSERVED, OWN, SHARE, BackendConfig, BackendPatternConfig, DTypeConfig, DTypeWithConstraints
from refquant.workflow.backend_patterns import get_backend_config
from refquant.workflow.calibrate import Calibration, calibrate
from refquant.workflow.convert_fx import convert_fx, convert_to_reference_fx
from refquant.workflow.custom_config import ConvertCustomConfig, FuseCustomConfig, PrepareCustomConfig
from refquant.workflow.fuse import fuse_fx
from refquant.workflow.prepare_fx import Prepared, prepare_fx
from refquant.workflow.prepare_qat_fx import prepare_qat_fx
from refquant.workflow.pt2e import (
    ComposableQuantizer, DerivedQuantizationSpec, FixedQParamsQuantizationSpec, PreparedPT2E, PreparedQatPT2E, QuantizationAnnotation, QuantizationConfig, QuantizationSpec, Quantizer,
    SharedQuantizationSpec, X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, get_x86_inductor_linear_dynamic_fp16_config, lower_pt2e, prepare_pt2e,
    prepare_qat_pt2e,
)  # fmt: skip
from refquant.workflow.qconfig import (
    REUSE_INPUT, QConfig, default_dynamic_qconfig, default_per_channel_qconfig, default_per_channel_symmetric_qnnpack_qconfig, default_qconfig,
    default_symmetric_qnnpack_qconfig, get_default_qat_qconfig, get_default_qconfig, per_channel_dynamic_qconfig,
)  # fmt: skip
from refquant.workflow.qconfig_mapping import QConfigMapping, get_default_qat_qconfig_mapping, get_default_qconfig_mapping
from refquant.workflow.quantize_static import quantize_static
from refquant.workflow.simulate import SimulatedLayer, compare_simulation, simulate
from refquant.workflow.training_switches import disable_fake_quant, disable_observer, enable_fake_quant, enable_observer

__all__ = [
    "QConfig", "QConfigMapping", "get_default_qconfig", "get_default_qconfig_mapping", "REUSE_INPUT", "default_dynamic_qconfig", "per_channel_dynamic_qconfig",
    "default_qconfig", "default_per_channel_qconfig", "default_symmetric_qnnpack_qconfig", "default_per_channel_symmetric_qnnpack_qconfig",
    "get_default_qat_qconfig", "get_default_qat_qconfig_mapping",
    "BackendConfig", "BackendPatternConfig", "DTypeConfig", "DTypeWithConstraints", "OWN", "SHARE", "NOT_OBSERVED", "get_backend_config",
    "FuseCustomConfig", "PrepareCustomConfig", "ConvertCustomConfig", "fuse_fx", "Prepared", "calibrate", "Calibration", "prepare_fx", "prepare_qat_fx", "convert_fx", "convert_to_reference_fx", "quantize_static",
    "LayerBits", "layer_bits",
    "X86InductorQuantizer", "get_default_x86_inductor_quantization_config", "get_x86_inductor_linear_dynamic_fp16_config",
    "Quantizer", "ComposableQuantizer", "QuantizationConfig", "QuantizationAnnotation",
    "QuantizationSpec", "SharedQuantizationSpec", "FixedQParamsQuantizationSpec", "DerivedQuantizationSpec",
    "PreparedPT2E", "prepare_pt2e", "PreparedQatPT2E", "prepare_qat_pt2e", "convert_pt2e", "lower_pt2e",
    "enable_observer", "disable_observer", "enable_fake_quant", "disable_fake_quant",
    "simulate", "compare_simulation", "SimulatedLayer",
]  # fmt: skip
