"""Whole domains: every float32 for quantize, every int32 accumulator for requantization, every code of functions, every pair of codes of add and mul.

Each sweep is a list of tasks, and a function from a runner and a task to what was found; see `refquant.verify.pieces`.
"""

from refquant.verify.exhaustive.pair_sweep import pair_piece, pair_tasks
from refquant.verify.exhaustive.quantize_sweep import ONE_KERNEL, QUANTIZE_SETS, quantize_piece, quantize_tasks
from refquant.verify.exhaustive.requantize_sweep import REQUANTIZE_SETS, ROUTES, requantize_piece, requantize_tasks
from refquant.verify.exhaustive.unary_piece import unary_piece, unary_tasks

__all__ = ["SWEEPS", "ONE_KERNEL", "QUANTIZE_SETS", "REQUANTIZE_SETS", "ROUTES"]

#: Name: (tasks of engines, piece of a runner and a task).
SWEEPS = {
    "quantize": (quantize_tasks, quantize_piece),
    "requantize": (requantize_tasks, requantize_piece),
    "unary": (unary_tasks, unary_piece),
    "pairs": (pair_tasks, pair_piece),
}
