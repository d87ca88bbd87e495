"""A campaign: many cases of an operator, an engine's bits beside the oracle's, summed up in one row."""

from dataclasses import dataclass, field
from typing import NamedTuple

from refquant import numerics
from refquant.core.arguments import as_integer
from refquant.errors import ArgumentError, UnsupportedError
from refquant.numerics.variants import EXPLAINING
from refquant.verify.build import build
from refquant.verify.case import Case
from refquant.verify.compare import Comparison, Outcome, Status, compare
from refquant.verify.default_cases import case_stream
from refquant.verify.problem import oracle

__all__ = ["UNTRUSTED_REASON", "Trial", "Row", "try_problem", "try_case", "campaign"]

#: Why an untrusted case does not count.
UNTRUSTED_REASON = "the outputs are all equal, or there are none"

# An operator of which so many cases in a row are unsupported is unsupported.
_PATIENCE = 24


class Trial(NamedTuple):
    """One case tried.

    Attributes
    ----------
    case : Case or str
    outcome : Outcome
    comparison : Comparison or None
        None where nothing was compared.
    """

    case: Case
    outcome: Outcome
    comparison: Comparison = None


@dataclass
class Row:
    """The sum of trials of one operator on one engine.

    Attributes
    ----------
    op, engine : str
    cases, outputs, differing : int
        Compared, that is without unsupported ones. Outputs of untrusted cases do not count.
        Outputs of explained cases agree with their cause, the variant of the profile.
    failures : list of Trial
    reasons : dict of str to int
        Cases that were unsupported, by reason; untrusted ones as `UNTRUSTED_REASON`.
    explained : dict of str to int
        Cases that a defect or another kernel of the engine explains, by the variant that gives the engine's bits.
    again : int
        Cases that differed among others in one model, so that they were asked again alone; what that gave counts.
    """

    op: str
    engine: str
    cases: int = 0
    outputs: int = 0
    differing: int = 0
    failures: list = field(default_factory=list)
    reasons: dict = field(default_factory=dict)
    explained: dict = field(default_factory=dict)
    again: int = 0

    @property
    def status(self):
        """`DIFFERENT` if any case is, else `EXPLAINED` if any is, else `EXACT` if any output was compared, else `UNSUPPORTED`."""
        if self.failures:
            return Status.DIFFERENT
        if self.explained:
            return Status.EXPLAINED
        return Status.EXACT if self.outputs else Status.UNSUPPORTED

    def add(self, trial):
        """Take in a trial."""
        status, detail = trial.outcome
        if status in (Status.UNSUPPORTED, Status.EXPLAINED, Status.UNTRUSTED):
            names = self.explained if status is Status.EXPLAINED else self.reasons
            name = UNTRUSTED_REASON if status is Status.UNTRUSTED else detail
            names[name] = names.get(name, 0) + 1
        if status in (Status.UNSUPPORTED, Status.UNTRUSTED):
            return
        self.cases += 1
        if trial.comparison is not None:
            self.outputs += trial.comparison.outputs
            self.differing += trial.comparison.differing
        if status is Status.DIFFERENT:
            self.failures.append(trial)


def try_problem(runner, problem, case):
    """Ask an engine and the oracle, and compare.

    Parameters
    ----------
    runner : Runner
    problem : Problem
    case : Case or str
        For the result.

    Returns
    -------
    Trial
    """
    reason = runner.supports(problem)
    if reason is not None:
        return Trial(case, Outcome(Status.UNSUPPORTED, reason))
    try:
        expected = oracle(problem, runner.profile)
    except UnsupportedError as error:
        return Trial(case, Outcome(Status.UNSUPPORTED, str(error)))
    try:
        actual = runner.run(problem)
    except UnsupportedError as error:
        return Trial(case, Outcome(Status.UNSUPPORTED, str(error)))
    except Exception as error:  # whatever an engine raises is a finding, and the campaign goes on
        return Trial(case, Outcome(Status.DIFFERENT, f"the engine raised {type(error).__name__}: {error}"))
    comparison = compare(actual, expected)
    if comparison.status is not Status.DIFFERENT:
        return Trial(case, Outcome(comparison.status, "" if comparison.status is Status.EXACT else str(comparison)), comparison)
    return _by_variant(runner.profile, problem, case, actual) or Trial(case, Outcome(comparison.status, str(comparison)), comparison)


def _by_variant(profile, problem, case, actual):
    """The trial of an engine whose bits are those of a variant that describes a defect or another kernel, or None."""
    for name in numerics.variants_of(profile, EXPLAINING):
        try:
            comparison = compare(actual, oracle(problem, name))
        except UnsupportedError as error:
            return Trial(case, Outcome(Status.UNSUPPORTED, str(error)))
        if comparison.exact:
            return Trial(case, Outcome(Status.EXPLAINED, name), comparison)
    return None


def try_case(runner, case):
    """Build a case's problem and try it; see `try_problem`."""
    case = case if isinstance(case, Case) else Case.parse(case)
    return try_problem(runner, build(case), case)


def campaign(runner, op, *, outputs, seed=0, progress=None):
    """Try default cases of an operator until `outputs` outputs were compared.

    Parameters
    ----------
    runner : Runner
    op : str
    outputs : int
    seed : int
    progress : callable, optional
        Called with the row after every case.

    Returns
    -------
    Row

    Examples
    --------
    >>> class Oracle:
    ...     name, profile = "itself", "onnx"
    ...     describe = lambda self: {}
    ...     supports = lambda self, problem: None
    ...     run = lambda self, problem: oracle(problem, "onnx", reference=True)
    >>> row = campaign(Oracle(), "add", outputs=5000)
    >>> row.status, row.differing
    (<Status.EXACT: 'EXACT'>, 0)
    """
    if not all(hasattr(runner, name) for name in ("name", "profile", "supports", "run")):
        raise ArgumentError(f"campaign: runner is a {type(runner).__name__} but must be a Runner; make one of a function with refquant.verify.runner")
    row, idle, outputs = Row(op, runner.name), 0, as_integer(outputs, "outputs", "campaign")
    for case in case_stream(op, runner.profile, seed=seed):
        if row.outputs >= outputs or idle >= _PATIENCE:
            return row
        before = row.outputs
        row.add(try_case(runner, case))
        idle = 0 if row.outputs > before else idle + 1
        if progress:
            progress(row)
    return row
