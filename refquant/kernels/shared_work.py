"""How much of a call threads share out, by processor time: what a busy machine cannot take away."""

from statistics import median
from time import process_time, thread_time
from typing import NamedTuple

from refquant.kernels.jit import get_num_threads, set_num_threads, shared_by

__all__ = ["Shared", "shared_work"]


class Shared(NamedTuple):
    """What `shared_work` finds.

    Attributes
    ----------
    seconds : float
        Of one call on one thread.
    shared : float
        Of those, in loops that two threads share.
    longest : float
        What the busier of two threads does of these.
    loops : int
    both : float
        Processor seconds of one call on two threads, with what they wait for one another while awake.
    """

    seconds: float
    shared: float
    longest: float
    loops: int
    both: float

    @property
    def most(self):
        """How many times as fast two threads can be: what is not shared remains, handing over is free."""
        return self.seconds / (self.seconds - self.shared + self.longest)


class _Timed:
    """Carries shared loops out alone, and times them."""

    def __init__(self):
        self.loops, self.shared, self.longest = 0, 0.0, 0.0

    def run(self, run, parts, count, least, args):
        start = thread_time()
        run(0, count, count, 1, *args)
        seconds = thread_time() - start
        if parts > 1:
            self.loops, self.shared = self.loops + 1, self.shared + seconds
            self.longest += seconds * -(-count // parts) / count


def shared_work(call, calls=9):
    """Measure a function's `Shared`: medians of some calls.

    Parameters
    ----------
    call : callable
    calls : int
    """
    rows, both, before = [], [], get_num_threads()
    set_num_threads(2)
    try:
        for _ in range(calls):
            timed = _Timed()
            with shared_by(timed):
                start = thread_time()
                call()
                rows.append((thread_time() - start, timed.shared, timed.longest))
            start = process_time()
            call()
            both.append(process_time() - start)
    finally:
        set_num_threads(before)
    return Shared(*(median(column) for column in zip(*rows)), timed.loops, median(both))
