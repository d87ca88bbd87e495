"""How much of a call threads share out, by processor time: what a busy machine cannot take away."""

import threading
import time
from statistics import median
from time import process_time, thread_time
from typing import NamedTuple

import numpy as np

from refquant.kernels.jit import get_num_threads, set_num_threads, shared_by
from refquant.kernels.threads import NAME

__all__ = ["Shared", "shared_steps"]


class Shared(NamedTuple):
    """What `shared_steps` finds of a step.

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


def _clock_of_threads():
    """Return a clock of the processor time of this thread and of those that share its loops.

    Linux brings the clock of a process up to date for another thread that runs only when its timer ticks, that of a thread at once.
    """
    if not hasattr(time, "pthread_getcpuclockid"):
        return process_time
    clocks = [time.pthread_getcpuclockid(thread.ident) for thread in threading.enumerate() if thread.name == NAME]
    return lambda: sum(map(time.clock_gettime, clocks), thread_time())


def shared_steps(run, calls=15):
    """Measure the `Shared` of each step of a function: medians of some calls.

    Parameters
    ----------
    run : callable
        ``run(clock)`` returns ``{step: clock() behind it less clock() before it}``, such as `refquant.graph.Model.time_steps`.
    calls : int

    Returns
    -------
    dict of str to Shared
    """
    alone, both, before = [], [], get_num_threads()
    set_num_threads(2)
    try:
        run(process_time)  # from here on the second thread is there
        clock = _clock_of_threads()
        for _ in range(calls):
            timed = _Timed()
            with shared_by(timed):
                alone.append(run(lambda: np.array([thread_time(), timed.shared, timed.longest, timed.loops])))  # noqa: B023
            both.append(run(clock))
    finally:
        set_num_threads(before)
    found = {}
    for step in alone[0]:
        seconds, shared, longest, loops = (median(column) for column in zip(*(row[step].tolist() for row in alone)))
        found[step] = Shared(seconds, shared, longest, int(loops), median(row[step] for row in both))
    return found
