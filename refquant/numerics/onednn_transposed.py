"""Which kernel of oneDNN below AVX-512 takes a transposed convolution, and which outputs that kernel takes from memory that nobody wrote."""

import math
from typing import NamedTuple

__all__ = ["KERNELS", "LEVELS", "Transposed", "transposed_kernel", "reads_unwritten"]

#: ``direct``: jit_uni_int8; ``matrix``: a matrix product and what it adds up; ``reference``: plain loops, which saturate nothing.
KERNELS = ("direct", "matrix", "reference")
#: The levels on which `transposed_kernel` says which kernel takes what.
LEVELS = ("sse41", "avx2")
# Registers that jit_uni_x8s8s32x_deconvolution.cpp leaves for sums, without VNNI.
_REGISTERS = 12
# memory_tracking.hpp: where a buffer may begin.
_ALIGNED = 128
# gemm_convolution_utils.cpp: the most scratch memory, in bytes for each byte of the tensors.
_SCRATCH = 15


class Transposed(NamedTuple):
    """The geometry of a transposed convolution.

    Attributes
    ----------
    images, groups, ic, oc : int
        Channels of one group.
    size, kernel, stride, padding, dilation, out : tuple of int
        One entry a spatial dimension, width last; `size` of the input, `out` of the output.
    """

    images: int
    groups: int
    ic: int
    oc: int
    size: tuple
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    out: tuple

    @classmethod
    def of(cls, x_shape, w_shape, groups, stride, padding, dilation, out):
        """Return the geometry of a call, whose weights are (IC, OC / groups, *kernel)."""
        return cls(x_shape[0], groups, w_shape[0] // groups, w_shape[1], tuple(x_shape[2:]), tuple(w_shape[2:]), stride, padding, dilation, out)

    @property
    def reach(self):
        """From the first tap to the last, in outputs."""
        return tuple((k - 1) * d for k, d in zip(self.kernel, self.dilation))

    @property
    def end(self):
        """The padding at the end of each side, as oneDNN counts it."""
        return tuple((n - 1) * s + r + 1 - o - p for n, s, r, o, p in zip(self.size, self.stride, self.reach, self.out, self.padding))


def transposed_kernel(shape, level):
    """Return which of `KERNELS` oneDNN chooses on a processor of a level, with one thread.

    Parameters
    ----------
    shape : Transposed
    level : {"sse41", "avx2"}
        The registers of AVX2 hold blocks of eight channels; where these do not do, those of SSE4.1 with blocks of four may.

    Source
    ------
    oneDNN 3.12, src/cpu/x64/jit_uni_x8s8s32x_deconvolution.cpp, ``init_conf``; src/cpu/gemm_convolution_utils.cpp, ``init_conf``; and by trial of drawn geometries.

    Examples
    --------
    >>> small = Transposed(1, 1, 8, 8, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1), (5, 5))
    >>> wide = Transposed(1, 1, 7, 16, (16, 16), (2, 11), (1, 1), (1, 2), (1, 1), (15, 22))
    >>> [transposed_kernel(shape, "avx2") for shape in (small, small._replace(groups=2, ic=3), wide)]
    ['direct', 'matrix', 'reference']
    """
    if any(_has_direct(shape, block) for block in ((8, 4) if level == "avx2" else (4,))):
        return "direct"
    return "matrix" if _scratch(shape) <= _SCRATCH * _tensors(shape) else "reference"


def _has_direct(shape, block):
    depthwise = shape.groups > 1 and shape.ic == shape.oc == 1
    if depthwise and len(shape.size) == 3:
        return False
    if shape.groups > 1 and not depthwise and (shape.ic % block or shape.oc % block):
        block = 4
        if shape.ic % 4 or shape.oc % 4:
            return False
    if any(d > 1 and s > 1 for d, s in zip(shape.dilation, shape.stride)):
        return False
    if any(r < max(p, e) for r, p, e in zip(shape.reach, shape.padding, shape.end)):
        return False
    return _fits(shape, 1 if depthwise else -(-shape.oc // block))


def _fits(shape, blocks):
    """Whether some number of outputs of a line, a multiple of the stride, goes into registers and holds all that lies at either end."""
    (reach, stride, padding, end, out), together = [side[-1] for side in (shape.reach, shape.stride, shape.padding, shape.end, shape.out)], min(4, blocks)
    while together > 1 and (blocks % together or padding > _REGISTERS // (together + 1)):
        together -= 1
    most = _REGISTERS // (together + 1)
    if out < most:
        return True

    def holds(width):
        beyond = max(reach - padding, reach - max(0, end) - out % width, 0) // stride
        return width % stride == 0 and width >= beyond * stride

    return any(holds(width) for width in range(most, 0, -1))


def _scratch(shape):
    """The bytes that the matrix product asks for: the products of all taps, unless they are the outputs, and sums."""
    outputs = math.prod(shape.out) * shape.oc
    plain = shape.out == shape.size and set(shape.stride) == set(shape.kernel) == {1}
    products = 0 if plain else shape.oc * math.prod(shape.kernel) * math.prod(shape.size)
    return -(-4 * products // _ALIGNED) * _ALIGNED + 4 * outputs


def _tensors(shape):
    """The bytes of its tensors, of which the output is of float32."""
    inputs, outputs = (shape.images * shape.groups * math.prod(sides) * channels for sides, channels in ((shape.size, shape.ic), (shape.out, shape.oc)))
    return 4 * outputs + inputs + shape.groups * shape.ic * shape.oc * math.prod(shape.kernel)


def reads_unwritten(shape, level, zero_point):
    """Whether oneDNN's direct kernel takes numbers for some outputs from behind its buffer, where nobody wrote any.

    Where the input's zero point is not 0, each row of a buffer says what one row of taps would add to an output that lies between two inputs. Of the
    rows of outputs in a gap the kernel adds as many of them as lie above it in the stride, beyond the height of the kernel too; likewise in depth.

    Examples
    --------
    >>> shape = Transposed(1, 1, 1, 1, (2, 1), (1, 1), (3, 1), (0, 0), (1, 1), (4, 1))
    >>> reads_unwritten(shape, "avx2", 5), reads_unwritten(shape, "avx2", 0), reads_unwritten(shape._replace(stride=(2, 1), out=(3, 1)), "avx2", 5)
    (True, False, False)
    """
    if not zero_point or transposed_kernel(shape, level) != "direct":
        return False
    sides = list(zip(shape.kernel, shape.stride, shape.padding, shape.out))[:-1]
    return any((row + p) % s > k for k, s, p, o in sides for row in range(min(o, s)))
