"""Prove equal bits, then time all contenders in turn; the bits of a call behind the timed ones must be the first one's.

A turn gives one sample of each contender: the least mean of a few batches of calls, after one call that is not timed. The order
moves on by one from turn to turn. Figures are medians over the turns; a ratio is the median of the ratios within a turn, so
that whatever slows the machine down for a while slows down both sides of it.

On one thread, seconds are those of the processor (``time.process_time``: all threads of the process, in user and system mode): other
processes then take from nobody, while on the wall's clock long calls lose more to them than short ones, which fit between.
On several threads, seconds are the wall's; where threads had to wait for a processor meanwhile, a result says so and is not judged.
"""

import gc
import math
import statistics
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, process_time

import numpy as np

from refquant.backends.bench.case import Contender, Role
from refquant.backends.bench.waiting import Waiting
from refquant.verify import Status, compare

__all__ = ["Result", "run_case", "clock_of", "prove", "measure", "beside", "geomean", "LEAST_TURNS"]

LEAST_TURNS = 5
_BATCH = 2e-3
_BATCHES = 5
_TURN = 0.06


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a case gave.

    Attributes
    ----------
    name, group : str
    status : Status
        `EXACT`, or the case was not timed.
    detail : str
        The report of a difference.
    operations : float
    roles : dict of str to Role
        Of the contenders that were timed.
    samples : dict of str to list of float
        Seconds of one call, one number a turn.
    skipped : tuple of str
    yardstick : float
        Operations of the yardstick, 0 if it is compared by time.
    disturbed : str
        Why times by the wall's clock mean nothing here, or ``""``.
    """

    name: str
    group: str = ""
    status: Status = Status.EXACT
    detail: str = ""
    operations: float = 0
    roles: dict = field(default_factory=dict)
    samples: dict = field(default_factory=dict)
    skipped: tuple = ()
    yardstick: float = 0
    disturbed: str = ""

    def names(self, role):
        """Return the timed contenders of a role."""
        return [name for name, r in self.roles.items() if r is role]

    def seconds(self, name):
        """Return the median of a contender."""
        return statistics.median(self.samples[name])

    def ratio_over(self, rival, subject=None):
        """Return how many times longer `rival` takes than the subject."""
        subject = subject or self.subject
        return statistics.median(r / s for r, s in zip(self.samples[rival], self.samples[subject]))

    @property
    def timed(self):
        return bool(self.samples)

    @property
    def subject(self):
        return self.names(Role.SUBJECT)[0]

    @property
    def best(self):
        """The fastest rival, or None."""
        return min(self.names(Role.RIVAL), key=self.seconds, default=None)

    @property
    def ratio(self):
        """How many times longer the best rival takes, or None."""
        return self.ratio_over(self.best) if self.timed and self.best else None

    @property
    def gops(self):
        """10⁹ operations a second, or None."""
        return self.operations / self.seconds(self.subject) / 1e9 if self.timed and self.operations else None

    @property
    def share(self):
        """The part of the yardstick's speed that was reached, or None."""
        names = self.names(Role.YARDSTICK)
        if not names:
            return None
        work = self.operations / self.yardstick if self.yardstick else 1
        return work * self.ratio_over(names[0])


def geomean(numbers):
    """Return the geometric mean, None of nothing.

    Examples
    --------
    >>> geomean([1.0, 4.0]), geomean([])
    (2.0, None)
    """
    numbers = list(numbers)
    return math.exp(sum(map(math.log, numbers)) / len(numbers)) if numbers else None


def run_case(case, settings, clock=None):
    """Prove a case's bits and, if they agree, time it.

    Parameters
    ----------
    case : Case
    settings : Settings
    clock : callable, optional
        Seconds; `clock_of` unless given.

    Returns
    -------
    Result
    """
    clock = clock or clock_of(case, settings)
    contenders = [c for c in case.contenders if c.role is not Role.WITNESS]
    if settings.peak and case.operations and not any(c.role is Role.YARDSTICK for c in contenders):
        contenders.append(Contender(name=settings.peak.name, call=settings.peak.call, role=Role.YARDSTICK, operations=settings.peak.operations))
    ours = _bits(case.subject) if case.subject.bits else None
    status, detail = prove(case, ours)
    facts = dict(name=case.name, group=case.group, operations=case.operations, skipped=tuple(case.skipped))
    if status is not Status.EXACT:
        return Result(**facts, status=status, detail=detail)
    turns, waiting = min(settings.turns, case.most_turns or settings.turns), Waiting()
    samples = measure(contenders, turns, clock, warm=case.warm)
    if ours is not None and case.repeats:
        status, detail = _agree(ours, _bits(case.subject))
        if status is Status.DIFFERENT:
            return Result(**facts, status=status, detail=f"refquant's first call beside one behind those that were timed: {detail}")
    return Result(
        **facts,
        roles={c.name: c.role for c in contenders},
        samples=samples,
        yardstick=sum(c.operations for c in contenders),
        disturbed=waiting.reason() if clock is perf_counter else "",
    )


def clock_of(case, settings):
    """Return the clock that a case is timed with."""
    return case.clock or (perf_counter if settings.threads > 1 else process_time)


def prove(case, ours=None):
    """Compare the bits of all contenders that compute the same thing.

    Parameters
    ----------
    case : Case
    ours : list of ndarray, optional
        The subject's; it is called unless they are given.

    Returns
    -------
    (Status, str)
        `EXACT`; or `DIFFERENT` or `UNTRUSTED` with the report of the first contender that is.
    """
    subject = case.subject
    if ours is None and subject.bits:
        ours = _bits(subject)
    for other in case.contenders:
        if other is subject or other.bits is None:
            continue
        mine = _as_list(other.expected()) if other.expected else ours
        status, detail = _agree(mine, _bits(other))
        if status is not Status.EXACT:
            return status, f"refquant beside {other.name}: {detail}"
    return Status.EXACT, ""


def _bits(contender):
    if contender.setup:
        contender.setup()
    return [np.array(a, order="K") for a in _as_list(contender.bits(contender.call()))]


def _as_list(bits):
    return list(bits) if isinstance(bits, (list, tuple)) else [bits]


def _agree(ours, theirs):
    if len(ours) != len(theirs):
        return Status.DIFFERENT, f"{len(ours)} arrays beside {len(theirs)}"
    rows = [compare(a, b) for a, b in zip(ours, theirs)]
    for i, row in enumerate(rows):
        if row.status is Status.DIFFERENT:
            return row.status, f"array {i + 1} of {len(rows)}: {row}" if len(rows) > 1 else str(row)
    if all(row.status is Status.UNTRUSTED for row in rows):
        return Status.UNTRUSTED, str(rows[0])
    return Status.EXACT, ""


@contextmanager
def _no_garbage_collection():
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def measure(contenders, turns, clock, *, warm=True):
    """Time contenders in turn.

    Parameters
    ----------
    contenders : sequence of Contender
    turns : int
    clock : callable
    warm : bool
        As in `Case`.

    Returns
    -------
    dict of str to list of float
        Seconds of one call, one number a turn.
    """
    with _no_garbage_collection():
        repeats = [_repetitions(c, clock) if warm else (1, 1) for c in contenders]
        samples = {c.name: [] for c in contenders}
        order = list(zip(contenders, repeats))
        for turn in range(turns):
            first = turn % len(order)
            for contender, (batches, calls) in order[first:] + order[:first]:
                samples[contender.name].append(_sample(contender, batches, calls, clock, warm))
            gc.collect(0)
    return samples


def beside(samples, whole):
    """Return the seconds of each contender as its part of `whole` within a turn, at the median, times the median of `whole`.

    Medians of each by itself may come from different turns, and so from different speeds of the machine.

    Parameters
    ----------
    samples : dict of str to list of float
        From `measure`.
    whole : str

    Examples
    --------
    >>> beside({"call": [1.0, 4.0, 4.0], "half": [0.5, 2.0, 1.0]}, "call")
    {'call': 4.0, 'half': 2.0}
    """
    seconds = statistics.median(samples[whole])
    return {name: seconds * statistics.median(v / w for v, w in zip(values, samples[whole])) for name, values in samples.items()}


def _repetitions(contender, clock):
    """Return (batches, calls of a batch) that fill a turn."""
    _prepare(contender, True)
    seconds = max(min(_batch(contender.call, 1, clock) for _ in range(2)), 1e-9)
    calls = max(1, math.ceil(_BATCH / seconds))
    return max(1, min(_BATCHES, int(_TURN / (calls * seconds)))), calls


def _sample(contender, batches, calls, clock, warm):
    _prepare(contender, warm)
    return min(_batch(contender.call, calls, clock) for _ in range(batches)) / calls


def _prepare(contender, warm):
    if contender.setup:
        contender.setup()
    if warm:
        contender.call()


def _batch(call, calls, clock):
    start = clock()
    for _ in range(calls):
        call()
    return clock() - start
