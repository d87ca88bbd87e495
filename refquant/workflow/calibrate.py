"""`calibrate`: shows data to a prepared model batch by batch, with progress, and survives interruptions."""

import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from refquant.errors import ArgumentError
from refquant.workflow.observer_state import load_state, save_state

__all__ = ["Calibration", "calibrate"]


class Calibration(NamedTuple):
    """What a calibration has seen.

    Attributes
    ----------
    batches : int
        Seen by the prepared model, those of earlier, resumed runs included.
    interrupted : bool
        Whether a KeyboardInterrupt ended it.
    """

    batches: int
    interrupted: bool


def calibrate(prepared, batches, *, progress=None, state=None, every=50, **options):
    """Call a prepared model with every batch.

    Batches are taken from the iterable one at a time, and none is kept. A KeyboardInterrupt (Ctrl-C) ends the calibration after the batch that is under
    way, and the model can be converted with what it has seen; a second one breaks off at once.

    Parameters
    ----------
    prepared : Prepared
        Of any front: something to call with a batch, with a ``model`` that has ``observe`` nodes, and a count ``batches``.
    batches : iterable of (ndarray or tuple of ndarray)
        A tuple holds one array for each input of the model. An iterable with a length gives the progress a total.
    progress : callable or True, optional
        ``progress(batches seen, total or None)`` after each batch; True writes a line to stderr.
    state : path, optional
        A file for what the observers have seen, written after every `every` batches, at the end and at an interruption. If it is there already, the
        calibration resumes: its batches are skipped in `batches` and not computed again.
    every : int
        Batches between two writes of `state`.
    **options
        Of `Model.run`.

    Returns
    -------
    Calibration

    Raises
    ------
    ArgumentError
        A `state` that belongs to another prepared model, or a prepared model that has seen data already and should resume.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import get_default_qconfig_mapping, prepare_fx
    >>> x, _ = load_split("digits", "calibration")
    >>> prepared = prepare_fx(zoo.load("digits_resnet"), get_default_qconfig_mapping("x86"), (x[:50],))
    >>> calibrate(prepared, x.reshape(4, 50, 1, 8, 8), progress=lambda seen, total: print(seen, "of", total))
    1 of 4
    2 of 4
    3 of 4
    4 of 4
    Calibration(batches=4, interrupted=False)
    """
    if not callable(prepared) or not hasattr(prepared, "batches"):
        raise ArgumentError(f"calibrate: prepared is a {type(prepared).__name__}; prepare the model first, with refquant.workflow.prepare_fx or prepare_pt2e")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ArgumentError(f"calibrate: every={every!r} must be a positive int; batches between two writes of the state")
    show = _line() if progress is True else progress or (lambda seen, total: None)
    total = len(batches) if hasattr(batches, "__len__") else None
    if state is not None and Path(state).exists():
        load_state(prepared, state)
    seen, interrupted, saved = prepared.batches if state is not None else 0, False, None
    with _deferred_interrupts() as asked:
        try:
            for batch in _behind(batches, seen):
                prepared(*(batch if isinstance(batch, tuple) else (batch,)), **options)
                seen += 1
                show(seen, total)
                if state is not None and seen % every == 0:
                    saved = save_state(prepared, state) or seen
                if asked:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            interrupted = True
    if state is not None and saved != seen:
        save_state(prepared, state)
    return Calibration(prepared.batches, interrupted)


def _behind(batches, count):
    """Yield the batches behind the first `count`."""
    for number, batch in enumerate(batches):
        if number >= count:
            yield batch


@contextmanager
def _deferred_interrupts():
    """Note the first Ctrl-C, so that no batch is seen by some observers alone; the second acts as ever. Threads other than the main one get none."""
    asked = []
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield asked
        return

    def handle(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _line():
    start = time.monotonic()

    def show(seen, total):
        rest = f" of {total}" if total is not None else ""
        sys.stderr.write(f"\rcalibration: {seen}{rest} batches, {time.monotonic() - start:.0f} s" + ("\n" if seen == total else ""))
        sys.stderr.flush()

    return show
