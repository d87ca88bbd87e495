"""Where an engine is not one formula: a profile whose bits depend on more than the numbers. One table; a line is such a place, with numbers.

The forms say how each way computes; here stands which ways there are, and the smallest call that shows two of them. Another
version, another graph and the defects of an engine are `refquant.numerics.variants`.
"""

from refquant.errors import ArgumentError
from refquant.numerics.torch_ways import TORCH_WAYS, Way

__all__ = ["Way", "WAYS", "ways_of"]

WAYS = (
    *TORCH_WAYS,
    Way(
        "lanes of a softmax", ("openvino",), ("by_level",),
        "The sum along the densest axis has as many running sums as a vector has lanes: 16 with AVX-512, 8 with AVX2.",
        """
        >>> x, out = rq.QTensor(np.arange(24, dtype=np.uint8), rq.QParams(0.25, 0, "uint8")), rq.QParams(0.00020165086607448757, 0, "uint8")
        >>> [rq.ops.softmax(x, out=out, numerics=numerics).values[0].item() for numerics in ("openvino", "openvino@avx2")]
        [3, 4]
        """,
    ),
    Way(
        "saturating pairs", ("fbgemm", "onednn", "x86", "inductor", "onnxruntime", "openvino"), ("pairing",),
        "Without VNNI two neighbouring products are added in 16 bits, which two depends on the library (`refquant.isa.accumulate.neighbours`).",
        """
        >>> x, w = rq.QTensor(np.full((1, 4), 255, np.uint8), rq.QParams(1.0, 0, "uint8")), rq.QTensor(np.int8([[127, 127, -127, -127]]), rq.QParams(1.0, 0, "int8"))
        >>> [int(rq.ops.linear(x, w, numerics=numerics, isa=isa).item()) for numerics in ("onednn", "fbgemm") for isa in (None, "avx2")]
        [0, -1, 0, -1]
        """,
    ),
    Way(
        "single elements", ("onnxruntime",), ("add",),
        "The broadcaster takes a tensor of one element for a scalar and puts it second, so the two operands change places.",
        """
        >>> for count in (1, 2):
        ...     a = rq.QTensor(np.full(count, 241, np.uint8), rq.QParams(0.25, 44, "uint8"))
        ...     b = rq.QTensor(np.full(count, 100, np.uint8), rq.QParams(0.5, 206, "uint8"))
        ...     print(rq.ops.add(a, b, out=rq.QParams(0.3, 133, "uint8"), numerics="onnxruntime").values)
        [120]
        [121 121]
        """,
    ),
    Way(
        "three resolvers", ("tflite_ref", "tflite_opt", "xnnpack"), (),
        "TFLite's reference, optimized and delegated kernels requantize by integers with ties away from zero, by integers with ties up, and in float32.",
        """
        >>> def compute(code, weight, scale, to):
        ...     x, w = rq.QTensor(np.int8([[[[code]]]]), rq.QParams(1.0, 0, "int8")), rq.QTensor(np.int8([[[[weight]]]]), rq.QParams(scale, 0, "int8"))
        ...     return [rq.ops.conv2d(x, w, out=rq.QParams(to, 0, "int8"), numerics=n).values.item() for n in ("tflite_ref", "tflite_opt", "xnnpack")]
        >>> compute(1, 39, 0.25, 0.1), compute(-57, 3, 0.3, 0.75), compute(-1, 105, 0.25, 0.7)
        ([97, 97, 98], [-69, -68, -68], [-38, -37, -38])
        """,
    ),
    Way(
        "steps and last elements of conversions", ("tflite_opt",), ("quantize", "dequantize", "requantize"),
        "TFLite's optimized kernels take 8 or 16 elements a step by NEON code, and leave the last ones to scalar code that rounds otherwise.",
        """
        >>> rq.quantize(np.full(9, 0.5, np.float32), rq.QParams(1.0, 0, "int8"), numerics="tflite_opt").values[[0, 7, 8]].tolist()
        [0, 0, 1]
        >>> rq.dequantize(rq.QTensor(np.full(9, -126, np.int8), rq.QParams(0.1, 1, "int8")), numerics="tflite_opt")[[0, 7, 8]].tolist()
        [-12.700000762939453, -12.700000762939453, -12.699999809265137]
        >>> x = rq.QTensor(np.full(17, -127, np.int8), rq.QParams(0.5, 0, "int8"))
        >>> rq.ops.requantize(x, out=rq.QParams(2.0, 0, "int8"), numerics="tflite_opt").values[[0, 15, 16]].tolist()
        [-31, -31, -32]
        """,
    ),
    Way(
        "steps and last elements of sums and products", ("tflite_opt",), ("add", "mul"),
        "Steps of 16 round half up where the rest rounds half away; products are cut to 16 bits there, and their sum with the zero point wraps.",
        """
        >>> a, b = rq.QTensor(np.full(17, 31, np.int8), rq.QParams(0.5, 0, "int8")), rq.QTensor(np.full(17, -116, np.int8), rq.QParams(0.75, 0, "int8"))
        >>> rq.ops.add(a, b, out=rq.QParams(1.0, 0, "int8"), numerics="tflite_opt").values[[0, 15, 16]].tolist()
        [-72, -72, -71]
        >>> a, b = (rq.QTensor(np.full(17, code, np.int8), rq.QParams(1.0, 0, "int8")) for code in (33, 11))
        >>> rq.ops.mul(a, b, out=rq.QParams(0.01, 127, "int8"), numerics="tflite_opt").values[[0, 15, 16]].tolist()
        [-128, -128, 127]
        """,
    ),
    Way(
        "steps and last channels", ("tflite_opt",), ("conv", "conv_transpose", "adaptive_avg_pool", "mean"),
        "Depthwise and transposed convolutions take 8 channels a step and means 16, rounding half up; the last channels round half away.",
        """
        >>> x, w = rq.QTensor(np.full((1, 9, 1, 1), -53, np.int8), rq.QParams(1.0, 0, "int8")), rq.QTensor(np.full((9, 1, 1, 1), 7, np.int8), rq.QParams(0.5, 0, "int8"))
        >>> rq.ops.conv2d(x, w, groups=9, out=rq.QParams(1.5, 0, "int8"), numerics="tflite_opt").values[0, [0, 7, 8]].ravel().tolist()
        [-123, -123, -124]
        >>> x, w = rq.QTensor(x.values[:, :1], x.qparams), rq.QTensor(w.values.reshape(1, 9, 1, 1), w.qparams)
        >>> rq.ops.conv_transpose2d(x, w, out=rq.QParams(1.5, 0, "int8"), numerics="tflite_opt").values[0, [0, 7, 8]].ravel().tolist()
        [-123, -123, -124]
        >>> x = rq.QTensor(np.tile(np.int8([58, -125]), (1, 17, 1, 1)), rq.QParams(1.0, 0, "int8"))
        >>> rq.ops.adaptive_avg_pool2d(x, 1, out=rq.QParams(2.0, 0, "int8"), numerics="tflite_opt").values[0, [0, 15, 16]].ravel().tolist()
        [-16, -16, -17]
        """,
    ),
    Way(
        "what the delegate leaves", ("xnnpack",), ("matmul",),
        "XNNPACK takes products of two tensors whose second has zero point 0; the others go to TFLite's own kernel.",
        """
        >>> x = rq.QTensor(np.int8([[34]]), rq.QParams(0.1, 0, "int8"))
        >>> for zero in (0, 1):
        ...     w = rq.QTensor(np.int8([[5 + zero]]), rq.QParams(0.25, zero, "int8"))
        ...     print(rq.ops.matmul(x, w, out=rq.QParams(0.1, 0, "int8"), numerics="xnnpack").values.item())
        42
        43
        """,
    ),
)  # fmt: skip


def ways_of(name):
    """Return the places where a profile, or that of which the name is a variant or a level, is not one formula: a tuple of `Way`.

    Examples
    --------
    >>> [way.name for way in ways_of("qnnpack@avx2") if "conv" in way.sections]
    ['a depthwise kernel in float64']
    """
    base = name.partition("+")[0].partition("@")[0]
    return tuple(way for way in WAYS if base in way.profiles)


if len({way.name for way in WAYS}) != len(WAYS):
    raise ArgumentError("numerics: two ways share a name; rename one")
