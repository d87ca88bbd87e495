"""PyTorch's ready-made fake-quantizers, as data.

Source
------
PyTorch 2.13, torch/ao/quantization/fake_quantize.py.
"""

from refquant.observers.fake_quantize import FakeQuantize
from refquant.observers.fixed_qparams_fake_quantize import FixedQParamsFakeQuantize
from refquant.observers.fixed_qparams_observer import FixedQParamsObserver
from refquant.observers.fused_moving_avg_obs_fake_quantize import FusedMovingAvgObsFakeQuantize
from refquant.observers.histogram_observer import HistogramObserver
from refquant.observers.moving_average_min_max_observer import MovingAverageMinMaxObserver
from refquant.observers.moving_average_per_channel_min_max_observer import MovingAveragePerChannelMinMaxObserver

__all__ = ["DEFAULT_FAKE_QUANTS"]

_TENSOR, _CHANNEL = MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver
_UINT8 = {"quant_min": 0, "quant_max": 255, "dtype": "quint8"}
_INT8 = {"quant_min": -128, "quant_max": 127, "dtype": "qint8"}
_INT8_EVEN = {"quant_min": -127, "quant_max": 127, "dtype": "qint8", "eps": 2**-12}
_EMBEDDING = {"qscheme": "per_channel_affine_float_qparams", "ch_axis": 0, "averaging_constant": 1}


def _fixed(scale, zero_point):
    observer = FixedQParamsObserver.with_args(scale=scale, zero_point=zero_point, dtype="quint8", quant_min=0, quant_max=255)
    return FixedQParamsFakeQuantize.with_args(observer=observer)


DEFAULT_FAKE_QUANTS = {
    "default_fake_quant": FakeQuantize.with_args(observer=_TENSOR, **_UINT8, qscheme="per_tensor_affine", reduce_range=True),
    "default_weight_fake_quant": FakeQuantize.with_args(observer=_TENSOR, **_INT8, qscheme="per_tensor_symmetric", reduce_range=False),
    "default_dynamic_fake_quant": FakeQuantize.with_args(observer=_TENSOR, **_UINT8, is_dynamic=True, averaging_constant=1),
    "default_fixed_qparams_range_neg1to1_fake_quant": _fixed(2 / 256, 128),
    "default_fixed_qparams_range_0to1_fake_quant": _fixed(1 / 256, 0),
    "default_per_channel_weight_fake_quant": FakeQuantize.with_args(
        observer=_CHANNEL, **_INT8, qscheme="per_channel_symmetric", reduce_range=False, ch_axis=0
    ),
    "default_embedding_fake_quant": FakeQuantize.with_args(observer=_CHANNEL, **_UINT8, **_EMBEDDING),
    "default_embedding_fake_quant_4bit": FakeQuantize.with_args(observer=_CHANNEL, dtype="quint4x2", **_EMBEDDING),
    "default_histogram_fake_quant": FakeQuantize.with_args(observer=HistogramObserver, **_UINT8, qscheme="per_tensor_affine", reduce_range=True),
    "default_fused_act_fake_quant": FusedMovingAvgObsFakeQuantize.with_args(observer=_TENSOR, quant_min=0, quant_max=255, dtype="quint8"),
    "default_fused_wt_fake_quant": FusedMovingAvgObsFakeQuantize.with_args(observer=_TENSOR, **_INT8, qscheme="per_tensor_symmetric"),
    "default_fused_per_channel_wt_fake_quant": FusedMovingAvgObsFakeQuantize.with_args(observer=_CHANNEL, **_INT8, qscheme="per_channel_symmetric"),
    "fused_wt_fake_quant_range_neg_127_to_127": FusedMovingAvgObsFakeQuantize.with_args(observer=_TENSOR, **_INT8_EVEN, qscheme="per_tensor_symmetric"),
    "fused_per_channel_wt_fake_quant_range_neg_127_to_127": FusedMovingAvgObsFakeQuantize.with_args(
        observer=_CHANNEL, **_INT8_EVEN, qscheme="per_channel_symmetric"
    ),
}  # fmt: skip
"""``{PyTorch's name: factory}``."""
