"""The names of processor levels. What each has, and what engines do there, stands in `refquant.isa.cpu` and `refquant.isa.products`."""

from refquant.errors import choose

__all__ = ["LEVEL_NAMES", "check_level"]

LEVEL_NAMES = (
    "sse41", "avx2", "avx_vnni", "avx_vnni_int8", "avx512", "avx512_vbmi", "avx512_vnni", "amx_int8", "neon_dot", "neon_i8mm",
)  # fmt: skip


def check_level(isa, place):
    """Return a level's name, or None; an unknown one is refused with the list of levels.

    Examples
    --------
    >>> check_level("avx2", "linear[fbgemm]"), check_level(None, "linear[fbgemm]")
    ('avx2', None)
    """
    return isa if isa is None else choose(place, "isa", isa, LEVEL_NAMES)
