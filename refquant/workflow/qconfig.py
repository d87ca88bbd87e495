"""`QConfig`: which observers see activations and weights, and PyTorch's defaults for its engines."""

from refquant.errors import ArgumentError, choose
from refquant.observers import (
    DEFAULT_FAKE_QUANTS, FakeQuantize, FusedMovingAvgObsFakeQuantize, HistogramObserver, MinMaxObserver, MovingAverageMinMaxObserver, NoopObserver,
    PerChannelMinMaxObserver, PlaceholderObserver, ReuseInputObserver,
)  # fmt: skip
from refquant.observers.observer_base import ObserverBase, ObserverFactory

__all__ = [
    "QConfig", "BACKENDS", "DEFAULT_WEIGHT", "REUSE_INPUT", "default_dynamic_qconfig", "per_channel_dynamic_qconfig", "default_qconfig",
    "default_per_channel_qconfig", "default_symmetric_qnnpack_qconfig", "default_per_channel_symmetric_qnnpack_qconfig", "reuses_input", "get_default_qconfig",
    "get_default_qat_qconfig",
]  # fmt: skip

BACKENDS = ("x86", "fbgemm", "onednn", "qnnpack")


class QConfig:
    """How one layer is observed.

    Parameters
    ----------
    activation : observer class or factory
        Called for a new observer of each activation, such as ``HistogramObserver.with_args(reduce_range=True)``.
    weight : observer class or factory
        Called for a new observer of each weight.

    Raises
    ------
    ArgumentError
        An observer instead of something that makes observers: all layers would share it.

    Examples
    --------
    >>> from refquant.observers import MinMaxObserver
    >>> QConfig(MinMaxObserver, MinMaxObserver.with_args(dtype="qint8", qscheme="per_tensor_symmetric"))
    QConfig(activation=MinMaxObserver, weight=MinMaxObserver.with_args(dtype='qint8', qscheme='per_tensor_symmetric'))
    """

    __slots__ = ("activation", "weight")

    def __init__(self, activation, weight):
        for name, maker in (("activation", activation), ("weight", weight)):
            if isinstance(maker, ObserverBase):
                kind = type(maker).__name__
                raise ArgumentError(f"QConfig: {name} is an observer ({kind}), which all layers would share; pass {kind}.with_args(...) or the class")
            if not callable(maker):
                raise ArgumentError(f"QConfig: {name}={maker!r} makes no observers; pass an observer class or its with_args(...)")
        object.__setattr__(self, "activation", activation)
        object.__setattr__(self, "weight", weight)

    def __setattr__(self, name, value):
        raise AttributeError(f"QConfig is immutable; build a new one instead of setting {name!r}")

    def __eq__(self, other):
        return isinstance(other, QConfig) and (self.activation, self.weight) == (other.activation, other.weight)

    def __hash__(self):
        return hash((self.activation, self.weight))

    def __reduce__(self):
        return QConfig, (self.activation, self.weight)

    def __repr__(self):
        return f"QConfig(activation={_maker(self.activation)}, weight={_maker(self.weight)})"


def _maker(maker):
    return repr(maker) if isinstance(maker, ObserverFactory) else getattr(maker, "__name__", repr(maker))


REUSE_INPUT = QConfig(ReuseInputObserver, NoopObserver)
"""The output takes over the parameters of the input, and no observer stands there."""


def reuses_input(qconfig):
    """Whether a QConfig says that the output takes over the parameters of the input."""
    return isinstance(qconfig.activation(), ReuseInputObserver) and isinstance(qconfig.weight(), NoopObserver)


DEFAULT_WEIGHT = MinMaxObserver.with_args(dtype="qint8", qscheme="per_tensor_symmetric")
_PER_CHANNEL_WEIGHT = PerChannelMinMaxObserver.with_args(dtype="qint8", qscheme="per_channel_symmetric")
_DYNAMIC = PlaceholderObserver.with_args(dtype="quint8", quant_min=0, quant_max=255, is_dynamic=True)

default_dynamic_qconfig = QConfig(_DYNAMIC, DEFAULT_WEIGHT)
"""Inputs are quantized at run time, weights per tensor; linear layers alone have such kernels in PyTorch's tables."""
per_channel_dynamic_qconfig = QConfig(_DYNAMIC, _PER_CHANNEL_WEIGHT)
"""Inputs are quantized at run time, weights per channel."""
_MIN_MAX_7 = MinMaxObserver.with_args(quant_min=0, quant_max=127)
default_qconfig = QConfig(_MIN_MAX_7, DEFAULT_WEIGHT)
"""Least and greatest values in the codes 0 … 127, weights per tensor."""
default_per_channel_qconfig = QConfig(_MIN_MAX_7, _PER_CHANNEL_WEIGHT)
"""The same with weights per channel."""
_SYMMETRIC = {"dtype": "qint8", "quant_min": -127, "quant_max": 127, "eps": 2.0**-12}
_HISTOGRAM_8 = HistogramObserver.with_args(dtype="qint8", reduce_range=False, eps=2.0**-12)
default_symmetric_qnnpack_qconfig = QConfig(_HISTOGRAM_8, MinMaxObserver.with_args(qscheme="per_tensor_symmetric", **_SYMMETRIC))
"""Signed activations and weights without the code -128, as XNNPACK takes them."""
default_per_channel_symmetric_qnnpack_qconfig = QConfig(_HISTOGRAM_8, PerChannelMinMaxObserver.with_args(qscheme="per_channel_symmetric", **_SYMMETRIC))
"""The same with weights per channel."""


def get_default_qconfig(backend="x86"):
    """Return what PyTorch observes with for one of its engines.

    ======== ========================================== ==========================================
    backend  activation                                 weight
    ======== ========================================== ==========================================
    x86      histogram, 0 … 127                         per channel, symmetric, int8
    fbgemm   histogram, 0 … 127                         per channel, symmetric, int8
    onednn   histogram, 0 … 255                         per channel, symmetric, int8
    qnnpack  histogram, 0 … 255                         per tensor, symmetric, int8
    ======== ========================================== ==========================================

    Parameters
    ----------
    backend : {"x86", "fbgemm", "onednn", "qnnpack"}

    Returns
    -------
    QConfig

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/qconfig.py, ``get_default_qconfig``, version 0.

    Examples
    --------
    >>> get_default_qconfig("onednn").activation
    HistogramObserver.with_args(dtype='quint8', reduce_range=False)
    """
    choose("get_default_qconfig", "backend", backend, BACKENDS)
    activation = HistogramObserver.with_args(dtype="quint8", reduce_range=backend in ("x86", "fbgemm"))
    return QConfig(activation, DEFAULT_WEIGHT if backend == "qnnpack" else _PER_CHANNEL_WEIGHT)


def get_default_qat_qconfig(backend="x86", version=1):
    """Return what PyTorch trains with for one of its engines: fake-quantizers of moving averages, with the codes 0 … 127 for x86 and fbgemm.

    Parameters
    ----------
    backend : {"x86", "fbgemm", "onednn", "qnnpack"}
    version : {0, 1}
        1 takes the fused fake-quantizers, whose scale has a formula of its own; 0 those that observe and round in two steps.

    Returns
    -------
    QConfig

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/qconfig.py, ``get_default_qat_qconfig``.

    Examples
    --------
    >>> get_default_qat_qconfig("qnnpack").weight().qscheme
    'per_tensor_symmetric'
    """
    choose("get_default_qat_qconfig", "backend", backend, BACKENDS)
    choose("get_default_qat_qconfig", "version", version, (0, 1))
    kind, prefix = (FusedMovingAvgObsFakeQuantize, "default_fused_{}wt") if version else (FakeQuantize, "default_{}weight")
    reduced = {} if backend == "onednn" else {"reduce_range": backend != "qnnpack"}
    activation = kind.with_args(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, **reduced)
    per_channel = "" if backend == "qnnpack" else "per_channel_"
    return QConfig(activation, DEFAULT_FAKE_QUANTS[f"{prefix.format(per_channel)}_fake_quant"])
