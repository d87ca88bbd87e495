"""Data that tell explanations apart which the given data cannot."""

from itertools import islice, product

import numpy as np

from refquant.core.layout import is_channels_last
from refquant.errors import RefquantError
from refquant.verify.build import build
from refquant.verify.case import Case
from refquant.verify.default_cases import STREAMS, case_stream
from refquant.verify.diagnosis.bench import same_bits
from refquant.verify.diagnosis.call import CONVOLUTIONS, base_call
from refquant.verify.diagnosis.evaluator import Evaluator

__all__ = ["separating_problem", "similar_cases"]

_LAYERS = ("linear", *CONVOLUTIONS)
# Options that may bring a difference to light, each switched in turn.
_SWITCHES = ((), ("asymmetric",), ("per_channel",), ("nobias",), ("intbias",), ("relu",), ("int8",), ("channels_last",))


def _shape(problem):
    """Return the shape of the case that has the operator's shapes, or None."""
    op = problem.op
    if op == "linear":
        x, w = problem["x"], problem["w"]
        return (("m", x.size // max(x.shape[-1], 1)), ("k", w.shape[1]), ("n", w.shape[0])) if x.ndim == 2 else None
    if op == "matmul_integer":
        return (("m", len(problem["a"])), ("k", problem["b"].shape[0]), ("n", problem["b"].shape[1])) if problem["a"].ndim == 2 else None
    if op in CONVOLUTIONS:
        x, w = problem["x"].shape, problem["w"].shape
        sides = zip("thw"[5 - len(x) :], x[2:])
        geometry = ((letter, problem.get(name)) for letter, name in (("s", "stride"), ("p", "padding"), ("d", "dilation"), ("g", "groups")))
        return (("n", x[0]), ("c", x[1]), *sides, ("oc", w[0]), ("k", w[2:]), *((k, tuple(map(int, v)) if isinstance(v, (tuple, list)) else int(v)) for k, v in geometry if v is not None))
    if op in ("add", "quantize", "dequantize", "fake_quantize"):
        tensor = problem["a" if op == "add" else "q" if op == "dequantize" else "x"]
        return tuple(zip("nchw", tensor.shape)) if tensor.ndim <= 4 else None
    return None


def _options(problem):
    found = set()
    tensors = [v for v in problem.arguments.values() if hasattr(v, "qparams")]
    if problem.op in _LAYERS:
        w, bias = problem["w"].qparams, problem.get("bias")
        found |= {"per_channel"} if w.per_channel else set()
        found |= {"asymmetric"} if np.any(w.zero_point) else set()
        found |= {"nobias"} if bias is None else {"intbias"} if np.asarray(bias).dtype.kind in "iu" else set()
        found |= {"float"} if problem.get("out") is None else set()
    if problem.get("activation") == "relu":
        found.add("relu")
    if any(t.dtype == "int8" for t in tensors if t is not problem.get("w")):
        found.add("int8")
    if any(t.ndim == 4 and is_channels_last(t.values) for t in tensors):
        found.add("channels_last")
    qparams = problem.get("qparams")
    if qparams is not None:
        found |= {"per_channel"} if qparams.per_channel else set()
        found |= {qparams.dtype} & {"int8", "int32"}
    return found


def similar_cases(problem, base, seed=0):
    """Yield cases of the problem's own shape with one option switched, then the operator's default ones.

    Parameters
    ----------
    problem : Problem
    base : Numerics
    seed : int
    """
    if problem.op not in STREAMS:
        return
    shape, own = _shape(problem), _options(problem)
    strategies = [s for s in dict.fromkeys(STREAMS[problem.op].strategies) if s != "wrap"]
    for i, (switch, strategy) in enumerate(product(_SWITCHES, strategies) if shape is not None else ()):
        options = own.symmetric_difference(switch)
        options -= {"intbias"} if "nobias" in options else set()
        yield Case(op=problem.op, profile=base.name, shape=shape, strategy=strategy, seed=seed + i, options=tuple(options))
    yield from case_stream(problem.op, base, seed=seed)


def _outputs(hypothesis, call, base, shape):
    for candidate in hypothesis.candidates:
        call = candidate.apply(call)
        if call is None:
            return None
    evaluator = Evaluator(call, base, shape)
    return evaluator.values(call, np.arange(int(np.prod(shape))))


def separating_problem(problem, base, hypothesis, others, *, seed=0, attempts=60):
    """Return the tried problem on which most of `others` differ from `hypothesis`, or None.

    Parameters
    ----------
    problem : Problem
        What the hypotheses were found on.
    base : Numerics
    hypothesis : Hypothesis
    others : list of Hypothesis
    seed, attempts : int
    """
    best, most = None, 0
    for case in islice(similar_cases(problem, base, seed), attempts):
        tried = _built(case)
        count = _separated(tried, base, set(hypothesis.call.forms), hypothesis, others)
        if count > most:
            best, most = tried, count
            if most == len(others):
                break
    return best


def _built(case):
    try:
        return build(case)
    except RefquantError:
        return None


def _separated(problem, base, sections, hypothesis, others):
    if problem is None:
        return 0
    try:
        with np.errstate(all="ignore"):
            call, expected, _ = base_call(problem.op, problem.arguments, base)
            if set(call.forms) != sections:
                return 0
            mine = _outputs(hypothesis, call, base, expected.shape)
            if mine is None:
                return 0
            theirs = [_outputs(other, call, base, expected.shape) for other in others]
    except (RefquantError, ArithmeticError, ValueError):
        return 0
    return sum(y is not None and y.shape == mine.shape and not same_bits(mine, y).all() for y in theirs)
