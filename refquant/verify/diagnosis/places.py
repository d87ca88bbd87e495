"""What the places of differing outputs have in common, in words."""

import numpy as np

__all__ = ["describe_places"]

_BLOCKS = (128, 64, 32, 16, 8, 4)


def describe_places(shape, differing, expected, actual):
    """Return sentences about where outputs differ; only such as say more than "somewhere".

    Parameters
    ----------
    shape : tuple of int
    differing : ndarray of int
        Flat positions.
    expected, actual : ndarray
        Flat.

    Examples
    --------
    >>> e = np.zeros(64, np.uint8)
    >>> a = e.copy(); a[[3, 7, 11, 15]] = 1
    >>> describe_places((16, 4), np.array([3, 7, 11, 15]), e, a)
    ('all in the last channel of 4', 'all off by +1')
    """
    if differing.size < 2 or differing.size == np.prod(shape):
        return _distances(expected[differing], actual[differing]) if differing.size > 1 else ()
    where = np.unravel_index(differing, shape)
    axis = 1 if len(shape) in (3, 4, 5) else len(shape) - 1
    found = []
    if len(shape) > 1:
        found += _channels(shape[axis], where[axis])
    if len(shape) == 2:
        found += _rows(shape[0], where[0])
    if not found:
        found += _tail(int(np.prod(shape)), differing)
    if len(shape) in (4, 5):
        found += _border(shape[2:], where[2:])
    return (*found, *_distances(expected[differing], actual[differing]))


def _channels(count, channel):
    used = np.unique(channel)
    if used.size == count or count < 2:
        return []
    if used.size == 1:
        last = used[0] == count - 1
        return [f"all in the last channel of {count}" if last else f"all in channel {used[0]} of {count}"]
    if used[0] == count - used.size and used[-1] == count - 1:
        return [f"all in the last {used.size} of {count} channels"]
    return [f"in {used.size} of {count} channels"] if used.size <= count // 2 else []


def _rows(count, row):
    used = np.unique(row)
    if used.size == 1 and count > 1:
        return [f"all in row {used[0]} of {count}"]
    if 1 < used.size < count and used[0] == count - used.size:
        return [f"all in the last {used.size} of {count} rows"]
    return []


def _tail(size, differing):
    """Outputs beyond whole blocks, in logical order: the largest block that leaves all of them to its tail."""
    tails = [(size % block, -block) for block in _BLOCKS if block < size and 0 < size % block and size // block * block <= differing.min()]
    if not tails:
        return []
    rest, block = min(tails)
    return [f"all in the last {rest} of {size:,} elements, beyond whole blocks of {-block}"]


def _border(sides, where):
    edge = np.zeros(where[0].shape, bool)
    for n, at in zip(sides, where):
        edge |= (at == 0) | (at == n - 1)
    inner = np.prod([max(n - 2, 0) for n in sides])
    return ["all at the border of the image"] if edge.all() and inner else []


def _distances(expected, actual):
    if expected.dtype.kind == "f":
        return ()
    steps = np.unique(actual.astype(np.int64) - expected.astype(np.int64))
    if steps.size == 1:
        return (f"all off by {steps[0]:+d}",)
    return ("none off by more than 1",) if np.abs(steps).max() == 1 else ()
