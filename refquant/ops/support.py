"""Which operator which profile describes, as a table. ``python -m refquant.ops.support README.md`` puts it into the file."""

from enum import Enum

from refquant import numerics
from refquant.errors import ArgumentError, choose
from refquant.numerics.coverage import absence, conditions

__all__ = ["Support", "support", "support_table"]

# Operators that no form describes: the same integers in every engine, and those that need no profile.
_SAME = ("relu", "max_pool3d", "reshape", "flatten", "matmul_integer", "conv_integer", "quantize_embedding")
_START, _END = "<!-- python -m refquant.ops.support README.md -->", "<!-- end of the table -->"
_DIGITS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Support(str, Enum):
    """How far a profile gives an engine's bits of an operator; the value is the table's sign."""

    SAME = "="
    EXACT = "✓"
    ABSENT = "–"
    UNKNOWN = "?"


def support(op, profile):
    """Return how far a profile gives the bits of an operator, and what there is to add.

    Parameters
    ----------
    op : str
    profile : str or Numerics

    Returns
    -------
    Support
    list of str
        Of `Support.SAME` and `Support.EXACT` the conditions, of `Support.ABSENT` the reason.

    Examples
    --------
    >>> support("conv3d", "tflite_ref")
    (<Support.ABSENT: '–'>, ['CONV_3D has float kernels alone'])
    """
    from refquant.ops import OPS

    profile = numerics.get(profile)
    sections = {entry.name: entry.sections for entry in OPS}
    sections = sections[choose("support", "op", op, sections)]
    reason = absence(op, profile.name)
    if reason is not None:
        return Support.ABSENT, [reason]
    if op not in _SAME and getattr(profile, sections[0]) is None:
        return Support.UNKNOWN, []
    same = all(getattr(profile, section) == getattr(other, section) for section in sections for other in numerics.PROFILES)
    return Support.SAME if same else Support.EXACT, conditions(op, profile.name)


def support_table():
    """Return a Markdown table of operators and profiles, and below it the conditions as numbered notes.

    ``=`` stands for "the same integers by every profile", ``✓`` for a form of the engine's own, either with the numbers of its conditions, ``–`` for an
    operator that the engine lacks, ``?`` for "not described by this profile"; asking for the last two is an `UnsupportedError` that says which.

    Examples
    --------
    >>> print(support_table().splitlines()[3][:20])
    | dequantize | ✓ | ✓
    """
    from refquant.ops import OPS

    profiles, notes, absent = numerics.PROFILES, {}, {}
    rows = ["| operator | " + " | ".join(p.name for p in profiles) + " |", "|---" * (len(profiles) + 1) + "|"]
    for op in OPS:
        cells = []
        for profile in profiles:
            sign, texts = support(op.name, profile)
            if sign is Support.ABSENT:
                absent.setdefault((op.name, texts[0]), []).append(profile.name)
            marks = [str(notes.setdefault(text, len(notes) + 1)).translate(_DIGITS) for text in texts if sign is not Support.ABSENT]
            cells.append(sign.value + " ".join(marks))
        rows.append(f"| {op.name} | " + " | ".join(cells) + " |")
    rows += ["", *(f"{number}. {text}." for text, number in notes.items()), ""]
    rows += [f"* `–` {op} of {', '.join(names)}: {text}." for (op, text), names in absent.items()]
    return "\n".join(rows)


def _write(path):
    """Put the table between the two markers of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        raise ArgumentError(f"support: {path} must hold {_START!r} and {_END!r}, between which the table goes, but does not; add them")
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(f"{before}{start}\n\n{support_table()}\n\n{end}{after}", encoding="utf-8")
    fresh.replace(path)


if __name__ == "__main__":
    import sys
    from pathlib import Path

    _write(Path(sys.argv[1]))
