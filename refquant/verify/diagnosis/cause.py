"""What a cause is."""

from typing import Callable, NamedTuple, Union

__all__ = ["Cause", "Candidate"]


class Cause(NamedTuple):
    """One way in which an engine may depart from the oracle.

    Attributes
    ----------
    name : str
        Unique; what `Candidate.name` and the tests call it.
    words : str or callable
        What the engine does, in the third person; ``{}`` stands for the key. Or a function of (key, call before).
    touches : str
        What is transformed, ``{}`` standing for the key. Of two causes that touch the same thing at most one is in a hypothesis.
    ops : tuple of str
        The operators to which it applies.
    apply : callable
        ``apply(call, key)`` returns the changed call, or None where the cause cannot apply to that call.
    keys : tuple or callable
        The variants; or ``keys(call, bench)``, which may solve them from the data.
    surprise : float
        How much less plausible than a plain mistake: ranks hypotheses of equal size.
    """

    name: str
    words: Union[str, Callable]
    touches: str
    ops: tuple
    apply: Callable
    keys: Union[tuple, Callable] = (None,)
    surprise: float = 0.0


class Candidate(NamedTuple):
    """A cause in one of its variants."""

    cause: Cause
    key: object

    @property
    def name(self):
        """The cause's name, and the key where there is one."""
        return self.cause.name if self.key is None else f"{self.cause.name}[{self.key}]"

    @property
    def touches(self):
        """What is transformed."""
        return self.cause.touches.format(self.key)

    def words(self, call):
        """Return what the engine does, in words."""
        words = self.cause.words
        return words(self.key, call) if callable(words) else words.format(self.key)

    def apply(self, call):
        """Return the changed call, or None."""
        return self.cause.apply(call, self.key)
