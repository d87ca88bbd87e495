"""`Runner`: what an engine must offer to be verified; and `runner`, which makes one of a function. Nothing here knows an engine."""

from typing import Protocol, runtime_checkable

from refquant import numerics as profiles
from refquant.errors import ArgumentError, choose
from refquant.verify.case import FIELDS

__all__ = ["Runner", "PROVENANCE", "runner"]

#: What `Runner.describe` tells at least.
PROVENANCE = ("engine", "package", "version", "cpu", "features", "threads")


@runtime_checkable
class Runner(Protocol):
    """An engine that computes problems: bits in, bits out.

    Attributes
    ----------
    name : str
        The engine's name, as ``refquant verify --engine`` takes it.
    profile : str
        The profile in `refquant.numerics` that claims to describe it.
    """

    name: str
    profile: str

    def describe(self):
        """Return where results come from: a dict with the keys of `PROVENANCE` and plain values."""

    def supports(self, problem):
        """Return None if the engine (as this runner drives it) computes the problem, else the reason in one sentence."""

    def run(self, problem):
        """Return the engine's codes, or its float32 numbers, as an ndarray of the operator's shape."""


class _FunctionRunner:
    def __init__(self, function, name, profile, ops):
        self.function, self.name, self.profile, self.ops = function, name, profile, ops

    def describe(self):
        return {**dict.fromkeys(PROVENANCE, ""), "engine": self.name, "package": getattr(self.function, "__module__", "") or ""}

    def supports(self, problem):
        if self.ops is not None and problem.op not in self.ops:
            return f"{self.name} computes {', '.join(self.ops)} alone"
        return None

    def run(self, problem):
        return self.function(problem)


def runner(function, *, numerics, ops=None, name=None):
    """Make an engine of a function.

    Parameters
    ----------
    function : callable
        Takes a `Problem` (``problem.op``, ``problem["x"].values``, ``problem["x"].qparams.scale``, ``problem["bias"]``, …) and returns output bits as an
        array of the operator's shape and dtype. To raise `refquant.errors.UnsupportedError` means "not this one".
    numerics : str or Numerics
        Whose arithmetic it claims to have.
    ops : str or sequence of str, optional
        The operators it computes; all unless given.
    name : str, optional
        The function's own unless given.

    Returns
    -------
    Runner

    Raises
    ------
    ArgumentError
        No callable; an unknown profile or operator.

    Examples
    --------
    >>> from refquant.verify import campaign, oracle
    >>> def mine(problem):
    ...     return oracle(problem, "onednn")
    >>> row = campaign(runner(mine, numerics="fbgemm", ops="linear"), "linear", outputs=20_000)
    >>> str(row.status), row.differing > 0
    ('DIFFERENT', True)
    """
    if not callable(function):
        raise ArgumentError(f"runner: function is a {type(function).__name__} but must be callable; give a function that takes a Problem and returns an array")
    profile = profiles.get(numerics)
    if ops is not None:
        ops = tuple(choose("runner", "operator", op, FIELDS) for op in ((ops,) if isinstance(ops, str) else ops))
    known = profile.name in profiles.names() and profiles.get(profile.name) == profile
    return _FunctionRunner(function, name or getattr(function, "__name__", type(function).__name__), profile.name if known else profile, ops)
