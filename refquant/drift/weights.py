"""What quantization does to a layer's weights, channel by channel."""

from dataclasses import dataclass

import numpy as np

from refquant.drift.measures import decibels
from refquant.drift.pairing import weight_codes, weight_reals

__all__ = ["WeightError", "weight_error"]


@dataclass(frozen=True, kw_only=True)
class WeightError:
    """The error of a layer's weights.

    Attributes
    ----------
    per_channel : bool
        Whether each output channel has a scale of its own.
    sqnr : float
        Of the whole tensor, dB.
    channel_sqnr : tuple of float
        Of each output channel; inf where nothing differs, which includes channels of zeros.
    low, high : tuple of float
        Least and greatest float weight of each channel.
    step : tuple of float
        The scale of each channel; 0 for weights that are not codes.
    worst : int
        The channel with the lowest SQNR.
    saturated : float
        Share of weight codes at an end of the dtype.
    """

    per_channel: bool
    sqnr: float
    channel_sqnr: tuple
    low: tuple
    high: tuple
    step: tuple
    worst: int
    saturated: float

    @property
    def worst_sqnr(self):
        """The SQNR of the worst channel, dB."""
        return self.channel_sqnr[self.worst]

    @property
    def spread(self):
        """The greatest magnitude of any channel over the least one that is not 0."""
        magnitude = np.maximum(np.abs(self.low), np.abs(self.high))
        return float(magnitude.max() / magnitude[magnitude > 0].min()) if magnitude.any() else 1.0


def weight_error(layer):
    """Return the `WeightError` of a `Layer`, or None if it has no weights."""
    if layer.weight is None:
        return None
    reference = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    noise = np.square(reference - weight_reals(layer.node).reshape(reference.shape)).sum(1)
    signal = np.square(reference).sum(1)
    channels = tuple(decibels(float(s), float(n)) for s, n in zip(signal, noise))
    codes = weight_codes(layer.node)
    step, saturated = np.zeros(len(reference)), 0.0
    if codes is not None:
        step = np.broadcast_to(codes.qparams.scale, (len(reference),))
        kind = codes.qparams._type
        saturated = float(np.mean((codes.values == kind.qmin) | (codes.values == kind.qmax)))
    return WeightError(
        per_channel=codes is not None and codes.qparams.per_channel,
        sqnr=decibels(float(signal.sum()), float(noise.sum())),
        channel_sqnr=channels,
        low=tuple(reference.min(1).tolist()),
        high=tuple(reference.max(1).tolist()),
        step=tuple(np.asarray(step, np.float64).tolist()),
        worst=int(np.argmin(channels)),
        saturated=saturated,
    )
