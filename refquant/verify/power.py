"""The generator's power: how many outputs of default cases it takes until two computations that differ are told apart."""

from itertools import combinations
from typing import NamedTuple, Optional

import numpy as np

from refquant import numerics
from refquant.errors import UnsupportedError
from refquant.numerics.coverage import absence
from refquant.verify.build import build
from refquant.verify.compare import compare
from refquant.verify.default_cases import STREAMS, case_stream
from refquant.verify.problem import oracle

__all__ = ["BUDGET", "SAME_BITS", "Separation", "form_differences", "function_reads", "operators", "separate_profiles", "separate_faults"]

#: Outputs that ``refquant verify`` compares by default, of each operator on each engine.
BUDGET = 50000

#: Pairs of profiles whose forms differ and whose bits do not: (operator, one profile, others, why). A test holds every line against default cases.
SAME_BITS = (
    ("linear_dynamic", "onnxruntime", ("onnx", "onnx_reference"), "the scale of zeros alone does not matter: all their sums are 0"),
    ("prelu", "onnxruntime", ("onnx", "onnx_reference"), "what has no sum has no order"),
)

#: Which functions of one code read a field of their form, where not all do; and which tell two styles apart.
_FUNCTIONS_OF = {"elu": {"elu"}, "gelu": {"gelu"}, "leaky_relu": {"leaky_relu"}, "sigmoid": {"sigmoid", "tanh"}, "logistic": {"sigmoid"}, "zero_point": {"sigmoid", "tanh", "elu"}}
_READERS = {"table": ("exp", "log"), "sqrt": ("sqrt",)}
_STYLES = {
    frozenset(("aten", "qnnpack")): {"sigmoid", "tanh", "hardsigmoid", "hardswish"},
    **dict.fromkeys((frozenset(("lookup", "onnxruntime")), frozenset(("float", "onnxruntime"))), {"sigmoid", "tanh", "hardsigmoid", "elu", "hardswish", "gelu"}),
    frozenset(("lookup", "float")): set(),
}  # fmt: skip

# The sloppy engine gathers all products of a layer at once.
_MOST_PRODUCTS = 1 << 23
_MOST_CASES = 400


class Separation(NamedTuple):
    """When two computations were told apart.

    Attributes
    ----------
    op : str
    kind : {"profiles", "fault"}
    what : str
        The two profiles, or the planted fault.
    outputs : int or None
        Outputs compared, up to the first case that shows a difference and with it; None where none does within the budget.
    cases : int
        Cases compared.
    line : str
        That case.
    """

    op: str
    kind: str
    what: str
    outputs: Optional[int]
    cases: int
    line: str = ""


def _answer(problem, profile):
    try:
        return oracle(problem, profile)
    except UnsupportedError:
        return None


def function_reads(op, section, field, old, new):
    """Whether a function of one code reads a field of the section ``unary`` or ``function`` that changes so; all other operators read all."""
    if section == "function":
        return op in _READERS[field]
    if section != "unary":
        return True
    return op in (_STYLES.get(frozenset((old, new)), {op}) if field == "style" else _FUNCTIONS_OF.get(field, {op}))


def form_differences(a, b, op):
    """Return the fields in which two profiles differ and that an operator reads, where both engines have it.

    Parameters
    ----------
    a, b : Numerics
    op : str

    Returns
    -------
    list of tuple
        As `Numerics.differences`.
    """
    from refquant import ops

    if absence(op, a.name) or absence(op, b.name) or _same_bits(op, a.name, b.name):
        return []
    if op == "cat" and any(getattr(p.cat, "contiguous", None) == "copy" for p in (a, b)):
        return []  # it refuses inputs with other parameters, and copies are the same in every engine
    sections = next(entry.sections for entry in ops.OPS if entry.name == op)
    if op == "matmul" and a.matmul is not None and b.matmul is not None:
        sections = ("matmul",)
    rows = []
    for section in sections:
        mine, theirs = getattr(a, section), getattr(b, section)
        if mine is None or theirs is None:
            continue
        if type(mine) is not type(theirs):
            rows.append((section, "form", type(mine).__name__, type(theirs).__name__))
            continue
        rows += [row for row in a.differences(b) if row[0] == section and _tells(op, *row)]
    return rows


def _same_bits(op, *names):
    return any(op == name and {one, other} == {*names} for name, one, others, _ in SAME_BITS for other in others)


def _tells(op, section, field, old, new):
    """Whether an operator reads a field of a form that both profiles have."""
    if op == "quantize_dynamic" and field == "linear_input":
        return False
    if field == "style" and {old, new} in ({"float", "lookup"}, {"float", "onnxruntime"}):
        return True  # by the forms of quantization that both end in
    return function_reads(op, section, field, old, new)


def _pairs(op):
    return [(a, b) for a, b in combinations(numerics.PROFILES, 2) if form_differences(a, b, op)]


def separate_profiles(op, *, budget=BUDGET, seed=0):
    """Return for each two profiles that have different forms of an operator after how many outputs their bits differ.

    Parameters
    ----------
    op : str
    budget : int
        Outputs to compare at most.
    seed : int

    Returns
    -------
    list of Separation

    Notes
    -----
    The cases are those of the first profile; where they do not tell the two apart, those of the second.

    Examples
    --------
    >>> found = {s.what: s for s in separate_profiles("quantize", budget=3000)}
    >>> found["fbgemm | onnx"].outputs <= 3000
    True
    """
    left, result = _pairs(op), []
    for turn in (0, 1):
        for first in {pair[turn].name: pair[turn] for pair in left}.values():
            others = [pair[1 - turn] for pair in left if pair[turn].name == first.name]
            for other, outputs, cases, line in _first_differences(op, first, others, budget, seed):
                pair = (first, other) if turn == 0 else (other, first)
                if outputs is not None or turn == 1:
                    result.append(Separation(op, "profiles", " | ".join(p.name for p in pair), outputs, cases, line))
                    left = [p for p in left if (p[0].name, p[1].name) != (pair[0].name, pair[1].name)]
    return result


def _first_differences(op, first, others, budget, seed):
    """Yield (other, outputs, cases, line) for each other profile, along the default cases of the first."""
    waiting, profiles = {other.name: [0, 0] for other in others}, {other.name: other for other in others}
    for number, case in enumerate(case_stream(op, first, seed=seed)):
        if not waiting or number >= _MOST_CASES:
            break
        problem = build(case)
        expected = _answer(problem, first)
        for name in list(waiting) if expected is not None else ():
            actual = _answer(problem, profiles[name])
            if actual is None:
                continue
            waiting[name][0] += expected.size
            waiting[name][1] += 1
            if not compare(actual, expected, nan_equal=True).exact:
                yield (profiles[name], *waiting.pop(name), str(case))
            elif waiting[name][0] >= budget:
                yield profiles[name], None, waiting.pop(name)[1], ""
    for name, (_, cases) in waiting.items():
        if cases:
            yield profiles[name], None, cases, ""


def separate_faults(op, *, budget=BUDGET, seed=0):
    """Return for each planted fault of an operator after how many outputs default cases show it.

    Cases that the sloppy engine does not compute as the profile does even without a fault are not asked, and do not count.

    Parameters
    ----------
    op : str
    budget : int
    seed : int

    Returns
    -------
    list of Separation
    """
    from refquant.verify.planted.bench import KINDS

    faults = [f for kind, group in KINDS.items() if kind not in ("pairs", "triples") for f in group if f.line.startswith(f"{op}/")]
    found = []
    for profile in dict.fromkeys(f.profile for f in faults):
        found += _first_shown(op, profile, [f for f in faults if f.profile == profile], budget, seed)
    return found


def _first_shown(op, profile, faults, budget, seed):
    from refquant.verify.planted.right_engines import RIGHT, covers

    waiting = {fault: [0, 0] for fault in faults} if (op, profile) in RIGHT else {}
    for number, case in enumerate(case_stream(op, profile, seed=seed)):
        if not waiting or number >= _MOST_CASES:
            break
        problem = build(case)
        expected = _answer(problem, profile)
        if expected is None or _products(problem, expected.size) > _MOST_PRODUCTS or not covers(problem, profile):
            continue
        for fault in list(waiting):
            tally = waiting[fault]
            tally[0], tally[1] = tally[0] + expected.size, tally[1] + 1
            if _shows(fault, problem, profile):
                yield Separation(op, "fault", fault.name, *waiting.pop(fault), str(case))
            elif tally[0] >= budget:
                yield Separation(op, "fault", fault.name, None, waiting.pop(fault)[1])
    for fault, (_, cases) in waiting.items():
        yield Separation(op, "fault", fault.name, None, cases)


def _products(problem, outputs):
    w = problem.get("w", problem.get("b") if problem.op == "matmul_integer" else None)
    if w is None:
        return outputs
    return outputs * (w.shape[0] if problem.op == "matmul_integer" else w.size // max(w.shape[0], 1))


def _shows(fault, problem, profile):
    """Whether a planted fault changes a bit of a problem; one that cannot be planted there does not."""
    try:
        prepared = fault.prepare(problem)
        with np.errstate(all="ignore"):
            return not compare(fault.plant(prepared), oracle(prepared, profile), nan_equal=True).exact
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ZeroDivisionError, NotImplementedError):
        return False


def operators():
    """Return the operators of which something can be told apart."""
    from refquant.verify.planted.bench import FAULTS

    planted = {fault.line.partition("/")[0] for fault in FAULTS}
    return tuple(op for op in STREAMS if op in planted or _pairs(op))
