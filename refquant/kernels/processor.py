"""The processor that kernels are compiled for, and the one that they take it for.

Kernels choose their instructions by `cpu_features`. Usually these are the processor's own. With ``REFQUANT_EMULATE=LEVEL``, a level of
`refquant.isa.LEVELS`, they are that level's: the same tiles, layouts and output stages run as on such a processor, bit for bit, and of the
instructions that the processor here lacks each is written out by `refquant.kernels.models`. It is for tests, and slow.
"""

import os
from functools import lru_cache

from llvmlite import binding as llvm
from numba.core import config

__all__ = ["VARIABLE", "cpu_features", "host_features", "emulated_level"]

VARIABLE = "REFQUANT_EMULATE"


@lru_cache(maxsize=None)
def host_features():
    """Return the instruction sets that LLVM may use here, as LLVM spells them.

    Ask before code with an instruction of one processor is compiled: LLVM aborts the process on one that it cannot encode.
    Numba's own settings (``NUMBA_CPU_FEATURES``, ``NUMBA_ENABLE_AVX``) are respected.

    Returns
    -------
    frozenset of str
        ``"avx2"``, ``"avx512vnni"``, ``"avxvnni"``, ``"fma"``, …
    """
    if config.CPU_FEATURES is not None:
        listed = [name for name in config.CPU_FEATURES.split(",") if name]
        return frozenset(name[1:] for name in listed if name.startswith("+"))
    try:
        host = llvm.get_host_cpu_features()
    except RuntimeError:
        return frozenset()
    allowed = (lambda name: True) if config.ENABLE_AVX else (lambda name: not name.startswith("avx"))
    return frozenset(name for name, present in host.items() if present and allowed(name))


@lru_cache(maxsize=None)
def emulated_level():
    """Return the name of the level that ``REFQUANT_EMULATE`` asks for, None where it is not set.

    Raises
    ------
    ArgumentError
        There is no such level.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    from refquant.errors import choose
    from refquant.isa.cpu import LEVELS

    return choose("kernels.processor", VARIABLE, name, [level.name for level in LEVELS])


@lru_cache(maxsize=None)
def cpu_features():
    """Return the instruction sets that kernels may be made of: `host_features`, or those of the emulated level.

    Returns
    -------
    frozenset of str
    """
    name = emulated_level()
    if name is None:
        return host_features()
    from refquant.isa.cpu import EXTENSIONS, level

    there = level(name).extensions
    found = {extension.llvm for extension in EXTENSIONS if extension.name in there}
    return frozenset(found | {"fma"} if "avx2" in found else found)  # every processor with AVX2 has it
