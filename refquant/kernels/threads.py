"""A few threads that wait for work on their feet.

Waking a sleeping thread takes as long as a small layer of a network. So a thread that has just worked looks out for more for a while, and
sleeps only then. It looks out in compiled code, without the interpreter's lock, which the caller needs.

    flags   [0] number of the job that was handed over      [8] number of the job that is done      (two lines of the cache)
"""

import threading

import numpy as np
from llvmlite import ir
from numba.core import types

from refquant.kernels.jit import cpu_features, kernel
from refquant.kernels.vector_ir import I64, emitted_function

__all__ = ["Helpers"]

_GO, _DONE = 0, 8
_LOOKS, _STEP_BACK = 10000, 100


def _emit_look(e, address):
    """Read a number that another thread may change; on x86, after a short pause."""
    if "sse2" in cpu_features():
        e.call("llvm.x86.sse2.pause", ir.VoidType())
    return e.builder.load_atomic(e.pointer(address, I64), ordering="acquire", align=8)


_look = emitted_function("look", types.int64, [types.int64], _emit_look)


@kernel
def _await(flags, at, number, looks, step_back):
    """Wait until a flag has reached a number, and a moment longer; say whether it has."""
    address = flags.ctypes.data + 8 * at
    for _ in range(looks):
        if _look(address) >= number:
            for _ in range(step_back):
                _look(address)
            return True
    return False


class _Helper:
    """One thread, and what it shares with its caller. All but the waiting happens under the interpreter's lock."""

    def __init__(self):
        self.flags = np.zeros(16, np.int64)
        self.job = self.error = None
        self.sleeping = self.awaited = False
        self.woken, self.finished = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._serve, name="refquant", daemon=True).start()

    def give(self, function, *args):
        self.job = function, args
        self.flags[_GO] += 1
        if self.sleeping:
            self.woken.release()

    def wait(self):
        """Return when the job is done; raise what it has raised."""
        # A step back here too: the helper, who has just said so, still holds the lock for a moment.
        number = self.flags[_GO]
        if not _await(self.flags, _DONE, number, _LOOKS, _STEP_BACK):
            self.awaited = True
            while self.flags[_DONE] < number:
                self.finished.acquire()
            self.awaited = False
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _serve(self):
        number = 1
        while True:
            # A step back: the caller, who has just handed the job over, still needs the lock to begin its own part.
            if not _await(self.flags, _GO, number, _LOOKS, _STEP_BACK):
                self.sleeping = True
                while self.flags[_GO] < number:
                    self.woken.acquire()
                self.sleeping = False
            function, args = self.job
            try:
                function(*args)
            except BaseException as error:  # noqa: BLE001 - it is raised where the job came from
                self.error = error
            self.job = None
            self.flags[_DONE] = number
            if self.awaited:
                self.finished.release()
            number += 1


class Helpers:
    """Threads beside the caller's own; as many as were ever needed at once."""

    def __init__(self):
        self._helpers = []
        self._free = threading.Lock()

    def run(self, function, cuts, args):
        """Call ``function(cuts[i], cuts[i + 1], *args)`` for each i, the first here, the others on helpers; if they are busy, all here."""
        if not self._free.acquire(blocking=False):
            function(cuts[0], cuts[-1], *args)
            return
        try:
            while len(self._helpers) < len(cuts) - 2:
                self._helpers.append(_Helper())
            busy = self._helpers[: len(cuts) - 2]
            for helper, start, stop in zip(busy, cuts[1:], cuts[2:]):
                helper.give(function, start, stop, *args)
            try:
                function(cuts[0], cuts[1], *args)
            finally:
                for helper in busy:
                    helper.wait()
        finally:
            self._free.release()
