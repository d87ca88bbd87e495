"""What a piece of a sweep brings back, as plain values: the task's own entries, and

``outputs``, ``differing``
    Compared with the oracle.
``first``
    The first few that differ, as texts.
``again``
    Problems that differed among others in one model and were asked again alone; left out where there are none.
``reason``
    Why nothing was compared; empty where something was.
"""

import numpy as np

__all__ = ["begin_piece", "count_block"]

_SHOWN = 3


def begin_piece(task):
    """Return an empty piece."""
    return {**{name: value for name, value in task.items() if name != "key"}, "outputs": 0, "differing": 0, "first": [], "reason": ""}


def count_block(piece, actual, expected, say, who="the engine"):
    """Compare a block bit by bit and add it up.

    Parameters
    ----------
    piece : dict
    actual, expected : ndarray of int
        Of one dtype and shape; anything else differs altogether.
    say : callable
        What an index of the flat block was computed from.
    who : str
        Whose bits `actual` are.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    piece["outputs"] += expected.size
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        piece["differing"] += max(expected.size, 1)
        piece["first"].append(f"{who} gave {actual.dtype}{actual.shape}, the oracle {expected.dtype}{expected.shape}")
        return
    if np.array_equal(actual, expected):
        return
    actual, expected = actual.reshape(-1), expected.reshape(-1)
    places = np.flatnonzero(actual != expected)
    piece["differing"] += int(places.size)
    for i in places[: max(_SHOWN - len(piece["first"]), 0)]:
        piece["first"].append(f"{say(i)}: {who} gave {actual[i]}, expected {expected[i]}")
