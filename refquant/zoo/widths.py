"""`Widths`: how many channels a layer of a reduced network has."""

__all__ = ["Widths", "nearest"]


def nearest(number, multiple=8):
    """Return the nearest multiple, `multiple` at least, unless that loses more than a tenth: then the next one, as MobileNets round.

    Examples
    --------
    >>> nearest(20), nearest(18), nearest(3)
    (24, 24, 8)
    """
    near = max(multiple, int(number + multiple / 2) // multiple * multiple)
    return near if near >= 0.9 * number else near + multiple


class Widths:
    """Scales numbers of channels: ``w(channels)`` is `channels` itself at a factor of 1, else the nearest multiple of 8, 8 at least.

    Parameters
    ----------
    factor : float

    Examples
    --------
    >>> w = Widths(0.25)
    >>> w(64), w(12), w(96, 32), Widths(1)(12)
    (16, 8, 32, 12)
    """

    def __init__(self, factor=1):
        self.factor = factor

    def __call__(self, channels, multiple=8):
        if self.factor == 1:
            return channels
        return max(multiple, int(channels * self.factor + multiple / 2) // multiple * multiple)
