"""Which operator which profile describes, as a table."""

from refquant import numerics

__all__ = ["support_table"]

# Operators that are the same integers in every engine, and those that need no profile.
_SAME = ("relu", "max_pool2d", "reshape", "flatten", "matmul_integer")


def support_table():
    """Return a Markdown table of operators and profiles.

    ``=`` stands for "the same integers in every engine", ``✓`` for a form of the engine's own, ``·`` for "not described by this profile"
    (asking for it is an `UnsupportedError`).

    Examples
    --------
    >>> print(support_table().splitlines()[2][:30])
    | quantize | ✓ | ✓ | ✓ | ✓ | ✓
    """
    from refquant.ops import OPS

    profiles = numerics.PROFILES
    rows = ["| operator | " + " | ".join(p.name for p in profiles) + " |", "|---" * (len(profiles) + 1) + "|"]
    for op in OPS:
        cells = ["=" if op.name in _SAME else "✓" if getattr(p, op.sections[0]) is not None else "·" for p in profiles]
        rows.append(f"| {op.name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)
