"""`check`: a function or runner against the oracle, and for what differs a reason, a smallest case and a test."""

from dataclasses import dataclass

from refquant import numerics as profiles
from refquant.errors import ArgumentError
from refquant.verify.build import build
from refquant.verify.campaign import Row, campaign, try_case
from refquant.verify.case import Case
from refquant.verify.reasons import reasons, telling
from refquant.verify.runner import runner
from refquant.verify.shrink import Shrunk, shrink

__all__ = ["Check", "check"]

_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """The result of `check`; its text is the report.

    Attributes
    ----------
    engine, profile : str
    rows : tuple of Row
        One for each operator.
    reasons : tuple of Reason
        Why bits differ, of a few failing cases; those that share a cause as one. Empty where all agree, or the engine gave no bits of the right shape.
    shrunk : Shrunk or None
        The smallest problem found on which engine and oracle still differ, from the case of the first reason; `Shrunk.write` makes a test of it.
    """

    engine: str
    profile: str
    rows: tuple
    reasons: tuple = ()
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
    def diagnosis(self):
        """The diagnosis of the first reason, or None."""
        return self.reasons[0].diagnosis if self.reasons else None

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
    for i, reason in enumerate(result.reasons):
        yield f"{'and' if i else 'why'}, on {reason.case}"
        yield from (f"  {line}" for line in str(reason.diagnosis).splitlines())
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
    (False, ('rounds half away from zero',), (1, 1))
    >>> check(lambda problem: oracle(problem, "onnx"), "linear", numerics="onnx", outputs=20_000).exact
    True
    """
    engine = _engine(engine, numerics)
    if not (op is None or isinstance(op, (str, list, tuple))) or isinstance(cases, (str, int, float)):
        raise ArgumentError(f"check: op={op!r} and cases={cases!r} must be an operator or several, or lines of cases; give op='linear', or a list of lines")
    if op is None and cases is None:
        raise ArgumentError("check: neither op nor cases is given; name an operator, such as op='linear', or give cases")
    if cases is not None:
        rows = _try_all(engine, cases, progress)
    else:
        rows = tuple(campaign(engine, one, outputs=outputs, seed=seed, progress=progress) for one in ((op,) if isinstance(op, str) else op))
    name = profiles.get(engine.profile).name
    failures = telling([trial for row in rows for trial in row.failures]) if why else []
    found = reasons(((t.case, build(t.case), engine.run(build(t.case))) for t in failures), engine.profile, seconds=seconds)
    return Check(engine.name, name, rows, found, _shrunk(engine, found[0].diagnosis.problem, seconds) if found else None)


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


def _shrunk(engine, problem, seconds):
    try:
        return shrink(engine, problem, seconds=seconds)
    except ArgumentError:  # the second time the engine gave the oracle's bits
        return None
