"""Shrinking: from a problem on which an engine and the oracle differ to the smallest one on which they still do, as a test."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import numpy as np

from refquant import numerics as profiles
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, RefquantError
from refquant.verify.case_file import save_case
from refquant.verify.compare import Comparison, Status, compare
from refquant.verify.problem import Problem, oracle
from refquant.verify.reductions import REDUCTIONS

__all__ = ["Shrunk", "shrink"]

@dataclass(frozen=True)
class Shrunk:
    """The result of `shrink`.

    Attributes
    ----------
    problem : Problem
    actual, expected : ndarray
        The engine's bits, and the oracle's.
    comparison : Comparison
    profile : str
    engine : str
        A name for the engine, for the test's text.
    steps : int
        Problems tried.
    complete : bool
        Whether nothing simpler differs, as far as one step at a time can tell; False where the clock stopped it.
    """

    problem: Problem
    actual: np.ndarray
    expected: np.ndarray
    comparison: Comparison
    profile: str
    engine: str
    steps: int
    complete: bool

    def __str__(self):
        parts = [f"{name}={_brief(value)}" for name, value in self.problem.arguments.items() if value is not None]
        return f"{self.problem.op}[{self.profile}] against {self.engine}, after {self.steps} problems\n  " + "\n  ".join([*parts, *str(self.comparison).splitlines()])

    def write(self, folder, name=None):
        """Write ``test_NAME.py`` and ``NAME.npz`` into a folder, and return the path of the test.

        The test holds the recorded bits against the oracle; its function ``engine`` is the place to call the engine anew.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W", "_", name or f"{self.engine}_{self.problem.op}").lower()
        save_case(folder / f"{name}.npz", self.problem.op, actual=self.actual, numerics=self.profile, **self.problem.arguments)
        path = folder / f"test_{name}.py"
        counts = {"differing": self.comparison.differing, "outputs": self.comparison.outputs}
        path.write_text(_TEST.format(name=name, engine=self.engine, op=self.problem.op, profile=self.profile, **counts), encoding="utf-8")
        return path


_TEST = dedent(
    '''\
    """{engine} and the profile {profile} differ in {differing} of {outputs} outputs of this {op}."""

    from pathlib import Path

    from refquant.verify import assert_bitexact, load_case, oracle

    CASE = load_case(Path(__file__).with_name("{name}.npz"))


    def engine(problem):
        """The recorded bits; call {engine} here once it is to be mended."""
        return CASE.actual


    def test_{name}():
        assert_bitexact(engine(CASE.problem), oracle(CASE.problem, CASE.profile))
    '''
)


def _brief(value):
    if isinstance(value, QTensor):
        return f"{_brief(value.values)} with {value.qparams}"
    if isinstance(value, np.ndarray):
        return np.array2string(value, threshold=64, separator=", ").replace("\n", "") if value.size <= 64 else f"<{value.dtype} {value.shape}>"
    if isinstance(value, (tuple, list)) and any(isinstance(v, QTensor) for v in value):
        return "[" + ", ".join(map(_brief, value)) + "]"
    return repr(value)


def shrink(engine, problem, *, numerics=None, seconds=30.0):
    """Find a smallest problem on which an engine and the oracle still differ.

    Parameters
    ----------
    engine : Runner or callable
        A callable takes a `Problem` and returns bits; what it raises counts as "not this one".
    problem : Problem
        One on which they differ.
    numerics : str, optional
        The profile; a runner's own unless given.
    seconds : float
        When to stop.

    Returns
    -------
    Shrunk

    Raises
    ------
    ArgumentError
        Engine and oracle agree on `problem`.

    Examples
    --------
    >>> from refquant.verify import build
    >>> def truncating(problem):
    ...     return oracle(problem, profiles.get("onnx").replace(rounding="truncate"))
    >>> small = shrink(truncating, build("linear/onnx/m5k64n17/random/seed=0"), numerics="onnx")
    >>> small.problem["x"].shape, small.problem["w"].shape, small.problem.get("bias")
    ((1, 1), (1, 1), None)
    """
    run = getattr(engine, "run", engine)
    profile = numerics if numerics is not None else getattr(engine, "profile", None)
    if profile is None:
        raise ArgumentError("shrink: numerics is missing and the engine has no profile of its own; name the profile to hold it against")
    work = _Shrinking(run, getattr(engine, "supports", None), profiles.get(profile), time.monotonic() + seconds)
    if not work.differs(problem):
        raise ArgumentError("shrink: engine and oracle agree on this problem (or one of them raises); give a problem on which they differ")
    problem = work.minimize(problem)
    actual, expected = np.asarray(run(problem)), oracle(problem, work.profile)
    name = getattr(engine, "name", getattr(engine, "__name__", "engine"))
    return Shrunk(problem, actual, expected, compare(actual, expected, nan_equal=True), work.profile.name, re.sub(r"\W", "", name) or "engine", work.steps, not work.late)


class _Shrinking:
    def __init__(self, run, supports, profile, deadline):
        self.run, self.supports, self.profile, self.deadline = run, supports, profile, deadline
        self.steps, self.late = 0, False

    def differs(self, problem):
        """Whether the engine computes a problem, and otherwise than the oracle."""
        self.steps += 1
        try:
            if self.supports is not None and self.supports(problem) is not None:
                return False
            expected = oracle(problem, self.profile)
            return compare(self.run(problem), expected, nan_equal=True).status is Status.DIFFERENT
        except (RefquantError, ArithmeticError, ValueError, RuntimeError, TypeError, IndexError):
            return False

    def minimize(self, problem):
        """Apply every reduction until none helps."""
        again = True
        while again and not self.late:
            again = False
            for reduce in REDUCTIONS:
                smaller = self.repeat(reduce, problem)
                again |= smaller is not problem
                problem = smaller
        return problem

    def repeat(self, reduce, problem):
        """Take the first of a reduction's proposals that still differs, and ask again."""
        while True:
            for proposal in reduce(problem):
                if time.monotonic() > self.deadline:
                    self.late = True
                    return problem
                if self.differs(proposal):
                    problem = proposal
                    break
            else:
                return problem
