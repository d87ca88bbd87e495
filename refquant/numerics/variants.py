"""Named variants of profiles: another version, processor or kernel, a defect of the engine. One table; a line is a variant.

A variant is called ``base+name``, and `refquant.numerics.get` takes that name wherever it takes a profile's. The profile itself says what is
right; what an engine gets wrong is a variant of kind ``defect``, so that both can be asked for. `EXPLAINING` kinds say what one and the
same engine does on one and the same machine, so that `refquant.verify` takes them for the cause of a difference.
"""

from typing import NamedTuple

from refquant.errors import ArgumentError, choose
from refquant.numerics.forms import MaxPoolForm
from refquant.numerics.onnx import ONNX
from refquant.numerics.profile import Dispatch
from refquant.numerics.special_forms import RealsForm
from refquant.numerics.torch_x86 import FBGEMM, ONEDNN

__all__ = ["EXPLAINING", "KINDS", "Variant", "VARIANTS", "variant_names", "variants_of", "make_variant"]

KINDS = ("defect", "kernel", "version", "processor", "graph")
EXPLAINING = ("defect", "kernel")


class Variant(NamedTuple):
    """A changed profile with a name.

    Attributes
    ----------
    name : str
        What follows the ``+``.
    bases : tuple of str
        The profiles that it can change.
    kind : str
        ``defect``: the engine computes what nobody meant; ``kernel``: another kernel of the engine, where its choice has no simple rule;
        ``version``: another release of the engine; ``processor``: another CPU; ``graph``: the same operators, but for the rewriting of the graph around them.
    changes : dict
        As `Numerics.replace` takes them.
    explanation : str
        One sentence.
    example : str
        A doctest with numbers, in which ``np`` and ``rq`` are known; a test runs it.
    """

    name: str
    bases: tuple
    kind: str
    changes: dict
    explanation: str
    example: str


_ONEDNN = ONEDNN.conv_transpose
_SHUFFLED = _ONEDNN.replace(accumulator="onednn_blocks")
# oneDNN 3.12, gemm_x8s8s32x_convolution.cpp: the last step divides.
_GEMM, _SHUFFLED_GEMM = (form.replace(multiplier="x,w,/y") for form in (_ONEDNN, _SHUFFLED))
_SHUFFLED_LEVELS = tuple(
    (levels, {name: change.replace(accumulator="onednn_blocks") if name == "conv_transpose" else change for name, change in changes.items()}) for levels, changes in ONEDNN.by_level
)
_OVERLAPPING = FBGEMM.conv_transpose.replace(accumulator="fbgemm_direct_rows")

_MIXED_WEIGHTS = """
        >>> x = rq.QTensor(np.array([1, 10, 100], np.uint8).reshape(1, 3, 1, 1), rq.QParams(1.0, 0, "uint8"))
        >>> w = rq.QTensor(np.array([[1, 0], [0, 1], [0, 0]], np.int8).reshape(3, 2, 1, 1), rq.QParams(1.0, 0, "int8"))
        >>> def compute(name):
        ...     return rq.ops.conv_transpose2d(x, w, out=rq.QParams(1.0, 0, "uint8"), numerics=name).values.ravel().tolist()
"""
_DIVIDED = """
        >>> x = rq.QTensor(np.array([[[[35]]]], np.uint8), rq.QParams(1.0, 0, "uint8"))
        >>> w = rq.QTensor(np.array([[[[1]]]], np.int8), rq.QParams(1.0, 0, "int8"))
        >>> def compute(name):
        ...     return rq.ops.conv_transpose2d(x, w, out=rq.QParams(14.0, 0, "uint8"), numerics=name).values.ravel().tolist()
"""

VARIANTS = (
    Variant(
        "unfused", ("onnxruntime",), "graph", {"add": ONNX.add, "mul": ONNX.mul, "avg_pool": RealsForm(order="runtime")},
        "Sums, products and average pools between DequantizeLinear and QuantizeLinear where graph optimization is off, so that nothing fuses to QLinearAdd, QLinearMul and QLinearAveragePool; of a softmax between them interop.from_onnx(..., fuse_qdq=False) has the bits, of a float32 convolution the order of sums is not described.",
        """
        >>> a, b = (rq.QTensor(np.array([code], np.uint8), rq.QParams(0.5, 0, "uint8")) for code in (1, 2))
        >>> [rq.ops.add(a, b, out=rq.QParams(1.0, 1, "uint8"), numerics=name).values.tolist() for name in ("onnxruntime", "onnxruntime+unfused")]
        [[2], [3]]
        """,
    ),
    Variant(
        "low_precision", ("openvino",), "graph", {"dequantize": {"formula": "sub_mul"}, "dequantize_channel": {"formula": "sub_mul"}},
        "A DequantizeLinear without a QuantizeLinear behind it, in a model that has one anywhere: the low precision transformations run, and leave a difference and a product apart, which without them are one fused step.",
        """
        >>> q = rq.QTensor(np.array([3, 4], np.uint8), rq.QParams(0.1, 3, "uint8"))
        >>> [rq.dequantize(q, numerics=name).tolist() for name in ("openvino", "openvino+low_precision")]
        [[-7.450580596923828e-09, 0.09999999403953552], [0.0, 0.10000000149011612]]
        """,
    ),
    Variant(
        "before_2_13", ("fbgemm", "onednn", "x86", "qnnpack"), "version", {"quantize": {"zero_point": "after"}},
        "quantize_per_tensor of PyTorch before 2.13, as its source has it: rounded before the zero point is added, as fake quantization does; huge values aside.",
        """
        >>> x, qp = np.float32([0.5, 1.5, 2.5]), rq.QParams(1.0, 1, "uint8")
        >>> [rq.quantize(x, qp, numerics=name).values.tolist() for name in ("fbgemm", "fbgemm+before_2_13")]
        [[2, 2, 4], [1, 3, 3]]
        """,
    ),
    Variant(
        "shuffled_transpose", ("onednn",), "defect", {"conv_transpose": _SHUFFLED, "by_level": _SHUFFLED_LEVELS},
        "A transposed convolution whose groups have other numbers of input than of output channels multiplies by the right weights in a wrong order.",
        _MIXED_WEIGHTS + """
        >>> compute("onednn"), compute("onednn+shuffled_transpose")
        ([1, 10], [11, 0])
        """,
    ),
    Variant(
        "gemm_transpose", ("onednn",), "kernel", {"conv_transpose": _GEMM},
        "Transposed convolutions with strides and either groups or dilation mostly go to a kernel that divides by the output's scale, and does not multiply by its inverse; below AVX-512 the profile itself says which.",
        _DIVIDED + """
        >>> compute("onednn"), compute("onednn+gemm_transpose")
        ([2], [3])
        """,
    ),
    Variant(
        "shuffled_gemm_transpose", ("onednn",), "defect", {"conv_transpose": _SHUFFLED_GEMM, "by_level": _SHUFFLED_LEVELS},
        "The weights of onednn+shuffled_transpose in the kernel of onednn+gemm_transpose.",
        _MIXED_WEIGHTS + """
        >>> compute("onednn+shuffled_gemm_transpose")
        [11, 0]
        """,
    ),
    Variant(
        "overlapping_transpose", ("fbgemm",), "defect", {"conv_transpose": _OVERLAPPING},
        "The direct kernel of transposed convolutions (kernel 2x1 to 2x6) writes the rows of an input right below those of the one before, also for a vertical stride of 2.",
        """
        >>> x = rq.QTensor(np.ones((1, 8, 3, 1), np.uint8), rq.QParams(1.0, 0, "uint8"))
        >>> w = rq.QTensor(np.ones((8, 8, 2, 1), np.int8), rq.QParams(1.0, 0, "int8"))
        >>> for name in ("fbgemm", "fbgemm+overlapping_transpose"):
        ...     print(rq.ops.conv_transpose2d(x, w, stride=2, out=rq.QParams(1.0, 0, "uint8"), numerics=name).values[0, 0, :, 0])
        [8 8 8 8 8 8]
        [ 8 16 16  8  0  0]
        """,
    ),
    Variant(
        "stale_multipliers", ("qnnpack",), "defect", {"keeps": "output_scale"},
        "Packed weights keep their requantization multipliers for as long as the input has the same scale, whatever scale the output is asked for.",
        """
        >>> x, w = rq.QTensor(np.uint8([[200]]), rq.QParams(0.5, 0, "uint8")), rq.QTensor(np.int8([[20]]), rq.QParams(0.25, 0, "int8"))
        >>> for name in ("qnnpack", "qnnpack+stale_multipliers"):
        ...     packed = rq.ops.pack_weights(w)
        ...     print([rq.ops.linear(x, packed, out=rq.QParams(scale, 3, "uint8"), numerics=name).values.item() for scale in (10.0, 40.0)])
        [53, 15]
        [53, 53]
        """,
    ),
    Variant(
        "softmax_in_a_line", ("qnnpack",), "defect", {"softmax": {"style": "raw_table"}},
        "Softmax of uint8 into (1/256, 0) reads a view whose neighbours along the axis lie side by side as if its rows followed one another in memory.",
        """
        >>> whole = np.uint8([[0, 0, 255], [0, 255, 0]])
        >>> x = rq.QTensor(whole[:, :2], rq.QParams(1.0, 0, "uint8"))
        >>> for name in ("qnnpack", "qnnpack+softmax_in_a_line"):
        ...     print(rq.ops.softmax(x, 1, numerics=name).values.tolist())
        [[128, 128], [0, 255]]
        [[128, 128], [255, 0]]
        """,
    ),
    Variant(
        "nearest_pixels", ("qnnpack",), "defect",
        {"max_pool": Dispatch(rule="qnnpack", vnni=False, yes=MaxPoolForm(outside="nearest"), no=MaxPoolForm(outside="ignored"))},
        "A max pool of uint8 with both padding and dilation takes the nearest pixel for a tap outside of the image, which need not lie in the window; not with ceil_mode, which is ATen's.",
        """
        >>> x = rq.QTensor(np.array([[[9, 1, 2, 3]]], np.uint8), rq.QParams(1.0, 0, "uint8"))
        >>> [rq.ops.max_pool1d(x, 2, 1, 1, 2, numerics=name).values.ravel().tolist() for name in ("qnnpack", "qnnpack+nearest_pixels")]
        [[1, 9, 3, 2], [9, 9, 3, 3]]
        """,
    ),
    Variant(
        "first_post_operation", ("onednn",), "defect", {"keeps": "post_operation"},
        "Packed weights keep the first post-operation that they are used with: after conv2d_add, conv2d_add_relu has no ReLU.",
        """
        >>> x, w = rq.QTensor(np.uint8([[[[1]]]]), rq.QParams(1.0, 2, "uint8")), rq.QTensor(np.int8([[[[5]]]]), rq.QParams(1.0, 0, "int8"))
        >>> for name in ("onednn", "onednn+first_post_operation"):
        ...     packed = rq.ops.pack_weights(w)
        ...     print([rq.ops.conv2d(x, packed, out=rq.QParams(1.0, 9, "uint8"), numerics=name, activation=a).values.item() for a in (None, "relu")])
        [4, 9]
        [4, 4]
        """,
    ),
    Variant(
        "defective_transpose", ("x86",), "defect", {"conv_transpose": {"yes": _SHUFFLED, "no": _OVERLAPPING}},
        "Transposed convolutions are those of onednn+shuffled_transpose where oneDNN takes them, and else those of fbgemm+overlapping_transpose.",
        _MIXED_WEIGHTS + """
        >>> compute("x86"), compute("x86+defective_transpose")
        ([1, 10], [11, 0])
        """,
    ),
    Variant(
        "gemm_transpose", ("x86",), "kernel", {"conv_transpose": {"yes": _GEMM}},
        "Transposed convolutions are those of onednn+gemm_transpose where oneDNN takes them.",
        _DIVIDED + """
        >>> compute("x86"), compute("x86+gemm_transpose")
        ([2], [3])
        """,
    ),
    Variant(
        "shuffled_gemm_transpose", ("x86",), "defect", {"conv_transpose": {"yes": _SHUFFLED_GEMM}},
        "Transposed convolutions are those of onednn+shuffled_gemm_transpose where oneDNN takes them.",
        _MIXED_WEIGHTS + """
        >>> compute("x86+shuffled_gemm_transpose")
        [11, 0]
        """,
    ),
)


def variant_names():
    """Return the full names of all variants, ``base+name``."""
    return tuple(f"{base}+{variant.name}" for variant in VARIANTS for base in variant.bases)


def variants_of(name, kinds=KINDS):
    """Return the full names of the variants of a profile (or of the name of one), of some `kinds`; those of a profile on a processor level are on it too.

    Examples
    --------
    >>> variants_of("fbgemm@avx2", ["defect"])
    ('fbgemm+overlapping_transpose@avx2',)
    """
    for kind in kinds:
        choose("variants", "kind", kind, KINDS)
    base, at, level = getattr(name, "name", name).partition("@")
    return tuple(f"{base}+{v.name}{at}{level}" for v in VARIANTS if base in v.bases and v.kind in kinds)


def make_variant(name, profiles):
    """Return the profile of a full name; the same object at every call.

    Parameters
    ----------
    name : str
    profiles : dict of str to Numerics

    Raises
    ------
    ArgumentError
        An unknown name, with the list of names.
    """
    if name not in _MADE:
        base, _, own = choose("numerics", "variant", name, variant_names()).partition("+")
        variant = next(v for v in VARIANTS if v.name == own and base in v.bases)
        _MADE[name] = profiles[base].replace(name=name, engine=f"{profiles[base].engine}; {variant.explanation}", **variant.changes)
    return _MADE[name]


_MADE = {}

if len(set(variant_names())) != len(variant_names()):
    raise ArgumentError("numerics: two variants of a profile share a name; rename one")
