"""Processor levels: which instruction-set extensions belong together, and what the running processor has.

Engines choose their INT8 kernels by level, and the level decides whether products saturate (see `refquant.isa.products`).

>>> [level.name for level in LEVELS]
['sse41', 'avx2', 'avx_vnni', 'avx_vnni_int8', 'avx512', 'avx512_vbmi', 'avx512_vnni', 'amx_int8', 'neon_dot', 'neon_i8mm']
"""

from functools import lru_cache
from typing import NamedTuple

from refquant.core.levels import LEVEL_NAMES
from refquant.errors import ArgumentError, choose

__all__ = ["Extension", "EXTENSIONS", "Level", "LEVELS", "level", "features", "running_level"]


class Extension(NamedTuple):
    """An instruction-set extension and its names.

    Attributes
    ----------
    name : str
        As vendors write it.
    flag : str
        In ``/proc/cpuinfo``.
    llvm : str
        LLVM's target feature.
    """

    name: str
    flag: str
    llvm: str


EXTENSIONS = (
    Extension("SSE2", "sse2", "sse2"),
    Extension("SSSE3", "ssse3", "ssse3"),
    Extension("SSE4.1", "sse4_1", "sse4.1"),
    Extension("AVX", "avx", "avx"),
    Extension("AVX2", "avx2", "avx2"),
    Extension("AVX-VNNI", "avx_vnni", "avxvnni"),
    Extension("AVX-VNNI-INT8", "avx_vnni_int8", "avxvnniint8"),
    Extension("AVX512F", "avx512f", "avx512f"),
    Extension("AVX512BW", "avx512bw", "avx512bw"),
    Extension("AVX512VL", "avx512vl", "avx512vl"),
    Extension("AVX512-VBMI", "avx512vbmi", "avx512vbmi"),
    Extension("AVX512-VNNI", "avx512_vnni", "avx512vnni"),
    Extension("AMX-INT8", "amx_int8", "amx-int8"),
    Extension("NEON", "asimd", "neon"),
    Extension("DotProd", "asimddp", "dotprod"),
    Extension("I8MM", "i8mm", "i8mm"),
)


class Level(NamedTuple):
    """A class of processors with the same INT8 instructions.

    Attributes
    ----------
    name : str
    extensions : frozenset of str
        What such a processor has at least.
    vnni : bool
        Whether it adds four products of bytes in one exact step.
    onednn : str or None
        Value of ``ONEDNN_MAX_CPU_ISA`` that holds oneDNN to this level.
    fbgemm : str or None
        Value of ``FBGEMM_ENABLE_INSTRUCTIONS`` that holds FBGEMM to this level (its groupwise 3 x 3 kernels ignore it, also with 8 or 16
        channels in a single group).
    processors : str
        Examples.
    """

    name: str
    extensions: frozenset
    vnni: bool
    onednn: str | None
    fbgemm: str | None
    processors: str


def _with(base, *names):
    return frozenset(base) | frozenset(names)


_SSE41 = _with((), "SSE2", "SSSE3", "SSE4.1")
_AVX2 = _with(_SSE41, "AVX", "AVX2")
_AVX_VNNI = _with(_AVX2, "AVX-VNNI")
_AVX512 = _with(_AVX2, "AVX512F", "AVX512BW", "AVX512VL")
_AVX512_VNNI = _with(_AVX512, "AVX512-VNNI")
_NEON_DOT = _with((), "NEON", "DotProd")

LEVELS = (
    Level("sse41", _SSE41, False, "SSE41", None, "before Haswell and Zen"),
    Level("avx2", _AVX2, False, "AVX2", "AVX2", "Haswell to Comet Lake, Zen 1 to 3"),
    Level("avx_vnni", _AVX_VNNI, True, "AVX2_VNNI", "AVX2", "Alder Lake, Raptor Lake"),
    Level("avx_vnni_int8", _with(_AVX_VNNI, "AVX-VNNI-INT8"), True, "AVX2_VNNI_2", "AVX2", "Lunar Lake, Arrow Lake, Sierra Forest"),
    Level("avx512", _AVX512, False, "AVX512_CORE", "AVX512", "Skylake-SP, Skylake-X"),
    Level("avx512_vbmi", _with(_AVX512, "AVX512-VBMI"), False, "AVX512_CORE", "AVX512", "Cannon Lake; newer ones held to AVX512_CORE"),
    Level("avx512_vnni", _AVX512_VNNI, True, "AVX512_CORE_VNNI", "AVX512_E1", "Cascade Lake, Ice Lake, Zen 4, Zen 5"),
    Level(
        "amx_int8", _with(_AVX512_VNNI, "AVX-VNNI", "AVX512-VBMI", "AMX-INT8"), True, "AVX512_CORE_AMX", "AVX512_E1",
        "Sapphire Rapids, Emerald Rapids, Granite Rapids",
    ),
    Level("neon_dot", _NEON_DOT, True, None, None, "Cortex-A76, Neoverse N1, Apple M1"),
    Level("neon_i8mm", _with(_NEON_DOT, "I8MM"), True, None, None, "Neoverse V1 and N2, Apple M2"),
)  # fmt: skip

_BY_NAME = {}
for _row in LEVELS:
    if _row.name in _BY_NAME:
        raise ArgumentError(f"isa.cpu: two levels are named {_row.name!r}; rename one")
    _BY_NAME[_row.name] = _row

if tuple(_BY_NAME) != LEVEL_NAMES:
    raise ArgumentError("isa.cpu: LEVELS and refquant.core.levels.LEVEL_NAMES disagree; list the same names in the same order")

_PREFERENCE = (
    "amx_int8", "avx512_vnni", "avx512_vbmi", "avx512", "avx_vnni_int8", "avx_vnni", "avx2", "sse41", "neon_i8mm", "neon_dot",
)  # fmt: skip


def level(name):
    """Return a level by name; a `Level` passes through.

    Examples
    --------
    >>> level("avx2").vnni, level("avx512_vnni").onednn
    (False, 'AVX512_CORE_VNNI')
    """
    return name if isinstance(name, Level) else _BY_NAME[choose("isa.cpu", "level", name, _BY_NAME)]


def _from_cpuinfo(text):
    """Return the extensions that a ``/proc/cpuinfo`` lists for its first processor."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            words = set(value.split())
            return frozenset(e.name for e in EXTENSIONS if e.flag in words)
    return frozenset()


def _from_llvm():
    try:
        from llvmlite import binding

        host = binding.get_host_cpu_features()
    except (ImportError, RuntimeError):
        return frozenset()
    return frozenset(e.name for e in EXTENSIONS if host.get(e.llvm))


@lru_cache(maxsize=None)
def features():
    """Return the extensions of `EXTENSIONS` that the running processor and its operating system offer.

    Read from ``/proc/cpuinfo``; where there is none, from llvmlite; where that is missing too, empty.

    Returns
    -------
    frozenset of str

    Examples
    --------
    >>> features() <= {extension.name for extension in EXTENSIONS}
    True
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            found = _from_cpuinfo(file.read())
    except OSError:
        found = frozenset()
    return found or _from_llvm()


def running_level(available=None):
    """Return the name of the level that engines see on a processor, or None below all of them.

    Parameters
    ----------
    available : set of str, optional
        Extensions; those of the running processor if not given.

    Examples
    --------
    >>> running_level({"SSE2", "SSSE3", "SSE4.1", "AVX", "AVX2", "AVX-VNNI"})
    'avx_vnni'
    """
    available = features() if available is None else frozenset(available)
    return next((name for name in _PREFERENCE if _BY_NAME[name].extensions <= available), None)
