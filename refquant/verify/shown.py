"""`show`: one call by the oracle and, where it is installed, by the engine itself. Findings and published puzzles rest on it."""

from typing import NamedTuple

import numpy as np

from refquant import numerics
from refquant.errors import BackendMissing
from refquant.ops.pack_weights import pack_weights
from refquant.verify.compare import compare
from refquant.verify.problem import Problem, oracle

__all__ = ["Shown", "show"]


class Shown(NamedTuple):
    """What a call gives.

    Attributes
    ----------
    oracle : ndarray
        Under the profile that is described.
    here : ndarray
        The same, on the level of the processor that the engine runs on: where it has no VNNI, products may saturate.
    live : ndarray or None
        By the engine; None where it was not asked.
    level : str
        That level; empty where the profile holds as it is.
    """

    oracle: np.ndarray
    here: np.ndarray
    live: object = None
    level: str = ""

    @property
    def agrees(self):
        """Whether the engine, where it was asked, gives the oracle's bits."""
        return self.live is None or compare(self.live, self.here, nan_equal=True).exact


def show(problem, profile, runner=None, earlier=None):
    """Compute a call under a profile, and ask an engine.

    Parameters
    ----------
    problem : Problem
    profile : str or Numerics
        The profile that gives the engine's bits on the processor that it describes, or one of its variants.
    runner : Runner, optional
        None asks no engine.
    earlier : Problem, optional
        What the same packed weights have computed before, where an engine keeps something of it.

    Returns
    -------
    Shown

    Raises
    ------
    BackendMissing
        The engine does not compute the call on this processor.
    UnsupportedError
        The profile does not describe it.

    Examples
    --------
    >>> from refquant.verify.build import build
    >>> shown = show(build("linear/fbgemm/m2k4n3/random/seed=0"), "fbgemm")
    >>> shown.oracle.shape, shown.agrees
    ((2, 3), True)
    """
    described = _by_oracle(problem, profile, earlier)
    if runner is None:
        return Shown(described, described)
    reason = runner.supports(problem)
    if reason is not None:
        raise BackendMissing(f"engine {runner.name}: cannot be asked on this processor ({reason}); run it on the machine that the profile describes")
    level = "" if numerics.get(profile).isa else str(getattr(runner.profile, "isa", None) or str(runner.profile).partition("@")[2])
    here = _by_oracle(problem, numerics.get(profile).on(level, f"engine {runner.name}"), earlier) if level else described
    live = runner.run(problem) if earlier is None else runner.run_in_turn([earlier, problem])
    return Shown(described, here, np.asarray(live), level)


def _by_oracle(problem, profile, earlier):
    if earlier is None:
        return oracle(problem, profile)
    packed = pack_weights(problem["w"], groups=problem.get("groups", 1))
    return [oracle(Problem(one.op, {**one.arguments, "w": packed}), profile) for one in (earlier, problem)][-1]
