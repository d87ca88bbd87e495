"""The journal's file: its tables, how it is made whole or not at all, and what is refused."""

import os
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

from refquant.errors import ArgumentError

__all__ = ["SCHEMA_VERSION", "APPLICATION", "create", "connect", "connect_to_read"]

#: Counts up whenever a table changes; a file of a newer version is refused.
SCHEMA_VERSION = 1

#: SQLite's application id of a journal: the letters RqJl.
APPLICATION = 0x52714A6C

_READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)

_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, born TEXT NOT NULL,
  began TEXT NOT NULL, ended TEXT, refquant TEXT NOT NULL, python TEXT NOT NULL, numpy TEXT NOT NULL, machine TEXT NOT NULL
);
CREATE TABLE provenance (id INTEGER PRIMARY KEY, engine TEXT NOT NULL, description TEXT NOT NULL, UNIQUE (engine, description));
CREATE TABLE streams (
  id INTEGER PRIMARY KEY, engine TEXT NOT NULL, op TEXT NOT NULL, seed INTEGER NOT NULL, target INTEGER NOT NULL, fingerprint TEXT NOT NULL,
  length INTEGER NOT NULL DEFAULT 0, last_hit INTEGER NOT NULL DEFAULT -1, compared INTEGER NOT NULL DEFAULT 0, expected INTEGER NOT NULL DEFAULT 0,
  complete INTEGER NOT NULL DEFAULT 0, UNIQUE (engine, op, seed)
);
CREATE TABLE cases (
  id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES streams (id), position INTEGER NOT NULL, line TEXT NOT NULL, expected INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'claimed', 'done')), session INTEGER REFERENCES sessions (id), lease REAL, claims INTEGER NOT NULL DEFAULT 0,
  status TEXT, detail TEXT, outputs INTEGER, differing INTEGER, seconds REAL, finished TEXT, provenance INTEGER REFERENCES provenance (id),
  UNIQUE (stream, position), UNIQUE (stream, line)
);
CREATE INDEX cases_to_do ON cases (state, id) WHERE state <> 'done';
CREATE VIEW results AS
  SELECT s.engine, s.op, c.position, c.line, c.status, c.detail, c.outputs, c.differing, c.seconds, c.finished, c.claims, p.description AS provenance
  FROM cases c JOIN streams s ON s.id = c.stream LEFT JOIN provenance p ON p.id = c.provenance WHERE c.state = 'done';
"""


def create(path, about):
    """Write a new journal beside `path` and put it there in one step; one that another process has put there meanwhile stays.

    Parameters
    ----------
    path : Path
    about : dict of str to str
        What the journal says about itself.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ArgumentError(f"journal {path}: its folder must exist and be writable, but is not ({error.strerror}); make it, or write elsewhere") from error
    os.close(handle)
    os.unlink(temporary)
    try:
        db = sqlite3.connect(temporary, isolation_level=None)
        db.executescript(f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA_VERSION}; BEGIN; {_TABLES} COMMIT;")
        db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        db.execute("PRAGMA journal_mode = WAL")
        db.close()
        os.link(temporary, path)
    except FileExistsError:
        pass
    except (OSError, sqlite3.Error) as error:
        raise ArgumentError(f"journal {path}: cannot be written ({error}); free space, or write elsewhere") from error
    finally:
        for name in (temporary, f"{temporary}-wal", f"{temporary}-shm"):
            if os.path.exists(name):
                os.unlink(name)


def connect(path):
    """Open a journal for reading and writing, checked."""
    _look_at(path)
    return _checked(path, sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False))


def connect_to_read(path):
    """Open a journal for reading alone: nothing that is asked of it can change it, or any other file."""
    _look_at(path)
    db = _checked(path, sqlite3.connect(f"file:{quote(str(Path(path).resolve()))}?mode=rw", uri=True, timeout=60.0, isolation_level=None, check_same_thread=False))
    # Opened as read-only, SQLite would leave its log and its index beside the file.
    db.set_authorizer(lambda action, *rest: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY)
    return db


def _look_at(path):
    """Refuse what is no SQLite file by its first bytes, and one that is shorter than its header says."""
    place = f"journal {path}"
    try:
        with open(path, "rb") as file:
            head, size = file.read(100), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ArgumentError(f"{place}: must be a readable file, but is not ({error.strerror or error}); begin one with refquant campaign run JOURNAL") from error
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        what = "is empty" if not head else "is another kind of file"
        raise ArgumentError(f"{place}: must be a journal, but {what}; begin a new one under another name")
    page = int.from_bytes(head[16:18], "big")
    page, pages = 65536 if page == 1 else page, int.from_bytes(head[28:32], "big")
    application, version = int.from_bytes(head[68:72], "big"), int.from_bytes(head[60:64], "big")
    if application != APPLICATION:
        raise ArgumentError(f"{place}: must be a journal, but is another program's database (application id {application:#x}); begin a new one under another name")
    if version > SCHEMA_VERSION:
        raise ArgumentError(f"{place}: has version {version}, but this refquant reads up to {SCHEMA_VERSION}; use the refquant that wrote it, or a newer one")
    # With a write-ahead log beside it, pages at the end may not have reached the file yet.
    if page and size < page * pages and not os.path.exists(f"{path}-wal"):
        raise ArgumentError(f"{place}: is truncated, {size:,} bytes of {page * pages:,}; take a whole copy, or begin a new one")


def _checked(path, db):
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous = FULL")
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        db.close()
        raise ArgumentError(f"journal {path}: is damaged ({error}); take a whole copy, or begin a new one") from error
    missing = {"about", "sessions", "provenance", "streams", "cases"} - tables
    if found != "ok" or missing:
        db.close()
        what = " ".join(found.split()) if found != "ok" else f"no table {min(missing)}"
        raise ArgumentError(f"journal {path}: is damaged ({what}); take a whole copy, or begin a new one")
    return db
