"""`Runner`: what an engine must offer to be verified. Nothing here knows an engine."""

from typing import Protocol, runtime_checkable

__all__ = ["Runner", "PROVENANCE"]

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
