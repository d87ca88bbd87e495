"""Default cases and, between them, cases whose shapes and numbers are drawn: what no list thinks of."""

from refquant.verify.default_cases import case_stream
from refquant.verify.drawn_shapes import drawn_case

__all__ = ["wide_stream"]


def wide_stream(op, profile, *, seed=0):
    """Yield the default cases of an operator and, after every second one, the same with a drawn shape; every other one of these with option ``far``.

    Parameters
    ----------
    op : str
    profile : str or Numerics
    seed : int

    Yields
    ------
    Case

    Examples
    --------
    >>> from itertools import islice
    >>> for case in islice(wide_stream("linear", "fbgemm", seed=3), 6):
    ...     print(case)
    linear/fbgemm/m1k256n257/neartie/seed=3/nobias
    linear/fbgemm/m2k3n31/neartie/seed=4/uint8/nobias
    linear/fbgemm/m48k3n1/neartie/seed=4/uint8/nobias
    linear/fbgemm/m2k120001n5/wrap/seed=5/nobias/relu/float
    linear/fbgemm/m5k64n17/offset/seed=6/per_channel
    linear/fbgemm/m4k7n25/offset/seed=6/per_channel/far
    """
    for i, case in enumerate(case_stream(op, profile, seed=seed)):
        yield case
        if i % 2 and "pool" not in op:
            drawn = drawn_case(case)
            yield drawn.replace(options=(*drawn.options, "far")) if i % 4 == 3 else drawn
