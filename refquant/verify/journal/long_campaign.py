"""A campaign in a journal: many engines and operators, for as long as it takes."""

import time
from functools import lru_cache, partial
from itertools import islice
from typing import NamedTuple

from refquant.errors import ArgumentError, choose
from refquant.verify.campaign import UNTRUSTED_REASON, try_case
from refquant.verify.case import Case
from refquant.verify.compare import Status
from refquant.verify.default_cases import STREAMS, case_stream
from refquant.verify.journal.carry_out import carry_out
from refquant.verify.journal.expected_outputs import expected_outputs
from refquant.verify.journal.journal import Journal, Result, fingerprint

__all__ = ["KIND", "PATIENCE", "Plan", "plan_campaign", "read_plan", "run_campaign", "try_task"]

KIND = "campaign"

#: A stream ends after so many cases in a row of which the engine compares none, as in `campaign`.
PATIENCE = 24

_FINGERPRINTED = 64


class Plan(NamedTuple):
    """One stream of cases: default cases of an operator until `outputs` outputs of an engine were compared."""

    engine: str
    op: str
    seed: int
    outputs: int


def plan_campaign(journal, engines, ops=None, *, outputs=50000, seed=0):
    """Write down what a campaign is to do. What a journal plans already stays; more outputs, engines and operators may be added.

    Parameters
    ----------
    journal : Journal
    engines : iterable of str
        Names of engines, which are also those of their profiles.
    ops : iterable of str, optional
        All operators unless given.
    outputs : int
        To compare for each operator and engine.
    seed : int

    Raises
    ------
    ArgumentError
        The journal was begun with another seed, or by a refquant whose default cases are others.
    """
    ops = [choose("campaign", "operator", op, STREAMS) for op in ops or STREAMS]
    begun = {row[0] for row in journal.ask("SELECT DISTINCT seed FROM streams")}
    if begun - {seed}:
        raise ArgumentError(f"journal {journal.path}: was begun with seed={min(begun)}, but seed={seed} is asked for; leave the seed out, or begin a new journal")
    with journal.change() as db:
        for op in ops:
            for engine in engines:
                number = journal.stream(db, engine, op, seed, _mark(engine, op, seed))
                db.execute("UPDATE streams SET target = ?, complete = 0 WHERE id = ? AND target < ?", (outputs, number, outputs))


def _mark(engine, op, seed):
    return fingerprint(islice(case_stream(op, engine, seed=seed), _FINGERPRINTED))


def read_plan(journal):
    """Return the streams that a journal plans."""
    return [Plan(*row) for row in journal.ask("SELECT engine, op, seed, target FROM streams ORDER BY id")]


class _Feed:
    """Adds the next cases of unfinished streams: those, and only those, that one process alone would come to as well.

    A case is added when the outputs compared so far and the most that cases under way can add are still too few. So it does not matter in which
    order outcomes arrive. Where that most is not known, it is taken to be enough, and the stream waits for the outcome.
    """

    def __init__(self, journal):
        self.cases = {}
        for row in journal.ask("SELECT engine, op, seed, fingerprint FROM streams"):
            if _mark(*row[:3]) != row["fingerprint"]:
                raise ArgumentError(
                    f"journal {journal.path}: was begun by refquant {journal.about['refquant']}, whose cases of {row['op']} on {row['engine']} are others; "
                    "finish it with that version, or begin a new journal"
                )

    def __call__(self, db, wanted):
        wanted -= db.execute("SELECT COUNT(*) FROM cases WHERE state = 'open'").fetchone()[0]
        for stream in db.execute("SELECT * FROM streams WHERE complete = 0 ORDER BY id").fetchall():
            if wanted < 1:
                return
            wanted -= self.extend(db, stream, wanted)

    def extend(self, db, stream, wanted):
        length, expected, added = stream["length"], stream["expected"], 0
        more = lambda: stream["compared"] + expected < stream["target"] and length - 1 - stream["last_hit"] < PATIENCE  # noqa: E731
        while added < wanted and more():
            case = self.case(stream, length)
            bound = expected_outputs(case)
            bound = stream["target"] if bound is None else bound
            db.execute("INSERT INTO cases (stream, position, line, expected) VALUES (?, ?, ?, ?)", (stream["id"], length, str(case), bound))
            length, expected, added = length + 1, expected + bound, added + 1
        over = not more() and not added and db.execute("SELECT 1 FROM cases WHERE stream = ? AND state <> 'done' LIMIT 1", (stream["id"],)).fetchone() is None
        db.execute("UPDATE streams SET length = ?, expected = ?, complete = ? WHERE id = ?", (length, expected, over, stream["id"]))
        return added

    def case(self, stream, position):
        key = (stream["engine"], stream["op"], stream["seed"])
        source, at = self.cases.get(key, (None, -1))
        if source is None or at > position:
            source, at = case_stream(stream["op"], stream["engine"], seed=stream["seed"]), 0
        for _ in range(position - at):
            next(source)
        self.cases[key] = (source, position + 1)
        return next(source)


@lru_cache(maxsize=None)
def _runner(load, engine):
    return load(engine)


def try_task(task, *, load):
    """Ask an engine for a journal's case; see `try_case`.

    Parameters
    ----------
    task : Task
    load : callable
        ``load(engine)`` returns the runner, such as `refquant.backends.load`; asked once in a process.

    Returns
    -------
    Result
    """
    runner = _runner(load, task.engine)
    begin = time.perf_counter()
    trial = try_case(runner, Case.parse(task.line))
    status, detail = trial.outcome
    compared = trial.comparison
    return Result(
        status, UNTRUSTED_REASON if status is Status.UNTRUSTED else detail, *((0, 0) if compared is None else (compared.outputs, compared.differing)),
        seconds=time.perf_counter() - begin, provenance=runner.describe(),
    )  # fmt: skip


def run_campaign(path, engines=None, ops=None, *, load, outputs=None, seed=None, workers=1, executor=None, progress=None):
    """Begin a campaign, or carry on with the one that a journal holds, and work until it is done.

    Killed at any moment, it goes on where it stood; several processes may run it at once. The cases and their outcomes are those
    that one undisturbed process would have written.

    Parameters
    ----------
    path : path
        The journal; on a disk of this machine.
    engines, ops, outputs, seed
        As for `plan_campaign`; a journal that exists keeps what it plans, so that they may be left out.
    load : callable
        Gives the runner of an engine by its name, such as `refquant.backends.load`. Picklable where there is more than one worker.
    workers, executor, progress
        As for `carry_out`.

    Returns
    -------
    int
        Cases that this call has tried.
    """
    with Journal(path, kind=KIND) as journal:
        planned = read_plan(journal)
        if not planned and not engines:
            raise ArgumentError(f"journal {path}: is new and plans nothing; name the engines")
        if engines or ops or outputs or seed is not None or not planned:
            engines = engines or dict.fromkeys(p.engine for p in planned)
            ops = ops or tuple(dict.fromkeys(p.op for p in planned)) or None
            outputs = outputs or max((p.outputs for p in planned), default=50000)
            plan_campaign(journal, engines, ops, outputs=outputs, seed=planned[0].seed if seed is None and planned else seed or 0)
        return carry_out(journal, partial(try_task, load=load), feed=_Feed(journal), workers=workers, executor=executor, progress=progress)
