"""Which products of an INT8 operator saturate, by engine and processor level: the data behind the operators' ``isa=``.

Without VNNI an engine adds two neighbouring products of uint8 and int8 in int16, with saturation (`vpmaddubsw`), before it goes
on in 32 bits. The result then depends on which products are neighbours. `saturating_product` says so:

    order       neighbours are adjacent in             seen in
    k           k                                      linear layers of all engines
    raster      (kh, kw, ic), flattened                FBGEMM and ONNX Runtime: im2col, grouped and depthwise kernels alike
    channels    ic, each tap (kh, kw) on its own       oneDNN
    columns     (kw, kh, ic), flattened                oneDNN on AVX-512 with VBMI, one input channel a group
    rows        (kw, ic), each kernel row on its own   the same, where the output is at most 4 wide or the kernel 1 high
    reversed    (kh, kw, ic), the last tap first       FBGEMM's transposed convolutions, as convolutions of the spread input

An odd last product stays alone: it is added to 0 and cannot saturate. Pairs never reach from one order's part into the next.
oneDNN's matrix product on SSE4.1 and AVX2 moreover computes in two halves, of (K + 1) // 2 and K // 2, where K exceeds 256 but not
two of its blocks (``halves``): if the first half is odd, all later pairs are shifted by one; likewise where it takes a transposed
convolution, with IC for K. The number of threads does not matter.
The products are those of the raw codes; terms of zero points are added afterwards, exactly.

    fill          what a tap outside of the image contributes
    nothing       0, before and after zero points (oneDNN)
    zero_point    the product of x's zero point, which takes part in saturation (FBGEMM, ONNX Runtime)

Two limits. With one channel a group and at most a few thousand multiplications in all, oneDNN on AVX-512 may take another kernel,
by an estimate of speed that also counts threads: exact with one group, in raster order with several. And in a few degenerate
geometries oneDNN 3.12 computes wrong sums on every AVX-512 level, with VNNI too, which no rule here describes: one channel a group
and an output one wide at ``stride=(1, s > 1)``; outputs that see only padding; one channel a group with a zero point on three
threads or more.

Signed activations: oneDNN's matrix product adds 128 to them first (``shift``), on SSE4.1 and AVX2 and as long as their zero point
is 0; with another zero point, and on AVX-512 as PyTorch calls it, it takes an exact reference kernel. oneDNN's convolutions
halve the weights instead (``halved``): ``2 * round_half_even(w / 2)`` takes the place of w, and nothing saturates. ONNX
Runtime stays exact for int8 activations and for uint8 weights, in ConvInteger, and for one input and one output channel a group, of a single group, too. FBGEMM takes uint8 activations only.

OpenVINO's CPU plugin has a oneDNN of its own, of which AVX2 was measured: zero points fill the padding and take part in saturation,
groups that are no fours go to a matrix product on windows (``raster``), signed convolutions halve all weights, but those of
one group and a kernel of 1 without padding, whose own kernel adds 128 to signed codes; linear layers add
128 to signed codes whatever their zero point, which its graph has taken out before, and so do transposed convolutions, of which only
those without a zero point stay in integers.

Evidence, in `Product.evidence`: ``measured``, the engine run with its switch for a lower level (PyTorch 2.13 with oneDNN 3.12:
``ONEDNN_MAX_CPU_ISA``, ``FBGEMM_ENABLE_INSTRUCTIONS``; signed convolutions: the C interface of oneDNN 3.2); ``emulated``, the
engine's binary on a Haswell emulated by QEMU (ONNX Runtime 1.32, FBGEMM's grouped 3 x 3 kernels, which ignore their switch);
``read``, its source alone.
"""

import math
from typing import NamedTuple

from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.isa.cpu import level
from refquant.isa.sequences import ENGINES, sequence_used

__all__ = ["ORDERS", "Product", "ConvGeometry", "saturating_product", "in_fours", "takes_fbgemm_depthwise", "takes_fbgemm_direct"]

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
ORDERS = ("k", "raster", "channels", "columns", "rows", "reversed")


class Product(NamedTuple):
    """How a product differs from the exact one.

    Attributes
    ----------
    order : str
        One of `ORDERS`: which products are neighbours.
    fill : {"nothing", "zero_point"}
        What taps outside of the image contribute.
    halves : (int, int)
        From which K to which K (both included) the two halves of K are paired separately; (0, −1) for none.
    shift : int
        Added to the activations before the products, and taken back exactly afterwards: 0 or 128.
    halved : bool
        The weights are ``2 * round_half_even(w / 2)``, and no sum saturates.
    evidence : {"measured", "emulated", "read"}
    """

    order: str
    fill: str = "nothing"
    halves: tuple = (0, -1)
    shift: int = 0
    halved: bool = False
    evidence: str = "measured"


class ConvGeometry(NamedTuple):
    """What of a convolution decides how an engine computes it.

    Attributes
    ----------
    groups : int
    ic, oc : int
        Channels of one group.
    kernel, stride, padding, dilation : tuple of int
        One entry a spatial dimension, width last; the padding of either side.
    out_width : int
    taken_by : {"", "direct", "matrix", "reference"}
        Of a transposed one: the kernel of oneDNN that takes it.
    """

    groups: int
    ic: int
    oc: int
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    out_width: int
    taken_by: str = ""

    @property
    def depthwise(self):
        """Whether each group has one input and one output channel, and there are several groups."""
        return self.groups > 1 and self.ic == self.oc == 1


def saturating_product(engine, op, name, *, x_dtype="uint8", x_zero_point=0, geometry=None):
    """Say how an engine's integer products differ from the exact ones at a processor level.

    Parameters
    ----------
    engine : {"onednn", "fbgemm", "onnxruntime", "openvino"}
    op : {"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
        ``linear`` is every matrix product (also static, dynamic and quantized MatMul).
    name : str
        A level of `refquant.isa.cpu.LEVELS`.
    x_dtype : {"uint8", "int8"}
        Of the activations. Weights are int8.
    x_zero_point : int
        Matters for int8 activations in oneDNN.
    geometry : ConvGeometry
        Of a convolution.

    Returns
    -------
    Product or None
        None: exact modulo 2**32.

    Raises
    ------
    UnsupportedError
        The engine does not run there, or does not take such activations.
    ArgumentError
        A convolution without its geometry.

    Source
    ------
    oneDNN ``jit_uni_x8s8s32x_conv_kernel.cpp``, ``jit_brgemm_conv_utils.cpp`` (relo_type), ``gemm_driver.cpp`` (get_k_padd);
    FBGEMM ``PackAWithIm2Col.cc``, ``GroupwiseConv.cc``, ``FbgemmConv.cc``; ONNX Runtime ``mlas/lib/qgemm_kernel_*.cpp``, ``qlinearconv.cc``.

    Examples
    --------
    >>> saturating_product("onednn", "linear", "avx2")
    Product(order='k', fill='nothing', halves=(257, 767), shift=0, halved=False, evidence='measured')
    >>> saturating_product("onednn", "linear", "avx512_vnni") is None
    True
    """
    choose("isa.saturating_product", "engine", engine, ENGINES)
    choose("isa.saturating_product", "op", op, ("linear", *CONVOLUTIONS, *TRANSPOSED))
    choose("isa.saturating_product", "x_dtype", x_dtype, ("uint8", "int8"))
    if op != "linear" and geometry is None:
        raise ArgumentError(
            f"isa.saturating_product: {op} needs its geometry, which decides the kernel; pass geometry=ConvGeometry(...)"
        )
    sequence, evidence = sequence_used(engine, name)
    if engine == "fbgemm" and x_dtype == "int8":
        raise UnsupportedError("isa: fbgemm takes uint8 activations only; use onednn or onnxruntime")
    if op in TRANSPOSED:
        return _transposed(engine, level(name), sequence.exact, x_dtype, geometry)
    if engine == "fbgemm" and op != "linear" and takes_fbgemm_depthwise(geometry):
        return Product("raster", "zero_point", evidence="read" if evidence == "read" else "measured")
    if sequence.exact or (engine == "onnxruntime" and x_dtype == "int8"):
        return None
    if op == "linear":
        return _linear(engine, level(name), x_dtype, x_zero_point, evidence)
    if engine == "onednn":
        return _onednn_conv(level(name), x_dtype, geometry, evidence)
    if engine == "openvino":
        return _openvino_conv(x_dtype, geometry, evidence)
    if engine == "onnxruntime" and geometry.ic == geometry.oc == 1:
        # MLAS's depthwise kernel, which takes a single group, too.
        return None
    if math.prod(geometry.kernel) * geometry.ic == 1:
        return None
    grouped = engine == "fbgemm" and geometry.groups > 1 and evidence == "measured"
    return Product("raster", "zero_point", evidence="emulated" if grouped else evidence)


# oneDNN gemm_info.cpp: bk_traditional = 256, and bk = 256 (SSE4.1, AVX) or 384 (AVX2); gemm_driver.cpp, get_k_padd
_ONEDNN_HALVES = {"sse41": (257, 2 * 256 - 1), "avx2": (257, 2 * 384 - 1)}
# OpenVINO's older one has blocks of 256 on AVX2, too, as K = 513, 601 and 765 tell.
_OPENVINO_HALVES = (257, 2 * 256 - 1)


def _linear(engine, row, x_dtype, x_zero_point, evidence):
    halves = _ONEDNN_HALVES.get(row.name, (0, -1)) if engine in ("onednn", "openvino") else (0, -1)
    halves = _OPENVINO_HALVES if engine == "openvino" and halves[0] else halves
    if x_dtype == "uint8":
        return Product("k", halves=halves, evidence=evidence)
    if "AVX512F" in row.extensions or (x_zero_point != 0 and engine != "openvino"):
        return None
    return Product("k", halves=halves, shift=128, evidence=evidence)


def _onednn_conv(row, x_dtype, geometry, evidence):
    """oneDNN: jit_uni_int8 up to AVX2 (groups in fours only), jit_int8 and brgconv on AVX-512, and its reference for the rest."""
    wide = "AVX512F" in row.extensions
    if not wide and not in_fours(geometry):
        return None
    if x_dtype == "int8":
        alone = geometry.ic == 1 and geometry.groups == 1
        return None if alone else Product("channels", halved=True, evidence=evidence)
    if geometry.depthwise:
        # There is a depthwise kernel for images; volumes go through brgconv, their taps in one row.
        return Product("raster", evidence=evidence) if wide and len(geometry.kernel) == 3 else None
    if geometry.ic > 1:
        return Product("channels", evidence=evidence)
    return _one_channel(geometry, evidence) if "AVX512-VBMI" in row.extensions else None


def in_fours(geometry):
    """Whether oneDNN's own kernels take the groups of a convolution: one group, depthwise ones, and channels in fours.

    Examples
    --------
    >>> [in_fours(ConvGeometry(2, ic, 4, (3, 3), (1, 1), (1, 1), (1, 1), 14)) for ic in (4, 6)]
    [True, False]
    """
    return geometry.groups == 1 or geometry.depthwise or not (geometry.ic % 4 or geometry.oc % 4)


def _openvino_conv(x_dtype, geometry, evidence):
    """OpenVINO's oneDNN on AVX2: jit_avx2, whose kernel of 1 alone leaves weights whole, and jit_gemm."""
    if x_dtype == "int8":
        if geometry.groups == 1 and set(geometry.kernel) == {1} and not any(geometry.padding):
            return Product("channels", shift=128, evidence=evidence)
        return Product("channels", halved=True, evidence=evidence)
    if not in_fours(geometry):
        return Product("raster", "zero_point", halves=_OPENVINO_HALVES, evidence=evidence)
    return None if geometry.ic == 1 else Product("channels", "zero_point", evidence=evidence)


def _transposed(engine, row, exact, x_dtype, geometry):
    """FBGEMM copies windows out, holes as zero points; oneDNN's jit_uni_int8 and its matrix products take one tap after the other, its reference is exact."""
    if engine == "fbgemm":
        return None if exact else Product("reversed", "zero_point", evidence="measured" if row.name == "avx2" else "read")
    if engine == "onednn" and "AVX512-VNNI" in row.extensions:
        return None
    if engine == "openvino":
        if exact or geometry.ic == 1:
            return None
        # Of OpenVINO's oneDNN the matrix product takes all that is left, whatever memory it asks for.
        return Product("channels", halves=(0, -1) if geometry.taken_by == "direct" else _OPENVINO_HALVES, shift=0 if x_dtype == "uint8" else 128)
    if engine != "onednn" or x_dtype != "uint8" or row.name not in ("sse41", "avx2"):
        raise UnsupportedError(
            f"isa: how {engine} adds up a transposed convolution of {x_dtype} on {row.name} was never measured; it is known for onednn and fbgemm, uint8, on avx2"
        )
    if geometry.ic == 1 or geometry.taken_by == "reference":
        return None
    return Product("channels", halves=_ONEDNN_HALVES[row.name] if geometry.taken_by == "matrix" else (0, -1))


def _one_channel(geometry, evidence):
    """brgconv with one input channel: the kernel's taps become the depth of the product (relo_whi, relo_wi)."""
    if len(geometry.kernel) > 2:
        return None
    (kh, kw), (dh, dw) = (1, *geometry.kernel)[-2:], (1, *geometry.dilation)[-2:]
    if kh > 1 and geometry.out_width > 4 and dh == dw == 1:
        return Product("columns", evidence=evidence)
    if kw > 1 and dw == 1:
        return Product("rows", evidence=evidence)
    return None


def takes_fbgemm_depthwise(geometry):
    """Whether FBGEMM takes its depthwise kernels, which saturate pairs of taps on every processor, also on one with VNNI.

    Examples
    --------
    >>> takes_fbgemm_depthwise(ConvGeometry(8, 1, 1, (3, 3), (1, 1), (1, 1), (1, 1), 14))
    True
    """
    side = geometry.kernel[-1]
    return (
        len(geometry.kernel) > 1
        and geometry.ic == 1
        and geometry.oc in (1, 2)
        and geometry.groups % 8 == 0
        and side in (3, 5, 7)
        and set(geometry.kernel) == {side}
        and set(geometry.stride) <= {1, 2}
        and set(geometry.dilation) == {1}
        and set(geometry.padding) == {(side - 1) // 2}
    )


def takes_fbgemm_direct(geometry):
    """Whether FBGEMM takes its direct kernel for a transposed convolution, whose `geometry` has the channels of the input as ``ic``.

    It saturates pairs of channels and sets one row of the kernel below the other: one group, a kernel 2x1 to 2x6, channels in eights, no padding.

    Examples
    --------
    >>> takes_fbgemm_direct(ConvGeometry(1, 64, 32, (2, 2), (2, 2), (0, 0), (1, 1), 8))
    True
    """
    return (
        len(geometry.kernel) == 2
        and geometry.groups == 1
        and geometry.ic % 8 == 0
        and geometry.oc % 8 == 0
        and geometry.kernel[0] == 2
        and geometry.kernel[1] <= 6
        and set(geometry.stride) <= {1, 2}
        and not any(geometry.padding)
        and set(geometry.dilation) == {1}
    )
