"""The stack on which a thread's signals are handled, kept as it was.

OpenVINO's plugin puts a stack of its own there when it compiles a model, and the one before back when its core goes. Where two cores go in the order
in which they came, what is put back last is gone: then the next signal, be it Ctrl-C, ends the process.
"""

import ctypes
from contextlib import contextmanager

__all__ = ["signal_stack_kept"]


class _Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def signal_stack_kept():
    """Put this thread's alternate signal stack back at the end; does nothing where the system has none."""
    try:
        exchange = ctypes.CDLL(None).sigaltstack
    except (AttributeError, OSError, TypeError):
        yield
        return
    before = _Stack()
    exchange(None, ctypes.byref(before))
    try:
        yield
    finally:
        exchange(ctypes.byref(before), None)
