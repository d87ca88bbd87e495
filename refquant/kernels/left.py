"""The rows of a product: windows into bytes, for matrices and convolutions alike.

    field    bytes, channels last
    row m    begins at  n * steps[0] + d * steps[1] + h * steps[2] + w * steps[3],  m = ((n * D + d) * H + h) * W + w
    its k    lie in runs of `length` bytes, which begin at row + runs[r]

A matrix [M][K] has one run, K bytes, and rows K bytes apart. A convolution has one run for each row of its kernel, KW * C bytes
that are neighbours in memory, or one for each tap where taps are apart (dilation, groups).
"""

from typing import NamedTuple

import numpy as np

from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.scalar import wrap32
from refquant.kernels.signature import as_input

__all__ = ["Left", "left_of", "matrix_rows", "fill_offsets", "highest_byte", "sum_rows"]

_NO_RUN = as_input(np.zeros(1, np.int64))


class Left(NamedTuple):
    """The rows of a product: where windows lie in bytes.

    Attributes
    ----------
    runs : ndarray of int64, read-only
        Offset of each run of k from the start of its row.
    length : int
        Bytes of a run.
    loose : bool
        Whether a few bytes behind a run may be read.
    rows : int
    out : tuple of int
        Extents of the last three dimensions of the rows; before them comes the batch.
    steps : tuple of int
        Bytes from image to image, and along the three dimensions.
    group_step : int
        Bytes from one group's channels to the next.
    """

    runs: np.ndarray
    length: int
    loose: bool
    rows: int
    out: tuple
    steps: tuple
    group_step: int


def matrix_rows(rows, k):
    """The rows of a contiguous (M, K) matrix of uint8: a `Left`, as the plain tuple that kernels take."""
    return (_NO_RUN, k, False, rows, (1, 1, rows), (0, 0, 0, k), 0)


@kernel
def left_of(parts):
    """A `Left` from the plain tuple of its fields, which reaches a kernel much faster."""
    runs, length, loose, rows, out, steps, group_step = parts
    return Left(runs, length, loose, rows, out, steps, group_step)


@kernel
def fill_offsets(left, m0, offsets):
    """Where the rows `m0`, `m0` + 1, … begin."""
    depth, height, width = left.out
    step_n, step_d, step_h, step_w = left.steps
    w, h = m0 % width, m0 // width % height
    d, n = m0 // (width * height) % depth, m0 // (width * height * depth)
    i, count = 0, offsets.shape[0]
    while i < count:
        begin, same = n * step_n + d * step_d + h * step_h + w * step_w, min(count - i, width - w)
        for j in range(same):
            offsets[i + j] = begin + j * step_w
        i += same
        w = 0
        h += 1
        if h == height:
            h = 0
            d += 1
            if d == depth:
                d = 0
                n += 1


@kernel
def highest_byte(field):
    """The highest byte; 0 of none."""
    highest = np.uint8(0)
    for i in range(field.shape[0]):
        highest = max(highest, field[i])
    return highest


@kernel
def _sum_rows(first, last, field, parts, sums):
    """The sum over the k of each row and group."""
    left = left_of(parts)
    offset = np.empty(1, np.int64)
    for m in range(first, last):
        fill_offsets(left, m, offset)
        for g in range(sums.shape[0]):
            total = np.int64(0)
            for r in range(left.runs.shape[0]):
                begin = offset[0] + left.runs[r] + g * left.group_step
                run = field[begin : begin + left.length]
                for k in range(left.length):
                    total += run[k]
            sums[g, m] = wrap32(np.int64(total))


def sum_rows(field, left, groups):
    """Sum the bytes of each row and group: (groups, rows) of int32."""
    sums = np.empty((groups, left[3]), np.int32)
    parallel_for(_sum_rows, left[3], field, left, sums, grain=256)
    return as_input(sums)
