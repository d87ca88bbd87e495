"""`Journal`: what a long run has to do and has found, in one SQLite file that survives being killed and serves several processes."""

import contextlib
import hashlib
import json
import os
import platform
import sqlite3
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refquant.errors import ArgumentError
from refquant.verify.compare import Status
from refquant.verify.journal.schema import connect, connect_to_read, create
from refquant.version import VERSION

__all__ = ["Journal", "Task", "Result", "fingerprint"]

_LEASE = 60.0
_COUNTED = (Status.EXACT, Status.EXPLAINED, Status.DIFFERENT)


class Task(NamedTuple):
    """A case that this process has claimed.

    Attributes
    ----------
    id : int
    engine, op, line : str
        Whom it is asked of, and what; a case's line, or any text that the work function understands.
    """

    id: int
    engine: str
    op: str
    line: str


class Result(NamedTuple):
    """The outcome of a task.

    Attributes
    ----------
    status : Status
    detail : str
    outputs, differing : int
        Of outputs compared; 0 where the outcome is none.
    seconds : float
    provenance : dict
        What the engine's runner says about itself, or anything else that belongs to the outcome.
    """

    status: Status
    detail: str = ""
    outputs: int = 0
    differing: int = 0
    seconds: float = 0.0
    provenance: dict = {}


def fingerprint(lines):
    """Return a short text that is the same for the same lines."""
    return hashlib.sha256("\n".join(map(str, lines)).encode()).hexdigest()[:16]


class Journal:
    """A file that says which cases there are, who is at work on them, and what came out.

    A case is *open*, *claimed* for as long as its lease is renewed, or *done*. Every change is one transaction, so the process may be killed at any
    moment, and any number of processes of one machine may work on one file: a claim of a process that has died, or whose lease has run out, is
    open again, and only the holder of a claim can finish the case, once.

    Parameters
    ----------
    path : path
    kind : str, optional
        What the journal is for (``"campaign"``, …): it is made if it does not exist. Without it the file is opened for reading alone.

    Raises
    ------
    ArgumentError
        No journal, a damaged or truncated one, one of a newer version, or of another kind.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Journal(f"{folder.name}/work.journal", kind="doctest") as journal:
    ...     journal.plan("onnx", "add", ["one", "two"])
    ...     task = journal.claim()
    ...     journal.finish(task, Result(Status.EXACT, outputs=100))
    ...     journal.counts()
    True
    {'open': 1, 'done': 1}
    >>> folder.cleanup()
    """

    def __init__(self, path, *, kind=None, lease=_LEASE):
        self.path, self.lease, self.session = Path(path), lease, None
        self._lock = threading.RLock()
        if kind is None:
            self._db = connect_to_read(self.path)
            self.kind = self.about["kind"]
            return
        if not os.path.lexists(self.path):
            create(self.path, {"kind": kind, "refquant": VERSION, "began": _now()})
        self._db = connect(self.path)
        self.kind = self.about.get("kind")
        if self.kind != kind:
            self._db.close()
            raise ArgumentError(f"journal {path}: holds a {self.kind}, but a {kind} is to be written; give it a file of its own")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Give claims back and close the file."""
        if self.session is not None:
            with self.change() as db:
                db.execute("UPDATE cases SET state = 'open', lease = NULL WHERE state = 'claimed' AND session = ?", (self.session,))
                db.execute("UPDATE sessions SET ended = ? WHERE id = ?", (_now(), self.session))
            self.session = None
        self._db.close()

    @property
    def about(self):
        """What the journal says about itself, by name."""
        return dict(self._db.execute("SELECT name, value FROM about").fetchall())

    @contextlib.contextmanager
    def change(self):
        """Everything within happens together or not at all, and nobody else writes meanwhile; yields the connection."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise ArgumentError(f"journal {self.path}: cannot be written ({error}); open it with its kind, close what holds it, or copy it to a disk that can be written") from error
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def ask(self, sql, parameters=()):
        """Return the rows of a question in SQL."""
        try:
            with self._lock:
                return self._db.execute(sql, parameters).fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            place = f"journal {self.path}: the question cannot be answered ({error})"
            raise ArgumentError(f"{place}; its tables are about, sessions, provenance, streams, cases and the view results") from error

    # Planning

    def plan(self, engine, op, lines):
        """Add cases of an operator on an engine; those that are there already stay as they are.

        Parameters
        ----------
        engine, op : str
        lines : iterable of str
        """
        with self.change() as db:
            stream = self.stream(db, engine, op, 0, "")
            there = {row[0] for row in db.execute("SELECT line FROM cases WHERE stream = ?", (stream,))}
            new = [line for line in dict.fromkeys(map(str, lines)) if line not in there]
            db.executemany("INSERT INTO cases (stream, position, line, expected) VALUES (?, ?, ?, 0)", [(stream, len(there) + i, line) for i, line in enumerate(new)])
            db.execute("UPDATE streams SET length = ?, complete = 1 WHERE id = ?", (len(there) + len(new), stream))

    @staticmethod
    def stream(db, engine, op, seed, mark):
        """Return the number of a stream of cases, within a change; it is made where it is not there."""
        db.execute("INSERT OR IGNORE INTO streams (engine, op, seed, target, fingerprint) VALUES (?, ?, ?, 0, ?)", (engine, op, seed, mark))
        return db.execute("SELECT id FROM streams WHERE engine = ? AND op = ? AND seed = ?", (engine, op, seed)).fetchone()[0]

    # Work

    def claim(self, feed=None):
        """Claim an open case for this process, or return None where there is none; see `exchange`."""
        return next(iter(self.exchange((), 1, feed)[1]), None)

    def finish(self, task, result):
        """Write down the outcome of a claimed case; False where the claim was lost. See `exchange`."""
        return bool(self.exchange([(task, result)])[0])

    def exchange(self, finished=(), wanted=0, feed=None):
        """Write down outcomes and claim open cases, in one change.

        Parameters
        ----------
        finished : list of (Task, Result)
        wanted : int
            Cases to claim at most.
        feed : callable, optional
            ``feed(db, wanted)`` is called in between, within the same change, and may add cases.

        Returns
        -------
        written : int
            Outcomes that were kept. One whose claim was lost, so that somebody else has the case or has finished it, is dropped.
        claimed : list of Task
        """
        with self.change() as db:
            self._enter(db)
            written = sum([self._finish(db, task, result) for task, result in finished])
            if wanted < 1:
                return written, []
            self._release_the_dead(db)
            if feed is not None:
                feed(db, wanted)
            rows = db.execute("SELECT c.id, s.engine, s.op, c.line FROM cases c JOIN streams s ON s.id = c.stream WHERE c.state = 'open' ORDER BY c.id LIMIT ?", (wanted,))
            tasks = [Task(*row) for row in rows.fetchall()]
            until = time.time() + self.lease
            db.executemany("UPDATE cases SET state = 'claimed', session = ?, lease = ?, claims = claims + 1 WHERE id = ?", [(self.session, until, t.id) for t in tasks])
            return written, tasks

    def _finish(self, db, task, result):
        row = db.execute("SELECT stream, position, expected FROM cases WHERE id = ? AND session = ? AND state = 'claimed'", (task.id, self.session)).fetchone()
        if row is None:
            return False
        outputs, differing = (result.outputs, result.differing) if result.status in _COUNTED else (0, 0)
        values = (str(result.status), result.detail, outputs, differing, result.seconds, _now(), self._provenance(db, task.engine, result.provenance), task.id)
        db.execute("UPDATE cases SET state = 'done', lease = NULL, status = ?, detail = ?, outputs = ?, differing = ?, seconds = ?, finished = ?, provenance = ? WHERE id = ?", values)
        db.execute(
            "UPDATE streams SET compared = compared + ?, expected = expected - ?, last_hit = MAX(last_hit, ?) WHERE id = ?",
            (outputs, row["expected"], row["position"] if outputs else -1, row["stream"]),
        )  # fmt: skip
        return True

    def give_back(self, tasks):
        """Open cases again that this process had claimed."""
        with self.change() as db:
            db.executemany("UPDATE cases SET state = 'open', lease = NULL WHERE id = ? AND session = ? AND state = 'claimed'", [(t.id, self.session) for t in tasks])

    def renew(self):
        """Extend the leases of all claims of this process."""
        with self.change() as db:
            db.execute("UPDATE cases SET lease = ? WHERE state = 'claimed' AND session = ?", (time.time() + self.lease, self.session))

    def counts(self):
        """Return the number of cases by state; states without cases are left out."""
        return {row[0]: row[1] for row in self.ask("SELECT state, COUNT(*) FROM cases GROUP BY state ORDER BY state DESC")}

    def outcomes(self):
        """Return (engine, operator, position, line, status, detail, outputs, differing) of every case that is done, in order: what two runs must agree on."""
        return [tuple(row) for row in self.ask("SELECT engine, op, position, line, status, detail, outputs, differing FROM results ORDER BY engine, op, position")]

    def _enter(self, db):
        """Write down who works, once."""
        if self.session is None:
            row = (platform.node(), os.getpid(), _born(os.getpid()), _now(), VERSION, platform.python_version(), np.__version__, json.dumps(_machine(), sort_keys=True))
            self.session = db.execute("INSERT INTO sessions (host, pid, born, began, refquant, python, numpy, machine) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row).lastrowid

    def _release_the_dead(self, db):
        """Open cases whose lease has run out, or whose process on this machine is no more."""
        db.execute("UPDATE cases SET state = 'open', lease = NULL WHERE state = 'claimed' AND lease < ?", (time.time(),))
        holders = db.execute("SELECT DISTINCT s.id, s.host, s.pid, s.born FROM cases c JOIN sessions s ON s.id = c.session WHERE c.state = 'claimed' AND s.id <> ?", (self.session,))
        dead = [(row["id"],) for row in holders.fetchall() if row["host"] == platform.node() and _died(row["pid"], row["born"])]
        db.executemany("UPDATE cases SET state = 'open', lease = NULL WHERE state = 'claimed' AND session = ?", dead)

    @staticmethod
    def _provenance(db, engine, description):
        if not description:
            return None
        text = json.dumps(description, sort_keys=True)
        db.execute("INSERT OR IGNORE INTO provenance (engine, description) VALUES (?, ?)", (engine, text))
        return db.execute("SELECT id FROM provenance WHERE engine = ? AND description = ?", (engine, text)).fetchone()[0]


def _now():
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _machine():
    return {"system": platform.platform(), "processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}


def _born(pid):
    """Return a text that tells a process from a later one of the same number; empty where it does not run, or the system does not tell."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else f"{os.readlink('/proc/self/ns/pid')} {rest[18]}"
    except (OSError, IndexError, ValueError):
        return ""


def _died(pid, born):
    """Whether the process that was born so is no more; False where that cannot be told, as in another container."""
    here = _born(os.getpid()).partition(" ")[0]
    return bool(here) and born.startswith(f"{here} ") and _born(pid) != born
