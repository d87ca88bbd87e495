"""Mutants: a profile with one field of one form changed, each a fault that default cases must bring to light."""

from dataclasses import fields
from typing import NamedTuple

from refquant import numerics
from refquant.errors import choose
from refquant.numerics.forms import form_choices
from refquant.numerics.profile import Dispatch, Numerics

__all__ = ["Mutant", "mutants", "sections_of"]


class Mutant(NamedTuple):
    """A changed profile.

    Attributes
    ----------
    section, field : str
    old, new : object
    profile : Numerics
    """

    section: str
    field: str
    old: object
    new: object
    profile: Numerics

    def __str__(self):
        return f"{self.profile.name.rstrip('*')}.{self.section}.{self.field}: {self.old} -> {self.new}"


def sections_of(op):
    """Return the names of the sections of a profile that an operator reads."""
    from refquant import ops

    table = {entry.name: entry.sections for entry in ops.OPS}
    return table[choose("mutants", "op", op, table)]


def mutants(profile, op):
    """Yield every profile that differs in one field of a form that `op` reads.

    Parameters
    ----------
    profile : str or Numerics
    op : str

    Yields
    ------
    Mutant
        Of a number, half and double stand for all others.

    Examples
    --------
    >>> for mutant in mutants("fbgemm", "dequantize"):
    ...     print(mutant)
    fbgemm.dequantize.formula: sub_mul -> sub_mul_wide
    fbgemm.dequantize.formula: sub_mul -> sub_mul32
    fbgemm.dequantize.formula: sub_mul -> sub_mul64
    fbgemm.dequantize.formula: sub_mul -> mul_add
    fbgemm.dequantize.formula: sub_mul -> fma
    fbgemm.dequantize_channel.formula: sub_mul64 -> sub_mul
    fbgemm.dequantize_channel.formula: sub_mul64 -> sub_mul_wide
    fbgemm.dequantize_channel.formula: sub_mul64 -> sub_mul32
    fbgemm.dequantize_channel.formula: sub_mul64 -> mul_add
    fbgemm.dequantize_channel.formula: sub_mul64 -> fma
    """
    profile = numerics.get(profile)
    for section in sections_of(op):
        form = getattr(profile, section)
        for part in [] if form is None else ("yes", "no") if isinstance(form, Dispatch) else ("",):
            inner = getattr(form, part) if part else form
            for field, old, new in _changes(inner):
                changed = inner.replace(**{field: new})
                whole = form.replace(**{part: changed}) if part else changed
                yield Mutant(section, f"{part}.{field}".lstrip("."), _plain(old), _plain(new), profile.replace(**{section: whole}))


def _plain(value):
    return getattr(value, "value", value)


def _changes(form):
    choices = form_choices(type(form))
    for field in fields(form):
        old, allowed = getattr(form, field.name), choices[field.name]
        if isinstance(allowed, tuple):
            values = allowed
        else:
            values = (not old,) if isinstance(old, bool) else (old // 2, old * 2)
        for new in values:
            if new != old:
                yield field.name, old, new
