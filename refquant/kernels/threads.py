"""Threads that share the range of a kernel out among themselves, in machine code.

Waking a sleeping thread takes as long as a small layer of a network. So a thread that has just worked looks out for more for a while, and
sleeps only then; it never needs the interpreter's lock. Whoever is free takes the next part; a helper that comes late, as on a busy machine,
finds none left and costs nothing.

    control    [0]   gate: number of the job << 17 | open << 16 | helpers inside         (words of eight bytes; 64 bytes are a line of the cache)
               [8]   address of the function that takes parts and works on them          [9] address of what it works with
               [10]  helpers that may come in                                            [11 …] addresses of the system's functions, see `_SYSTEM`
               [16]  for each helper two words: whether it sleeps, and the lock that it sleeps on
    job        [0]   first of what nobody has taken     [1] count     [2] least part     [3] a part is the rest through this     [4] failures
               then the kernel's arguments, on the caller's stack: the caller closes the gate and leaves after the last helper
"""

import ctypes
import hashlib
import threading

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.compiler import Flags, compile_internal
from numba.extending import intrinsic

from refquant.kernels.jit import kernel
from refquant.kernels.processor import host_features
from refquant.kernels.vector_ir import I64, Emitter, emitted_function

__all__ = ["Helpers", "shared", "NAME"]

#: Of the threads.
NAME = "refquant"

_WORK, _JOB, _WANTED, _YIELD, _LOCK, _UNLOCK, _SLEEPERS = 64, 72, 80, 88, 96, 104, 128
_OPEN, _INSIDE, _NEXT_JOB = 1 << 16, (1 << 16) - 1, 1 << 17
_NEXT, _COUNT, _LEAST, _SHARE, _FAILED, _ARGUMENTS = 0, 1, 2, 3, 4, 5
_LOOKS = 10000


_MOST_HELPERS = 255


def _system():
    """Addresses of the functions that let other threads run, that lock and that unlock; the first is 0 where it is not found."""
    address = lambda function: ctypes.cast(function, ctypes.c_void_p).value  # noqa: E731
    try:
        others = ctypes.windll.kernel32.SwitchToThread if hasattr(ctypes, "windll") else ctypes.CDLL(None).sched_yield
    except (AttributeError, OSError):
        others = None
    python = ctypes.pythonapi
    return address(others) if others else 0, address(python.PyThread_acquire_lock), address(python.PyThread_release_lock)


def _new_lock():
    """A lock of the interpreter's, taken; it can be waited for without the interpreter."""
    allocate, take = ctypes.pythonapi.PyThread_allocate_lock, ctypes.pythonapi.PyThread_acquire_lock
    allocate.restype, take.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]
    lock = allocate()
    take(lock, 1)
    return lock


def _pause(e):
    if "sse2" in host_features():
        e.call("llvm.x86.sse2.pause", ir.VoidType())


def _read(e, address):
    """A number that another thread may change."""
    return e.builder.load_atomic(e.pointer(address, I64), ordering="acquire", align=8)


def _swap(e, address, old, new):
    """Replace a number that is still `old`; whether it was."""
    return e.builder.extract_value(e.builder.cmpxchg(e.pointer(address, I64), old, new, "acq_rel", "acquire"), 1)


def _call_address(e, address, result, *args):
    kind = ir.FunctionType(result, [a.type for a in args])
    return e.builder.call(e.builder.inttoptr(address, kind.as_pointer()), args)


def _emit_sleeper(e, control, index):
    return e.add(e.add(control, _SLEEPERS), e.mul(index, 16))


def _emit_wake(e, control):
    """Wake the helpers that may come in and sleep."""
    b = e.builder
    with e.loop(_read(e, e.add(control, _WANTED))) as index:
        sleeper = _emit_sleeper(e, control, index)
        with e.when(e.equal(_read(e, sleeper), e.constant(1))):
            b.atomic_rmw("xchg", e.pointer(sleeper, I64), e.constant(0), "acq_rel")
            _call_address(e, _read(e, e.add(control, _UNLOCK)), ir.VoidType(), _read(e, e.add(sleeper, 8)))


def _emit_serve(e, control, index, last, looks):
    """Look out for jobs, work on each once, and return the number of the last when none has come for so many looks."""
    b = e.builder
    left, done = e.variable(looks), e.variable(last)
    head, body, end = (b.function.append_basic_block(name) for name in ("head", "body", "end"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch(e.less(e.constant(0), e.get(left)), body, end)
    b.position_at_end(body)
    e.set(left, e.sub(e.get(left), 1))
    _pause(e)
    gate = _read(e, control)
    number = e.shift_right(gate, 17)
    fresh = b.and_(e.has_bit(gate, _OPEN), b.not_(e.equal(number, e.get(done))))
    with e.when(b.and_(fresh, e.less(index, _read(e, e.add(control, _WANTED))))):
        work, job = _read(e, e.add(control, _WORK)), _read(e, e.add(control, _JOB))
        with e.when(_swap(e, control, gate, e.add(gate, 1))):
            _call_address(e, work, ir.VoidType(), job)
            b.atomic_rmw("sub", e.pointer(control, I64), e.constant(1), "acq_rel")
            e.set(done, number)
            e.set(left, looks)
    b.branch(head)
    b.position_at_end(end)
    return e.get(done)


def _emit_sleep(e, control, index):
    """Sleep until somebody wakes this helper. A job that begins just now may be done without it."""
    sleeper = _emit_sleeper(e, control, index)
    e.builder.atomic_rmw("xchg", e.pointer(sleeper, I64), e.constant(1), "acq_rel")
    _call_address(e, _read(e, e.add(control, _LOCK)), ir.IntType(32), _read(e, e.add(sleeper, 8)), e.constant(1, ir.IntType(32)))


_serve_jobs = emitted_function("serve_jobs", types.int64, [types.int64] * 4, _emit_serve)
_sleep = emitted_function("sleep_until_woken", types.none, [types.int64] * 2, _emit_sleep)


@kernel
def _serve(control, index, looks):
    last = 0
    while True:
        last = _serve_jobs(control, index, last, looks)
        _sleep(control, index)


def _emit_take(e, job):
    """Take the next part of a job: (first, behind the last); nothing is left where they are equal."""
    b = e.builder
    first, stop = e.variable(e.constant(0)), e.variable(e.constant(0))
    count, least, share = (e.load(e.add(job, 8 * word), I64, 8) for word in (_COUNT, _LEAST, _SHARE))
    again, end = b.function.append_basic_block("again"), b.function.append_basic_block("end")
    b.branch(again)
    b.position_at_end(again)
    at = _read(e, job)
    rest = e.sub(count, at)
    size = e.smaller(e.larger(b.sdiv(e.add(rest, e.sub(share, 1)), share), least), rest)
    e.set(first, at)
    e.set(stop, e.add(at, size))
    b.cbranch(b.or_(e.less(size, 1), _swap(e, job, at, e.add(at, size))), end, again)
    b.position_at_end(end)
    return e.get(first), e.get(stop)


def _work_function(context, module, name, worker, kinds):
    """The function that takes parts of a job until none is left and calls the kernel for each: ``void (address of the job)``."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64]), name)
    function.linkage = "internal"
    b = ir.IRBuilder(function.append_basic_block("entry"))
    e, (job,) = Emitter(b), function.args
    args = e.pointer(e.add(job, 8 * _ARGUMENTS), _arguments_type(context, kinds))
    values = [b.load(b.gep(args, [e.constant(0, ir.IntType(32)), e.constant(i, ir.IntType(32))])) for i in range(len(kinds))]
    head, body, end = (function.append_basic_block(n) for n in ("head", "body", "end"))
    b.branch(head)
    b.position_at_end(head)
    first, stop = _emit_take(e, job)
    b.cbranch(e.less(first, stop), body, end)
    b.position_at_end(body)
    # Into the same library, so that LLVM optimizes the whole once.
    arguments = types.int64, types.int64, *kinds
    compiled = compile_internal(context.typing_context, context, context.active_code_library, worker.py_func, arguments, types.none, _flags(), {})
    code = context.declare_function(module, compiled.fndesc)
    status, _ = context.call_conv.call_function(b, code, types.none, compiled.fndesc.argtypes, [first, stop, *values])
    with e.when(status.is_error):
        b.atomic_rmw("add", e.pointer(e.add(job, 8 * _FAILED), I64), e.constant(1), "acq_rel")
    b.branch(head)
    b.position_at_end(end)
    b.ret_void()
    return function


def _flags():
    """How `kernel` has its functions compiled."""
    flags = Flags()
    flags.nrt, flags.error_model = True, "numpy"
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    return flags


def _arguments_type(context, kinds):
    return ir.LiteralStructType([context.get_value_type(kind) for kind in kinds])


def _emit_run(e, work, control, head, values):
    """Open the gate for the job, work on it, close the gate and wait for whoever is inside; gives the number of failures."""
    b = e.builder
    job_type = ir.LiteralStructType([ir.ArrayType(I64, _ARGUMENTS), ir.LiteralStructType([v.type for v in values])])
    with b.goto_entry_block():
        slot = b.alloca(job_type)
    job = b.ptrtoint(slot, I64)
    for word, value in enumerate(head):
        e.store(value, e.add(job, 8 * word), 8)
    for i, value in enumerate(values):
        b.store(value, b.gep(slot, [e.constant(n, ir.IntType(32)) for n in (0, 1, i)]))
    several = b.not_(e.equal(control, e.constant(0)))
    with e.when(several):
        e.store(b.ptrtoint(work, I64), e.add(control, _WORK), 8)
        e.store(job, e.add(control, _JOB), 8)
        number = e.shift_right(_read(e, control), 17)
        gate = b.or_(e.shift_left(e.add(number, 1), 17), e.constant(_OPEN))
        b.atomic_rmw("xchg", e.pointer(control, I64), gate, "acq_rel")
        _emit_wake(e, control)
    b.call(work, [job])
    with e.when(several):
        b.atomic_rmw("and", e.pointer(control, I64), e.constant(~_OPEN), "acq_rel")
        _emit_await(e, control)
    return _read(e, e.add(job, 8 * _FAILED))


def _emit_await(e, control):
    """Wait until no helper is inside; after some looks let other threads run between them."""
    b, looks, others = e.builder, e.variable(e.constant(0)), _read(e, e.add(control, _YIELD))
    head, body, end = (b.function.append_basic_block(name) for name in ("wait", "look", "left"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch(e.equal(e.both(_read(e, control), _INSIDE), e.constant(0)), end, body)
    b.position_at_end(body)
    _pause(e)
    e.set(looks, e.add(e.get(looks), 1))
    with e.when(b.and_(e.less(e.constant(_LOOKS), e.get(looks)), b.not_(e.equal(others, e.constant(0))))):
        _call_address(e, others, ir.IntType(32))
    b.branch(head)
    b.position_at_end(end)


def shared(worker):
    """Return a kernel that shares the range of another out.

    Parameters
    ----------
    worker : kernel
        Called with ``(start, stop, *args)`` for parts of a range.

    Returns
    -------
    kernel
        ``run(control, count, least, share, *args)``: `control` is the address of the words that helpers look at, 0 for none; a part is the rest
        through `share`, but not less than `least`.
    """
    name = "share_" + hashlib.sha256(repr(worker._cache._function).encode()).hexdigest()[:16]

    def codegen(context, builder, sig, given):
        control, count, least, share, pack = given
        e, kinds = Emitter(builder), list(sig.args[-1])
        work = _work_function(context, builder.module, name, worker, kinds)
        zero = e.constant(0)
        values = [builder.extract_value(pack, i) for i in range(len(kinds))]
        return _emit_run(e, work, control, (zero, count, least, share, zero), values)

    def share_out(typingctx, control, count, least, share, args):
        return types.int64(*[types.int64] * 4, args), codegen

    share_out.__name__ = share_out.__qualname__ = name
    share_out = intrinsic(share_out)

    def run(control, count, least, share, *args):
        if share_out(control, count, least, share, args) > 0:
            raise MemoryError("a kernel found no memory for what it needs; free some, or give it less at once")

    run.__module__, run.__qualname__ = worker.py_func.__module__, worker.py_func.__qualname__ + ".shared"
    return kernel(run)


class Helpers:
    """Threads beside the caller's own; as many as were ever needed at once."""

    def __init__(self):
        self._started = 0
        self._free = threading.Lock()
        words = np.zeros(16 + 2 * _MOST_HELPERS + 8, np.int64)
        self._control = words[-words.ctypes.data % 64 // 8 :]
        self._address = self._control.ctypes.data
        self._control[_YIELD // 8 : _UNLOCK // 8 + 1] = _system()

    def _start(self, number):
        while self._started < number:
            self._control[_SLEEPERS // 8 + 2 * self._started + 1] = _new_lock()
            thread = threading.Thread(target=_serve, args=(self._address, self._started, _LOOKS), name=NAME, daemon=True)
            thread.words = self._control  # which it looks at for as long as it lives
            thread.start()
            self._started += 1

    def run(self, run, parts, count, least, args):
        """Call a shared kernel on so many threads; here alone if the helpers are busy."""
        if parts < 2 or not self._free.acquire(blocking=False):
            run(0, count, count, 1, *args)
            return
        try:
            parts = min(parts, _MOST_HELPERS + 1)
            self._start(parts - 1)
            self._control[_WANTED // 8] = parts - 1
            run(self._address, count, least, parts, *args)
        finally:
            self._free.release()
