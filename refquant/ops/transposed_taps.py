"""Transposed convolutions tap by tap: each input's products with one tap of the kernel fall onto their places in the output."""

from itertools import product

import numpy as np

from refquant.core.wrap import saturate_int16, wrap_int32
from refquant.kernels.pairs import gemm_s16pair_s32

__all__ = ["saturated_taps", "saturated_taps_reference", "in_halves", "sum_taps", "exact_taps"]


def saturated_taps(x, w, groups):
    """Return the products of every input with every tap, neighbouring channels added in int16 with saturation.

    Parameters
    ----------
    x : ndarray of uint8, (N, IC, *spatial)
    w : ndarray of int8, (IC, OC / groups, *kernel)
    groups : int

    Returns
    -------
    ndarray of int32, (N, *spatial, *kernel, OC)
    """
    rows = np.moveaxis(x, 1, -1).reshape(-1, groups, x.shape[1] // groups)
    parts = []
    for g, part in enumerate(np.split(w, groups)):
        taps = np.ascontiguousarray(np.moveaxis(part, 1, -1)).reshape(part.shape[0], -1)
        products = gemm_s16pair_s32(np.ascontiguousarray(rows[:, g]), taps)
        parts.append(products.reshape(x.shape[0], *x.shape[2:], *w.shape[2:], w.shape[1]))
    return np.concatenate(parts, axis=-1)


def saturated_taps_reference(x, w, groups):
    """Same result as `saturated_taps`, in NumPy."""
    x, w = np.moveaxis(x, 1, -1).astype(np.int64), np.moveaxis(w, 1, -1).astype(np.int64)
    ic = w.shape[0] // groups
    parts = []
    for first in range(0, w.shape[0], ic):
        pairs = [(c, min(c + 2, first + ic)) for c in range(first, first + ic, 2)]
        parts.append(sum(saturate_int16(np.tensordot(x[..., low:high], w[low:high], 1)).astype(np.int64) for low, high in pairs))
    return np.concatenate(parts, axis=-1)


def in_halves(x, w, groups, halves):
    """Return x and w with a channel of zeros between the halves of each group's channels, where these are paired separately and the first is odd.

    Parameters
    ----------
    x : ndarray of uint8, (N, IC, *spatial)
    w : ndarray of int8, (IC, OC / groups, *kernel)
    groups : int
    halves : (int, int)
        As in `refquant.isa.products.Product`, of a group's number of channels.
    """
    ic = w.shape[0] // groups
    first = (ic + 1) // 2
    if not halves[0] <= ic <= halves[1] or first % 2 == 0:
        return x, w

    def parted(array, axis):
        apart = np.insert(array.reshape(*array.shape[:axis], groups, ic, *array.shape[axis + 1 :]), first, 0, axis=axis + 1)
        return apart.reshape(*array.shape[:axis], groups * (ic + 1), *array.shape[axis + 1 :])

    return parted(x, 1), parted(w, 0)


def sum_taps(products, x, w, groups, geometry, *, x_zero, w_zero, lines=None):
    """Add raw products up at their places, and take off what zero points add to them.

    Parameters
    ----------
    products : ndarray, (N, *spatial, *kernel, OC)
    x, w : ndarray
        As for `saturated_taps`.
    groups : int
    geometry : object
        With ``stride``, ``dilation``, ``full``, ``places(tap, size)`` and ``cut(array, first)``.
    x_zero : int
    w_zero : int or ndarray, (OC,)
    lines : object, optional
        The geometry by which inputs are written, where an engine takes another one for them than for the constant terms.

    Returns
    -------
    ndarray of int32, (N, *out, OC)
    """
    lines, dims = lines or geometry, w.ndim - 2
    n, size, channels = products.shape[0], x.shape[2:], products.shape[-1]
    ic = x.shape[1] // groups
    acc, rows = (np.zeros((n, *geometry.full, channels), np.int64) for _ in range(2))
    columns, count = np.zeros((*geometry.full, channels), np.int64), np.zeros((*geometry.full, 1), np.int64)
    sums = np.moveaxis(x, 1, -1).reshape(n, *size, groups, ic).sum(-1, dtype=np.int64).repeat(channels // groups, -1)
    w = w.reshape(groups, ic, *w.shape[1:]).sum(1, dtype=np.int64).reshape(channels, *w.shape[2:])
    for tap in product(*map(range, w.shape[1:])):
        here = lines.places(tap, size)
        acc[(slice(None), *here)] += products[(slice(None),) * (dims + 1) + tap]
        rows[(slice(None), *here)] += sums
        here = geometry.places(tap, size)
        columns[here] += w[(slice(None), *tap)]
        count[here] += ic
    zero = np.asarray(w_zero)
    return wrap_int32(geometry.cut(acc - x_zero * (columns - zero * count) - zero * rows, 1))


def exact_taps(x, w, groups, geometry, *, x_zero, w_zero):
    """Add every input's multiple of the kernel to the output, (N, *out, OC), exactly modulo 2**32, in NumPy; `w_zero` is (OC / groups,) or a number."""
    x = x.astype(np.int64) - x_zero
    zero = np.reshape(w_zero, (1, -1, *[1] * len(geometry.out)))
    w = (w.astype(np.int64) - zero).reshape(groups, -1, *w.shape[1:])
    x = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    acc = np.zeros((x.shape[0], groups, w.shape[2], *geometry.full), np.int64)
    for tap in np.ndindex(*w.shape[3:]):
        acc[(..., *geometry.places(tap, x.shape[3:]))] += np.einsum("ngc...,gco->ngo...", x, w[(..., *tap)])
    acc = geometry.cut(acc, 3)
    return np.moveaxis(wrap_int32(acc).reshape(x.shape[0], -1, *geometry.out), 1, -1)
