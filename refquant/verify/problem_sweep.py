"""A sweep: problems that together are a domain, an engine's answers beside the oracle's, summed up in one row."""

from itertools import islice

from refquant.verify.campaign import Row, try_problem
from refquant.verify.compare import Outcome, Status

__all__ = ["BLOCK", "problem_sweep"]

#: Problems that are asked together of an engine that can be asked so.
BLOCK = 128


def problem_sweep(runner, op, problems, name, *, progress=None):
    """Try every problem and sum up; equal outputs, which show little alone, count too.

    A problem that differs among others in one model is asked again alone, which is what the oracle describes: an engine may take another
    branch's kernel for it (the finding ``a-kernel-of-another-zero-point``). The row counts these.

    Parameters
    ----------
    runner : Runner
        One that has ``together(problems)``, which gives a runner for these, is asked blocks of `BLOCK`.
    op : str
        What the row is of.
    problems : iterable of Problem
    name : str
        Of each problem in failures, with ``{}`` where its number belongs.
    progress : callable, optional
        Called with the row after every problem.

    Returns
    -------
    Row
    """
    row = Row(op, runner.name)
    for i, (asked, problem) in enumerate(_asked(runner, problems)):
        trial = try_problem(asked, problem, name.format(i))
        if asked is not runner and trial.outcome.status is Status.DIFFERENT:
            trial = try_problem(runner, problem, name.format(i))
            row.again += 1
        if trial.outcome.status is Status.UNTRUSTED:
            trial = trial._replace(outcome=Outcome(Status.EXACT))
        row.add(trial)
        if progress:
            progress(row)
    return row


def _asked(runner, problems):
    """Yield each problem with the runner to ask."""
    if not hasattr(runner, "together"):
        yield from ((runner, problem) for problem in problems)
        return
    problems = iter(problems)
    while block := list(islice(problems, BLOCK)):
        asked = runner.together(block)
        yield from ((asked, problem) for problem in block)
