"""CPU instructions as NumPy functions, the processors that have them, and how engines multiply with them.

An instruction takes and gives whole registers; `INSTRUCTIONS` lists all of them. `refquant.isa.cpu` knows the processor levels,
`refquant.isa.products` what each engine's INT8 products become on each level. Nothing here needs Numba; the same
instructions in hardware are `refquant.kernels.instructions`.

>>> import numpy as np
>>> int(vpmaddubsw(np.full(16, 255, np.uint8), np.full(16, 127, np.int8))[0])
32767
"""

from refquant.isa import cpu
from refquant.isa.accumulate import accumulate_conv, accumulate_linear
from refquant.isa.amx import TileShape, tdpbssd, tdpbsud, tdpbusd, tdpbuud, tile_layout
from refquant.isa.instructions import INSTRUCTIONS, Instruction, instruction
from refquant.isa.neon import sdot, smmla, sqadd, sqrdmulh, sqxtn, srshl, udot, ummla, usdot, usmmla
from refquant.isa.products import ConvGeometry, Product, saturating_product
from refquant.isa.sequences import SEQUENCES, multiply, sequence_used
from refquant.isa.vnni import (
    vpdpbssd, vpdpbssds, vpdpbsud, vpdpbsuds, vpdpbusd, vpdpbusds, vpdpbuud, vpdpbuuds, vpdpwssd, vpdpwssds,
)  # fmt: skip
from refquant.isa.x86 import cvtps2dq, packssdw, packsswb, packuswb, pmulhrsw, vpaddd, vpmaddubsw, vpmaddwd

__all__ = [
    "cpu", "INSTRUCTIONS", "Instruction", "instruction", "TileShape", "tile_layout",
    "vpmaddubsw", "vpmaddwd", "vpaddd", "pmulhrsw", "packssdw", "packsswb", "packuswb", "cvtps2dq",
    "vpdpbusd", "vpdpbusds", "vpdpwssd", "vpdpwssds", "vpdpbssd", "vpdpbssds", "vpdpbsud", "vpdpbsuds", "vpdpbuud", "vpdpbuuds",
    "tdpbusd", "tdpbssd", "tdpbsud", "tdpbuud",
    "sdot", "udot", "usdot", "smmla", "ummla", "usmmla", "sqrdmulh", "srshl", "sqxtn", "sqadd",
    "SEQUENCES", "multiply", "sequence_used",
    "saturating_product", "Product", "ConvGeometry", "accumulate_linear", "accumulate_conv",
]  # fmt: skip
