"""The table of all instructions: what they take, what they give, and which processors have them.

>>> row = instruction("vpdpbusd")
>>> row.operands, row.result, row.levels
(('s32', 'u8', 's8'), 's32', ('avx_vnni', 'avx_vnni_int8', 'avx512_vnni', 'amx_int8'))
>>> row.widths("avx_vnni"), row.widths("avx512_vnni")
((128, 256), (128, 256, 512))
"""

from typing import Callable, NamedTuple

from refquant.errors import ArgumentError, choose
from refquant.isa import amx, neon, vnni, x86
from refquant.isa.cpu import LEVELS, level

__all__ = ["Instruction", "INSTRUCTIONS", "instruction"]


class Instruction(NamedTuple):
    """One instruction.

    Attributes
    ----------
    name : str
    function : callable
        Its meaning in NumPy.
    operands : tuple of str
        Lane types in the order of the function's arguments; ``"s16/s32"`` for either.
    result : str
        Lane type; ``"half"`` is the operand's at half its width, ``"same"`` the first operand's.
    forms : tuple of (int, str)
        Register width in bits and the extension that brings it. A tile has 8,192 bits.
    """

    name: str
    function: Callable
    operands: tuple
    result: str
    forms: tuple

    @property
    def extensions(self):
        """The extensions that bring one of the forms."""
        return tuple(dict.fromkeys(extension for _, extension in self.forms))

    @property
    def levels(self):
        """The names of the levels that have the instruction."""
        return tuple(row.name for row in LEVELS if self.widths(row))

    def widths(self, name):
        """Return the register widths that a level offers, in bits; empty where it lacks the instruction."""
        extensions = level(name).extensions
        return tuple(sorted({bits for bits, extension in self.forms if extension in extensions}))


_SSSE3 = ((128, "SSSE3"), (256, "AVX2"), (512, "AVX512BW"))
_SSE2 = ((128, "SSE2"), (256, "AVX2"), (512, "AVX512BW"))
_VNNI = ((128, "AVX-VNNI"), (256, "AVX-VNNI"), (128, "AVX512-VNNI"), (256, "AVX512-VNNI"), (512, "AVX512-VNNI"))
_INT8 = ((128, "AVX-VNNI-INT8"), (256, "AVX-VNNI-INT8"))
_TILE = ((8192, "AMX-INT8"),)
_NEON = ((64, "NEON"), (128, "NEON"))
_DOT = ((64, "DotProd"), (128, "DotProd"))
_I8MM = ((128, "I8MM"),)

INSTRUCTIONS = (
    Instruction("vpmaddubsw", x86.vpmaddubsw, ("u8", "s8"), "s16", _SSSE3),
    Instruction("vpmaddwd", x86.vpmaddwd, ("s16", "s16"), "s32", _SSE2),
    Instruction("vpaddd", x86.vpaddd, ("s32", "s32"), "s32", ((128, "SSE2"), (256, "AVX2"), (512, "AVX512F"))),
    Instruction("pmulhrsw", x86.pmulhrsw, ("s16", "s16"), "s16", _SSSE3),
    Instruction("packssdw", x86.packssdw, ("s32", "s32"), "s16", _SSE2),
    Instruction("packsswb", x86.packsswb, ("s16", "s16"), "s8", _SSE2),
    Instruction("packuswb", x86.packuswb, ("s16", "s16"), "u8", _SSE2),
    Instruction("cvtps2dq", x86.cvtps2dq, ("f32",), "s32", ((128, "SSE2"), (256, "AVX"), (512, "AVX512F"))),
    Instruction("vpdpbusd", vnni.vpdpbusd, ("s32", "u8", "s8"), "s32", _VNNI),
    Instruction("vpdpbusds", vnni.vpdpbusds, ("s32", "u8", "s8"), "s32", _VNNI),
    Instruction("vpdpwssd", vnni.vpdpwssd, ("s32", "s16", "s16"), "s32", _VNNI),
    Instruction("vpdpwssds", vnni.vpdpwssds, ("s32", "s16", "s16"), "s32", _VNNI),
    Instruction("vpdpbssd", vnni.vpdpbssd, ("s32", "s8", "s8"), "s32", _INT8),
    Instruction("vpdpbssds", vnni.vpdpbssds, ("s32", "s8", "s8"), "s32", _INT8),
    Instruction("vpdpbsud", vnni.vpdpbsud, ("s32", "s8", "u8"), "s32", _INT8),
    Instruction("vpdpbsuds", vnni.vpdpbsuds, ("s32", "s8", "u8"), "s32", _INT8),
    Instruction("vpdpbuud", vnni.vpdpbuud, ("u32", "u8", "u8"), "u32", _INT8),
    Instruction("vpdpbuuds", vnni.vpdpbuuds, ("u32", "u8", "u8"), "u32", _INT8),
    Instruction("tdpbusd", amx.tdpbusd, ("s32", "u8", "s8"), "s32", _TILE),
    Instruction("tdpbssd", amx.tdpbssd, ("s32", "s8", "s8"), "s32", _TILE),
    Instruction("tdpbsud", amx.tdpbsud, ("s32", "s8", "u8"), "s32", _TILE),
    Instruction("tdpbuud", amx.tdpbuud, ("u32", "u8", "u8"), "u32", _TILE),
    Instruction("sdot", neon.sdot, ("s32", "s8", "s8"), "s32", _DOT),
    Instruction("udot", neon.udot, ("u32", "u8", "u8"), "u32", _DOT),
    Instruction("usdot", neon.usdot, ("s32", "u8", "s8"), "s32", ((64, "I8MM"), (128, "I8MM"))),
    Instruction("smmla", neon.smmla, ("s32", "s8", "s8"), "s32", _I8MM),
    Instruction("ummla", neon.ummla, ("u32", "u8", "u8"), "u32", _I8MM),
    Instruction("usmmla", neon.usmmla, ("s32", "u8", "s8"), "s32", _I8MM),
    Instruction("sqrdmulh", neon.sqrdmulh, ("s16/s32", "s16/s32"), "same", _NEON),
    Instruction("srshl", neon.srshl, ("s8/s16/s32", "s8/s16/s32"), "same", _NEON),
    Instruction("sqxtn", neon.sqxtn, ("s16/s32/s64",), "half", ((128, "NEON"),)),
    Instruction("sqadd", neon.sqadd, ("s8/s16/s32", "s8/s16/s32"), "same", _NEON),
)

_BY_NAME = {}
for _row in INSTRUCTIONS:
    if _row.name in _BY_NAME:
        raise ArgumentError(f"isa: two instructions are named {_row.name!r}; rename one")
    _BY_NAME[_row.name] = _row


def instruction(name):
    """Return the row of `INSTRUCTIONS` of a name.

    Raises
    ------
    ArgumentError
        An unknown name, with the list of names.
    """
    return _BY_NAME[choose("isa", "instruction", name, _BY_NAME)]
