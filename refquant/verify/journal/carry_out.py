"""Carrying out what a journal plans: here, in processes of this machine, or on any `concurrent.futures.Executor`."""

import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager

from refquant.errors import ArgumentError, BackendMissing
from refquant.verify.compare import Status
from refquant.verify.journal.journal import Result

__all__ = ["carry_out"]

_ON_AN_EXECUTOR = 32
_A_WORKER = 2
_LOOK_AGAIN = 0.25
_SHOW_AGAIN = 0.2


class _Here(Executor):
    """Computes at once, in this process."""

    def submit(self, function, /, *arguments, **named):
        future = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def _watch_the_parent():
    """End this worker when the process that started it is killed, which leaves it no other sign; and keep to one thread."""
    import multiprocessing

    import refquant

    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    refquant.set_num_threads(1)


def _processes(count):
    # A fork would copy the locks of whatever threads run here.
    from multiprocessing import get_context

    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_watch_the_parent)


@contextmanager
def _renewing(journal):
    """Renew the leases of this process while it computes."""
    over = threading.Event()

    def renew():
        while not over.wait(journal.lease / 4):
            journal.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def carry_out(journal, work, *, feed=None, workers=1, executor=None, progress=None):
    """Work until every case of a journal is done, also those that other processes have claimed and then leave.

    Parameters
    ----------
    journal : Journal
        Opened for writing. Only this process writes into it for `work`; workers never see the file.
    work : callable
        ``work(task)`` returns a `Result`. It must be picklable where there is more than one worker. What it raises is the case's outcome
        (`Status.DIFFERENT`), save for `BackendMissing`, which ends the run.
    feed : callable, optional
        Adds cases; see `Journal.exchange`.
    workers : int
        Processes on this machine; 1 computes in this one. With an executor: half of the cases that are handed to it at a time (16 unless given).
    executor : concurrent.futures.Executor, optional
        Where to compute, such as ``distributed.Client(...).get_executor()``. Engines are global to a process: give each worker one thread.
    progress : callable, optional
        Called with the journal now and then.

    Returns
    -------
    int
        Outcomes that this call has written.

    Examples
    --------
    >>> import tempfile
    >>> from refquant.verify.journal import Journal
    >>> with tempfile.TemporaryDirectory() as folder, Journal(f"{folder}/work.journal", kind="doctest") as journal:
    ...     journal.plan("onnx", "add", ["one", "two"])
    ...     written = carry_out(journal, lambda task: Result(Status.EXACT, outputs=len(task.line)))
    ...     written, [row[3:6] for row in journal.outcomes()]
    (2, [('one', 'EXACT', ''), ('two', 'EXACT', '')])
    """
    if workers < 1:
        raise ArgumentError(f"carry_out: workers={workers} must be at least 1; give the number of processes")
    own = executor is None
    pool = (_Here() if workers == 1 else _processes(workers)) if own else executor
    slots = 1 if own and workers == 1 else _A_WORKER * workers if own or workers > 1 else _ON_AN_EXECUTOR
    crew = _Crew(journal, work, pool, own and workers > 1, progress)
    try:
        with _renewing(journal):
            return crew.work_through(slots, feed)
    finally:
        if own:
            crew.pool.shutdown(wait=False, cancel_futures=True)


class _Crew:
    def __init__(self, journal, work, pool, replaceable, progress):
        self.journal, self.work, self.pool, self.replaceable, self.progress = journal, work, pool, replaceable, progress
        self.running, self.shown = {}, 0.0

    def work_through(self, slots, feed):
        written, finished = 0, []
        try:
            while True:
                kept, tasks = self.journal.exchange(finished, slots - len(self.running), feed)
                written, finished = written + kept, []
                self.report()
                for task in tasks:
                    self.running[self.submit(task)] = task
                if self.running:
                    finished = self.collect()
                elif not set(self.journal.counts()) - {"done"} and not tasks:
                    return written
                else:
                    time.sleep(_LOOK_AGAIN)
        finally:
            for future in self.running:
                future.cancel()
            self.journal.give_back(list(self.running.values()))

    def submit(self, task):
        try:
            return self.pool.submit(self.work, task)
        except BrokenExecutor as error:
            broken = Future()
            broken.set_exception(error)
            return broken

    def collect(self):
        """Wait for some case, and return (task, result) of all that have ended."""
        ended, _ = wait(self.running, return_when=FIRST_COMPLETED)
        finished = []
        for future in ended:
            task = self.running[future]
            try:
                result = self.outcome(future)
            except BrokenExecutor:
                return finished + self.one_by_one()
            del self.running[future]
            finished.append((task, result))
        return finished

    @staticmethod
    def outcome(future):
        try:
            return future.result()
        except (BackendMissing, BrokenExecutor):
            raise
        except Exception as error:
            return Result(Status.DIFFERENT, f"the work raised {type(error).__name__}: {error}")

    def one_by_one(self):
        """A worker has died: find out over which case, by computing those that were under way each alone."""
        if not self.replaceable:
            raise ArgumentError("carry_out: the executor is broken and was not made here; make a new one and carry on with the same journal")
        count = self.pool._max_workers
        self.pool.shutdown(wait=False, cancel_futures=True)
        finished = []
        for task in list(self.running.values()):
            with _processes(1) as alone:
                try:
                    result = self.outcome(alone.submit(self.work, task))
                except BrokenExecutor:
                    result = Result(Status.DIFFERENT, "the process that computed it died")
            finished.append((task, result))
        self.running = {}
        self.pool = _processes(count)
        return finished

    def report(self):
        if self.progress is not None and time.monotonic() - self.shown > _SHOW_AGAIN:
            self.shown = time.monotonic()
            self.progress(self.journal)
