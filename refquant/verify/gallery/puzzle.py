"""`Puzzle`: what somebody published, and how its numbers come about."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from refquant.errors import BackendMissing
from refquant.verify.shown import show

__all__ = ["Claim", "Puzzle", "Row", "Solution", "solve", "by_profile", "by_level"]


class Claim(NamedTuple):
    """One set of numbers that a thread reports.

    Attributes
    ----------
    who : str
        Whose numbers, in words.
    reported : object
        A number, or nested lists of numbers, as published.
    compute : callable or None
        Without arguments; gives the same numbers by the oracle alone. None: `problem` under `profile`.
    engine : str or None
        The runner that gives them live, if one does.
    problem : Problem or None
        What oracle and runner are asked.
    own : bool
        Whether the thread does not state these numbers, and they were tried here, on its data or on rebuilt ones.
    profile : str or None
        Whose bits the numbers are.
    """

    who: str
    reported: Any
    compute: Callable = None
    engine: str = None
    problem: Any = None
    own: bool = False
    profile: str = None


@dataclass(frozen=True, kw_only=True)
class Puzzle:
    """A published puzzle.

    Attributes
    ----------
    name : str
        As ``refquant gallery`` takes it.
    title, link : str
        Of the thread.
    question : str
        What puzzled its author, in a sentence or two.
    reason : str
        Why it is so.
    claims : tuple of Claim
    """

    name: str
    title: str
    link: str
    question: str
    reason: str
    claims: tuple


class Row(NamedTuple):
    """A claim, computed: the oracle's numbers, and the live engine's, None where it is not there; `level` is the processor's where it is another one."""

    claim: Claim
    oracle: Any
    live: Any = None
    agrees: bool = True
    level: str = ""

    @property
    def solved(self):
        """Whether the oracle gives the published numbers, and the engine, where it was asked, what it gives on this processor."""
        return self.oracle == self.claim.reported and self.agrees

    def __str__(self):
        here = f" (as it must on {self.level}, here)" if self.level and self.agrees and self.live != self.claim.reported else ""
        live = "" if self.live is None else f", {self.claim.engine} {_short(self.live)}{here}"
        found = f"{'expected' if self.claim.own else 'published'} {_short(self.claim.reported)}, oracle {_short(self.oracle)}{live}"
        return f"{found}: {'the same' if self.solved else 'NOT THE SAME'}"


@dataclass(frozen=True)
class Solution:
    """A puzzle with its numbers computed."""

    puzzle: Puzzle
    rows: tuple = field(default=())

    @property
    def solved(self):
        """Whether every claim is."""
        return all(row.solved for row in self.rows)

    def text(self, width=100):
        """Return a report that fits a terminal."""
        p = self.puzzle
        wrap = lambda text: textwrap.wrap(text, width - 2, initial_indent="  ", subsequent_indent="  ")  # noqa: E731
        lines = [f"{p.name}: {p.title}", f"  {p.link}", *wrap(p.question), ""]
        names = max(len(row.claim.who) for row in self.rows)
        lines += [f"  {row.claim.who:{names}}  {row}" for row in self.rows]
        return "\n".join([*lines, "", *wrap(f"Why: {p.reason}")])


def _short(value):
    text = str(value)
    return text if len(text) <= 60 else f"{text[:56]} …]"


def _plain(value):
    value = np.asarray(value)
    return value.item() if value.size == 1 else value.tolist()


def by_profile(who, reported, problem, profile, *, engine=None, own=False):
    """Return the `Claim` that a problem under a profile gives some numbers; `engine` says which runner gives them live."""
    return Claim(who, reported, None, engine, problem, own, profile)


def by_level(who, reported, problem, profile, level, *, engine=None, own=False):
    """Same as `by_profile`, on a processor level such as ``"avx2"``."""
    return Claim(who, reported, None, engine, problem, own, f"{profile}@{level}")


def solve(puzzle, load=None):
    """Compute every claim of a puzzle.

    Parameters
    ----------
    puzzle : Puzzle
    load : callable, optional
        ``load(name)`` returns a runner or raises `BackendMissing`; without it no engine is asked.

    Returns
    -------
    Solution
    """
    return Solution(puzzle, tuple(_row(claim, load) for claim in puzzle.claims))


def _row(claim, load):
    if claim.compute is not None:
        return Row(claim, _plain(claim.compute()))
    try:
        shown = show(claim.problem, claim.profile, load(claim.engine) if load is not None and claim.engine is not None else None)
    except BackendMissing:
        shown = show(claim.problem, claim.profile)
    return Row(claim, _plain(shown.oracle), None if shown.live is None else _plain(shown.live), shown.agrees, shown.level)
