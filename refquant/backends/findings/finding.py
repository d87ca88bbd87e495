"""`Finding`: what an engine does that its user would not expect, with the smallest call that shows it."""

from dataclasses import dataclass
from typing import Callable, NamedTuple

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.build import build
from refquant.verify.compare import compare
from refquant.verify.problem import Problem, oracle
from refquant.verify.shown import Shown, show

__all__ = ["Finding", "Reproduction", "reproduce_call", "case", "codes", "by", "of", "values"]

_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One surprise.

    Attributes
    ----------
    name : str
        A few words joined by hyphens.
    engine : str
        Of `refquant.backends.names`.
    title : str
        One line.
    text : str
        What happens, and why.
    problem : callable
        Without arguments; returns the `Problem` that shows it.
    expect : callable
        From the problem to what one would expect.
    expected_by : str
        By which reading; follows "expected ".
    numerics : str
        The profile that gives the engine's bits; of a defect a named variant, while the engine's own profile says what is right.
    earlier : callable, optional
        Without arguments; returns the `Problem` that the same packed weights compute first, where the engine keeps something of it.
    """

    name: str
    engine: str
    title: str
    text: str
    problem: Callable
    expect: Callable
    expected_by: str
    numerics: str = ""
    earlier: Callable = None

    @property
    def profile(self):
        """The name of the profile that gives the engine's bits."""
        return self.numerics or self.engine

    @property
    def defect(self):
        """Whether the engine computes what nobody meant."""
        return "+" in self.profile


class Reproduction(NamedTuple):
    """What a finding's call gives.

    Attributes
    ----------
    shown : Shown
        By the oracle, and by the engine where it is installed.
    expected : ndarray
    """

    shown: Shown
    expected: np.ndarray

    @property
    def surprises(self):
        """Whether the oracle's bits are other than expected."""
        return not compare(self.shown.oracle, self.expected, nan_equal=True).exact

    @property
    def shows(self):
        """Whether they are, and the engine agrees."""
        return self.surprises and self.shown.agrees

    def lines(self):
        """Yield a report."""
        described, here, live, level = self.shown
        if described.shape != self.expected.shape or described.dtype != self.expected.dtype:
            yield f"engine {live}, oracle {described}, expected {self.expected}"
            return
        places = np.argwhere(np.atleast_1d(described != self.expected) & ~np.atleast_1d((described != described) & (self.expected != self.expected)))
        yield f"{len(places)} of {described.size} outputs are other than expected"
        for place in map(tuple, places[:_SHOWN]):
            at = lambda y: np.atleast_1d(y)[place].item()  # noqa: B023, E731
            engine = "not asked" if live is None else at(live)
            of_level = f" ({at(here)} on {level}, as here)" if level else ""
            yield f"{list(map(int, place))}: engine {engine}, oracle {at(described)}{of_level}, expected {at(self.expected)}"


def reproduce_call(finding, runner=None):
    """Run a finding's call on an engine and by the oracle.

    Parameters
    ----------
    finding : Finding
    runner : Runner, optional
        None leaves the engine out.

    Returns
    -------
    Reproduction

    Raises
    ------
    BackendMissing
        The engine does not compute the call on this processor.
    """
    problem = finding.problem()
    return Reproduction(show(problem, finding.profile, runner, None if finding.earlier is None else finding.earlier()), np.asarray(finding.expect(problem)))


def case(line):
    """Return a call by its case line."""
    return lambda: build(line)


def of(op, **arguments):
    """Return a call by its arguments."""
    return lambda: Problem(op, arguments)


def codes(numbers, scale=1.0, zero_point=0, dtype="uint8"):
    """Return a QTensor of codes."""
    return QTensor(np.array(numbers, dtype), QParams(scale, zero_point, dtype))


def by(numerics):
    """Expect what a profile computes."""
    return lambda problem: oracle(problem, numerics)


def values(numbers, dtype=np.uint8):
    """Expect these numbers."""
    return lambda problem: np.array(numbers, dtype)
