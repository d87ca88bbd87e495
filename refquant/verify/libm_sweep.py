"""Operators that end in a function of libm: products with such a post-operation, and softmax, over many parameters, as the table of operators counts them."""

from zlib import crc32

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import choose
from refquant.numerics.coverage import LIBM_SETS
from refquant.verify.draws import draw_scale
from refquant.verify.problem import Problem
from refquant.verify.problem_sweep import problem_sweep
from refquant.verify.unary_sweep import SWEEP_SETS, UNARY_OPERATORS, unary_sweep

__all__ = ["POST_SETS", "SOFTMAX_SETS", "libm_sweep", "post_problems", "softmax_problems"]

#: Sets of parameters behind the counts of `refquant.numerics.coverage`.
POST_SETS, SOFTMAX_SETS = 200, 4000

_CHANNELS = 48
_SMOOTH = ("tanh", "gelu", "swish")


def post_problems(op, function, *, sets=POST_SETS, seed=0):
    """Yield products of one number each, so that no sum saturates: all 256 codes under weights of 48 channels, with values from about -8 to 8 before the function.

    Parameters
    ----------
    op : {"linear", "conv2d"}
    function : {"tanh", "gelu", "swish"}
    sets, seed : int

    Yields
    ------
    Problem
    """
    choose("libm sweep", "post-operation", function, _SMOOTH)
    rng = np.random.Generator(np.random.PCG64([seed, crc32(f"{op} {function}".encode())]))
    codes = np.arange(256, dtype=np.uint8)[:, None]
    for _ in range(sets):
        w = rng.integers(-127, 128, (_CHANNELS, 1)).astype(np.int8)
        x = QParams(draw_scale(rng), int(rng.integers(256)), "uint8")
        weights = QParams(8.0 * rng.uniform(0.2, 1.5) / (x.scale * 128 * 127), 0, "int8")
        out = QParams(draw_scale(rng, 2.0**-9, 2.0**-4), int(rng.integers(256)), "uint8")
        image = op != "linear"
        tensors = {"x": codes.reshape(1, 1, 16, 16) if image else codes, "w": w[:, :, None, None] if image else w}
        yield Problem(op, {"x": QTensor(tensors["x"], x), "w": QTensor(tensors["w"], weights), "bias": None, "out": out, "activation": function})


def softmax_problems(*, sets=SOFTMAX_SETS, seed=0):
    """Yield softmaxes of random codes, uint8 and int8 in turn, along rows of 1 to 300 entries.

    Parameters
    ----------
    sets, seed : int

    Yields
    ------
    Problem
    """
    rng = np.random.Generator(np.random.PCG64([seed, crc32(b"softmax")]))
    for i in range(sets):
        dtype, low = (("uint8", 0), ("int8", -128))[i % 2]
        shape = int(rng.integers(1, 4)), int(rng.integers(1, 301))
        codes = rng.integers(low, low + 256, shape).astype(dtype)
        p = QParams(draw_scale(rng, 2.0**-9, 2.0**-2), low + int(rng.integers(256)), dtype)
        # Some engines take output parameters, others have their own.
        given = {"out": QParams(1 / 256, low, dtype)} if i // 2 % 2 else {}
        yield Problem("softmax", {"x": QTensor(codes, p), "dim": -1, **given})


def libm_sweep(runner, op, *, sets=None, seed=0):
    """Count where a function of libm decides an engine's code.

    Parameters
    ----------
    runner : Runner
    op : str
        A function of one code, ``softmax``, or a product with its post-operation such as ``linear tanh``.
    sets : int, optional
        As many as behind the counts of `refquant.numerics.coverage` unless given.
    seed : int

    Returns
    -------
    Row

    Examples
    --------
    >>> from refquant.verify import oracle
    >>> class Oracle:
    ...     name = profile = "onednn"
    ...     supports = lambda self, problem: None
    ...     run = lambda self, problem: oracle(problem, "onednn")
    >>> row = libm_sweep(Oracle(), "linear tanh", sets=2)
    >>> row.outputs, row.differing
    (24576, 0)
    """
    if op in UNARY_OPERATORS:
        return unary_sweep(runner, op, sets=sets or LIBM_SETS.get((op, runner.name), LIBM_SETS.get(runner.name, SWEEP_SETS)), seed=seed)
    product, _, function = op.partition(" ")
    problems = softmax_problems(sets=sets or LIBM_SETS.get((op, runner.name), SOFTMAX_SETS), seed=seed) if op == "softmax" else post_problems(product, function, sets=sets or POST_SETS, seed=seed)
    return problem_sweep(runner, op, problems, f"sweep of {op}, problem {{}}, seed {seed}")
