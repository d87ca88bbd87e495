"""How far an approximation is from its reference: noise in dB, cosine, steps of the grid. Sums run in float64 over all batches."""

import math

import numpy as np

__all__ = ["Error", "ErrorSums", "decibels", "sqnr"]


def decibels(signal, noise):
    """Return the signal-to-quantization-noise ratio of two energies.

    Parameters
    ----------
    signal, noise : float
        Sums of squares.

    Returns
    -------
    float
        ``10 log10(signal / noise)``: inf without noise, -inf with noise on a signal of zeros.

    Examples
    --------
    >>> decibels(100.0, 1.0), decibels(1.0, 0.0), decibels(0.0, 1.0)
    (20.0, inf, -inf)
    """
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def sqnr(reference, approximation):
    """Return the signal-to-quantization-noise ratio of two arrays in dB.

    Examples
    --------
    >>> sqnr(np.float32([3, 4]), np.float32([3, 3.5]))
    20.0
    """
    a = np.asarray(reference, np.float64)
    return decibels(float(np.square(a).sum()), float(np.square(a - approximation).sum()))


class Error:
    """What a layer's error comes to.

    Attributes
    ----------
    sqnr : float
        dB; inf where nothing differs.
    cosine : float
        Of the angle between the two tensors, each taken as one long vector.
    max_lsb, mean_lsb : float or None
        Greatest and mean absolute error in steps of the layer's output grid; None where the output is not on a grid.
    """

    __slots__ = ("sqnr", "cosine", "max_lsb", "mean_lsb")

    def __init__(self, sqnr, cosine, max_lsb, mean_lsb):
        self.sqnr, self.cosine, self.max_lsb, self.mean_lsb = sqnr, cosine, max_lsb, mean_lsb

    def to_dict(self):
        """Return the attributes as a dict."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self):
        return f"Error({', '.join(f'{k}={v:.6g}' if v is not None else f'{k}=None' for k, v in self.to_dict().items())})"


class ErrorSums:
    """Collects an error over batches.

    Parameters
    ----------
    scale : float, optional
        One step of the output grid.

    Examples
    --------
    >>> sums = ErrorSums(scale=0.5)
    >>> sums.add(np.float32([3, 4]), np.float32([3, 3.5]))
    >>> sums.error()
    Error(sqnr=20, cosine=0.99788, max_lsb=1, mean_lsb=0.5)
    """

    def __init__(self, scale=None):
        self.scale = scale
        self.count = 0
        self.signal = self.noise = self.power = self.product = self.absolute = self.greatest = 0.0

    def add(self, reference, approximation):
        """Take in one batch."""
        a, b = np.asarray(reference, np.float64), np.asarray(approximation, np.float64)
        difference = np.abs(a - b)
        self.count += a.size
        self.signal += float(np.square(a).sum())
        self.power += float(np.square(b).sum())
        self.product += float((a * b).sum())
        self.noise += float(np.square(difference).sum())
        self.absolute += float(difference.sum())
        self.greatest = max(self.greatest, float(difference.max(initial=0.0)))

    def error(self):
        """Return the `Error` so far."""
        length = math.sqrt(self.signal * self.power)
        cosine = self.product / length if length else float(self.signal == self.power)
        if self.scale is None:
            return Error(decibels(self.signal, self.noise), cosine, None, None)
        mean = self.absolute / max(self.count, 1)
        return Error(decibels(self.signal, self.noise), cosine, self.greatest / self.scale, mean / self.scale)
