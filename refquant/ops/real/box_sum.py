"""Sums over windows of any number of axes, one element after the other in the order of the window."""

from itertools import product

import numpy as np

__all__ = ["box_sum"]


def box_sum(x, bounds):
    """Add (N, C, …) over windows, row by row of each, in the dtype of `x`.

    Parameters
    ----------
    x : ndarray
    bounds : sequence of pair of ndarray
        For each axis after the second, where the windows start and end.

    Returns
    -------
    ndarray, (N, C, windows …)

    Examples
    --------
    >>> box_sum(np.arange(4.0).reshape(1, 1, 2, 2), [(np.array([0]), np.array([2])), (np.array([0, 1]), np.array([2, 2]))])
    array([[[[6., 4.]]]])
    """
    total = np.zeros((*x.shape[:2], *(len(start) for start, _ in bounds)), x.dtype)
    if not total.size:
        return total
    for place in product(*(range(int((end - start).max())) for start, end in bounds)):
        seen, inside = x, True
        for axis, (i, (start, end)) in enumerate(zip(place, bounds), 2):
            seen = seen.take(np.minimum(start + i, x.shape[axis] - 1), axis=axis)
            inside = inside & (start + i < end).reshape(-1, *[1] * (x.ndim - 1 - axis))
        total = np.where(inside, total + seen, total)
    return total
