"""Named variants of profiles: another version, another processor, a defect of the engine. One table; a line is a variant.

A variant is called ``base+name``, and `refquant.numerics.get` takes that name wherever it takes a profile's. The profile itself says what is
right; what an engine gets wrong is a variant of kind ``defect``, so that both can be asked for.
"""

from typing import NamedTuple

from refquant.errors import ArgumentError, choose
from refquant.numerics.torch_x86 import FBGEMM, ONEDNN

__all__ = ["Variant", "VARIANTS", "variant_names", "variants_of", "make_variant"]

KINDS = ("defect", "version", "processor")


class Variant(NamedTuple):
    """A changed profile with a name.

    Attributes
    ----------
    name : str
        What follows the ``+``.
    bases : tuple of str
        The profiles that it can change.
    kind : str
        ``defect``: the engine computes what nobody meant, and `refquant.verify` takes it for the cause of a difference;
        ``version``: another release of the engine; ``processor``: another CPU.
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


_ONEDNN_SHUFFLED = ONEDNN.conv_transpose.replace(accumulator="onednn_blocks")
_FBGEMM_OVERLAPPING = FBGEMM.conv_transpose.replace(accumulator="fbgemm_direct_rows")

VARIANTS = (
    Variant(
        "shuffled_transpose", ("onednn",), "defect",
        {"conv_transpose": _ONEDNN_SHUFFLED},
        "A transposed convolution whose groups have other numbers of input than of output channels multiplies by the right weights in a wrong order.",
        """
        >>> x = rq.QTensor(np.array([1, 10, 100], np.uint8).reshape(1, 3, 1, 1), rq.QParams(1.0, 0, "uint8"))
        >>> w = rq.QTensor(np.array([[1, 0], [0, 1], [0, 0]], np.int8).reshape(3, 2, 1, 1), rq.QParams(1.0, 0, "int8"))
        >>> for name in ("onednn", "onednn+shuffled_transpose"):
        ...     print(rq.ops.conv_transpose2d(x, w, out=rq.QParams(1.0, 0, "uint8"), numerics=name).values.ravel())
        [ 1 10]
        [11  0]
        """,
    ),
    Variant(
        "overlapping_transpose", ("fbgemm",), "defect",
        {"conv_transpose": _FBGEMM_OVERLAPPING},
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
        "defective_transpose", ("x86",), "defect",
        {"conv_transpose": {"yes": _ONEDNN_SHUFFLED, "no": _FBGEMM_OVERLAPPING}},
        "Transposed convolutions are those of onednn+shuffled_transpose where oneDNN takes them, and else those of fbgemm+overlapping_transpose.",
        """
        >>> x = rq.QTensor(np.array([1, 10, 100], np.uint8).reshape(1, 3, 1, 1), rq.QParams(1.0, 0, "uint8"))
        >>> w = rq.QTensor(np.array([[1, 0], [0, 1], [0, 0]], np.int8).reshape(3, 2, 1, 1), rq.QParams(1.0, 0, "int8"))
        >>> rq.ops.conv_transpose2d(x, w, out=rq.QParams(1.0, 0, "uint8"), numerics="x86+defective_transpose").values.ravel()
        array([11,  0], dtype=uint8)
        """,
    ),
)


def variant_names():
    """Return the full names of all variants, ``base+name``."""
    return tuple(f"{base}+{variant.name}" for variant in VARIANTS for base in variant.bases)


def variants_of(name, kind=None):
    """Return the full names of the variants of a profile, of one kind if asked."""
    if kind is not None:
        choose("variants", "kind", kind, KINDS)
    return tuple(f"{name}+{v.name}" for v in VARIANTS if name in v.bases and kind in (None, v.kind))


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
