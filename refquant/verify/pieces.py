"""Long work in pieces: on several processes, each finished piece in a log, until all is done or the time is over."""

import os
import signal
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from threading import Thread

__all__ = ["work_through"]


def work_through(tasks, work, log, *, workers=1, deadline=None):
    """Yield the result of every task that the log does not have yet.

    Parameters
    ----------
    tasks : iterable of dict
        Each with a ``key``; drawn one at a time, as processes become free.
    work : callable
        A function of a module, from a task to a dict; its ``key`` is set here.
    log : PieceLog
        Takes in each result before it is yielded.
    workers : int
        Processes; 1 works in this one. They end when this one does, however it ends.
    deadline : float, optional
        Of `time.monotonic`, after which no task is begun.

    Yields
    ------
    dict
    """
    waiting = (task for task in tasks if task["key"] not in log.pieces)
    if workers == 1:
        for task in waiting:
            if deadline is not None and time.monotonic() >= deadline:
                return
            yield _kept(log, task, work(task))
        return
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with, initargs=(reader,))
    try:
        yield from _in_processes(pool, waiting, work, log, workers, deadline)
    except BaseException:
        writer.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        writer.close()
        reader.close()


def _end_with(reader):
    """In a process of the pool: leave interrupts to the parent, and stop in the middle of a piece once it has closed its end of the pipe, or died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_wait, args=(reader,), daemon=True).start()


def _wait(reader):
    try:
        reader.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _in_processes(pool, waiting, work, log, workers, deadline):
    running = {}
    while True:
        while len(running) < workers and (deadline is None or time.monotonic() < deadline):
            task = next(waiting, None)
            if task is None:
                break
            running[pool.submit(work, task)] = task
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield _kept(log, running.pop(future), future.result())


def _kept(log, task, result):
    piece = {**result, "key": task["key"]}
    log.add(piece)
    return piece
