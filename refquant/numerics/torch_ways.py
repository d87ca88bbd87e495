"""Where PyTorch's engines are not one formula; see `refquant.numerics.ways`."""

from typing import NamedTuple

__all__ = ["Way", "TORCH_WAYS"]

_ATEN = ("fbgemm", "onednn", "x86")
_TORCH = (*_ATEN, "qnnpack")
_PT2E = (*_TORCH, "inductor")


class Way(NamedTuple):
    """One profile, one operator, several ways.

    Attributes
    ----------
    name : str
    profiles, sections : tuple of str
        Whose forms have both ways, and in which sections; other profiles of the example are for comparison.
    explanation : str
        What decides, in one sentence.
    example : str
        A doctest with numbers, in which ``np`` and ``rq`` are known.
    """

    name: str
    profiles: tuple
    sections: tuple
    explanation: str
    example: str


TORCH_WAYS = (
    Way(
        "vector body and scalar tail", _TORCH, ("add", "unary"),
        "ATen's elementwise kernels take 64 codes a step and add the zero point after rounding; the last numel % 64 codes add it before. Under qnnpack sums of uint8 are not ATen's.",
        """
        >>> x = rq.QTensor(np.full(65, 1, np.uint8), rq.QParams(0.25, 0, "uint8"))
        >>> rq.ops.add(x, x, out=rq.QParams(1.0, 1, "uint8"), numerics="fbgemm").values[[0, 63, 64]].tolist()
        [1, 1, 2]
        >>> rq.ops.leaky_relu(x, out=rq.QParams(0.5, 1, "uint8"), numerics="qnnpack").values[[0, 63, 64]].tolist()
        [1, 1, 2]
        """,
    ),
    Way(
        "views", _TORCH, ("add", "unary"),
        "A vector never reaches over a gap in memory, and needs elements side by side in inputs and output: of a slice each row has a tail of its own, a transposed view is scalar code throughout (`refquant.ops.tensor_iterator`).",
        """
        >>> wide = np.full((2, 100), 1, np.uint8)
        >>> for view in (wide[:, :96].copy(), wide[:, :96], wide.T):
        ...     x = rq.QTensor(view, rq.QParams(0.25, 0, "uint8"))
        ...     y = rq.ops.add(x, x, out=rq.QParams(1.0, 1, "uint8"), numerics="fbgemm").values
        ...     z = rq.ops.leaky_relu(x, out=rq.QParams(0.5, 1, "uint8"), numerics="qnnpack").values
        ...     print((y == 2).sum(), (z == 2).sum(), "of", y.size)
        0 0 of 192
        64 0 of 192
        200 8 of 200
        """,
    ),
    Way(
        "thread count", _TORCH, ("add", "unary"),
        "More than 32,768 codes are cut among the threads, and each thread's share has a tail of its own.",
        """
        >>> x = rq.QTensor(np.full(40000, 1, np.uint8), rq.QParams(0.25, 0, "uint8"))
        >>> for threads in (1, 3):
        ...     print((rq.ops.add(x, x, out=rq.QParams(1.0, 1, "uint8"), numerics="fbgemm", threads=threads).values == 2).sum())
        0
        64
        """,
    ),
    Way(
        "contiguous and channels-last averages", _ATEN, ("avg_pool",),
        "Of contiguous images the zero point is added before rounding, of channels-last ones after it, but for the channels that fill no step.",
        """
        >>> codes = np.ones((1, 17, 2, 2), np.uint8)
        >>> codes[0, :, 0, 0] = 3
        >>> for values in (codes, np.moveaxis(np.ascontiguousarray(np.moveaxis(codes, 1, -1)), -1, 1)):
        ...     y = rq.ops.avg_pool2d(rq.QTensor(values, rq.QParams(1.0, 1, "uint8")), 2, numerics="fbgemm")
        ...     print(y.values[0, [0, 15, 16], 0, 0].tolist())
        [2, 2, 2]
        [1, 1, 2]
        """,
    ),
    Way(
        "contiguous and channels-last means", _ATEN, ("adaptive_avg_pool",),
        "Of contiguous images the sum of the codes is scaled, of channels-last ones that of code less zero point, with one rounding in whole steps of channels.",
        """
        >>> codes = np.zeros((1, 9, 1, 6), np.uint8)
        >>> codes[..., 0] = 9
        >>> for values in (codes, np.moveaxis(np.ascontiguousarray(np.moveaxis(codes, 1, -1)), -1, 1)):
        ...     y = rq.ops.adaptive_avg_pool2d(rq.QTensor(values, rq.QParams(1.0, 101, "uint8")), 1, numerics="fbgemm")
        ...     print(y.values[0, [0, 7, 8], 0, 0].tolist())
        [2, 2, 2]
        [1, 1, 2]
        """,
    ),
    Way(
        "sums and averages by two libraries", ("qnnpack",), ("add", "avg_pool", "adaptive_avg_pool"),
        "PyTorch gives QNNPACK sums of uint8, and averages of uint8 over windows of one size; those of int8, and averages with ceil_mode or over parts of several sizes are ATen's, as under fbgemm.",
        """
        >>> codes = np.ones((1, 1, 2, 2), np.uint8)
        >>> codes[0, 0, 0, 0] = 3
        >>> x = rq.QTensor(codes, rq.QParams(1.0, 1, "uint8"))
        >>> [rq.ops.avg_pool2d(x, 2, ceil_mode=ceil, numerics="qnnpack").values.item() for ceil in (False, True)]
        [1, 2]
        >>> for dtype in ("uint8", "int8"):
        ...     x = rq.QTensor(np.arange(1, 5).astype(dtype).reshape(1, 1, 1, 4), rq.QParams(1.0, 1, dtype))
        ...     print(rq.ops.adaptive_avg_pool2d(x, (1, 2), numerics="qnnpack").values.ravel())
        [1 3]
        [2 4]
        >>> for dtype in ("uint8", "int8"):
        ...     x = rq.QTensor(np.full(64, 1, dtype), rq.QParams(0.25, 0, dtype))
        ...     print(rq.ops.add(x, x, out=rq.QParams(1.0, 0, dtype), numerics="qnnpack").values[0])
        1
        0
        """,
    ),
    Way(
        "contiguous and channels-last concatenation", _TORCH, ("cat",),
        "Contiguous tensors are dequantized and quantized, channels-last ones by vectors that round before they add the zero point, and a scalar tail of channels.",
        """
        >>> codes = np.ones((1, 9, 1, 2), np.uint8)
        >>> for values in (codes, np.moveaxis(np.ascontiguousarray(np.moveaxis(codes, 1, -1)), -1, 1)):
        ...     y = rq.ops.cat([rq.QTensor(values, rq.QParams(0.5, 0, "uint8"))], out=rq.QParams(1.0, 1, "uint8"), numerics="fbgemm")
        ...     print(y.values[0, [0, 7, 8], 0, 0].tolist())
        [2, 2, 2]
        [1, 1, 2]
        """,
    ),
    Way(
        "steps of channels in volumes", _TORCH, ("avg_pool3d", "adaptive_avg_pool3d"),
        "Whole steps of channels add the zero point after rounding, or in one rounding with the product; the last channels before.",
        """
        >>> x = rq.QTensor(np.ones((1, 17, 2, 2, 2), np.uint8), rq.QParams(1.0, 1, "uint8"))
        >>> x.values[0, :, 0, 0, 0] = 5
        >>> rq.ops.avg_pool3d(x, 2, numerics="fbgemm").values[0, [0, 15, 16]].ravel().tolist()
        [1, 1, 2]
        """,
    ),
    Way(
        "steps and last channels of enlarged images", _TORCH, ("bilinear",),
        "Of channels-last images whole steps of channels fuse one of two products into the sum, the rest the other; contiguous images fuse none.",
        """
        >>> image = np.uint8([[[[19], [4], [44]], [[208], [166], [233]]]])
        >>> x = rq.QTensor(np.moveaxis(np.repeat(image, 9, axis=3), -1, 1), rq.QParams(0.1, 3, "uint8"))
        >>> rq.ops.interpolate(x, size=(5, 7), mode="bilinear", numerics="fbgemm").values[0, [0, 7, 8], 1, 4].tolist()
        [39, 39, 38]
        """,
    ),
    Way(
        "steps and last elements of normalization", _TORCH, ("layer_norm", "group_norm"),
        "As in sums: whole steps of 32 add the zero point after rounding, the rest before; of groups in channels-last memory alone.",
        """
        >>> x, half = rq.QTensor(np.zeros((1, 33), np.uint8), rq.QParams(1.0, 0, "uint8")), np.full(33, 0.5, np.float32)
        >>> rq.ops.layer_norm(x, (33,), None, half, out=rq.QParams(1.0, 1, "uint8"), numerics="fbgemm").values[0, [0, 31, 32]].tolist()
        [1, 1, 2]
        """,
    ),
    Way(
        "means over the last axes and over others", _TORCH, ("mean",),
        "Over the last axes codes are summed as integers, over others as real numbers in float32.",
        """
        >>> codes = np.uint8([[18, 239], [18, 239]])
        >>> for values, dim in ((codes, 1), (codes.T.copy(), 0)):
        ...     print(rq.ops.mean(rq.QTensor(values, rq.QParams(0.1, 1, "uint8")), dim, numerics="fbgemm").values)
        [128 128]
        [129 129]
        """,
    ),
    Way(
        "names of the axes of images", ("qnnpack",), ("mean",),
        "A mean over the axes (2, 3) of uint8 is QNNPACK's, with the zero point after the rounding; over the same axes called (-2, -1), and of int8, it is ATen's.",
        """
        >>> x = rq.QTensor(np.uint8([[[[1, 2]]]]), rq.QParams(1.0, 1, "uint8"))
        >>> [rq.ops.mean(x, dim, numerics="qnnpack").values.item() for dim in ((2, 3), (-2, -1))]
        [1, 2]
        """,
    ),
    Way(
        "per tensor and per channel", _PT2E, ("quantize_channel", "dequantize_channel", "fake_quantize_channel"),
        "Two kernels each: of NaN per tensor the largest code, per channel code 0; the scale is a float32 per tensor and a float64 per channel; PT2E differs in the reciprocal of the scale.",
        """
        >>> pairs = [(rq.QParams(s, 0, "uint8"), rq.QParams([s], [0], "uint8", axis=0)) for s in (1.0, 0.1)]
        >>> [rq.quantize(np.float32([[np.nan]]), qp, numerics="fbgemm").values.item() for qp in pairs[0]]
        [255, 0]
        >>> [rq.fake_quantize(np.float32([[1e20]]), qp, numerics="fbgemm").item() for qp in pairs[0]]
        [255.0, 0.0]
        >>> [rq.dequantize(rq.QTensor(np.uint8([[9]]), qp), numerics="fbgemm").item() for qp in pairs[1]]
        [0.9000000357627869, 0.8999999761581421]
        """,
    ),
    Way(
        "depthwise kernels that saturate", ("fbgemm", "x86"), ("conv",),
        "FBGEMM's kernels of 3x3, 5x5 and 7x7 for as many groups as channels add pairs of taps in 16 bits on every processor; of one channel sums are exact.",
        """
        >>> for channels in (8, 1):
        ...     x = rq.QTensor(np.full((1, channels, 3, 3), 255, np.uint8), rq.QParams(1.0, 0, "uint8"))
        ...     w = rq.QTensor(np.full((channels, 1, 3, 3), 127, np.int8), rq.QParams(1.0, 0, "int8"))
        ...     y = rq.ops.conv2d(x, w, padding=1, groups=channels, out=rq.QParams(2000.0, 0, "uint8"), numerics="fbgemm")
        ...     print(y.values[0, 0].tolist())
        [[49, 65, 49], [81, 82, 65], [49, 49, 49]]
        [[65, 97, 65], [97, 146, 97], [65, 97, 65]]
        """,
    ),
    Way(
        "direct transposed convolutions that saturate", ("fbgemm", "x86"), ("conv_transpose",),
        "FBGEMM's direct kernel of transposed convolutions (kernel 2x1 to 2x6, channels in eights) adds pairs of channels in 16 bits on every processor.",
        """
        >>> for channels in (8, 7):
        ...     x = rq.QTensor(np.full((1, channels, 1, 1), 255, np.uint8), rq.QParams(1.0, 0, "uint8"))
        ...     w = rq.QTensor(np.full((channels, 8, 2, 2), 127, np.int8), rq.QParams(1.0, 0, "int8"))
        ...     y = rq.ops.conv_transpose2d(x, w, out=rq.QParams(2000.0, 0, "uint8"), numerics="fbgemm")
        ...     print(y.values[0, 0].tolist())
        [[66, 66], [66, 66]]
        [[113, 113], [113, 113]]
        """,
    ),
    Way(
        "one engine, two libraries", ("x86",), ("conv", "conv_transpose"),
        "The x86 engine sends convolutions of at most 100 groups with symmetric weights to oneDNN where the processor has AVX512-VNNI, all else to FBGEMM.",
        """
        >>> for groups in (100, 101):
        ...     x = rq.QTensor(np.ones((1, groups, 1, 1), np.uint8), rq.QParams(0.25, 0, "uint8"))
        ...     w = rq.QTensor(np.ones((groups, 1, 1, 1), np.int8), rq.QParams(0.5, 0, "int8"))
        ...     y = rq.ops.conv2d(x, w, groups=groups, out=rq.QParams(0.25, 101, "uint8"), numerics="x86")
        ...     print(y.values.ravel()[0])
        102
        101
        """,
    ),
    Way(
        "a depthwise kernel in float64", ("qnnpack",), ("conv",),
        "QNNPACK's kernel of 27 taps for depthwise volumes multiplies in float64, all its others in float32.",
        """
        >>> for conv, sides in ((rq.ops.conv2d, (3, 3)), (rq.ops.conv3d, (3, 3, 3))):
        ...     x = rq.QTensor(np.zeros((1, 2, *sides), np.uint8), rq.QParams(1.0, 0, "uint8"))
        ...     x.values[:, :, 0] = 5 * (np.arange(np.prod(sides[1:])).reshape(sides[1:]) == 0)
        ...     w = rq.QTensor(np.ones((2, 1, *sides), np.int8), rq.QParams(0.1, 0, "int8"))
        ...     print(conv(x, w, groups=2, out=rq.QParams(1.0, 0, "uint8"), numerics="qnnpack").values.ravel().tolist())
        [0, 0]
        [1, 1]
        """,
    ),
    Way(
        "the reference kernel for int8 activations", ("onednn", "inductor"), ("linear_int8",),
        "oneDNN's linear layers on int8 activations end in its reference kernel, which divides by the output's scale; on uint8 ones that scale's inverse is a factor.",
        """
        >>> for dtype in ("uint8", "int8"):
        ...     x, w = rq.QTensor(np.array([[91]], dtype), rq.QParams(1.0, 0, dtype)), rq.QTensor(np.int8([[1]]), rq.QParams(1.0, 0, "int8"))
        ...     print(dtype, rq.ops.linear(x, w, out=rq.QParams(14.0, 0, dtype), numerics="inductor").values.item())
        uint8 7
        int8 6
        """,
    ),
    Way(
        "functions of the reference kernel", ("onednn", "inductor"), ("linear_int8", "conv", "conv_real"),
        "oneDNN's reference kernels take post-operations from the C library, one number after the other; vectorized ones are polynomials of its own. A ReLU of float32 numbers leaves -0.0 there.",
        """
        >>> x = rq.QTensor(np.zeros((1, 6, 1, 1), np.uint8), rq.QParams(0.0625, 64, "uint8"))
        >>> for groups in (1, 2):
        ...     w = rq.QTensor(np.tile(np.eye(6 // groups, dtype=np.int8), (groups, 1)).reshape(6, 6 // groups, 1, 1), rq.QParams(1.0, 0, "int8"))
        ...     relu, swish = (rq.ops.conv2d(x, w, groups=groups, activation=name, numerics="inductor@avx2").ravel() for name in ("relu", "swish"))
        ...     print(float(relu[0]), float(swish[0]))
        0.0 -0.07194483280181885
        -0.0 -0.07194484025239944
        """,
    ),
    Way(
        "sums of int8 activations", ("onednn", "inductor"), ("by_level",),
        "Below AVX-512 a linear layer on int8 activations that have a zero point is oneDNN's reference product: a sum beyond int32 becomes -2**31, where all others wrap.",
        """
        >>> x = rq.QTensor(np.full((1, 70_000), 127, np.int8), rq.QParams(1.0, -128, "int8"))
        >>> w = rq.QTensor(np.full((1, 70_000), 127, np.int8), rq.QParams(1.0, 0, "int8"))
        >>> [rq.ops.linear(x, w, numerics=name).item() for name in ("onednn", "onednn@avx2")]
        [-2028017280.0, -2147483648.0]
        """,
    ),
    Way(
        "inputs of dynamic layers", ("onednn",), ("dynamic",),
        "A dynamic linear layer of oneDNN quantizes its input by the reciprocal of a reciprocal of the scale's reciprocal; quantize takes one reciprocal.",
        """
        >>> x, w = np.float32([[-9.8, 3.9, 9.8, 6.4]]), rq.QTensor(np.int8([[1, 0, 0, 0]]), rq.QParams(1.0, 0, "int8"))
        >>> [round(rq.ops.linear_dynamic(x, w, numerics=numerics).item(), 3) for numerics in ("fbgemm", "onednn")]
        [-9.838, -9.762]
        """,
    ),
    Way(
        "processor levels", _PT2E, ("by_level",),
        "Below AVX512-VNNI other kernels run: oneDNN's multiply both scales first, ATen's pools take 8 channels a step and not 16.",
        """
        >>> x = rq.QTensor(np.ones((1, 2, 2, 8), np.uint8), rq.QParams(1.0, 1, "uint8"))
        >>> x.values[0, 0, 0] = 3
        >>> image = rq.QTensor(np.moveaxis(x.values, -1, 1), x.qparams)
        >>> [rq.ops.avg_pool2d(image, 2, numerics=numerics).values[0, 0].item() for numerics in ("fbgemm", "fbgemm@avx2")]
        [2, 1]
        """,
    ),
)  # fmt: skip
