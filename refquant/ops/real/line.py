"""The points between which lines are drawn, along one axis of an image."""

import numpy as np

from refquant.core.fma import fma32

__all__ = ["Line", "ratio_of"]

_F = np.float32


def ratio_of(n, size, given):
    """Return how many points of the input lie on one of the output; `given` is the factor that the caller asked for, or None."""
    return _F(1.0 / given) if given else _F(n) / _F(size)


class Line:
    """The two points and their weights of every output along one axis; `contraction` says how often ``ratio · (i + ½) − ½`` is rounded: ``none`` twice, ``fma`` once."""

    def __init__(self, n, size, given, align_corners, contraction):
        places = np.arange(size).astype(_F)
        if align_corners:
            source = (_F(n - 1) / _F(size - 1) if size > 1 else _F(0)) * places
        else:
            ratio, half = ratio_of(n, size, given), _F(0.5)
            source = np.maximum(fma32(ratio, places + half, -half) if contraction == "fma" else ratio * (places + half) - half, _F(0))
        self.low = source.astype(np.int64)
        self.high = self.low + (self.low < n - 1)
        self.w1 = source - self.low.astype(_F)
        self.w0 = _F(1) - self.w1
