"""How PyTorch's TensorIterator goes over tensors of any strides, and which elements its vectorized loops leave to scalar code."""

from typing import NamedTuple

import numpy as np

from refquant.core.layout import empty_channels_last, is_channels_last, is_packed_channels_last

__all__ = ["Loop", "loop_of", "segments", "empty_in_format_of"]


class Loop(NamedTuple):
    """A loop over tensors of one shape.

    Attributes
    ----------
    axes : tuple of int
        The outermost first.
    row : int
        So many elements, of axes that are one in all tensors, are taken at a stretch; a vector never reaches into the next stretch.
    vectorized : bool
        Whether the elements of a stretch lie side by side in each tensor (or, in one input, are one element); else all is scalar code.
    """

    axes: tuple
    row: int
    vectorized: bool

    def parts(self, size, vector, grain, threads):
        """Return the parts of `size` elements in the order of `axes`: ``[(a slice or a mask, is it scalar code)]``.

        Examples
        --------
        >>> Loop((0, 1), 6, True).parts(6, 4, 0, 1)
        [(slice(0, 4, None), False), (slice(4, 6, None), True)]
        >>> body, tail = Loop((0, 1), 3, True).parts(6, 2, 0, 1)
        >>> tail
        (array([False, False,  True, False, False,  True]), True)
        """
        if not (vector and self.vectorized):
            return [(slice(0, size), bool(vector))]
        if self.row >= size:
            return [(slice(start, stop), tail) for start, stop, tail in segments(size, vector, grain, threads)]
        at, chunk = np.arange(size), _chunk(size, grain, threads)
        start = np.maximum(at // self.row * self.row, at // chunk * chunk)
        stop = np.minimum(np.minimum(at // self.row * self.row + self.row, at // chunk * chunk + chunk), size)
        body = at - start < (stop - start) // vector * vector
        return [(body, False), (~body, True)]


def _chunk(n, grain, threads):
    """``at::parallel_for``: more than `grain` elements are cut into equal ranges, one a thread."""
    tasks = min(threads, -(-n // grain)) if grain and n > grain else 1
    return max(1, -(-n // tasks))


def segments(n, vector, grain, threads):
    """Return how a vectorized loop cuts `n` elements, in memory order: ``[(start, stop, is it a scalar tail)]``.

    ``at::parallel_for`` cuts more than `grain` elements into equal ranges, one a thread; in each, whole steps of `vector`
    elements are the body and the rest is the tail.

    Examples
    --------
    >>> segments(5, 2, 0, 1)
    [(0, 4, False), (4, 5, True)]
    >>> segments(10, 4, 8, 2)
    [(0, 4, False), (4, 5, True), (5, 9, False), (9, 10, True)]
    """
    if not vector:
        return [(0, n, False)]
    chunk = _chunk(n, grain, threads)
    cuts = []
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        middle = start + (stop - start) // vector * vector
        cuts += [(start, middle, False), (middle, stop, True)]
    return [cut for cut in cuts if cut[0] < cut[1]]


def empty_in_format_of(x, dtype):
    """Return an uninitialised array of the shape of `x`, channels last where `x` is, else contiguous: ``suggest_memory_format``."""
    return empty_channels_last(x.shape, dtype) if is_channels_last(x) else np.empty(x.shape, dtype)


def loop_of(out, *inputs):
    """Return the `Loop` over an output and inputs of its shape, of which strides alone are read.

    Source
    ------
    PyTorch 2.13 ATen/TensorIterator.cpp ``fast_set_up``, ``reorder_dimensions``, ``coalesce_dimensions``; native/cpu/Loops.h
    ``VectorizedLoop2d``.

    Examples
    --------
    >>> x = np.zeros((4, 6), np.uint8)
    >>> loop_of(x, x)
    Loop(axes=(0, 1), row=24, vectorized=True)
    >>> loop_of(np.zeros((4, 5), np.uint8), x[:, :5])
    Loop(axes=(0, 1), row=5, vectorized=True)
    >>> loop_of(np.zeros((6, 4), np.uint8), x.T)
    Loop(axes=(0, 1), row=4, vectorized=False)
    """
    arrays = (out, *inputs)
    forward = tuple(range(out.ndim))
    if all(x.flags.c_contiguous for x in arrays):
        return Loop(forward, out.size, True)
    if all(is_packed_channels_last(x) for x in arrays):
        return Loop((0, 2, 3, 1), out.size, True)
    steps = [[s // x.itemsize for s in x.strides] for x in arrays]
    if all(s == steps[0] for s in steps) and _is_dense(out.shape, steps[0]):
        return Loop(tuple(sorted(forward, key=lambda d: -steps[0][d])), out.size, True)
    axes = _ordered(out.shape, steps)
    row, inner = _coalesced([out.shape[d] for d in axes], [[s[d] for d in axes] for s in steps])
    held = [i for i, s in enumerate(inner) if s != 1]
    return Loop(tuple(reversed(axes)), row, not held or (len(held) == 1 and held[0] > 0 and inner[held[0]] == 0))


def _is_dense(shape, steps):
    expected = 1
    for step, n in sorted((step, n) for step, n in zip(steps, shape) if n != 1):
        if step != expected:
            return False
        expected *= n
    return True


def _order(shape, steps, first, second):
    """Say whether an axis stands inside of another (-1), outside (1) or either (0): by the first tensor that tells."""
    for s in steps:
        if s[first] and s[second]:
            if s[first] != s[second]:
                return -1 if s[first] < s[second] else 1
            if shape[first] > shape[second]:
                return 1
    return 0


def _ordered(shape, steps):
    """Return the axes, innermost first: an insertion sort that leaves pairs which nothing orders."""
    axes = list(reversed(range(len(shape))))
    for i in range(1, len(axes)):
        at = i
        for before in range(i - 1, -1, -1):
            order = _order(shape, steps, axes[before], axes[at])
            if order < 0:
                break
            if order > 0:
                axes[before], axes[at] = axes[at], axes[before]
                at = before
    return axes


def _coalesced(shape, steps):
    """Return the length of the innermost axis, joined with all that it can be joined with, and its stride in each tensor."""
    row, inner = shape[0], [s[0] for s in steps]
    for d in range(1, len(shape)):
        if row == 1:
            inner = [s[d] for s in steps]
        elif shape[d] != 1 and any(row * i != s[d] for i, s in zip(inner, steps)):
            break
        row *= shape[d]
    return row, inner
