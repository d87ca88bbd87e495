"""quantize on every one of the 2**32 bit patterns of float32, NaN payloads included."""

from typing import NamedTuple

import numpy as np

from refquant.core.qparams import QParams
from refquant.verify.exhaustive.piece import begin_piece, count_block
from refquant.verify.problem import Problem, oracle

__all__ = ["QUANTIZE_SETS", "ONE_KERNEL", "quantize_tasks", "quantize_piece"]


class QuantizeSet(NamedTuple):
    """A scale, and a zero point of uint8; that of int8 is 128 less."""

    scale: float
    zero_point: int


#: What is swept: scales that are no powers of two, no float32, subnormal, huge; zero points odd and at both ends.
QUANTIZE_SETS = (
    QuantizeSet(0.1, 128), QuantizeSet(1 / 3, 127), QuantizeSet(2.0**-7, 1), QuantizeSet(0.3, 255), QuantizeSet(2.7e-5, 77),
    QuantizeSet(1.0, 0), QuantizeSet(0.0123456789, 131), QuantizeSet(1e-39, 129), QuantizeSet(1.7e38, 3),
)  # fmt: skip

#: Engines whose kernel is another's, so that one sweep stands for them.
ONE_KERNEL = {"onednn": "fbgemm", "x86": "fbgemm", "qnnpack": "fbgemm"}

_PIECES, _BLOCK = 64, 1 << 22


def quantize_tasks(engines):
    """Yield the pieces: for each set and each engine that has a kernel of its own, 64 pieces of 2**26 patterns."""
    for number in range(len(QUANTIZE_SETS)):
        for engine in dict.fromkeys(ONE_KERNEL.get(engine, engine) for engine in engines):
            for part in range(_PIECES):
                yield {"key": f"quantize/{engine}/{number}/{part}", "what": "quantize", "engine": engine, "set": number, "part": part, "of": _PIECES}


def quantize_piece(runner, task, *, size=None):
    """Compare one piece; `size` patterns from its start alone, if given.

    Returns
    -------
    dict
        See `refquant.verify.exhaustive.piece`.
    """
    chosen, piece = QUANTIZE_SETS[task["set"]], begin_piece(task)
    start, total = task["part"] << 26, size or 1 << 26
    unsigned = QParams(chosen.scale, chosen.zero_point, "uint8")
    parameters = next((p for p in (unsigned, QParams(chosen.scale, chosen.zero_point - 128, "int8")) if runner.supports(_problem(np.zeros(1, np.float32), p)) is None), None)
    if parameters is None:
        return {**piece, "reason": runner.supports(_problem(np.zeros(1, np.float32), unsigned))}
    for first in range(start, start + total, _BLOCK):
        patterns = np.arange(min(_BLOCK, start + total - first), dtype=np.uint32) + np.uint32(first)
        problem = _problem(patterns.view(np.float32), parameters)
        expected = oracle(problem, runner.profile)
        count_block(piece, runner.run(problem), expected, lambda i: f"x = {patterns.view(np.float32)[i]} (0x{patterns[i]:08x}), {parameters}")  # noqa: B023
    return piece


def _problem(x, parameters):
    return Problem("quantize", {"x": x, "qparams": parameters})
