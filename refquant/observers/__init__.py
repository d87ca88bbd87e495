"""Range estimators: they see batches of a tensor and know its quantization parameters in the end.

Names, parameters and bits of the first are those of ``torch.ao.quantization``; the others, from `EntropyObserver` on, are the calibrators of ONNX Runtime,
TensorRT, PPQ, MQBench, AIMET and NNCF, which find a range that PyTorch's formula turns into scale and zero point.
To add one, copy a small file, and add a line to `OBSERVERS`.

>>> import numpy as np
>>> obs = MinMaxObserver(dtype="uint8", reduce_range=True)
>>> _ = obs(np.float32([0.0, 2.54]))
>>> obs.calculate_qparams()
QParams(scale=0.019999999552965164, zero_point=0, dtype='uint8', quant_min=0, quant_max=127)
"""

from refquant.errors import ArgumentError
from refquant.observers.clip_std_observer import ClipStdObserver
from refquant.observers.default_fake_quants import DEFAULT_FAKE_QUANTS
from refquant.observers.distribution_observer import DistributionObserver
from refquant.observers.ema_quantile_observer import EmaQuantileObserver
from refquant.observers.entropy_observer import EntropyObserver
from refquant.observers.fake_quantize import FakeQuantize
from refquant.observers.fixed_qparams_fake_quantize import FixedQParamsFakeQuantize
from refquant.observers.fixed_qparams_observer import FixedQParamsObserver
from refquant.observers.fused_moving_avg_obs_fake_quantize import FusedMovingAvgObsFakeQuantize
from refquant.observers.histogram_observer import HistogramObserver
from refquant.observers.kl_divergence_observer import KlDivergenceObserver
from refquant.observers.lp_norm_observer import LpNormObserver
from refquant.observers.min_max_observer import MinMaxObserver
from refquant.observers.moving_average_min_max_observer import MovingAverageMinMaxObserver
from refquant.observers.moving_average_per_channel_min_max_observer import MovingAveragePerChannelMinMaxObserver
from refquant.observers.noop_observer import NoopObserver
from refquant.observers.observer_base import ObserverBase, ObserverFactory
from refquant.observers.per_channel_min_max_observer import PerChannelMinMaxObserver
from refquant.observers.percentile_observer import PercentileObserver
from refquant.observers.placeholder_observer import PlaceholderObserver
from refquant.observers.ppq_kl_observer import PpqKlObserver
from refquant.observers.ppq_mse_observer import PpqMseObserver
from refquant.observers.qparams_from_range import FloatQParams, choose_qparams, qparams_from_range, quant_limits
from refquant.observers.recording_observer import RecordingObserver
from refquant.observers.reuse_input_observer import ReuseInputObserver
from refquant.observers.sqnr_observer import SqnrObserver
from refquant.observers.statistic_range_observer import StatisticRangeObserver

OBSERVERS = (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    HistogramObserver,
    FixedQParamsObserver,
    PlaceholderObserver,
    NoopObserver,
    RecordingObserver,
    ReuseInputObserver,
    EntropyObserver,
    PercentileObserver,
    DistributionObserver,
    KlDivergenceObserver,
    PpqKlObserver,
    PpqMseObserver,
    LpNormObserver,
    EmaQuantileObserver,
    ClipStdObserver,
    SqnrObserver,
    StatisticRangeObserver,
)


def by_name(observers):
    """Return a dict from names to classes; two of one name are an error.

    Examples
    --------
    >>> by_name(OBSERVERS)["MinMaxObserver"].__name__
    'MinMaxObserver'
    """
    table = {}
    for observer in observers:
        if table.setdefault(observer.__name__, observer) is not observer or observers.count(observer) > 1:
            raise ArgumentError(f"OBSERVERS: {observer.__name__!r} stands there twice; rename one, or remove it")
    return table


NAMES = tuple(by_name(OBSERVERS))

FAKE_QUANTIZERS = (FakeQuantize, FusedMovingAvgObsFakeQuantize, FixedQParamsFakeQuantize)
"""Observers that hand on what their batch becomes on the grid."""

__all__ = [
    "OBSERVERS",
    *NAMES,
    "FAKE_QUANTIZERS",
    *(fake.__name__ for fake in FAKE_QUANTIZERS),
    "DEFAULT_FAKE_QUANTS",
    "ObserverBase",
    "ObserverFactory",
    "FloatQParams",
    "by_name",
    "choose_qparams",
    "qparams_from_range",
    "quant_limits",
]
