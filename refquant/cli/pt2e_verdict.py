"""What the comparison of one network's two paths found."""

from typing import NamedTuple

import numpy as np

__all__ = ["Parity", "APART", "verdict_of", "first_difference"]

APART = {"both refuse": "refused by both sides", "inductor fails": "at which TorchInductor itself fails", "not described": "with a float32 layer whose order is not described"}
"""Verdicts that show neither agreement nor a difference, and how a total calls them."""


class Parity(NamedTuple):
    """What the comparison of one network found.

    Attributes
    ----------
    verdict : str
        ``"equal"``; ``"both refuse"``, ``"inductor fails"``, ``"not described"`` (a float32 layer of a compiled program); or what differs first: ``"annotations"``, ``"observers"``, ``"values"``, ``"codes"``, ``"outputs"``, …
    counts : dict of str to int
    detail : str
        The first difference.
    """

    verdict: str
    counts: dict
    detail: str = ""

    @property
    def equal(self):
        """Whether both sides did the same."""
        return self.verdict == "equal"


def verdict_of(counts, pairs, y, their_y):
    """Return the Parity of pairs of arrays, then of both sides' outputs."""
    differing = [int(_differ(a, b).sum()) for a, b in pairs]
    if sum(differing):
        return Parity("codes", {**counts, "differing": sum(differing)}, f"{sum(map(bool, differing))} of {len(pairs)} values differ")
    if [v.shape for v in y] != [v.shape for v in their_y]:
        return Parity("outputs", {**counts, "differing": 0}, f"{[v.shape for v in y]} here, {[v.shape for v in their_y]} there")
    outputs = sum(int(_differ(a, b).sum()) for a, b in zip(y, their_y))
    return Parity("outputs" if outputs else "equal", {**counts, "differing": outputs})


def _differ(a, b):
    """Return where two arrays differ: any NaN is alike."""
    return a != b if a.dtype.kind != "f" else (a != b) & ~(np.isnan(a) & np.isnan(b))


def first_difference(a, b):
    """Return the first rows that differ, as a text."""
    for x, y in zip(a, b):
        if x != y:
            return f"{x} here, {y} there"
    return f"{len(a)} here, {len(b)} there"
