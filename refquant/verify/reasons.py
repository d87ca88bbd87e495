"""Why several cases differ: each is diagnosed, and those that one cause explains are one reason."""

import time
from dataclasses import replace
from typing import NamedTuple

from refquant.errors import RefquantError

__all__ = ["Reason", "reasons", "telling"]

_SHOWN = 3
# A diagnosis takes time and memory with the outputs, and needs no more of them than this.
_ENOUGH = 1 << 18
# A diagnosis that lists more explanations than this may have left some out.
_LISTED = 12


class Reason(NamedTuple):
    """Why bits differ.

    Attributes
    ----------
    case : Case or str
        The case that tells most.
    diagnosis : Diagnosis
        Of its bits, without the explanations that `others` rule out.
    others : tuple of Case or str
        Further cases that the same causes explain.
    """

    case: object
    diagnosis: object
    others: tuple = ()


def telling(failures, most=_SHOWN):
    """Return the few failures that most likely tell why, best first: of different operators and options, with many distances and differing outputs.

    Parameters
    ----------
    failures : list of Trial
    most : int

    Returns
    -------
    list of Trial
        None of those without bits of the right shape.
    """
    left = [t for t in failures if t.comparison is not None and not t.comparison.reason]
    rank = lambda t: (t.comparison.outputs <= _ENOUGH, min(len(t.comparison.histogram), 3), t.comparison.differing)  # noqa: E731
    chosen, seen = [], set()
    while left and len(chosen) < most:
        best = max(left, key=lambda t: (t.comparison.outputs <= _ENOUGH, _kind(t.case) not in seen, rank(t)))
        left.remove(best)
        chosen.append(best)
        seen.add(_kind(best.case))
    return chosen


def _kind(case):
    """What sets a case apart: other code of an engine may have computed it."""
    return (case.op, case.options) if hasattr(case, "options") else case


def reasons(failures, numerics, *, seconds=20.0):
    """Diagnose failures, and put together those that an explanation is common to.

    Parameters
    ----------
    failures : iterable of (case, Problem, ndarray)
        With the engine's bits.
    numerics : str or Numerics
    seconds : float
        For all of them; the first is diagnosed in any case.

    Returns
    -------
    tuple of Reason
        Explained ones first, then by the number of cases; empty where no failure can be looked at.
    """
    from refquant.verify.diagnosis import diagnose

    groups, deadline = [], time.monotonic() + seconds
    for case, problem, actual in failures:
        left = deadline - time.monotonic()
        if groups and left < seconds / 4:
            break
        try:
            d = diagnose(problem.op, actual=actual, numerics=numerics, seconds=max(left, 1.0), **problem.arguments)
        except (RefquantError, MemoryError):
            continue
        if d.differing:  # an engine may give the oracle's bits the second time
            _join(groups, case, d)
    return tuple(_reason(group) for group in sorted(groups, key=lambda group: (group[0][1].explained, len(group)), reverse=True))


def _join(groups, case, d):
    for group in groups:
        if all(_common(d, other) for _, other in group):
            group.append((case, d))
            return
    groups.append([(case, d)])


def _explanations(d):
    return {e.causes: e for e in (d.explanation, *d.alternatives)} if d.explained else {}


def _common(d, other):
    """Return the causes that explain both; a list that was cut short rules nothing out, but has to share something."""
    return _explanations(d).keys() & _explanations(other).keys()


def _reason(group):
    case, d = min(group, key=lambda item: len(item[1].alternatives))
    others = [(c, o) for c, o in group if o is not d]
    left = list(_explanations(d).values())
    for _, other in others:
        if len(_explanations(other)) <= _LISTED:
            left = [e for e in left if e.causes in _explanations(other)] or left
    return Reason(case, _cut(d, left), tuple(c for c, _ in others))


def _cut(d, left):
    """Return a diagnosis with these of its explanations alone."""
    if not left or left[0] is d.explanation:
        return replace(d, alternatives=tuple(left[1:]))
    first = left[0]
    return replace(
        d, causes=first.causes, names=first.names, numerics=first.numerics, transformations=first.transformations, explanation=first,
        alternatives=tuple(left[1:]), means=(), evidence={},
    )  # fmt: skip
