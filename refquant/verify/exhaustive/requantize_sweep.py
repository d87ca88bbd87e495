"""Requantization of every int32 accumulator: the oracle's kernels against NumPy and fractions, and against engines that can be led to each sum.

::

    acc[m, n] = lo[m] + hi[n]        lo[m] = x0 + 127 * x1        0 … step-1, from two codes of x under the weights 1 and 127
                                     hi[n] = h * step             from the bias, where step = 127*256, so that float32 holds it too; or, where
                                                                  no bias is rounded to int32, from h weights of 127 under codes of 255, step = 127*255
"""

from typing import NamedTuple

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.exhaustive.piece import begin_piece, count_block
from refquant.verify.exhaustive.requantize_formulas import BY_FRACTIONS, BY_NUMPY
from refquant.verify.problem import Problem, oracle

__all__ = ["REQUANTIZE_SETS", "ROUTES", "requantize_tasks", "requantize_piece", "edge_accumulators"]


class RequantizeSet(NamedTuple):
    """Scales of input, weights and output, and the zero point of a uint8 output."""

    sx: float
    sw: float
    sy: float
    zero_point: int


#: An exact power of two (every odd multiple of 128 is a tie); an inexact product beside one; codes spread over all of int32; close to 1; a third.
REQUANTIZE_SETS = (
    RequantizeSet(0.25, 0.03125, 2.0, 101),
    RequantizeSet(0.1, 0.0234375, 0.6000001, 129),
    RequantizeSet(0.001, 0.003, 50.3, 127),
    RequantizeSet(0.7, 0.7, 0.5, 3),
    RequantizeSet(1 / 3, 0.02, 1.9, 255),
)


class Route(NamedTuple):
    """How an engine is led to an accumulator.

    Attributes
    ----------
    op : str
    x_dtype : str
    bias : str
        ``int32``; ``real``: a float that the engine rounds to int32; ``none``: weights make up the sum, so fewer sums are reached.
    same : str
        Other engines with this kernel.
    """

    op: str
    x_dtype: str
    bias: str
    same: str = ""


ROUTES = {
    "fbgemm": Route("linear", "uint8", "none", "x86"),
    "onednn": Route("linear", "uint8", "none"),
    "qnnpack": Route("linear", "uint8", "real"),
    "onnxruntime": Route("linear", "uint8", "int32"),
    "tflite_ref": Route("conv2d", "int8", "int32"),
    "tflite_opt": Route("linear", "int8", "int32"),
    "xnnpack": Route("linear", "int8", "int32"),
}

# Of accumulators that weights alone reach.
_NARROW = 2**25
_PIECES, _CHANNELS = {"whole": 64, "narrow": 4}, 64


def _grid(route):
    """Return (step, how many steps to either side)."""
    return (127 * 255, _NARROW // (127 * 255)) if route.bias == "none" else (127 * 256, 2**31 // (127 * 256) + 1)


def _scales(route, number):
    """Return a set; where the bias is real, with scales of two powers of two, which make it exact, and about the same multiplier."""
    chosen = REQUANTIZE_SETS[number]
    if route.bias != "real":
        return chosen
    return RequantizeSet(0.25, 0.03125, chosen.sy / (chosen.sx * chosen.sw) * 2.0**-7, chosen.zero_point)


def requantize_tasks(engines):
    """Yield the pieces: for each engine with a route and each set of scales, ranges of accumulators; and the edges by fractions."""
    for engine in engines:
        if engine in ROUTES:
            for number in range(len(REQUANTIZE_SETS)):
                parts = _PIECES["narrow" if ROUTES[engine].bias == "none" else "whole"]
                for part in range(parts):
                    yield {"key": f"requantize/{engine}/{number}/{part}", "what": "requantize", "engine": engine, "set": number, "part": part, "of": parts}


def requantize_piece(runner, task, *, steps=None):
    """Compare one piece: the oracle with NumPy, the engine with the oracle, and the edges with fractions.

    Parameters
    ----------
    runner : Runner or None
        None leaves the engine out.
    task : dict
    steps : int, optional
        So many steps of ``hi`` alone.

    Returns
    -------
    dict
        As `refquant.verify.exhaustive.piece` has it; ``engine_outputs`` of those are the engine's, ``edges`` were computed in fractions.
    """
    engine, piece = task["engine"], {**begin_piece(task), "engine_outputs": 0, "edges": 0}
    route = ROUTES[engine]
    chosen, (step, reach) = _scales(route, task["set"]), _grid(route)
    hi = np.arange(-reach, reach)
    hi = hi[len(hi) * task["part"] // task["of"] : len(hi) * (task["part"] + 1) // task["of"]][:steps]
    if task["part"] == 0:
        _edges(piece, engine, task["set"])
    for first in range(0, len(hi), _CHANNELS):
        some = hi[first : first + _CHANNELS]
        problem = _problem(route, chosen, some, np.arange(step))
        acc = _wrapped(np.arange(step)[:, None] + some * step)
        out = problem["out"]
        comp = _rows(route, oracle(problem, engine))
        ref = BY_NUMPY[engine](acc, chosen.sx, chosen.sw, chosen.sy, out.zero_point, out.qmin, out.qmax).astype(out.storage)
        say = lambda i, acc=acc: f"accumulator {acc.reshape(-1)[i]}, {chosen}"  # noqa: E731
        count_block(piece, comp, ref, say, "the kernel")
        if runner is not None and runner.supports(problem) is None:
            before = piece["outputs"]
            # Without VNNI the sums that weights make up saturate on their way, and scales may be taken in another order.
            here = comp if runner.profile == engine else _rows(route, oracle(problem, runner.profile))
            count_block(piece, _rows(route, runner.run(problem)), here, say)
            piece["engine_outputs"] += piece["outputs"] - before
    return piece


def edge_accumulators(engine, number):
    """Return accumulators on both sides of every code's threshold, two away at most, and the ends of int32."""
    chosen = _scales(ROUTES[engine], number)
    out = _out(ROUTES[engine], chosen)
    m = np.float64(chosen.sx) * chosen.sw / chosen.sy
    middle = np.floor((np.arange(out.qmin, out.qmax + 2) - out.zero_point - 0.5) / m).astype(np.int64)
    near = (middle[:, None] + np.arange(-2, 4)).reshape(-1)
    ends = np.array([0, 1, -1, 2**24, 2**24 + 1, -(2**24) - 1, 2**31 - 1, 2**31 - 64, -(2**31), -(2**31) + 1])
    every = np.unique(np.concatenate([near, ends]))
    return every[(every >= -(2**31)) & (every < 2**31)]


def _edges(piece, engine, number):
    """Hold the oracle against fractions on the edges; sums that the route does not reach are left out."""
    route = ROUTES[engine]
    chosen, (step, reach) = _scales(route, number), _grid(route)
    acc = edge_accumulators(engine, number)
    h, low = np.divmod(acc, step)
    inside = np.abs(h) < reach
    acc, h, low = acc[inside], h[inside], low[inside]
    steps, places = np.unique(h, return_inverse=True)
    comp = np.empty(acc.size, route.x_dtype)
    for first in range(0, steps.size, _CHANNELS):
        chosen_steps = steps[first : first + _CHANNELS]
        here = (places >= first) & (places < first + _CHANNELS)
        rows, which = np.unique(low[here], return_inverse=True)
        problem = _problem(route, chosen, chosen_steps, rows)
        comp[here] = _rows(route, oracle(problem, engine))[which, places[here] - first]
    out = _out(route, chosen)
    exact = BY_FRACTIONS[engine]
    ref = np.array([exact(int(a), chosen.sx, chosen.sw, chosen.sy, out.zero_point, out.qmin, out.qmax) for a in acc]).astype(out.storage)
    count_block(piece, comp, ref, lambda i: f"accumulator {acc[i]}, {chosen}", "the kernel (edges)")
    piece["edges"] = int(acc.size)


def _out(route, chosen):
    return QParams(chosen.sy, chosen.zero_point - (128 if route.x_dtype == "int8" else 0), route.x_dtype)


def _problem(route, chosen, hi, lo):
    """Return the call whose accumulators are ``lo[m] + hi[n] * step``."""
    step, reach = _grid(route)
    base = -128 if route.x_dtype == "int8" else 0
    columns = [np.minimum(lo // 127, 255)]
    columns.insert(0, lo - 127 * columns[0])
    weights = [np.full(hi.size, 1), np.full(hi.size, 127)]
    bias = None
    if route.bias == "none":
        count = np.arange(reach)
        columns += [np.full(lo.size, 255)] * reach
        weights += list(np.where(count[:, None] < np.abs(hi), 127 * np.sign(hi), 0))
    else:
        bias = _wrapped(hi * step)
        if route.bias == "real":
            bias = bias.astype(np.float64) * float(np.float32(np.float32(chosen.sw) * np.float32(chosen.sx)))
    x = (np.stack(columns, 1) + base).astype(route.x_dtype)
    w = np.stack(weights, 1).astype(np.int8)
    if route.op == "conv2d":
        x, w = np.ascontiguousarray(x.T).reshape(1, x.shape[1], 1, lo.size), w[:, :, None, None]
    tensor = QTensor(x, QParams(chosen.sx, base, route.x_dtype))
    return Problem(route.op, {"x": tensor, "w": QTensor(w, QParams(chosen.sw, 0, "int8")), "bias": bias, "out": _out(route, chosen)})


def _rows(route, y):
    """Return codes as (lo, hi)."""
    return y if route.op == "linear" else np.ascontiguousarray(y[0, :, 0, :].T)


def _wrapped(acc):
    return ((acc + 2**31) % 2**32 - 2**31).astype(np.int32)
