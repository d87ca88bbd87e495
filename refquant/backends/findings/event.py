"""`Event`: what an engine does beyond one operator's bits, shown in a process of its own, which it may end.

``python -m refquant.backends.findings.event MODULE:FUNCTION`` calls the function and prints its numbers as JSON.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Callable

import numpy as np

from refquant.backends.findings.finding import Reproduction
from refquant.errors import BackendMissing, RefquantError
from refquant.verify.held import level_here
from refquant.verify.shown import Shown

__all__ = ["Event", "reproduce_event", "main"]

_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Event:
    """One surprise that no single operator shows.

    Attributes
    ----------
    name, engine, title, text, expected_by : str
        As of `refquant.backends.findings.Finding`.
    live : str
        ``module:function`` under `refquant.backends.findings`: without arguments, asks the engine and returns numbers. A process that a signal ends gives
        the signal's number, negative.
    oracle, expect : callable
        Without arguments; what the engine gives by refquant's description, and what one would expect.
    defect : bool
        Whether nobody meant it.
    level : str
        ``avx2`` where it takes a processor without AVX512-VNNI.
    """

    name: str
    engine: str
    title: str
    text: str
    live: str
    oracle: Callable
    expect: Callable
    expected_by: str
    defect: bool = False
    level: str = ""

    @property
    def profile(self):
        """The name of the engine's profile."""
        return self.engine


def reproduce_event(event, asked):
    """Compute what refquant says, and ask the engine in another process if `asked`.

    Returns
    -------
    Reproduction

    Raises
    ------
    BackendMissing
        The event takes another processor level.
    """
    if asked and event.level and level_here() is None:
        raise BackendMissing(f"findings: {event.name} shows on a processor level of {event.level}, but this one has AVX512-VNNI; ask on another")
    numbers = [np.asarray(values, np.float64) for values in (event.oracle(), event.expect())]
    return Reproduction(Shown(numbers[0], numbers[0], _ask(event) if asked else None), numbers[1])


def _ask(event):
    command = [sys.executable, "-m", __name__, event.live]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if done.returncode < 0:
        return np.array([done.returncode], np.float64)
    if done.returncode:
        raise RefquantError(f"findings: {event.name} must run but ended with {done.stderr.strip().splitlines()[-1:]}; is another version of the engine installed")
    return np.array(json.loads(done.stdout.splitlines()[-1]), np.float64)


def main(argument):
    """Call a function of this package and print its numbers."""
    module, _, function = argument.partition(":")
    print(json.dumps([float(number) for number in getattr(import_module(f"refquant.backends.findings.{module}"), function)()]))


if __name__ == "__main__":
    main(sys.argv[1])
