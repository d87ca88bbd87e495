"""Named variants of profiles: another version, another processor, a defect of the engine. One table; a line is a variant.

A variant is called ``base+name``, and `refquant.numerics.get` takes that name wherever it takes a profile's. The profile itself says what is
right; what an engine gets wrong is a variant of kind ``defect``, so that both can be asked for.
"""

from typing import NamedTuple

from refquant.errors import ArgumentError, choose

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


VARIANTS = ()


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
