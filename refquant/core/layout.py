"""Memory formats, told from strides as PyTorch tells them."""

import numpy as np

__all__ = ["is_channels_last", "is_packed_channels_last", "is_dense_channels_last", "is_disputed", "empty_channels_last", "to_channels_last", "in_suggested_format", "steps_of", "with_steps", "laid_as"]


def is_channels_last(x):
    """Whether a (N, C, H, W) or (N, C, D, H, W) array lies in memory as (N, H, W, C).

    PyTorch's rule, ``is_channels_last_strides_2d``: strides grow from C over W and H to N; the ambiguous cases
    (N111 and NC11 in contiguous strides) count as contiguous.

    Examples
    --------
    >>> x = np.zeros((2, 3, 4, 5))
    >>> is_channels_last(x), is_channels_last(to_channels_last(x))
    (False, True)
    """
    if x.ndim not in (4, 5):
        return False
    strides = [s // x.itemsize for s in x.strides]
    least = 0
    if strides[1] == 0:
        return False
    for d in (1, *range(x.ndim - 1, 1, -1), 0):
        if x.shape[d] == 0 or strides[d] < least:
            return False
        if d == 0 and least == strides[1]:
            return False
        least = strides[d]
        if x.shape[d] > 1:
            least *= x.shape[d]
    return True


def is_packed_channels_last(x):
    """Whether a (N, C, H, W) array lies in memory as (N, H, W, C) without gaps; axes of one element do not count.

    PyTorch's other rule, ``is_contiguous(memory_format=torch.channels_last)``: it also holds for contiguous arrays of one channel or
    of 1x1 images, which `is_channels_last` counts as contiguous.

    Examples
    --------
    >>> x = np.zeros((2, 3, 1, 1))
    >>> is_channels_last(x), is_packed_channels_last(x)
    (False, True)
    """
    if x.ndim != 4:
        return False
    expected = x.itemsize
    for d in (1, 3, 2, 0):
        if x.shape[d] != 1 and x.strides[d] != expected:
            return False
        expected *= x.shape[d]
    return True


def is_dense_channels_last(x):
    """Whether `is_channels_last` holds and there are no gaps: PyTorch's kernels for channels-last memory take such arrays alone.

    Examples
    --------
    >>> x = to_channels_last(np.zeros((2, 3, 4, 5)))
    >>> is_dense_channels_last(x), is_dense_channels_last(x[:, :2]), is_channels_last(x[:, :2])
    (True, False, True)
    """
    return is_channels_last(x) and np.moveaxis(x, 1, -1).flags.c_contiguous


def is_disputed(x):
    """Whether PyTorch's two rules disagree on an image or a volume: its strides are not channels last, though it has no gaps as (N, …, C).

    Its kernels for channels-last memory then run, and write what they compute into contiguous outputs, in a wrong order. Such are contiguous images of 1x1
    pixels, and one image that was made a batch by ``permute(2, 0, 1).unsqueeze(0)``.

    Examples
    --------
    >>> image = np.zeros((5, 7, 3))
    >>> is_disputed(image.transpose(2, 0, 1)[None]), is_disputed(np.zeros((2, 3, 1, 1))), is_disputed(np.zeros((2, 3, 5, 7)))
    (True, True, False)
    """
    return x.ndim in (4, 5) and x.shape[1] > 1 and not is_channels_last(x) and np.moveaxis(x, 1, -1).flags.c_contiguous


def empty_channels_last(shape, dtype):
    """Return an uninitialised (N, C, …) array whose memory is (N, …, C)."""
    inner = (shape[0], *shape[2:], shape[1])
    return np.moveaxis(np.empty(inner, dtype), -1, 1)


def to_channels_last(x):
    """Return `x` (N, C, …) with channels-last strides; a copy only where it is needed."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def in_suggested_format(x):
    """Return `x` without gaps, channels last where `is_channels_last` says so and else contiguous, as PyTorch suggests; a copy only where it is needed.

    Examples
    --------
    >>> x = np.zeros((4, 6))
    >>> in_suggested_format(x) is x, in_suggested_format(x.T).flags.c_contiguous
    (True, True)
    """
    return to_channels_last(x) if is_channels_last(x) else np.asarray(x, order="C")


def steps_of(x):
    """Return the strides of `x` in elements, or None where they are none of a PyTorch tensor: negative, or no multiples of an element."""
    if any(s < 0 or s % x.itemsize for s in x.strides):
        return None
    return tuple(s // x.itemsize for s in x.strides)


def with_steps(x, steps):
    """Return a copy of `x` with strides given in elements, or None where two elements that differ would be one in memory.

    Parameters
    ----------
    x : ndarray
    steps : tuple of int
        One an axis, none negative.

    Examples
    --------
    >>> x = np.array([[1, 2], [1, 2]], np.uint8)
    >>> with_steps(x, (0, 3)).strides, with_steps(x, (0, 3)).tolist(), with_steps(x, (3, 0))
    ((0, 3), [[1, 2], [1, 2]], None)
    """
    memory = np.zeros(1 + sum((n - 1) * step for n, step in zip(x.shape, steps)) if x.size else 0, x.dtype)
    y = np.lib.stride_tricks.as_strided(memory, x.shape, [step * x.itemsize for step in steps])
    y[...] = x
    return y if np.array_equal(np.ascontiguousarray(y).view(f"V{x.itemsize}"), np.ascontiguousarray(x).view(f"V{x.itemsize}")) else None


def laid_as(x, like):
    """Return `x` with the strides of `like` where shapes agree and its elements allow it, else in the memory format of `like`.

    Examples
    --------
    >>> like = np.zeros((4, 6))[:, ::2]
    >>> laid_as(np.ones((4, 3)), like).strides == like.strides, laid_as(np.ones((2, 3)), like).flags.c_contiguous
    (True, True)
    """
    steps = steps_of(like) if x.shape == like.shape and x.itemsize == like.itemsize else None
    laid = None if steps is None else with_steps(x, steps)
    if laid is None:
        laid = to_channels_last(x) if is_channels_last(like) and x.ndim == like.ndim else np.ascontiguousarray(x)
    return laid
