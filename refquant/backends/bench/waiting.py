"""Whether the wall's clock can be trusted: how long this process's threads were ready and had to wait for a processor."""

import os
from pathlib import Path
from time import perf_counter

__all__ = ["Waiting"]

_TASKS = Path("/proc/self/task")
_TOLERATED = 0.03


def _waited():
    """Seconds that the threads of this process have waited so far, or None where the system does not tell."""
    total = 0
    try:
        for task in _TASKS.iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[1])
            except FileNotFoundError:  # it has just ended
                continue
    except (OSError, IndexError, ValueError):
        return None
    return total / 1e9


class Waiting:
    """Begins to watch when it is made.

    Parameters
    ----------
    waited, clock, load : callable, optional
        Seconds waited so far, or None; seconds of the wall; processes that run or want to.
    """

    def __init__(self, waited=_waited, clock=perf_counter, load=lambda: os.getloadavg()[0] if hasattr(os, "getloadavg") else None):
        self._waited, self._clock, self._load = waited, clock, load
        self._since = waited(), clock()

    def reason(self):
        """Why the wall's clock cannot be trusted for what has run since, or ``""``."""
        (before, start), now, load = self._since, self._waited(), self._load()
        processors = os.cpu_count() or 1
        busy = "" if load is None else f"; load {load:.0f} on {processors} processors"
        if before is None or now is None:
            return f"more processes want to run than there are processors{busy}" if load is not None and load > processors else ""
        share = (now - before) / max(self._clock() - start, 1e-9)
        return f"threads that were ready waited for a processor {share:.0%} of the time{busy}" if share > _TOLERATED else ""
