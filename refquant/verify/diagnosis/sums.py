"""The ways in which engines add up the products of one output: exactly, or through narrow registers."""

import math
from typing import NamedTuple

import numpy as np

from refquant.core.rounding import Round, round_shift
from refquant.core.wrap import saturate, saturate_int16
from refquant.isa.accumulate import neighbours
from refquant.isa.products import Product

__all__ = ["SUMS", "Drop", "sum_of", "inner_order", "wrapped", "saturated"]


def inner_order(depth, taps):
    """Return the positions of k when channels run innermost (NHWC, OHWI) in place of taps.

    Examples
    --------
    >>> inner_order(6, 3).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    return np.arange(depth).reshape(-1, max(taps, 1)).T.reshape(-1)


class Drop(NamedTuple):
    """A sum that stops at whole blocks.

    Attributes
    ----------
    block : int
        What K is rounded down to a multiple of.
    order : {"k", "inner", "channels"}
        Blocks of k as it lies in memory, of k with channels innermost, or of input channels.
    sums : bool
        Whether the zero-point terms stop there too.
    """

    block: int
    order: str
    sums: bool

    def kept(self, depth, taps):
        """Return 1.0 where k is summed and 0.0 where it is dropped."""
        k = np.arange(depth)
        if self.order == "channels":
            channels = depth // max(taps, 1)
            return (k // max(taps, 1) < channels // self.block * self.block).astype(np.float64)
        kept = (k < depth // self.block * self.block).astype(np.float64)
        if self.order == "k":
            return kept
        result = np.empty(depth)
        result[inner_order(depth, taps)] = kept
        return result


def _exact(x, w, taps):
    return np.einsum("sk,sk->s", x, w).astype(np.int64)


def _products(x, w, order=None):
    p = (x * w).astype(np.int64)
    return p if order is None else p[:, order]


def _pair_sums(p):
    even = p.shape[1] // 2 * 2
    return saturate_int16(p[:, 0:even:2] + p[:, 1:even:2]), p[:, even:]


def _pairs(p):
    pairs, last = _pair_sums(p)
    return pairs.sum(1) + last.sum(1)


def _each_tap(p, taps):
    """Return products with channels innermost, those of each tap filled up to whole groups of four."""
    inner = p[:, inner_order(p.shape[1], taps)].reshape(p.shape[0], max(taps, 1), -1)
    return np.pad(inner, ((0, 0), (0, 0), (0, -inner.shape[2] % 4))).reshape(p.shape[0], -1)


def _fours(p):
    """Pairs saturate, and so does the sum of two pairs."""
    whole = np.pad(p, ((0, 0), (0, -p.shape[1] % 4)))
    pairs, _ = _pair_sums(whole)
    return saturate_int16(pairs[:, 0::2] + pairs[:, 1::2]).sum(1)


def _distant(p):
    """Products two apart within groups of four: (0, 2), (1, 3)."""
    whole = np.pad(p, ((0, 0), (0, -p.shape[1] % 4))).reshape(p.shape[0], -1, 4)
    return saturate_int16(whole[:, :, :2] + whole[:, :, 2:]).sum((1, 2))


def _where_beyond(p, limit, step):
    """Sum along rows; rows whose partial sums leave ±limit are left to `step`."""
    partial = np.cumsum(p, axis=1)
    total = partial[:, -1].copy() if p.shape[1] else np.zeros(p.shape[0], np.int64)
    beyond = (np.abs(partial) >= limit).any(axis=1)
    if beyond.any():
        total[beyond] = step(p[beyond])
    return total


def _step_by_step(p, bits):
    half = 2 ** (bits - 1)

    def step(rows):
        total = np.zeros(rows.shape[0], np.int64)
        for k in range(rows.shape[1]):
            total = saturate(total + rows[:, k], -half, half - 1)
        return total

    return _where_beyond(p, half, step)


def _step_by_pair(p, bits):
    pairs, last = _pair_sums(p)
    return _step_by_step(np.concatenate([pairs, last], axis=1), bits)


def _float32(p):
    def step(rows):
        total = np.zeros(rows.shape[0], np.float32)
        for k in range(rows.shape[1]):
            total = total + rows[:, k].astype(np.float32)
        return total.astype(np.int64)

    return _where_beyond(p, 2**24, step)


#: Each way of adding up, as a function of (x, w, taps).
SUMS = {
    "exact": _exact,
    "pairs": lambda x, w, taps: _pairs(_products(x, w)),
    "pairs_inner": lambda x, w, taps: _pairs(_products(x, w, inner_order(x.shape[1], taps))),
    "pairs_taps": lambda x, w, taps: _pairs(_each_tap(_products(x, w), taps)),
    "fours": lambda x, w, taps: _fours(_products(x, w)),
    "fours_inner": lambda x, w, taps: _fours(_products(x, w, inner_order(x.shape[1], taps))),
    "distant": lambda x, w, taps: _distant(_products(x, w)),
    "distant_inner": lambda x, w, taps: _distant(_products(x, w, inner_order(x.shape[1], taps))),
    "steps16": lambda x, w, taps: _step_by_step(_products(x, w), 16),
    "steps24": lambda x, w, taps: _step_by_step(_products(x, w), 24),
    "steps32": lambda x, w, taps: _step_by_step(_products(x, w), 32),
    "pair_steps16": lambda x, w, taps: _step_by_pair(_products(x, w), 16),
    "float32": lambda x, w, taps: _float32(_products(x, w)),
}


def sum_of(how, w_shape):
    """Return a way of adding up as a function of (x, w, taps).

    Parameters
    ----------
    how : str or Product
        A name of `SUMS`, or how an engine's products saturate on a processor level.
    w_shape : tuple of int
        (OC, IC / groups, *kernel)
    """
    if not isinstance(how, Product):
        return SUMS[how]
    if how.halved:
        return lambda x, w, taps: _exact(x, 2 * round_shift(w.astype(np.int64), 1, Round.HALF_EVEN), taps)
    channels, kernel = w_shape[1], w_shape[2:]
    places = neighbours(how.order, channels, kernel or (1,), halves=how.halves)
    # Rows run over channels, then taps; the places over taps, then channels.
    rows = np.where(places < 0, -1, places % channels * math.prod(kernel) + places // channels)

    def paired(x, w, taps):
        p = np.pad(_products(x, w), ((0, 0), (0, 1)))
        return saturate_int16(p[:, rows[:, 0]] + p[:, rows[:, 1]]).sum(1)

    return paired


def wrapped(bits):
    """Return the function that wraps accumulators to `bits`."""
    half = 2 ** (bits - 1)
    return lambda acc: ((acc + half) & (2 * half - 1)) - half


def saturated(bits):
    """Return the function that saturates accumulators to `bits`."""
    half = 2 ** (bits - 1)
    return lambda acc: saturate(acc, -half, half - 1)
