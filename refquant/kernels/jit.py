"""The one decorator of the kernels, and the threads they run on.

Every Numba option of the project stands in `kernel`. A kernel is compiled when it is first called, and kept on disk
under a folder whose name is a hash of all sources that kernels are made of, of the Numba and llvmlite versions and of the
processor: an edited helper can never be answered by yesterday's machine code.
"""

import os
from contextlib import contextmanager

import numpy as np
from numba.core import config, types
from numba.core.registry import CPUDispatcher
from numba.core.typing.typeof import Purpose, typeof
from numba.np.numpy_support import from_dtype, map_layout

from refquant.errors import ArgumentError, RangeError
from refquant.kernels.disk_cache import DiskCache

__all__ = ["kernel", "jit_disabled", "get_num_threads", "set_num_threads", "parallel_for", "shared_by"]


class Kernel(CPUDispatcher):
    """Numba's dispatcher, less what a kernel that is loaded from the disk does without: importing a module to see that an array is not one of
    NumPy's masked ones, and looking through all installed packages for extensions of Numba.
    """

    def typeof_pyval(self, value):
        kind = _numba_type(value)
        self._types_active_call.add(kind)
        return kind

    def _compilation_chain_init_hook(self):
        """`DiskCache` does this where it has nothing to load."""


def _numba_type(value):
    if type(value) is np.ndarray:
        return types.Array(from_dtype(value.dtype), value.ndim, map_layout(value), readonly=not value.flags.writeable)
    if isinstance(value, tuple) and value:
        return types.BaseTuple.from_types([_numba_type(part) for part in value], type(value))
    return typeof(value, Purpose.argument)


def kernel(function=None, *, forceinline=False):
    """Compile a function with Numba, lazily and with a cache on disk: the only decorator kernels use.

    No fast-math, so that every line is the IEEE operation that it spells; division by zero as in NumPy; no bounds
    checks; the interpreter lock is released, so that `parallel_for` can run a kernel on several threads.

    Parameters
    ----------
    function : callable
    forceinline : bool
        Ask LLVM to merge the function into its callers.

    Returns
    -------
    numba dispatcher
        With ``NUMBA_DISABLE_JIT=1`` the plain function, which computes with infinities as silently.
    """

    def decorate(f):
        if jit_disabled():
            return np.errstate(all="ignore")(f)
        options = dict(nopython=True, nogil=True, fastmath=False, error_model="numpy", boundscheck=False, forceinline=forceinline)
        compiled = Kernel(f, {}, options)
        compiled._cache = DiskCache(f)
        return compiled

    return decorate if function is None else decorate(function)


def jit_disabled():
    """Whether kernels run as plain Python (``NUMBA_DISABLE_JIT=1``): correct and slow."""
    return bool(config.DISABLE_JIT)


_threads = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_helpers, _shared = None, {}


def get_num_threads():
    """Return on how many threads kernels run."""
    return _threads


def set_num_threads(n):
    """Let every kernel run on `n` threads. Results do not depend on it.

    Parameters
    ----------
    n : int
        At least 1. Until it is set, the number of processors that this process may use.

    Raises
    ------
    ArgumentError
        `n` is not an integer.
    RangeError
        `n` is less than 1.
    """
    global _threads
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise ArgumentError(f"set_num_threads: n={n!r} is a {type(n).__name__}; it must be an int of at least 1")
    n = n.__index__()
    if n < 1:
        raise RangeError(f"set_num_threads: n={n} is less than 1; one thread is the least, set_num_threads(1)")
    _threads = n


def _forget_helpers():
    global _helpers
    _helpers = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)


def parallel_for(worker, count, *args, grain=1):
    """Call ``worker(start, stop, *args)`` over disjoint parts of ``range(count)``, on as many threads as are set.

    Parameters
    ----------
    worker : kernel
        Must write to disjoint places for disjoint ranges.
    count : int
    grain : int
        The least part worth a thread of its own: some 10 µs of work.
    """
    if count < 1:
        return
    if jit_disabled():
        worker(0, count, *args)
        return
    run = _shared.get(worker)
    if run is None:
        from refquant.kernels.threads import shared

        run = _shared[worker] = shared(worker)
    parts = min(_threads, count // grain if grain > 1 else count)
    _the_helpers().run(run, parts, count, grain, args)


def _the_helpers():
    global _helpers
    if _helpers is None:
        from refquant.kernels.threads import Helpers

        _helpers = Helpers()
    return _helpers


@contextmanager
def shared_by(helpers):
    """Context: let ``helpers.run(kernel, parts, count, least, args)`` share loops out in place of the threads, such as to time them.

    Parameters
    ----------
    helpers : object
        With the method of `refquant.kernels.threads.Helpers`.
    """
    global _helpers
    before, _helpers = _helpers, helpers
    try:
        yield
    finally:
        _helpers = before
