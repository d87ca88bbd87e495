"""`check`: a function or runner against the oracle, and for what differs a reason, a smallest case and a test."""

import time
from dataclasses import dataclass, replace

from refquant import numerics as profiles
from refquant.errors import ArgumentError, RefquantError
from refquant.verify.build import build
from refquant.verify.campaign import Row, campaign, try_case
from refquant.verify.case import Case
from refquant.verify.runner import runner
from refquant.verify.shrink import Shrunk, shrink

__all__ = ["Check", "check", "explain", "telling"]

_SHOWN = 3
# A diagnosis takes time and memory with the outputs, and needs no more of them than this.
_ENOUGH = 1 << 18
# A diagnosis that lists more explanations than this may have left some out.
_LISTED = 12


@dataclass(frozen=True)
class Check:
    """The result of `check`; its text is the report.

    Attributes
    ----------
    engine, profile : str
    rows : tuple of Row
        One for each operator.
    case : Case or None
        The failing case that `diagnosis` and `shrunk` are about.
    diagnosis : Diagnosis or None
        Why its bits differ; None where all agree, or where the engine gave no bits of the right shape to explain.
    shrunk : Shrunk or None
        The smallest problem found on which engine and oracle still differ; `Shrunk.write` makes a test of it.
    """

    engine: str
    profile: str
    rows: tuple
    case: Case = None
    diagnosis: object = None
    shrunk: Shrunk = None

    @property
    def outputs(self):
        """Outputs compared."""
        return sum(row.outputs for row in self.rows)

    @property
    def differing(self):
        """Outputs that differ."""
        return sum(row.differing for row in self.rows)

    @property
    def exact(self):
        """Whether outputs were compared and none differs."""
        return bool(self.outputs) and not any(row.failures for row in self.rows)

    def assert_exact(self):
        """Raise an AssertionError with the report unless `exact`."""
        __tracebackhide__ = True
        if not self.exact:
            raise AssertionError(str(self))

    def __str__(self):
        return "\n".join(_report(self))


def _report(result):
    yield f"{result.engine} against {result.profile}"
    for row in result.rows:
        cases = f"{len(row.failures)} of {row.cases} cases" if row.failures else f"{row.cases} cases"
        yield f"  {row.op}: {row.status}, {row.outputs:,} outputs compared, {row.differing:,} differ, {cases}"
        yield from (f"    {count} cases do not count: {reason}" for reason, count in row.reasons.items())
        for trial in row.failures[:_SHOWN]:
            yield f"    {trial.case}"
            yield "      " + trial.outcome.detail.replace("\n", "\n      ")
        if len(row.failures) > _SHOWN:
            yield f"    and {len(row.failures) - _SHOWN} more cases"
    if not result.outputs and not any(row.failures for row in result.rows):
        yield "  nothing was compared, so nothing is verified"
    if result.diagnosis is not None:
        yield f"why, on {result.case}"
        yield from (f"  {line}" for line in str(result.diagnosis).splitlines())
    if result.shrunk is not None:
        yield "the smallest case found"
        yield from (f"  {line}" for line in str(result.shrunk).splitlines())


def check(engine, op=None, *, numerics=None, outputs=100_000, cases=None, seed=0, why=True, seconds=20.0, progress=None):
    """Hold an engine against the oracle; of what differs say why, and find the smallest case.

    Parameters
    ----------
    engine : Runner or callable
        A callable takes a `Problem` and returns output bits; see `runner`.
    op : str or sequence of str, optional
        Operators, tried on their default cases; not needed with `cases`.
    numerics : str or Numerics, optional
        Whose arithmetic; needed with a callable, a runner's own otherwise.
    outputs : int
        To compare for each operator.
    cases : iterable of str or Case, optional
        To try in place of the default ones.
    seed : int
    why : bool
        Whether to diagnose and shrink what differs.
    seconds : float
        For the diagnosis, and again for shrinking.
    progress : callable, optional
        Called with the operator's `Row` after every case.

    Returns
    -------
    Check

    Raises
    ------
    ArgumentError
        Neither operators nor cases, or a callable without `numerics`.

    Examples
    --------
    >>> from refquant.verify import oracle
    >>> def mine(problem):
    ...     return oracle(problem, profiles.get("onnx").replace(rounding="half_away"))
    >>> result = check(mine, "linear", numerics="onnx", outputs=20_000, seconds=5)
    >>> result.exact, result.diagnosis.causes, result.shrunk.problem["x"].shape
    (False, ('rounds half away from zero',), (1, 2))
    >>> check(lambda problem: oracle(problem, "onnx"), "linear", numerics="onnx", outputs=20_000).exact
    True
    """
    engine = _engine(engine, numerics)
    if op is None and cases is None:
        raise ArgumentError("check: neither op nor cases is given; name an operator, such as op='linear', or give cases")
    if cases is not None:
        rows = _try_all(engine, cases, progress)
    else:
        rows = tuple(campaign(engine, one, outputs=outputs, seed=seed, progress=progress) for one in ((op,) if isinstance(op, str) else op))
    name = profiles.get(engine.profile).name
    failures = telling([trial for row in rows for trial in row.failures]) if why else []
    found = explain(((t.case, build(t.case), engine.run(build(t.case))) for t in failures), engine.profile, seconds=seconds)
    if found is None:
        return Check(engine.name, name, rows)
    case, diagnosis = found
    return Check(engine.name, name, rows, case, diagnosis, _shrunk(engine, diagnosis.problem, seconds))


def _engine(engine, numerics):
    if not hasattr(engine, "run"):
        if numerics is None:
            raise ArgumentError("check: numerics is missing and the engine is a plain function; name the profile to hold it against")
        return runner(engine, numerics=numerics)
    if numerics is None or numerics == engine.profile:
        return engine
    other = runner(engine.run, numerics=numerics, name=engine.name)
    other.supports = engine.supports
    return other


def _try_all(engine, cases, progress):
    rows = {}
    for case in cases:
        case = case if isinstance(case, Case) else Case.parse(case)
        row = rows.setdefault(case.op, Row(case.op, engine.name))
        row.add(try_case(engine, case))
        if progress:
            progress(row)
    return tuple(rows.values())


def telling(failures):
    """Return the few failures that most likely tell why, best first: many distances, many differing outputs, not too many in all.

    Parameters
    ----------
    failures : list of Trial

    Returns
    -------
    list of Trial
        None of those without bits of the right shape.
    """
    compared = [t for t in failures if t.comparison is not None and not t.comparison.reason]
    rank = lambda t: (t.comparison.outputs <= _ENOUGH, min(len(t.comparison.histogram), 3), t.comparison.differing)  # noqa: E731
    return sorted(compared, key=rank, reverse=True)[:_SHOWN]


def explain(failures, numerics, *, seconds=20.0):
    """Diagnose failures one after the other until a single explanation of them is left.

    Parameters
    ----------
    failures : iterable of (case, Problem, ndarray)
        With the engine's bits.
    numerics : str or Numerics
    seconds : float
        For all of them.

    Returns
    -------
    (case, Diagnosis) or None
        The one with the fewest alternatives, without those that another failure rules out; None where no failure can be looked at.
    """
    from refquant.verify.diagnosis import diagnose

    found, best, deadline = [], None, time.monotonic() + seconds
    for case, problem, actual in failures:
        left = deadline - time.monotonic()
        if found and left < seconds / 4:
            break
        try:
            d = diagnose(problem.op, actual=actual, numerics=numerics, seconds=max(left, 1.0), **problem.arguments)
        except (RefquantError, MemoryError):
            continue
        if d.differing:  # an engine may give the oracle's bits the second time
            found.append((case, d))
            best_case, best = min(found, key=lambda item: (not item[1].explained, len(item[1].alternatives)))
            best = _narrowed(best, [d for _, d in found if d.explained])
            if best.explained and not best.alternatives:
                break
    return (best_case, best) if found else None


def _narrowed(d, others):
    """Return a diagnosis with those of its explanations alone that are explanations of the others too; as it is where there are none."""
    if not d.explained:
        return d
    left = [d.explanation, *d.alternatives]
    for other in others:
        possible = {e.causes for e in (other.explanation, *other.alternatives)}
        if len(possible) <= _LISTED:
            left = [e for e in left if e.causes in possible] or left
    if left[0] is d.explanation:
        return replace(d, alternatives=tuple(left[1:]))
    first = left[0]
    same = {"causes": first.causes, "names": first.names, "numerics": first.numerics, "transformations": first.transformations}
    return replace(d, **same, explanation=first, alternatives=tuple(left[1:]), means=(), evidence={})


def _shrunk(engine, problem, seconds):
    try:
        return shrink(engine, problem, seconds=seconds)
    except ArgumentError:  # the second time the engine gave the oracle's bits
        return None
