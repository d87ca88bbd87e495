"""Functions of one code over their whole domain: all 256 codes, under many parameters, in the engine's vector loop and in its scalar tail."""

from zlib import crc32

import numpy as np

from refquant.core.dtypes import int_type
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import choose
from refquant.verify.draws import draw_scale, pick
from refquant.verify.problem import Problem
from refquant.verify.problem_sweep import problem_sweep

__all__ = ["UNARY_OPERATORS", "SWEEP_SETS", "unary_problems", "unary_sweep"]


def _either(rng, x, out):
    return {}, {"out": out}


def _given(rng, x, out):
    return ({"out": out},)


def _celu(rng, x, out):
    return ({"out": out, "alpha": float(rng.uniform(0.25, 4))},)


def _same(rng, x, out):
    return ({},)


def _limit(rng, x):
    """A number on a tie of the grid, or within two ulp of one; now and then infinite."""
    tie = np.float32((rng.integers(x.qmin - 2, x.qmax + 3) - x.zero_point + 0.5) * x.scale)
    return float("inf" if rng.random() < 0.05 else (tie.view(np.int32) + np.int32(rng.integers(-2, 3))).view(np.float32))


def _hardtanh(rng, x, out):
    low, high = sorted((-_limit(rng, x), _limit(rng, x)))
    return {} if rng.random() < 0.25 else {"min_val": low, "max_val": high}, {"min_val": 0.0, "max_val": 1.0}


def _clamp(rng, x, out):
    low, high = sorted((-_limit(rng, x), _limit(rng, x)))
    return (pick(rng, ({"min": low, "max": high}, {"min": low}, {"max": high})),)


def _threshold(rng, x, out):
    return ({"threshold": _limit(rng, x), "value": float(np.clip(_limit(rng, x), -1e30, 1e30))},)


def _prelu(rng, x, out):
    slope = QParams(draw_scale(rng, 2.0**-9, 2.0**-5), 0 if x.dtype == "int8" else int(rng.integers(256)), x.dtype)
    return ({"weight": QTensor(rng.integers(x.qmin, x.qmax + 1, 1).astype(x.storage), slope), "out": out},)


#: What each function of one code is given beside the codes: a function of a generator, the codes' parameters and drawn output parameters. Those with fixed
#: output parameters are asked with these and with drawn ones.
UNARY_OPERATORS = {
    **dict.fromkeys(("sigmoid", "tanh", "hardsigmoid", "gelu"), _either),
    **dict.fromkeys(("hardswish", "elu", "leaky_relu", "requantize", "exp", "log", "abs", "sqrt", "rsqrt"), _given),
    **dict.fromkeys(("relu", "relu6", "dequantize"), _same),
    "celu": _celu,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "threshold": _threshold,
    "prelu": _prelu,
}

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
        Sets of parameters: scales, zero points and limits are drawn, uint8 and int8 in turn.
    seed : int

    Yields
    ------
    Problem
    """
    more, name = UNARY_OPERATORS[choose("unary sweep", "op", op, UNARY_OPERATORS)], "q" if op == "dequantize" else "x"
    rng = np.random.Generator(np.random.PCG64([seed, crc32(op.encode())]))
    for i in range(sets):
        kind = int_type(("uint8", "int8")[i % 2])
        zero = lambda: int(rng.integers(kind.qmin, kind.qmax + 1))  # noqa: E731
        parameters = QParams(draw_scale(rng), zero(), kind.name)
        out = QParams(draw_scale(rng, 2.0**-10, 2.0**-4), zero(), kind.name)
        codes = np.arange(parameters.zero_point if op in ("sqrt", "rsqrt") else kind.qmin, kind.qmax + 1).astype(kind.storage)
        tail = i // 2 % -(-codes.size // _TAIL) * _TAIL
        pieces = codes, codes[tail : tail + _TAIL]
        for given in more(rng, parameters, out):
            yield from (Problem(op, {name: QTensor(piece, parameters), **given}) for piece in pieces)


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
    return problem_sweep(runner, op, unary_problems(op, sets=sets, seed=seed), f"code sweep of {op}, problem {{}}, seed {seed}", progress=progress)
