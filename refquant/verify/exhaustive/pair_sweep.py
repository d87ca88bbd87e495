"""add, sub, mul and squared_difference on all 65,536 pairs of codes."""

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.numerics.coverage import absence
from refquant.verify.draws import draw_scale
from refquant.verify.exhaustive.piece import begin_piece, count_block
from refquant.verify.problem import Problem, oracle

__all__ = ["PAIR_OPERATORS", "PAIR_SETS", "pair_tasks", "pair_piece"]

PAIR_OPERATORS = ("add", "sub", "mul", "squared_difference")

#: Sets of parameters: drawn from this many seeds, the first with power-of-two ratios, where every sum may be a tie.
PAIR_SETS = 16


def pair_tasks(engines):
    """Yield one piece for each engine, operator that it has, and dtype."""
    for engine in engines:
        for op in (op for op in PAIR_OPERATORS if not absence(op, engine)):
            for dtype in ("uint8", "int8"):
                yield {"key": f"pairs/{engine}/{op}/{dtype}", "what": "pairs", "engine": engine, "op": op, "dtype": dtype}


def pair_problem(op, dtype, number):
    """Return the call on all pairs under one set of parameters."""
    rng = np.random.Generator(np.random.PCG64([number, 65536]))
    low = 0 if dtype == "uint8" else -128
    codes = np.arange(low, low + 256).astype(dtype)
    zero = lambda: low + (int(rng.integers(256)), 0, 255, 101)[number % 4]  # noqa: E731
    if number < 4:
        scales = 0.25, 0.25 * 2.0**-number, 0.5
    else:
        scales = draw_scale(rng), draw_scale(rng), draw_scale(rng, 2.0**-4, 2.0**-1)
    a, b, out = (QParams(scale, zero(), dtype) for scale in scales)
    return Problem(op, {"a": QTensor(np.repeat(codes, 256), a), "b": QTensor(np.tile(codes, 256), b), "out": out})


def pair_piece(runner, task):
    """Compare one piece; sets that the engine refuses are left out."""
    piece, reason = begin_piece(task), ""
    for number in range(PAIR_SETS):
        problem = pair_problem(task["op"], task["dtype"], number)
        refused = runner.supports(problem)
        if refused is not None:
            reason = refused
            continue
        say = lambda i, p=problem: f"{p['a'].values[i]} and {p['b'].values[i]} of {p['a'].qparams}, {p['b'].qparams}, out {p['out']}"  # noqa: E731
        count_block(piece, runner.run(problem), oracle(problem, runner.profile), say)
    return piece if piece["outputs"] else {**piece, "reason": reason}
