"""What the fixture ``oracle`` gives to a test: a problem, the bits that are right, and a comparison that says why bits differ."""

import re
from functools import cached_property
from pathlib import Path

from refquant.errors import ArgumentError, UnsupportedError
from refquant.verify import Problem, assert_bitexact, build, compare, oracle, save_case
from refquant.verify.reasons import reasons

__all__ = ["OracleOfTest"]


class OracleOfTest:
    """The fixture ``oracle`` of one test.

    Attributes
    ----------
    case : Case or None
        The line of the problem; None in a test without the marker ``refquant``.
    numerics : str or None
        The profile that the marker names.
    problem : Problem
        What to compute; ``oracle["x"]`` is ``oracle.problem["x"]``.
    expected : ndarray
        The bits that are right; skips the test where the profile has no such operation.
    """

    def __init__(self, case=None, *, test="test", folder=None, seconds=5.0):
        self.case, self._test, self._folder, self._seconds = case, test, folder, seconds
        self.numerics = None if case is None else case.profile

    @cached_property
    def problem(self):
        if self.case is None:
            raise ArgumentError("oracle: the test has no marker refquant, so there is no problem; mark it, or call oracle.check(actual, op, numerics=…, x=…)")
        return build(self.case)

    @cached_property
    def expected(self):
        return _ask(self.problem, self.numerics)

    def __getitem__(self, name):
        return self.problem[name]

    def check(self, actual, op=None, *, numerics=None, **arguments):
        """Compare bits with the oracle's; if they differ, fail with the report, the reason and the way to repeat it.

        Parameters
        ----------
        actual : array_like or QTensor
            What your kernel wrote.
        op, numerics, **arguments
            Of a call of your own, by keyword, where it is not the marker's problem: ``oracle.check(y, "linear", numerics="fbgemm", x=xq, w=wq, out=qp)``.

        Raises
        ------
        AssertionError
            A bit, the dtype or the shape differs.
        """
        __tracebackhide__ = True
        if op is None:
            problem, profile, expected = self.problem, numerics or self.numerics, self.expected
            expected = expected if profile == self.numerics else _ask(problem, profile)
        else:
            if numerics is None:
                raise ArgumentError(f"oracle.check: numerics is missing; name the profile to hold {op} against, such as numerics='fbgemm'")
            problem, profile = Problem(op, arguments), numerics
            expected = _ask(problem, profile)
        if not compare(actual, expected).exact:
            assert_bitexact(actual, expected, err_msg=self._story(problem, profile, actual, by_line=op is None))

    def _story(self, problem, profile, actual, *, by_line):
        """Return what goes before the report: the line, the reason, where the case was saved."""
        lines = []
        if by_line:
            lines.append(f"{self.case}\n  repeat it: pytest --refquant-case {self.case}")
        if self._folder is not None:
            path = _saved(self._folder, self._test, problem, profile, actual)
            lines.append(f"  saved: refquant diagnose {path}")
        found = reasons([(self.case, problem, getattr(actual, "values", actual))], profile, seconds=self._seconds) if self._seconds else ()
        lines += [f"  {line}" for reason in found for line in str(reason.diagnosis).splitlines()]
        return "\n".join(lines)


def _ask(problem, profile):
    import pytest

    try:
        return oracle(problem, profile)
    except UnsupportedError as error:
        pytest.skip(str(error))


def _saved(folder, test, problem, profile, actual):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (re.sub(r"\W+", "_", test).strip("_") + ".npz")
    save_case(path, problem.op, actual=actual, numerics=profile, **problem.arguments)
    return path
