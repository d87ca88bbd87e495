"""What the default cases of an operator are made of."""

from typing import NamedTuple

__all__ = ["Stream", "make_stream", "ELEMENTWISE", "LARGE"]

ELEMENTWISE = "n1000 n2c5 n1c3h5w7 n2c16h9w9 n64 n63 n1023 n4097 n3c17h4w4 n1c8h1w1 n2c1h9w8"
LARGE = "n2c32h28w28 n40000 n4c19h20w20"


class Stream(NamedTuple):
    """What the cases of one operator are made of.

    Attributes
    ----------
    small, large : tuple of str
        Shapes: odd ones, all of which come three times before the first large one; then both in turn.
    wrap : tuple of str
        Shapes for ``wrap``, whose sums leave int32.
    strategies : tuple of str
        In turn; one that stands twice comes twice as often.
    options : tuple of str
        Sets of options, in turn, separated by blanks.
    """

    small: tuple
    large: tuple
    wrap: tuple
    strategies: tuple
    options: tuple


def make_stream(small, large, strategies, options, wrap=""):
    """Return the stream of shapes, strategies and sets of options that are written as words."""
    return Stream(tuple(small.split()), tuple(large.split()), tuple(wrap.split()), tuple(strategies.split()), tuple(o.strip() for o in options.split(",")))
