"""Functions of one code over their whole domain: all 256 codes, under many parameters, in the engine's vector loop and in its scalar tail."""

from zlib import crc32

import numpy as np

from refquant.core.dtypes import int_type
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import choose
from refquant.verify.campaign import Row, try_problem
from refquant.verify.compare import Outcome, Status
from refquant.verify.draws import draw_scale
from refquant.verify.problem import Problem

__all__ = ["UNARY_OPERATORS", "SWEEP_SETS", "unary_problems", "unary_sweep"]

#: The functions, and whether their output's parameters may be left to the engine.
UNARY_OPERATORS = {"sigmoid": True, "tanh": True, "hardsigmoid": True, "hardswish": False, "elu": False, "celu": False, "leaky_relu": False, "gelu": True}

#: Sets of parameters behind the counts of `refquant.numerics.coverage`.
SWEEP_SETS = 4000

# Fewer elements than a vector step of any engine, so that all of them are tail.
_TAIL = 63


def unary_problems(op, *, sets=SWEEP_SETS, seed=0):
    """Yield the problems of a sweep: for each set of parameters all 256 codes at once, and again a few that fill no vector step.

    Parameters
    ----------
    op : str
    sets : int
        Sets of parameters: scales and zero points are drawn, uint8 and int8 in turn. A function with fixed output parameters is asked
        with these and with drawn ones.
    seed : int

    Yields
    ------
    Problem
    """
    fixed = UNARY_OPERATORS[choose("unary sweep", "op", op, UNARY_OPERATORS)]
    rng = np.random.Generator(np.random.PCG64([seed, crc32(op.encode())]))
    for i in range(sets):
        kind = int_type(("uint8", "int8")[i % 2])
        zero = lambda: int(rng.integers(kind.qmin, kind.qmax + 1))  # noqa: E731
        parameters = QParams(draw_scale(rng), zero(), kind.name)
        out = QParams(draw_scale(rng, 2.0**-10, 2.0**-4), zero(), kind.name)
        codes = np.arange(kind.qmin, kind.qmax + 1).astype(kind.storage)
        tail = i // 2 % -(-codes.size // _TAIL) * _TAIL
        pieces = codes, codes[tail : tail + _TAIL]
        more = {"alpha": float(rng.uniform(0.25, 4))} if op == "celu" else {}
        for chosen in ({}, {"out": out}) if fixed else ({"out": out, **more},):
            yield from (Problem(op, {"x": QTensor(piece, parameters), **chosen}) for piece in pieces)


def unary_sweep(runner, op, *, sets=SWEEP_SETS, seed=0, progress=None):
    """Hold an engine's function against the oracle's on every code; see `unary_problems`.

    Parameters
    ----------
    runner : Runner
    op : str
    sets, seed : int
    progress : callable, optional
        Called with the row after every problem.

    Returns
    -------
    Row
        ``row.outputs`` and ``row.differing`` are the counts that the table of operators states.

    Examples
    --------
    >>> from refquant.verify import oracle
    >>> class Oracle:
    ...     name = profile = "fbgemm"
    ...     supports = lambda self, problem: None
    ...     run = lambda self, problem: oracle(problem, "fbgemm")
    >>> row = unary_sweep(Oracle(), "hardswish", sets=3)
    >>> row.outputs, row.differing
    (957, 0)
    """
    row = Row(op, runner.name)
    for i, problem in enumerate(unary_problems(op, sets=sets, seed=seed)):
        trial = try_problem(runner, problem, f"code sweep of {op}, problem {i}, seed {seed}")
        if trial.outcome.status is Status.UNTRUSTED:  # equal outputs show little alone, but every code counts here
            trial = trial._replace(outcome=Outcome(Status.EXACT))
        row.add(trial)
        if progress:
            progress(row)
    return row
