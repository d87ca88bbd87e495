"""The matrix: every operator of every engine that its profile claims to give exactly, as cells that are worked through in turn."""

import time
from dataclasses import dataclass, field

from refquant.numerics.coverage import conditions
from refquant.ops.support import Support, support
from refquant.verify.campaign import UNTRUSTED_REASON, try_case
from refquant.verify.compare import Status
from refquant.verify.default_cases import STREAMS, case_stream
from refquant.verify.wide_stream import wide_stream

__all__ = ["Cell", "cells", "tasks", "run_cell", "CHUNK"]

#: Outputs of one piece of work.
CHUNK = 1_000_000

# Cases in a row that an engine refuses before it is taken to lack the operator.
_PATIENCE = 40

# Seeds that a piece takes for its cases.
_SPACING = 1_000_000
# Seconds that a piece gets at least, where time is bounded.
_LEAST = 0.2
# Seconds of a piece that is above what was asked of its cell, so that slow cells do not hold up the total.
_SURPLUS = 2.0
# Of the outputs of a function of libm, so many may lie one code beside.
_LIBM_SHARE = 2e-5


@dataclass
class Cell:
    """One operator on one engine, and what was found so far.

    Attributes
    ----------
    op, engine : str
    asked, outputs, differing, explained : int
        `asked`: outputs of all pieces that were given out. `explained`: differing outputs of an operator that rests on libm, one code beside, as few as `refquant.numerics.coverage` counts.
    data : dict of str to int
        Outputs by strategy, and of cases ``per_channel``.
    failures : list of dict
        ``case`` and ``detail``.
    reasons : dict of str to int
    variants : dict of str to int
        Outputs that are those of a variant of the profile, by its name.
    refused : bool
        The engine (as its runner drives it) was asked, and takes no case.
    seconds : float
    """

    op: str
    engine: str
    asked: int = 0
    outputs: int = 0
    differing: int = 0
    explained: int = 0
    data: dict = field(default_factory=dict)
    failures: list = field(default_factory=list)
    reasons: dict = field(default_factory=dict)
    variants: dict = field(default_factory=dict)
    refused: bool = False
    seconds: float = 0.0

    def resume(self, piece):
        """Take in a result of an earlier run, which this one has not asked for."""
        self.asked += piece["asked"]
        self.take(piece)

    def take(self, piece):
        """Take in the result of `run_cell`."""
        for name in ("outputs", "differing", "explained", "seconds"):
            setattr(self, name, getattr(self, name) + piece[name])
        for mine, theirs in ((self.data, piece["data"]), (self.reasons, piece["reasons"]), (self.variants, piece.get("variants", {}))):
            for name, number in theirs.items():
                mine[name] = mine.get(name, 0) + number
        self.failures += piece["failures"]
        self.asked -= max(piece["asked"] - piece["outputs"], 0)
        self.refused = self.refused or piece["refused"]

    @property
    def status(self):
        """`DIFFERENT`, `UNSUPPORTED` (nothing was compared), `EXPLAINED` or `EXACT`."""
        if self.failures:
            return Status.DIFFERENT
        if not self.outputs:
            return Status.UNSUPPORTED
        return Status.EXPLAINED if self.explained or self.variants else Status.EXACT


def cells(engines, ops=None):
    """Return a `Cell` for each operator that the profile of each engine claims to give exactly.

    Parameters
    ----------
    engines : iterable of str
        Names of profiles that have an engine.
    ops : iterable of str, optional

    Examples
    --------
    >>> [cell.op for cell in cells(["xnnpack"], ["linear", "conv3d", "add"])]
    ['linear', 'add']
    """
    exact = (Support.EXACT, Support.SAME)
    return [Cell(op, engine) for op in ops or STREAMS for engine in engines if support(op, engine)[0] in exact]


def tasks(table, *, outputs, seed, done=(), deadline=None, workers=1, total=0, drawn=False):
    """Yield pieces of work for `run_cell`: a chunk of each cell in turn, until each has `outputs` outputs or refuses; then more, until all have `total`.

    Parameters
    ----------
    table : list of Cell
        Looked at when a piece is drawn.
    outputs, seed : int
    done : collection of str
        Keys of pieces that the cells have taken in already.
    deadline : float, optional
        Of `time.monotonic`; a piece then gets its share of the time that is left.
    workers : int
        Among which the time is shared.
    total : int
        Outputs of all cells together. Pieces beyond `outputs` end after seconds, whatever they have.
    drawn : bool
        With drawn shapes and far numbers between the default cases, see `refquant.verify.wide_stream`.

    Yields
    ------
    dict
    """
    number = 0
    while any(_wanting(cell, outputs) for cell in table):
        for i, cell in enumerate(table):
            key = _key(cell, number)
            if key in done or not _wanting(cell, outputs):
                continue
            left = sum(_wanting(c, outputs) for c in table[i:])
            task = {**_task(cell, number, seed, min(CHUNK, outputs - cell.asked)), "drawn": drawn}
            if deadline is not None:
                task["seconds"] = max((deadline - time.monotonic()) * workers / left, _LEAST)
            yield task
        number += 1
    while any(not cell.refused for cell in table):
        for cell in table:
            if sum(c.asked for c in table) >= total:
                return
            if not cell.refused and _key(cell, number) not in done:
                yield {**_task(cell, number, seed, CHUNK), "seconds": _SURPLUS, "drawn": drawn}
        number += 1


def _key(cell, number):
    return f"{cell.engine}/{cell.op}/{number}"


def _task(cell, number, seed, outputs):
    cell.asked += outputs
    return {"key": _key(cell, number), "engine": cell.engine, "op": cell.op, "seed": seed + number * _SPACING, "outputs": outputs}


def _wanting(cell, outputs):
    return not cell.refused and cell.asked < outputs


def run_cell(runner, task):
    """Try default cases of an operator, and drawn ones where they are asked for, until a piece of work is done.

    Parameters
    ----------
    runner : Runner
    task : dict
        Of `tasks`.

    Returns
    -------
    dict
        With plain values: what `Cell.take` reads.
    """
    start, idle = time.monotonic(), 0
    piece = {"engine": runner.name, "op": task["op"], "asked": task["outputs"], "cases": 0, "outputs": 0, "differing": 0, "explained": 0}
    piece.update(data={}, reasons={}, variants={}, failures=[])
    for case in (wide_stream if task.get("drawn") else case_stream)(task["op"], runner.profile, seed=task["seed"]):
        idle = 0 if _count(piece, try_case(runner, case)) else idle + 1
        late = time.monotonic() - start >= task.get("seconds", float("inf"))
        if piece["outputs"] >= task["outputs"] or idle >= _PATIENCE or late:
            break
    return {**piece, "refused": idle >= _PATIENCE and not piece["outputs"], "seconds": time.monotonic() - start}


def _count(piece, trial):
    """Add a trial to a piece of work and return how many outputs it compared."""
    case, (status, detail), comparison = trial.case, trial.outcome, trial.comparison
    if status in (Status.UNSUPPORTED, Status.UNTRUSTED):
        reason = UNTRUSTED_REASON if status is Status.UNTRUSTED else detail
        piece["reasons"][reason] = piece["reasons"].get(reason, 0) + 1
        return 0
    outputs = comparison.outputs if comparison else 0
    piece["cases"] += 1
    piece["outputs"] += outputs
    for kind in (case.strategy, *(["per_channel"] if case.has("per_channel") else [])):
        piece["data"][kind] = piece["data"].get(kind, 0) + outputs
    if status is Status.EXPLAINED:
        piece["variants"][detail] = piece["variants"].get(detail, 0) + outputs
    if status is Status.DIFFERENT and _last_bit_of_libm(case, comparison):
        piece["explained"] += comparison.differing
    elif status is Status.DIFFERENT:
        piece["differing"] += comparison.differing if comparison else 1
        piece["failures"].append({"case": str(case), "detail": detail})
    return outputs


def _last_bit_of_libm(case, comparison):
    """Whether a function of libm missed by one code, in as few places as the sweeps count."""
    rests = any(text.startswith("libm") for text in conditions(case.op, case.profile))
    return rests and comparison is not None and set(comparison.histogram) <= {-1, 1} and comparison.differing <= 1 + comparison.outputs * _LIBM_SHARE
