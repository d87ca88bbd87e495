"""What there is to time: contenders, cases, and works with the bars that they have to reach."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Callable, NamedTuple

from refquant.errors import BackendMissing

__all__ = ["Role", "Contender", "Case", "Plan", "Bar", "Work", "Settings", "Yardstick"]


class Role(str, Enum):
    """What a contender is there for.

    `SUBJECT`: refquant, one in a case. `RIVAL`: the best of them makes the ratio. `SHOWN`: timed and shown, but no rival.
    `YARDSTICK`: timed, so that a share of it can be given. `WITNESS`: its bits are compared, and it is not timed.
    """

    SUBJECT = "subject"
    RIVAL = "rival"
    SHOWN = "shown"
    YARDSTICK = "yardstick"
    WITNESS = "witness"

    def __str__(self):
        return self.value


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One side of a case.

    Attributes
    ----------
    name : str
    call : callable
        One repetition.
    role : Role
    bits : callable, optional
        From what `call` returns to the array, or list of arrays, that is compared. None: it computes something else than the subject.
    expected : callable, optional
        Returns the bits of refquant that these must equal; unless given, those of the subject.
    setup : callable, optional
        Called before each turn; not timed.
    operations : float
        Of a yardstick, in one call; 0 for one that is compared by time.
    """

    name: str
    call: Callable
    role: Role = Role.RIVAL
    bits: Callable = None
    expected: Callable = None
    setup: Callable = None
    operations: float = 0


@dataclass
class Case:
    """Contenders that are timed in turn.

    Attributes
    ----------
    name : str
    group : str
        Cases of a group are summed up together.
    operations : float
        Multiplications and additions in one call; 0 where GOPS make no sense.
    contenders : list of Contender
    skipped : list of str
        Why an engine is not among them.
    warm : bool
        Call once before each timed turn, and repeat short calls.
    clock : callable, optional
        Seconds, in place of the clock that the number of threads decides.
    most_turns : int, optional
        Turns of a case that takes long.
    layer : Layer, optional
        What the subject computes, where that is a product or a convolution, for a profile of where its time goes.
    repeats : bool
        Whether every call gives the same bits; not so where each goes on from the last.
    parts : dict of str to callable, optional
        What a call of the subject is made of, each by itself, for a profile of where its time goes.
    """

    name: str
    group: str = ""
    operations: float = 0
    contenders: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    warm: bool = True
    clock: Callable = None
    most_turns: int = None
    layer: object = None
    repeats: bool = True
    parts: dict = None

    def add(self, name, make, role=Role.RIVAL, **options):
        """Add the contender whose call ``make()`` returns; an engine that is not installed is noted as skipped."""
        try:
            call = make()
        except BackendMissing as missing:
            self.skipped.append(str(missing))
            return
        self.contenders.append(Contender(name=name, call=call, role=role, **options))

    @property
    def subject(self):
        """The contender that all others are compared with."""
        return next(c for c in self.contenders if c.role is Role.SUBJECT)


class Yardstick(NamedTuple):
    """A loop of known work: its name, what runs it, and its operations in one call."""

    name: str
    call: Callable
    operations: float


class Settings(NamedTuple):
    """How cases are built and timed.

    Attributes
    ----------
    threads : int
    turns : int
    peak : Yardstick or None
        The processor's fastest multiplication.
    shared_steps : callable or None
        ``shared_steps(run)``: how much of each step threads share out, see `refquant.kernels.shared_work`.
    """

    threads: int = 1
    turns: int = 7
    peak: Yardstick = None
    shared_steps: Callable = None


class Plan(NamedTuple):
    """A case that is not built yet: its name, its group, and ``build(settings)``, which returns the `Case`."""

    name: str
    group: str
    build: Callable


class Bar(NamedTuple):
    """A figure that a work has to reach.

    Attributes
    ----------
    label : str
    figure : callable
        ``figure(results)`` of the results of the work, or of one of its groups; None where there is nothing to judge.
    limit : float
    at_most : bool
        Whether less is better.
    by_group : bool
        One figure for each group.
    """

    label: str
    figure: Callable
    limit: float
    at_most: bool = False
    by_group: bool = False


class Work(NamedTuple):
    """Cases that belong together.

    Attributes
    ----------
    name, title : str
    plans : callable
        Returns the sequence of `Plan`.
    bars : tuple of Bar
    notes : callable
        ``notes(results)`` returns lines that are printed below.
    grouped : bool
        Whether only groups are printed, unless cases were asked for.
    charted : bool
        Whether the ratios are over another engine, and belong into the chart.
    where : callable
        ``where(results, settings)`` of the results that were timed returns lines that tell where the time goes, beyond what `Case.layer` and
        `Case.parts` tell.
    """

    name: str
    title: str
    plans: Callable
    bars: tuple = ()
    notes: Callable = lambda results: []
    grouped: bool = False
    charted: bool = True
    where: Callable = lambda results, settings: []
