"""An engine's bits under a profile that is not its own: how many differ, and what the diagnosis says of them."""

import time
from dataclasses import dataclass, field
from itertools import islice

from refquant.errors import UnsupportedError
from refquant.verify.build import build
from refquant.verify.compare import compare
from refquant.verify.default_cases import case_stream
from refquant.verify.problem import oracle

__all__ = ["Mistaken", "under_profile"]

_TRIED = 120
_MOST_OUTPUTS = 60_000


@dataclass
class Mistaken:
    """One operator of one engine, held against one profile.

    Attributes
    ----------
    engine, profile, op : str
    outputs, differing : int
        Of all cases that were compared.
    diagnosed, explained : int
        Cases whose bits differ, and those of them of which every bit is explained.
    causes : dict of str to int
        Cases by their cause, in words.
    unexplained : list of (Case, Diagnosis)
    seconds : float
        That the diagnosis took.
    """

    engine: str
    profile: str
    op: str
    outputs: int = 0
    differing: int = 0
    diagnosed: int = 0
    explained: int = 0
    causes: dict = field(default_factory=dict)
    unexplained: list = field(default_factory=list)
    seconds: float = 0.0

    @property
    def cause(self):
        """The cause of most cases."""
        return max(self.causes, key=self.causes.get, default="")


def under_profile(runner, profile, op, *, cases=2, seed=0, seconds=20.0):
    """Ask an engine default cases until so many differ from a profile's bits, and diagnose those.

    Parameters
    ----------
    runner : Runner
    profile : str or Numerics
        Another one than the engine's.
    op : str
    cases : int
        How many to diagnose.
    seed : int
    seconds : float
        The most that each diagnosis may take.

    Returns
    -------
    Mistaken

    Examples
    --------
    >>> class Oracle:
    ...     name, profile = "itself", "onednn"
    ...     describe = lambda self: {}
    ...     supports = lambda self, problem: None
    ...     run = lambda self, problem: oracle(problem, "onednn", reference=True)
    >>> row = under_profile(Oracle(), "fbgemm", "linear", cases=1)
    >>> row.diagnosed, row.explained, row.differing > 0
    (1, 1, True)
    """
    from refquant.verify.diagnosis import diagnose

    row = Mistaken(runner.name, getattr(profile, "name", profile), op)
    for case in islice(case_stream(op, runner.profile, seed=seed), _TRIED):
        if row.diagnosed == cases:
            break
        problem = build(case)
        if runner.supports(problem) is not None:
            continue
        try:
            expected = oracle(problem, profile)
        except UnsupportedError:
            continue
        if not 0 < expected.size < _MOST_OUTPUTS:
            continue
        bits = runner.run(problem)
        found = compare(bits, expected, nan_equal=True)
        row.outputs, row.differing = row.outputs + found.outputs, row.differing + found.differing
        if found.exact:
            continue
        start = time.monotonic()
        d = diagnose(op, actual=bits, numerics=profile, seed=seed, seconds=seconds, **problem.arguments)
        row.seconds += time.monotonic() - start
        row.diagnosed += 1
        if not d.explained:
            row.unexplained.append((case, d))
            continue
        row.explained += 1
        words = "; ".join(d.causes) + (f": {'; '.join(d.means)}" if d.means else "")
        row.causes[words] = row.causes.get(words, 0) + 1
    return row
