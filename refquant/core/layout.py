"""Memory formats, told from strides as PyTorch tells them."""

import numpy as np

__all__ = ["is_channels_last", "is_packed_channels_last", "is_dense_channels_last", "is_disputed", "empty_channels_last", "to_channels_last", "in_suggested_format"]


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
