"""`QuantizationConfig`: the specs of one layer's tensors, and X86InductorQuantizer's defaults."""

from dataclasses import dataclass
from functools import lru_cache

from refquant.observers import (
    FakeQuantize, FusedMovingAvgObsFakeQuantize, HistogramObserver, MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver, PerChannelMinMaxObserver, PlaceholderObserver,
)  # fmt: skip
from refquant.workflow.pt2e.quantization_spec import QuantizationSpec

__all__ = ["QuantizationConfig", "get_default_x86_inductor_quantization_config", "get_x86_inductor_linear_dynamic_fp16_config"]


@dataclass(frozen=True)
class QuantizationConfig:
    """How the tensors of a layer are quantized; None leaves one as it is.

    Attributes
    ----------
    input_activation, output_activation, weight, bias : QuantizationSpec or None
    is_qat : bool
        For quantization-aware training.
    """

    input_activation: QuantizationSpec = None
    output_activation: QuantizationSpec = None
    weight: QuantizationSpec = None
    bias: QuantizationSpec = None
    is_qat: bool = False


@lru_cache
def get_default_x86_inductor_quantization_config(is_qat=False, is_dynamic=False, reduce_range=False):
    """Return X86InductorQuantizer's default configuration.

    Activations are uint8, per tensor, affine, from a histogram; weights int8, per channel, symmetric, from the extremes. The least
    scale is 2**-12. For quantization-aware training both come from moving averages, by fake-quantizers.

    Parameters
    ----------
    is_qat : bool
        For `prepare_qat_pt2e`: fake-quantizers in the place of observers.
    is_dynamic : bool
        Activations get their parameters at run time.
    reduce_range : bool
        Activations take codes 0 … 127, for CPUs without VNNI.

    Returns
    -------
    QuantizationConfig

    Source
    ------
    torchao 0.18, quantization/pt2e/quantizer/x86_inductor_quantizer.py.

    Examples
    --------
    >>> config = get_default_x86_inductor_quantization_config()
    >>> config.input_activation.observer()
    HistogramObserver(dtype='uint8', qscheme='per_tensor_affine', quant_min=0, quant_max=255)
    """
    eps = {"eps": 2.0**-12}
    activation, channels = (PlaceholderObserver if is_dynamic else HistogramObserver).with_args(**eps), PerChannelMinMaxObserver.with_args(**eps)
    if is_qat:
        last_batch = MovingAverageMinMaxObserver.with_args(averaging_constant=1)
        activation = FakeQuantize.with_args(**eps, observer=last_batch) if is_dynamic else FusedMovingAvgObsFakeQuantize.with_args(**eps)
        channels = FusedMovingAvgObsFakeQuantize.with_args(**eps, observer=MovingAveragePerChannelMinMaxObserver)
    codes = QuantizationSpec("uint8", activation, 0, 127 if reduce_range else 255, "per_tensor_affine", is_dynamic=is_dynamic)
    weight = QuantizationSpec("int8", channels, -128, 127, "per_channel_symmetric", ch_axis=0)
    return QuantizationConfig(codes, codes, weight, is_qat=is_qat)


@lru_cache
def get_x86_inductor_linear_dynamic_fp16_config():
    """Return the configuration of linear layers with float16 weights on float32 activations.

    Examples
    --------
    >>> get_x86_inductor_linear_dynamic_fp16_config().weight.dtype
    'float16'
    """
    return QuantizationConfig(weight=QuantizationSpec("float16", PlaceholderObserver))
